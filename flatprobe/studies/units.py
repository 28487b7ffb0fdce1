"""Units of a sweep: one experiment with its measurements, or one joint measurement.

ROOT/experiments/KEY/               a trained network: experiment.json, complete.json, a run folder per stage
ROOT/experiments/.KEY.partial/      the same in training; it is renamed when it is complete
ROOT/measurements/KEY/HASH.parquet  a measurement of one experiment
ROOT/joint/HASH.parquet             a measurement of several experiments
ROOT/failures/NAME.json             the traceback of a unit that failed, until it succeeds
ROOT/.locks/NAME                    held while a unit runs; not empty after the death of its process
"""

import json
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from flatprobe.models.checkpoints import load_checkpoint
from flatprobe.studies.experiment import Experiment
from flatprobe.studies.measurement import HISTORY, INITIAL, Measurement
from flatprobe.training import TrainingRun, train
from flatprobe.training.run_folder import OtherRunError
from flatprobe.utils.atomic import lock
from flatprobe.utils.devices import as_device
from flatprobe.utils.results import Result, environment, printable
from flatprobe.utils.tables import write_table
from flatprobe.utils.tensor_files import write_text
from flatprobe.utils.threads import thread_count

COMPLETE, FAILED = "complete", "failed"
DONE = "complete.json"

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """The work of one call of a worker.

    Attributes:
        experiments: one, or those of a joint measurement, which are trained before.
        measurements: of the experiment; one if joint.
        root: the folder of the sweep.
        device: of the networks; None: the CPU.
        threads: torch's threads.
    """

    experiments: tuple[Experiment, ...]
    measurements: tuple[Measurement, ...]
    root: str
    device: str | None = None
    threads: int = 1

    @property
    def name(self) -> str:
        """The key of the experiment, or the hash of the joint measurement."""
        if len(self.experiments) == 1:
            return self.experiments[0].key
        return self.measurements[0].key(self.experiments)

    def record(self, measurement: Measurement) -> Path:
        """The file of a measurement."""
        key = measurement.key(self.experiments)
        if len(self.experiments) == 1:
            return Path(self.root, "measurements", self.experiments[0].key, f"{key}.parquet")
        return Path(self.root, "joint", f"{key}.parquet")

    def is_complete(self) -> bool:
        """True if nothing is left to do."""
        if not self.measurements:
            return experiment_folder(self.root, self.experiments[0]).is_dir()
        return all(self.record(measurement).is_file() for measurement in self.measurements)

    @property
    def lock_file(self) -> Path:
        """The file that is locked while the unit runs."""
        return Path(self.root, ".locks", self.name)

    def was_running(self) -> bool:
        """True if a process that ran the unit has died."""
        return self.lock_file.is_file() and self.lock_file.stat().st_size > 0

    def failure_file(self, measurement: Measurement | None) -> Path:
        """The file of a failure's traceback."""
        name = self.name if measurement is None else measurement.key(self.experiments)
        return Path(self.root, "failures", f"{name}.json")


def experiment_folder(root: str | Path, experiment: Experiment) -> Path:
    """The folder of a trained network."""
    return Path(root, "experiments", experiment.key)


def _partial_folder(root: str | Path, experiment: Experiment) -> Path:
    return experiment_folder(root, experiment).with_name(f".{experiment.key}.partial")


def run_unit(unit: Unit) -> list[Row]:
    """Do what is not complete of a unit; a failure is written down and returned, not raised.

    Two processes with the same unit do not work at once: the second waits, and finds it complete.

    Returns:
        A row per measurement (one for none): `measurement`, `state`, `seconds`, `failure`, `record`. The first has the
        seconds of a training too.
    """
    if unit.is_complete():  # a finished unit that a scheduler runs again answers at once
        return [_row(unit, measurement, COMPLETE) for measurement in unit.measurements or (None,)]
    with _running(unit.lock_file), thread_count(unit.threads):
        trained = 0.0
        if len(unit.experiments) == 1:
            try:
                trained = _train_or_begin_anew(unit, unit.experiments[0])
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's network, data or penalty may raise any
                return [_failure(unit, measurement, error) for measurement in unit.measurements or (None,)]
            unit.failure_file(None).unlink(missing_ok=True)
        done = [_measured(unit, measurement) for measurement in unit.measurements] or [_row(unit, None, COMPLETE)]
    done[0]["seconds"] += trained
    return done


@contextmanager
def _running(path: Path) -> Iterator[None]:
    """Hold the lock; the file has content until the block ends, in whatever way but the death of the process."""
    with lock(path) as held:
        held.write(b"running")
        held.flush()
        try:
            yield
        finally:
            held.truncate(0)


def _train_or_begin_anew(unit: Unit, experiment: Experiment) -> float:
    """Train, from the beginning where the data or the code have changed since the training was interrupted."""
    try:
        return _train(unit, experiment)
    except OtherRunError:
        shutil.rmtree(_partial_folder(unit.root, experiment))
        return _train(unit, experiment)


