"""Progress: a bar on a terminal, lines elsewhere, or silence."""

import io
import sys

import pytest

from flatprobe.utils import training_progress as module
from flatprobe.utils.training_progress import reporting

ROWS = [{"epoch": epoch, "train_loss": 1 / epoch, "train_accuracy": 0.5} for epoch in range(3, 11)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch, stream, progress, seconds_between):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LINES", seconds_between)
    with reporting(10, 2, progress) as report:
        for row in ROWS:
            report(row)
    return stream.getvalue()


def test_lines(monkeypatch):
    lines = shown(monkeypatch, io.StringIO(), True, 0.0).splitlines()
    assert len(lines) == len(ROWS)
    assert lines[0].startswith("epoch 3/10: loss 0.3333, accuracy 50.0 %, at most ")
    assert lines[-1].endswith("at most 0 s left")


def test_few_lines_when_epochs_are_short(monkeypatch):
    lines = shown(monkeypatch, io.StringIO(), True, 1e9).splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 10/10"]


def test_time_left_closed_form(monkeypatch):
    """Two of ten epochs were done earlier; each of the others takes four seconds."""
    stream, now = io.StringIO(), [100.0]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with reporting(10, 2, True) as report:
        for row in ROWS:
            now[0] += 4.0
            report(row)
    assert [line.rsplit("most ", 1)[1] for line in stream.getvalue().splitlines()] == [
        "24 s left",  # lines are five seconds apart: after epochs 4, 6, 8, 10
        "16 s left",
        "8 s left",
        "0 s left",
    ]


def test_bar(monkeypatch):
    for progress in (True, None):
        text = shown(monkeypatch, Terminal(), progress, 0.0)
        assert "10/10" in text
        assert "loss 0.1, accuracy 50.0 %" in text


@pytest.mark.parametrize(("stream", "progress"), [(Terminal(), False), (io.StringIO(), False), (io.StringIO(), None)])
def test_silence(monkeypatch, stream, progress):
    assert shown(monkeypatch, stream, progress, 0.0) == ""
