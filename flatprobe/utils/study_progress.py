"""Progress of a study: a bar with a time estimate on a terminal, plain lines otherwise."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flatprobe.utils.results import printable

Step = Callable[[str], None]


@contextmanager
def stepping(total: int, progress: bool | None) -> Iterator[Step]:
    """A function to call at the start of each step with what it does; what it shows goes to stderr.

    Args:
        total: how many steps there will be.
        progress: True: a bar on a terminal, else a line a step; None: a bar on a terminal, else nothing; False:
            nothing.

    Yields:
        The function.
    """
    terminal = sys.stderr.isatty()
    if progress is False or (progress is None and not terminal):
        yield lambda _name: None
    elif terminal:
        yield from _bar(total)
    else:
        yield _lines(total)


def _bar(total: int) -> Iterator[Step]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total)
        done = -1

        def step(name: str) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done, description=printable(name))

        yield step
        bar.update(task, completed=total, description="done")


def _lines(total: int) -> Step:
    started, done = time.monotonic(), 0

    def step(name: str) -> None:
        nonlocal done
        done += 1
        sys.stderr.write(f"[{done}/{total}, {time.monotonic() - started:.0f} s] {printable(name)}\n")

    return step
