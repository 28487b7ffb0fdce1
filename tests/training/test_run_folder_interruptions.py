"""Runs ended by kill -9: at every point of every write (property), and in processes killed at random moments."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flatprobe.models.checkpoints import load_checkpoint
from flatprobe.training import train
from flatprobe.training.run_folder import RunFolder
from flatprobe.training.trainer import Trainer
from flatprobe.utils.atomic import leftovers
from flatprobe.utils.tables import read_table
from tests.helpers.properties import assert_same_state
from tests.helpers.small_data import clusters, noisy_network
from tests.training.test_run_folder import without_seconds

ROOT = Path(__file__).parents[2]
FILES = ["best.safetensors", "config.json", "history.json", "last.safetensors"]


class Killed(BaseException):
    """What no `except Exception` and, with `unlink` patched, no `finally` notices."""


def train_it(out):
    return train(noisy_network(), clusters(), epochs=3, batch_size=8, optimizer="adam", out=out, save_every=0)


def killed_at(monkeypatch, count: int, moment: str, out: Path) -> bool:
    """Train, killed at the count-th write (half written), rename or removal (before, after); whether it came to it."""
    done, dead = [], []

    def counted(function, name):
        def wrapped(self, *args, **kwargs):
            if dead:
                return None  # a killed process cleans nothing up
            half = name in {"write_bytes", "write_text"}
            if half != (moment == "half"):
                return function(self, *args, **kwargs)
            done.append(1)
            dead.extend(done[count:])
            if dead and half:
                function(self, args[0][: len(args[0]) // 2], **kwargs)
            if not dead or moment == "after":
                function(self, *args, **kwargs)
            if dead:
                raise Killed
            return None

        return wrapped

    with monkeypatch.context() as patch:
        for name in ("write_bytes", "write_text", "replace", "unlink"):
            patch.setattr(Path, name, counted(getattr(Path, name), name))
        try:
            train_it(out)
        except Killed:
            return True
    return False


def epochs_of(folder: RunFolder) -> int:
    progress = folder.progress()
    return len(folder.finished() or (progress.history if progress else ()))


@pytest.mark.parametrize("moment", ["half", "before", "after"])
def test_property_killed_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: Any) -> None:
    measured, losses = Trainer.measure, [3.0, 1.0, 2.0]  # best is neither the first nor the last: it could be lost
    monkeypatch.setattr(
        Trainer, "measure", lambda self, *args: measured(self, *args) | {"train_loss": losses[len(self.history)]}
    )
    whole = train_it(tmp_path / "whole")
    resumable = []
    for count in range(100):
        out = tmp_path / str(count)
        if not killed_at(monkeypatch, count, moment, out):
            break
        folder = RunFolder(out)
        resumable.append(epochs_of(folder))
        run = train_it(out)
        assert_same_state(run.model, whole.model)
        assert without_seconds(run) == without_seconds(whole)
        for which in ("last", "best"):
            assert_same_state(
                load_checkpoint(out, noisy_network(), which=which),
                load_checkpoint(whole.path, noisy_network(), which=which),
            )
        assert sorted(path.name for path in train_it(out).path.iterdir()) == FILES
    assert resumable == sorted(resumable)  # a later kill finds no fewer epochs
    assert {*resumable} == ({0, 1, 2, 3} if moment != "half" else {0, 1, 2})
    # Three saves of last, history, resume (the last one of no resume) and two of best, after one configuration; every
    # temporary file, renamed, is looked for once more, and resume.safetensors is removed at the end.
    assert len(resumable) == (11 if moment == "half" else 23)


def test_property_five_processes_killed_at_random_moments(tmp_path: Path) -> None:
    """The record of a hundred, `tests/benchmarks/records/interruptions.parquet`, is made by the same program."""
    record = tmp_path / "record.parquet"
    command = ["-m", "tests.benchmarks.interruptions", "--runs", "5", "--epochs", "20", "--out", str(record)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert_nothing_lost(record, 5)


def test_the_record_of_a_hundred() -> None:
    record = ROOT / "tests" / "benchmarks" / "records" / "interruptions.parquet"
    assert_nothing_lost(record, 100)
    frame, _ = read_table(record)
    for column, names in (
        ("penalties", {"jacobian_frobenius", "spectral_norm"}),
        ("transforms", {"gaussian_noise"}),
        ("constraints", {"spectral_projection"}),
    ):
        assert set(frame[column].explode().dropna()) == names


def assert_nothing_lost(record: Path, runs: int) -> None:
    frame, _ = read_table(record)
    assert len(frame) == runs
    assert (frame["kills"] >= 1).all()
    assert frame["resumed"].all()
    assert (frame["lost"] == 0).all()
    assert frame["identical"].all()


def test_property_what_a_killed_process_left_is_no_foreign_file_and_goes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / ".config.json.17.tmp").write_text("{")
    run = train_it(out)
    assert not leftovers(out / "config.json")
    for name in (".last.safetensors.18.tmp", ".resume.safetensors.19.tmp", "resume.safetensors"):
        (out / name).write_bytes(b"half")
    (out / ".mine.tmp").write_text("kept")
    train_it(out)
    assert sorted(path.name for path in run.path.iterdir()) == [".mine.tmp", *FILES]
    with pytest.raises(FileExistsError, match="holds a run already"):
        train(noisy_network(), clusters(), epochs=1, out=out, resume=False)


def test_a_refused_claim_removes_nothing(tmp_path: Path) -> None:
    train_it(tmp_path)
    other = tmp_path / ".last.safetensors.18.tmp"  # of another process that is at work here
    other.write_bytes(b"half")
    with pytest.raises(ValueError, match="with other settings"):
        train(noisy_network(), clusters(), epochs=1, out=tmp_path)
    assert other.exists()
