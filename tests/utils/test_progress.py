"""Progress: a bar on a terminal, lines elsewhere, or silence."""

import io
import sys
import time

import pytest

from flatprobe.utils.progress import Clock, reporting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, progress: bool | None, clock: list[float]) -> str:
    """Epochs 3 to 10 of a run of which two were done earlier; each takes four seconds."""
    monkeypatch.setattr(sys, "stderr", stream)
    with reporting(10, progress, done=2, epochs=True) as report:
        for epoch in range(3, 11):
            clock[0] += 4.0
            report(f"loss {1 / epoch:.4g}")
    return stream.getvalue()


def test_closed_form_lines_of_epochs(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    """Lines are five seconds apart: after epochs 4, 6, 8, 10."""
    assert shown(monkeypatch, io.StringIO(), True, clock).splitlines() == [
        "epoch 4/10: loss 0.25, at most 24 s left",
        "epoch 6/10: loss 0.1667, at most 16 s left",
        "epoch 8/10: loss 0.125, at most 8 s left",
        "epoch 10/10: loss 0.1, at most 0 s left",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_closed_form_lines_of_steps(monkeypatch: pytest.MonkeyPatch, clock: list[float], terminal: bool) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with reporting(2, progress=True, bar=not terminal) as step:
        step("one")
        clock[0] += 3.0
        step("two\x1b[31m")
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[1/2, 0 s] one"
    assert lines[1].startswith("[2/2, 3 s] two")
    assert "\x1b" not in lines[1]


@pytest.mark.parametrize("progress", [True, None])
def test_a_bar_of_epochs(monkeypatch: pytest.MonkeyPatch, clock: list[float], progress: bool | None) -> None:
    text = shown(monkeypatch, Terminal(), progress, clock)
    assert "training" in text
    assert "10/10" in text
    assert "loss 0.1" in text


def test_a_bar_of_steps_counts_those_before_and_reads_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)

    def break_off() -> None:
        with reporting(2, progress=None) as step:
            step("scores of run[/b]\x1b[31m")
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert "0/2" in stream.getvalue()
    assert "1/2" not in stream.getvalue()
    with reporting(1, progress=None) as step:
        step("scores")
    assert "1/1" in stream.getvalue()
    assert "done" in stream.getvalue()


@pytest.mark.parametrize(("stream", "progress"), [(Terminal(), False), (io.StringIO(), False), (io.StringIO(), None)])
def test_silence(
    monkeypatch: pytest.MonkeyPatch, clock: list[float], stream: io.StringIO, progress: bool | None
) -> None:
    assert shown(monkeypatch, stream, progress, clock) == ""


def test_closed_form_of_a_clock(clock: list[float]) -> None:
    watch = Clock()
    for phase, seconds in (("first", 2.0), ("second", 3.0), ("first", 4.0)):
        with watch(phase):
            clock[0] += seconds
    assert watch.seconds == {"first": 6.0, "second": 3.0}
