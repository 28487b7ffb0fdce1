"""Sweeps by several executors: workers that die, Ctrl-C, two sweeps at once, the same numbers by all."""

import os
import subprocess
import sys
import threading
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

import flatprobe as fp
from flatprobe.studies import units
from flatprobe.studies.executors import Dask, Slurm, processes
from tests.helpers import sweeps
from tests.helpers.sweeps import base, comparable

PAIR = base().vary({"seeds.network": (0, 1)})
RISK = fp.Measurement("risk", on="test")


def test_workers_that_die_before_they_begin(tmp_path: Path) -> None:
    broken = lambda: ProcessPoolExecutor(1, get_context("spawn"), initializer=os._exit, initargs=(1,))  # noqa: E731
    with pytest.raises(BrokenExecutor, match='the guard if __name__ == "__main__"'):
        fp.sweep(PAIR, [RISK], tmp_path, executor=broken, retries=1)


def test_two_sweeps_at_once_compute_each_unit_once(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.mkdir()
    code = (
        "import flatprobe as fp; from tests.helpers import sweeps; from tests.helpers.sweeps import base;"
        f"m = fp.Measurement(sweeps.count, arguments={{'folder': {str(calls)!r}}});"
        f"t = fp.sweep(base().vary({{'seeds.network': (0, 1)}}), [m], {str(tmp_path / 'root')!r});"
        "assert (t['state'] == 'complete').all()"
    )
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len([*calls.iterdir()]) == 2


def test_a_killed_worker_of_a_pool_loses_nothing(tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    measurements = [RISK, fp.Measurement(sweeps.die_once, arguments={"flag": flag})]
    four = base().vary({"seeds.network": (0, 1, 2, 3)})
    table = fp.sweep(four, measurements, tmp_path / "root", executor="processes", workers=2)
    assert Path(flag).exists()
    assert table["state"].tolist() == ["complete"] * 8
    serial = fp.sweep(four, measurements, tmp_path / "serial")
    assert comparable(table).equals(comparable(serial))


def test_a_unit_that_kills_every_worker_fails_alone(tmp_path: Path) -> None:
    mixed = base().vary({"network.scale": (1, 100, 2)})
    deadly = fp.Measurement(sweeps.die, arguments={"above": 10.0})
    table = fp.sweep(mixed, [RISK, deadly], tmp_path, executor="processes", workers=2, retries=1)
    states = dict(zip(zip(table["network.scale"], table["measurement"], strict=True), table["state"], strict=True))
    assert states.pop((100, "die")) == "failed"
    assert {*states.values()} == {"complete"}
    assert table["failure"].str.contains("BrokenProcessPool").sum() == 1


def test_a_broken_executor_that_was_given_is_an_error(tmp_path: Path) -> None:
    flag = str(tmp_path / "flag")
    measurements = [fp.Measurement(sweeps.die_once, arguments={"flag": flag})]
    with processes(1) as pool, pytest.raises(BrokenExecutor, match="Give sweep a function that makes it"):
        fp.sweep(PAIR, measurements, tmp_path / "root", executor=pool)


class Backwards(Executor):
    """An executor that calls the last submission first, in threads of its own time."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[object], object, tuple[object, ...]]] = []

    def submit(self, fn, /, *args):
        future: Future[object] = Future()
        self.waiting.append((future, fn, args))
        if len(self.waiting) == 2:
            threading.Thread(target=self.work).start()
        return future

    def work(self) -> None:
        for future, fn, args in reversed(self.waiting):
            future.set_result(fn(*args))
        self.waiting.clear()


def test_property_the_order_of_completion_changes_nothing(tmp_path: Path) -> None:
    table = fp.sweep(PAIR, [RISK], tmp_path / "other", executor=Backwards())
    assert comparable(table).equals(comparable(fp.sweep(PAIR, [RISK], tmp_path / "serial")))


def test_a_dask_cluster_whose_worker_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    measurements = [RISK, fp.Measurement(sweeps.die_once, arguments={"flag": str(tmp_path / "flag")})]
    four = base().vary({"seeds.network": (0, 1, 2, 3)})
    table = fp.sweep(four, measurements, tmp_path / "root", executor=lambda: Dask(workers=2))
    assert (tmp_path / "flag").exists()
    assert table["state"].tolist() == ["complete"] * 8
    assert comparable(table).equals(comparable(fp.sweep(four, measurements, tmp_path / "serial")))


def test_slurm_jobs_one_of_which_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    measurements = [RISK, fp.Measurement(sweeps.die_once, arguments={"flag": str(tmp_path / "flag")})]
    table = fp.sweep(
        PAIR, measurements, tmp_path / "root", executor=lambda: Slurm(tmp_path / "jobs", 2, cluster="local")
    )
    assert (tmp_path / "flag").exists()
    assert table["state"].tolist() == ["complete"] * 4
    assert comparable(table).equals(comparable(fp.sweep(PAIR, measurements, tmp_path / "serial")))


def test_ctrl_c_keeps_what_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = fp.train, []

    def interrupted(*args, **arguments):
        if seen:
            raise KeyboardInterrupt
        seen.append(1)
        return real(*args, **arguments)

    monkeypatch.setattr(units, "train", interrupted)
    with pytest.raises(KeyboardInterrupt) as stopped:
        fp.sweep(PAIR, [RISK], tmp_path)
    assert "1 of 2 units are done" in stopped.value.__notes__[-1]
    assert units.experiment_folder(tmp_path, PAIR[0]).is_dir()
    assert not units.experiment_folder(tmp_path, PAIR[1]).exists()
