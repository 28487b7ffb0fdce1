"""Progress of a training: a bar with a time estimate on a terminal, plain lines otherwise."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_SECONDS_BETWEEN_LINES = 5.0

Report = Callable[[Mapping[str, Any]], None]


@contextmanager
def reporting(epochs: int, done: int, progress: bool | None) -> Iterator[Report]:
    """A function to call with each epoch's row of the history; what it shows goes to stderr.

    Args:
        epochs: the most that there will be.
        done: those of an interrupted run that are not done again.
        progress: True: a bar on a terminal, else a line every five seconds; None: a bar on a terminal, else
            nothing; False: nothing.

    Yields:
        The function.
    """
    terminal = sys.stderr.isatty()
    if progress is False or (progress is None and not terminal):
        yield lambda _row: None
    elif terminal:
        yield from _bar(epochs, done)
    else:
        yield _lines(epochs, done)


def _bar(epochs: int, done: int) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=epochs, completed=done)
        yield lambda row: bar.update(task, completed=row["epoch"], description=_figures(row))


def _lines(epochs: int, done: int) -> Report:
    started = time.monotonic()
    written = started

    def write(row: Mapping[str, Any]) -> None:
        nonlocal written
        now = time.monotonic()
        if now - written >= _SECONDS_BETWEEN_LINES or row["epoch"] == epochs:
            written = now
            left = (now - started) / (row["epoch"] - done) * (epochs - row["epoch"])
            sys.stderr.write(f"epoch {row['epoch']}/{epochs}: {_figures(row)}, at most {left:.0f} s left\n")

    return write


def _figures(row: Mapping[str, Any]) -> str:
    return f"loss {row['train_loss']:.4g}, accuracy {100 * row['train_accuracy']:.1f} %"
