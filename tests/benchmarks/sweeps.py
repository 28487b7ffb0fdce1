"""Sweeps whose workers are killed by kill -9 at random moments, compared with undisturbed serial ones bit for bit.

    python -m tests.benchmarks.sweeps --kills 200

writes records/sweeps.parquet, a row per sweep, and ends with an error if a sweep lost something, did something twice or
ended with other bits. A pool of two processes runs the units of `fp.sweep`. A thread kills a worker that is at work,
again and again, and the sweep makes the pool anew. The workers write what they do to a file.
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import flatprobe as fp
from flatprobe.studies import units
from flatprobe.utils.results import environment
from flatprobe.utils.rng import sample_uniform
from flatprobe.utils.tables import read_table, write_table
from flatprobe.utils.tensor_files import read_tensors
from tests.benchmarks.harness import RECORDS, Row

WORKERS = 2
KILLS = (4, 8)  # the fewest and the most of a sweep
PAUSE = 1.2  # of the seconds of a serial unit, the longest from one kill to the next
RETRIES = 1000  # a unit that is killed by chance is no reason to give it up


def plan(seed: int) -> tuple[list[fp.Experiment], list[fp.Measurement]]:
    """Six small trainings in two stages, five measurements of each and a joint one."""
    base = fp.Experiment(
        network={"name": "mlp", "widths": [64]},
        data={"name": "digits", "samples": 300, "random_labels": 0.2},
        stages=[
            {"name": "first", "epochs": 8, "learning_rate": 0.05},
            {"name": "second", "epochs": 4, "optimizer": "adam", "learning_rate": 0.001, "validation": "test"},
        ],
    )
    seeds = [(2 * seed + place,) * 3 for place in range(2)]
    names = ("seeds.data", "seeds.network", "seeds.order")
    experiments = base.vary({"data.random_labels": (0.0, 0.5, 1.0), names: seeds})
    return experiments, [
        fp.Measurement("risk", on="test"),
        fp.Measurement("history", stage="first"),
        fp.Measurement("functional_margins", stage="first"),
        fp.Measurement("jacobian_norms", on="train"),
        fp.Measurement("flatness_radius", arguments={"directions": 5}),
        fp.Measurement("interpolate", experiments=experiments[:2], arguments={"steps": 5}),
    ]


def begin(told: Path) -> None:
    """Prepare a worker: one thread, and lines in a file on what it trains, measures and has written.

    "again" marks work whose result is complete already, which a sweep must never do.
    """
    torch.set_num_threads(1)

    def tell(word: str, complete: Path) -> None:
        with told.open("a") as file:  # one short write, which no other worker splits
            file.write(f"{os.getpid()} {word} {complete.name}\n")

    def telling(name: str, word: str, target: Callable[..., Path], after: str) -> None:
        function = getattr(units, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            complete = target(*args, **kwargs)
            tell(f"{word} again" if complete.exists() else word, complete)
            found = function(*args, **kwargs)
            tell(after, complete)
            return found

        setattr(units, name, wrapped)

    telling("train", "training", _experiment, "idle")
    telling("_measure", "measuring", lambda unit, measurement: unit.record(measurement), "idle")
    telling("_write", "writing", lambda _found, path, _metadata: path, "written")


def _experiment(*_: object, out: Path, **__: object) -> Path:
    """The folder that is there once the experiment of a stage's run folder is complete."""
    return out.parent.with_name(out.parent.name.removeprefix(".").removesuffix(".partial"))


def complete(root: Path) -> set[Path]:
    """The trained networks and the measurements that are complete."""
    return {*root.glob("experiments/[!.]*"), *root.glob("measurements/*/[!.]*"), *root.glob("joint/[!.]*")}


