"""Progress on stderr: a bar with a time estimate on a terminal, plain lines elsewhere, or silence."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flatprobe.utils.results import printable

_SECONDS_BETWEEN_LINES = 5.0  # of epochs, which may be short

Report = Callable[[str], None]


class Clock:
    """Wall time by phase.

    Attributes:
        seconds: the time in each phase, in the order of the first entries.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Add the time in the block to the phase."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - started


@contextmanager
def reporting(
    total: int, progress: bool | None, *, done: int = 0, epochs: bool = False, bar: bool = True
) -> Iterator[Report]:
    """A function to call once per step with a text about the step.

    Args:
        total: number of steps; of epochs, the largest number.
        progress: True: a bar on a terminal, else lines; None: on a terminal only; False: nothing.
        done: steps of an interrupted run that are not repeated.
        epochs: whether the steps are epochs, reported at their end: a line every five seconds with the time left.
            Other steps are reported at their start, each with a line and the time so far.
        bar: False: lines on a terminal too.

    Yields:
        The function.
    """
    terminal = sys.stderr.isatty()
    if progress is False or (progress is None and not terminal):
        yield lambda _text: None
    elif terminal and bar:
        yield from _bar(total, done, epochs)
    else:
        yield _lines(total, done, epochs)


def _bar(total: int, done: int, epochs: bool) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    title = [TextColumn("training")] if epochs else []
    text = TextColumn("{task.description}", markup=False)
    with Progress(
        *title, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), text, console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("", total=total, completed=done)
        finished = done if epochs else done - 1

        def report(text: str) -> None:
            nonlocal finished
            finished += 1
            bar.update(task, completed=finished, description=printable(text))

        yield report
        if not epochs:
            bar.update(task, completed=total, description="done")


def _lines(total: int, done: int, epochs: bool) -> Report:
    started = written = time.monotonic()
    count = done

    def report(text: str) -> None:
        nonlocal written, count
        count, now = count + 1, time.monotonic()
        if not epochs:
            sys.stderr.write(f"[{count}/{total}, {now - started:.0f} s] {printable(text)}\n")
        elif now - written >= _SECONDS_BETWEEN_LINES or count == total:
            written, left = now, (now - started) / (count - done) * (total - count)
            sys.stderr.write(f"epoch {count}/{total}: {text}, at most {left:.0f} s left\n")

    return report
