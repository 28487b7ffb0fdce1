"""Sweep: every experiment trained once and measured, by any executor, resumable."""

import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatprobe.studies.executors import Maker, executor_maker
from flatprobe.studies.experiment import Experiment
from flatprobe.studies.measurement import Measurement
from flatprobe.studies.runner import Runner
from flatprobe.studies.units import COMPLETE, DONE, FAILED, Row, Unit, experiment_folder
from flatprobe.utils.arguments import Checked, Flag, Whole, at_least, one_of
from flatprobe.utils.atomic import check_writable
from flatprobe.utils.progress import reporting
from flatprobe.utils.results import load
from flatprobe.utils.tables import read_table
from flatprobe.utils.tensor_files import read_json

if TYPE_CHECKING:
    import pandas

_OWN = ("experiment", "measurement", "state", "seconds", "training_seconds", "reached", "failure", "record")


def sweep(
    experiments: Checked[Sequence[Experiment]],
    measurements: Checked[Sequence[Measurement]],
    root: str | os.PathLike[str],
    *,
    executor: Checked[Executor | Maker | str | None] = None,
    workers: Whole = 1,
    device: str | None = None,
    threads: Whole = 1,
    retries: Whole = 3,
    progress: Flag | None = False,
) -> "pandas.DataFrame":
    """The table of all measurements of all experiments; only what is not complete under the root is computed.

    An experiment is trained once under its key, whatever is measured. The same call continues an interrupted sweep,
    and one with further experiments or measurements computes those alone. A failure is a row with its error, and does
    not stop the others; its traceback is in `root/failures`, and the next call tries it again. The numbers do not
    depend on the executor or the number of workers, since each unit has its own seeds and thread count.

    Durability does not rest on the executor: a trained network is a folder that is renamed when it is complete, and a
    measurement is one file, written beside and renamed. A killed worker loses at most 10 s of training.

    Args:
        experiments: the trainings; duplicates are trained once.
        measurements: of every experiment, and joint ones (with `experiments`), whose networks are trained too. Empty:
            the networks are trained alone.
        root: the folder of networks, measurements and failures; several sweeps may share it, also at the same time.
        executor: None or `"serial"`: in this process, one after another; `"processes"`: `workers` fresh processes with
            one thread each, which need the guard `if __name__ == "__main__":` in a script; `"dask"`: a Dask cluster on
            this machine; `"slurm"`: Slurm jobs with submitit's defaults; any `concurrent.futures.Executor`, such as
            `distributed.Client(address).get_executor()`, which stays open; or a function that makes one, so that a
            broken one can be replaced (`flatprobe.studies.executors` has `Dask` and `Slurm` with their options).
        workers: number of processes, or the largest number of jobs.
        device: of the networks, such as `"cuda"`; None: the CPU.
        threads: of torch per unit; it is part of the numbers' last bits.
        retries: how many dead workers a unit may leave, run alone, before it counts as failed; 3 by default.
        progress: True: a bar on a terminal, else plain lines, on stderr; None: a bar on a terminal only. The time left
            is estimated from the seconds of the units so far.

    Returns:
        One row per experiment and measurement: `experiment` (its key; joined by "+" in a joint one), `measurement`,
        `state` ("complete" or "failed"), `seconds` of the measurement, `training_seconds`, `reached` (whether the
        trainings met their stopping rules), `failure` (its message), `record` (its file), the settings by dotted name,
        and the headline figures of the result. `fp.load(record)` reads a result;
        `flatprobe.studies.sweep.rows(table, name)` gives all raw values of a measurement.

    Raises:
        BrokenExecutor: if a given executor breaks, which a function could make anew.
        BrokenExecutor: if workers die before they begin, as in a script without its guard.
        KeyboardInterrupt: on Ctrl-C, with a note on what is complete.
        OSError: if the root cannot be written.
        ValueError: for unsuitable arguments.

    >>> import tempfile
    >>> base = Experiment(
    ...     network={"name": "mlp", "widths": [8]},
    ...     data={"name": "digits", "samples": 50},
    ...     stages=[{"epochs": 2}],
    ... )
    >>> with tempfile.TemporaryDirectory() as root:
    ...     table = sweep(base.vary({"network.scale": (1, 10)}), [Measurement("risk")], root)
    >>> table[["network.scale", "measurement", "state"]].values.tolist()
    [[1, 'risk', 'complete'], [10, 'risk', 'complete']]
    """
    root = Path(root).expanduser().resolve()
    make, replaceable = executor_maker(executor, workers, root)
    at_least(1, threads=threads, retries=retries)
    one_of("progress", progress, (True, False, None))
    single, joint = _units(experiments, measurements, root, device, threads)
    check_writable(root)
    found: dict[str, list[Row]] = {}
    with reporting(len(single) + len(joint), progress) as report:
        clock = _Estimate(len(single) + len(joint))
        runner = Runner(make, replaceable=replaceable, retries=retries)
        try:
            for wave in (single, joint):
                for unit, rows_of_unit in runner.run(wave):
                    found[unit.name] = rows_of_unit
                    report(clock.text(unit, rows_of_unit))
        except KeyboardInterrupt as error:
            error.add_note(
                f"{len(found)} of {len(single) + len(joint)} units are done in {root}; the same call continues"
            )
            runner.close(wait=False)
            raise
        finally:
            runner.close()
    return _table([*single, *joint], found)


