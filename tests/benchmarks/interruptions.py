"""Trainings killed by kill -9 at random moments, resumed, and compared with uninterrupted ones bit for bit.

    python -m tests.benchmarks.interruptions --runs 100

writes records/interruptions.parquet, a row a run, and ends with an error if a run was not resumed, lost a complete
checkpoint or ended with other bits. Six minutes on a busy core. A process that has imported torch once forks a
child for each start; the child trains in a folder, saving after every epoch, and tells through a pipe what it is about.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from flatprobe.training.run_folder import RunFolder
from flatprobe.utils.results import environment
from flatprobe.utils.rng import sample_uniform
from flatprobe.utils.tables import write_table
from flatprobe.utils.tensor_files import read_tensors
from tests.benchmarks.harness import RECORDS, Row
from tests.benchmarks.interrupted import Case, cases

KILLS = (2, 4)  # the fewest and the most of a run that had begun and was not finished
ATTEMPTS = 20  # children of a run that may be killed, and folders that may be tried until a run has been interrupted


@dataclass
class Life:
    """One child: what it told, and how it ended."""

    told: list[str]
    killed: bool
    failed: bool
    seconds: float

    @property
    def phase(self) -> str:
        """Start (before the folder was claimed), claim, training or save."""
        return self.told[-1].split()[0].replace("saved", "training").replace("claimed", "training")

    def epochs(self, word: str) -> list[int]:
        return [int(line.split()[1]) for line in self.told if line.startswith(f"{word} ")]


@dataclass
class Found:
    """What lies in the folder when its process is gone."""

    resumable: int = 0
    finished: bool = False
    broken: int = 0
    leftovers: int = 0


@dataclass
class Seen:
    """What all of the kills of a run have shown."""

    phases: list[str] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    early: int = 0
    leftovers: int = 0
    lost: int = 0
    resumed: bool = True


def lived(case: Case, folder: Path, delay: float | None = None) -> Life:
    """Train in a child of this process, which is killed after so many seconds, if it has not ended by then."""
    reading, writing = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(_trained(case, folder, writing))
    os.close(writing)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)  # one that has ended already waits as a zombie, whom it does not reach
    status = os.waitpid(child, 0)[1]
    with os.fdopen(reading) as pipe:
        told = ["start", *pipe.read().splitlines()]
    killed = os.WIFSIGNALED(status)
    return Life(told, killed, not killed and os.WEXITSTATUS(status) != 0, time.monotonic() - started)


def _trained(case: Case, folder: Path, writing: int) -> int:
    def telling(function: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
        def wrapped(self: RunFolder, first: Any, *args: Any, **kwargs: Any) -> Any:
            number = len(first.history) if before == "save" else 0
            os.write(writing, f"{before} {number}\n".encode())
            result = function(self, first, *args, **kwargs)
            os.write(writing, f"{after} {number}\n".encode())
            return result

        return wrapped

    RunFolder.claim = telling(RunFolder.claim, "claim", "claimed")  # type: ignore[method-assign]
    RunFolder.save = telling(RunFolder.save, "save", "saved")  # type: ignore[method-assign]
    try:
        case.train(folder)
    except BaseException:  # noqa: BLE001 - a forked child must not go on with what its parent was about
        traceback.print_exc()
        return 1
    return 0


def found(folder: Path) -> Found:
    """Every file is read as a whole; those whose name says that they are not complete are counted."""
    seen = Found()
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix == ".tmp":
            seen.leftovers += 1
            continue
        try:
            read_tensors(path) if path.suffix == ".safetensors" else json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            seen.broken += 1
    if seen.broken:
        return seen
    run = RunFolder(folder)
    history, progress = run.finished(), run.progress()
    seen.finished = history is not None
    seen.resumable = len(history or (progress.history if progress else ()))
    return seen


def interrupted(case: Case, folder: Path, seconds: float, draws: Sequence[float]) -> Seen:
    """Kill and resume until it has been killed often enough, or has finished; then let it finish."""
    seen, known, before = Seen(), 0, Found()
    wanted = KILLS[0] + int(draws[0] * (KILLS[1] - KILLS[0] + 1))
    for draw in (*draws[1:], None):
        last = draw is None or len(seen.phases) == wanted
        life = lived(case, folder, None if last else float(draw) * seconds * (1 - before.resumable / case.epochs))
        now = found(folder)
        known = max([known, *life.epochs("saved")])
        first = next(iter(life.epochs("save")), before.resumable + 1)
        seen.resumed &= not life.failed and first == before.resumable + 1
        seen.lost += now.broken > 0 or now.resumable < max(known, before.resumable)
        if not life.killed:
            break
        seen.leftovers += now.leftovers
        if life.phase == "start":
            seen.early += 1
        elif not now.finished:
            seen.phases.append(life.phase)
            seen.epochs.append(now.resumable)
        before = now
    return seen


def identical(one: Path, other: Path) -> bool:
    """The same files; in them the same bits, but for the seconds that were measured."""
    if [path.name for path in sorted(one.iterdir())] != [path.name for path in sorted(other.iterdir())]:
        return False
    for name in ("last.safetensors", "best.safetensors"):
        first, second = (read_tensors(folder / name)[0] for folder in (one, other))
        if first.keys() != second.keys() or not all(torch.equal(first[key], second[key]) for key in first):
            return False
    histories = [RunFolder(folder).finished() or [] for folder in (one, other)]
    first, second = ([{**row, "seconds": None} for row in rows] for rows in histories)
    return first == second


def row(run: int, case: Case, folder: Path, seed: int) -> Row:
    """One run, interrupted at least once between its beginning and its end."""
    whole = lived(case, folder / "whole")
    for attempt in range(ATTEMPTS):
        started = time.monotonic()
        draws = sample_uniform(0, ATTEMPTS, seed, "kills", run, attempt).tolist()
        seen = interrupted(case, folder / f"killed-{attempt}", whole.seconds, draws)
        if seen.phases or seen.lost or not seen.resumed:
            break
    return {
        "run": run,
        **case.described(),
        "kills": len(seen.phases),
        "kills_before_the_claim": seen.early,
        "phases": seen.phases,
        "epochs_at_kills": seen.epochs,
        "leftovers": seen.leftovers,
        "resumed": seen.resumed,
        "lost": seen.lost,
        "identical": identical(folder / "whole", folder / f"killed-{attempt}") if seen.resumed else False,
        "seconds": time.monotonic() - started,
        "seconds_uninterrupted": whole.seconds,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RECORDS / "interruptions.parquet")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a fork takes no other thread along
    for case in cases(20, 1, options.seed):
        with tempfile.TemporaryDirectory() as folder:  # whatever is imported at first use, children find it imported
            case.train(Path(folder) / "warm")
    rows = []
    for run, case in enumerate(cases(options.runs, options.epochs, options.seed)):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(run, case, Path(folder), options.seed))
        if not (rows[-1]["resumed"] and rows[-1]["identical"] and rows[-1]["lost"] == 0):
            sys.stderr.write(f"FAILED: {rows[-1]} of {case}\n")
    frame = pd.DataFrame(rows)
    command = f"python -m tests.benchmarks.interruptions --runs {options.runs} --epochs {options.epochs}"
    metadata = {"kind": "interruptions", "command": command, "seed": options.seed, "environment": environment()}
    write_table(frame, options.out, metadata)
    phases = frame["phases"].explode().value_counts().to_dict()
    figures = ["kills", "kills_before_the_claim", "leftovers", "resumed", "lost", "identical", "seconds"]
    print(f"{len(frame)} interrupted runs, killed in {phases}; {frame[figures].sum().to_dict()}")
    if not (frame["resumed"] & frame["identical"] & (frame["lost"] == 0) & (frame["kills"] > 0)).all():
        sys.exit(1)


if __name__ == "__main__":
    main()
