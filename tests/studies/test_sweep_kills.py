"""Sweeps whose workers are killed at random moments: nothing is lost or done twice, and the numbers are the same."""

import subprocess
import sys
from pathlib import Path

from flatprobe.utils.tables import read_table
from tests.benchmarks.harness import RECORDS

ROOT = Path(__file__).parents[2]


def test_property_five_kills_of_sweep_workers(tmp_path: Path) -> None:
    """The record of 200, `tests/benchmarks/records/sweeps.parquet`, is made by the same program."""
    record = tmp_path / "sweeps.parquet"
    command = ["-m", "tests.benchmarks.sweeps", "--kills", "5", "--out", str(record)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert_nothing_lost(record, 5)


def test_the_record_of_two_hundred_kills() -> None:
    record = RECORDS / "sweeps.parquet"
    assert_nothing_lost(record, 200)
    frame, _ = read_table(record)
    assert {"training", "measuring", "writing"} <= {*frame["phases"].explode()}


def assert_nothing_lost(record: Path, kills: int) -> None:
    frame, _ = read_table(record)
    assert frame["kills"].sum() == kills
    assert (frame["lost"] == 0).all()
    assert (frame["twice"] == 0).all()
    assert frame["identical"].all()