def _units(
    experiments: Checked[Sequence[Experiment]],
    measurements: Checked[Sequence[Measurement]],
    root: Path,
    device: str | None,
    threads: int,
) -> tuple[list[Unit], list[Unit]]:
    """Units of single experiments, each with its measurements, and units of joint measurements.

    Raises:
        TypeError: for entries of another type.
        ValueError: for nothing to do, or two measurements of one name.
    """
    for kind, entries, name in ((Experiment, experiments, "experiments"), (Measurement, measurements, "measurements")):
        if isinstance(entries, Experiment | Measurement | str) or not isinstance(entries, Sequence):
            msg = f"{name} must be a list of fp.{kind.__name__}, got a {type(entries).__name__}"
            raise TypeError(msg)
        wrong = [entry for entry in entries if not isinstance(entry, kind)]
        if wrong:
            msg = f"{name} must be a list of fp.{kind.__name__}, got a {type(wrong[0]).__name__} in it"
            raise TypeError(msg)
    own = tuple(measurement for measurement in measurements if measurement.experiments is None)
    joint = [m for m in measurements if m.experiments is not None]
    names = [*(measurement.name for measurement in own), *{measurement.name for measurement in joint}]
    if len({*names}) < len(names):
        msg = f"measurements must have distinct names, got {', '.join(map(str, names))}. Give name=..."
        raise ValueError(msg)
    common: dict[str, Any] = {"root": str(root), "device": device, "threads": threads}
    units = {e.key: Unit(experiments=(e,), measurements=own, **common) for e in experiments}
    for experiment in (e for m in joint for e in m.experiments or ()):
        units.setdefault(experiment.key, Unit(experiments=(experiment,), measurements=(), **common))
    if not units:
        msg = "experiments must hold at least one experiment, got none"
        raise ValueError(msg)
    for unit in units.values():
        for measurement in unit.measurements:
            measurement.as_json(unit.experiments)  # names an unknown stage before anything runs
    same: dict[str, dict[str | None, Measurement]] = {}  # a measurement may be there under several names
    for m in joint:
        same.setdefault(m.key(m.experiments or ()), {})[m.name] = m
    several = [tuple(by_name.values()) for by_name in same.values()]
    return list(units.values()), [
        Unit(experiments=tuple(m[0].experiments or ()), measurements=m, **common) for m in several
    ]