@dataclass(eq=False)
class Killer(threading.Thread):
    """Makes the pools of a sweep, and kills workers that are at work until it has killed as often as wanted."""

    told: Path
    root: Path
    wanted: int
    pause: float  # seconds, the longest
    draws: list[float]
    phases: list[str] = field(default_factory=list)
    seen: set[Path] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)
    pool: ProcessPoolExecutor | None = None

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def make(self) -> ProcessPoolExecutor:
        """A new pool of two workers, forks of this process, which has imported everything in the serial sweep."""
        self.pool = ProcessPoolExecutor(WORKERS, get_context("fork"), initializer=begin, initargs=(self.told,))
        return self.pool

    def run(self) -> None:
        """Kill at random moments."""
        for pause, choice in zip(self.draws[::2], self.draws[1::2], strict=True):
            if len(self.phases) == self.wanted or self.ended.wait(pause * self.pause):
                return
            # A pool does not tell its workers, and forgets them when it breaks.
            workers = list((getattr(self.pool, "_processes", None) or {}).items())
            phases = {int(line.split()[0]): line.split()[1] for line in self._lines()}
            busy = [(pid, phases[pid]) for pid, process in workers if process.is_alive() and pid in phases]
            busy = [(pid, phase) for pid, phase in busy if phase not in {"idle", "written"}]
            if busy:
                pid, phase = busy[int(choice * len(busy))]
                self.seen |= complete(self.root)
                os.kill(pid, signal.SIGKILL)
                self.phases.append(phase)

    def _lines(self) -> list[str]:
        return self.told.read_text().splitlines() if self.told.is_file() else []

    def twice(self) -> int:
        """Pieces of work that were begun although complete, and results that were written more than once."""
        lines = [line.split() for line in self._lines()]
        again = sum(line[2] == "again" for line in lines)
        written = Counter(line[-1] for line in lines if line[1] == "written")
        return again + sum(count - 1 for count in written.values())


def identical(one: Path, other: Path) -> bool:
    """The same files with the same bits and values, but for the seconds that were measured."""
    left, right = ({path.relative_to(root) for path in complete(root)} for root in (one, other))
    if left != right:
        return False
    for path in left:
        if path.suffix == ".parquet":
            frames = [read_table(root / path)[0].drop(columns="seconds", errors="ignore") for root in (one, other)]
            if not frames[0].equals(frames[1]):
                return False
        else:
            stages = [sorted((root / path).glob("*/last.safetensors")) for root in (one, other)]
            weights = [[read_tensors(file)[0] for file in files] for files in stages]
            if not weights[0] or len(weights[0]) != len(weights[1]) or not all(map(_equal, *weights)):
                return False
    return True


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def row(run: int, folder: Path, wanted: int, seed: int = 0) -> Row:
    """One sweep with kills beside the same sweep in this process."""
    experiments, measurements = plan(run)
    fp.sweep(experiments[:1], measurements, folder / "warm")  # whatever is imported at first use
    started = time.monotonic()
    serial = fp.sweep(experiments, measurements, folder / "serial")
    undisturbed = time.monotonic() - started
    draws = sample_uniform(0, 400, seed, "kills of workers", run).tolist()
    killer = Killer(folder / "told.txt", folder / "killed", wanted, PAUSE * undisturbed / len(experiments), draws)
    killer.start()
    started = time.monotonic()
    table = fp.sweep(experiments, measurements, folder / "killed", executor=killer.make, retries=RETRIES)
    killer.ended.set()
    killer.join()
    done = complete(folder / "killed")
    own = ["experiment", "measurement", "state"]
    return {
        "run": run,
        "trainings": len(experiments),
        "measurements": len(table),
        "kills": len(killer.phases),
        "phases": killer.phases,
        "lost": len(killer.seen - done) + int((table["state"] != "complete").sum()),
        "twice": killer.twice(),
        "identical": identical(folder / "serial", folder / "killed") and table[own].equals(serial[own]),
        "seconds": time.monotonic() - started,
        "seconds_serial": undisturbed,
    }


def main(arguments: list[str] | None = None) -> None:
    """Kill until there are as many kills as wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RECORDS / "sweeps.parquet")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows: list[Row] = []
    while (left := options.kills - sum(found["kills"] for found in rows)) > 0:
        draw = float(sample_uniform(0, 1, options.seed, "wanted", len(rows)))
        wanted = min(left, KILLS[0] + int(draw * (KILLS[1] - KILLS[0] + 1)))
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(len(rows), Path(folder), wanted, options.seed))
        sys.stderr.write(f"{rows[-1]}\n")
    frame = pd.DataFrame(rows)
    command = f"python -m tests.benchmarks.sweeps --kills {options.kills}"
    metadata = {"kind": "sweeps", "command": command, "seed": options.seed, "environment": environment()}
    write_table(frame, options.out, metadata)
    phases = frame["phases"].explode().value_counts().to_dict()
    counts = frame[["lost", "twice", "identical"]].sum().to_dict()
    print(f"{len(frame)} sweeps, {frame['kills'].sum()} kills in {phases}; {counts}")
    if not (frame["identical"] & (frame["lost"] == 0) & (frame["twice"] == 0)).all():
        sys.exit(1)


if __name__ == "__main__":
    main()