def _train(unit: Unit, experiment: Experiment) -> float:
    """Train what is not complete of an experiment, in a folder that is renamed at the end, and return the seconds."""
    folder = experiment_folder(unit.root, experiment)
    if folder.is_dir():
        return 0.0
    partial = _partial_folder(unit.root, experiment)
    write_text(partial / "experiment.json", json.dumps(experiment.as_json(), indent=2))
    data, started = experiment.load("train"), time.perf_counter()
    network, reached = _placed(experiment.build(), unit.device), {}
    for name, stage in zip(experiment.stage_names(), experiment.stages, strict=True):
        arguments = {key: value for key, value in stage.items() if key not in {"name", "validation"}}
        held_out = stage.get("validation")
        run = train(
            network,
            data,
            validation=None if held_out is None else experiment.load(held_out),
            seed=experiment.seeds["order"],
            threads=unit.threads,
            out=partial / name,
            **arguments,
        )
        network, reached[name] = run.model, run.reached
    seconds = time.perf_counter() - started
    done = {"experiment": experiment.as_json(), "reached": reached, "seconds": seconds, "environment": environment()}
    write_text(partial / DONE, json.dumps(done, indent=2))
    partial.rename(folder)
    return seconds


def _placed(network: nn.Module, device: str | None) -> nn.Module:
    return network if device is None else network.to(as_device(device))


def load_network(root: str | Path, experiment: Experiment, stage: str, device: str | None = None) -> nn.Module:
    """The network of a complete experiment after a stage, in eval mode."""
    network = _placed(experiment.build(), device)
    if stage == INITIAL:
        return network.eval().requires_grad_(requires_grad=False)
    return load_checkpoint(experiment_folder(root, experiment) / stage, network)


def _measured(unit: Unit, measurement: Measurement) -> Row:
    path, started = unit.record(measurement), time.perf_counter()
    if path.is_file():
        return _row(unit, measurement, COMPLETE)
    try:
        found = _measure(unit, measurement)
        seconds = time.perf_counter() - started
        metadata = {
            "experiments": [experiment.as_json() for experiment in unit.experiments],
            "measurement": measurement.as_json(unit.experiments),
            "seconds": seconds,
            "environment": environment(),
        }
        _write(found, path, metadata)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's probe may raise anything
        return _failure(unit, measurement, error)
    unit.failure_file(measurement).unlink(missing_ok=True)
    return _row(unit, measurement, COMPLETE, seconds=seconds)


def _measure(unit: Unit, measurement: Measurement) -> Any:
    first = unit.experiments[0]
    stages = [measurement.stage_of(experiment) for experiment in unit.experiments]
    for experiment in unit.experiments:
        if not experiment_folder(unit.root, experiment).is_dir():
            msg = f"the network of experiment {experiment.key} is not there, since its training failed; see its own row"
            raise RuntimeError(msg)
    if measurement.probe == HISTORY:
        run = TrainingRun.load(experiment_folder(unit.root, first) / stages[0], first.build())
        return run.to_frame()
    models = [
        load_network(unit.root, experiment, stage, unit.device)
        for experiment, stage in zip(unit.experiments, stages, strict=True)
    ]
    return measurement(models, first.load(measurement.on))


def _write(found: Any, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a result, a table or a dictionary of numbers as one record.

    Raises:
        TypeError: for anything else.
        ValueError: for nothing.
    """
    import pandas as pd

    if isinstance(found, Result):
        write_table(found.to_frame(), path, {"kind": type(found).__name__, "settings": found.settings, **metadata})
    elif isinstance(found, pd.DataFrame):
        write_table(found, path, {"kind": "table", **metadata})
    elif isinstance(found, Mapping):
        if not found:
            msg = "the probe must return at least one number, got an empty dictionary"
            raise ValueError(msg)
        write_table(pd.DataFrame([dict(found)]), path, {"kind": "numbers", **metadata})
    else:
        msg = (
            f"the probe must return a Result, a table of pandas or a dictionary of numbers, got a "
            f"{type(found).__name__}. Return one of these"
        )
        raise TypeError(msg)


def _failure(unit: Unit, measurement: Measurement | None, error: BaseException) -> Row:
    """Write the traceback down, and return the row."""
    text = "".join(traceback.format_exception(error))
    said = printable(f"{type(error).__name__}: {error}")
    described = {
        "experiments": [experiment.as_json() for experiment in unit.experiments],
        "measurement": None if measurement is None else measurement.as_json(unit.experiments),
        "error": said,
        "traceback": text,
        "environment": environment(),
    }
    try:
        write_text(unit.failure_file(measurement), json.dumps(described, indent=2))
    except OSError as unwritten:  # a full disk may be the failure itself
        said += f" (its traceback could not be written: {unwritten})"
    return _row(unit, measurement, FAILED, failure=said)


def fail(unit: Unit, error: BaseException) -> list[Row]:
    """Rows of a unit whose worker could not return, with the failure written down."""
    return [
        _row(unit, measurement, COMPLETE)
        if measurement is not None and unit.record(measurement).is_file()
        else _failure(unit, measurement, error)
        for measurement in unit.measurements or (None,)
    ]


def _row(unit: Unit, measurement: Measurement | None, state: str, *, seconds: float = 0.0, failure: str = "") -> Row:
    return {
        "measurement": "" if measurement is None else measurement.name,
        "state": state,
        "seconds": seconds,
        "failure": failure,
        "record": "" if measurement is None or state == FAILED else str(unit.record(measurement)),
    }