class _Estimate:
    """Time left, from the seconds of the units so far and the number of them that run at once."""

    def __init__(self, total: int) -> None:
        self._total, self._done, self._busy, self._computed = total, 0, 0.0, 0
        self._started = time.monotonic()

    def text(self, unit: Unit, rows_of_unit: Sequence[Row]) -> str:
        """A line on a unit that has ended."""
        self._done += 1
        seconds = sum(row["seconds"] for row in rows_of_unit)
        self._computed += seconds > 0
        self._busy += seconds
        failed = sum(row["state"] == FAILED for row in rows_of_unit)
        text = f"{unit.name[:8]}: {f'{failed} failed' if failed else COMPLETE}, {seconds:.1f} s"
        if not self._computed or self._done == self._total:
            return text
        at_once = max(1.0, self._busy / max(time.monotonic() - self._started, 1e-9))
        left = (self._total - self._done) * self._busy / self._computed / at_once
        return f"{text}, about {left:.0f} s left"


def _table(units: Sequence[Unit], found: "dict[str, list[Row]]") -> "pandas.DataFrame":
    import pandas as pd

    rows_of_table = []
    for unit in units:
        settings = common_settings(unit.experiments)
        key = "+".join(experiment.key for experiment in unit.experiments)
        training = _training_of(unit.root, unit.experiments)
        for row in found[unit.name]:
            lead = {"experiment": key, **row, **training, **settings}
            try:
                seconds, figures = _figures(row["record"]) if row["record"] else (math.nan, {})
            except ValueError as error:
                lead |= {"state": FAILED, "failure": f"{error}. Delete the file, and call again", "record": ""}
                seconds, figures = math.nan, {}
            named = {f"{name}_measured" if name in lead else name: value for name, value in figures.items()}
            rows_of_table.append({**lead, "seconds": seconds, **named})
    table = pd.DataFrame(rows_of_table)
    return table[[*_OWN, *(column for column in table.columns if column not in _OWN)]]


def common_settings(experiments: Sequence[Experiment]) -> Row:
    """The settings by dotted name that all of the experiments have in common."""
    first, *others = [experiment.flat() for experiment in experiments]
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _training_of(root: str | Path, experiments: Sequence[Experiment]) -> Row:
    """`training_seconds` of complete experiments in all, and `reached`: whether all stages met their stopping rules.

    NaN and None where a folder is not there, or damaged.
    """
    seconds, reached = 0.0, True
    for experiment in experiments:
        try:
            done = read_json(experiment_folder(root, experiment) / DONE, "train it again")
            seconds, reached = seconds + done["seconds"], reached and all(done["reached"].values())
        except (OSError, ValueError, KeyError):
            return {"training_seconds": math.nan, "reached": None}
    return {"training_seconds": seconds, "reached": reached}


def _figures(path: str) -> tuple[float, dict[str, float]]:
    """Seconds and headline figures of a record: a result's summary, or the numbers of a dictionary."""
    frame, metadata = read_table(path)
    if metadata["kind"] == "numbers":
        found = {str(name): value for name, value in frame.iloc[0].items()}
    else:
        found = {} if metadata["kind"] == "table" else load(path).summary()
    return metadata["seconds"], found


def rows(table: "pandas.DataFrame", measurement: str) -> "pandas.DataFrame":
    """The raw rows of all records of one measurement, behind the settings of their experiments.

    Args:
        table: of `sweep`.
        measurement: its name.

    Returns:
        The records' tables one below the other, with the columns `experiment`, the settings by dotted name (of a joint
        measurement those that its experiments have in common), then the record's own columns.

    Raises:
        ValueError: if no record has this name.
    """
    import pandas as pd

    chosen = table[(table["measurement"] == measurement) & (table["state"] == COMPLETE)]
    parts = []
    for key, path in zip(chosen["experiment"], chosen["record"], strict=True):
        frame, metadata = read_table(path)
        settings = common_settings([Experiment.from_json(described) for described in metadata["experiments"]])
        lead = pd.DataFrame({"experiment": [key], **{name: [value] for name, value in settings.items()}})
        parts.append(lead.merge(frame, how="cross", suffixes=("", "_measured")))
    if not parts:
        names = ", ".join(dict.fromkeys(table["measurement"]))
        msg = f"measurement must be the name of a complete one, among {names}, got {measurement!r}"
        raise ValueError(msg)
    return pd.concat(parts, ignore_index=True)
