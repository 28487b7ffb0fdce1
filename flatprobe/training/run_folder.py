"""Folder of a run: its configuration, history and weights, and the state for resuming.

config.json          settings, network, data and environment (never changed once written)
history.json         one row per epoch; whether the run is finished
last.safetensors     weights and buffers after the last epoch
best.safetensors     the same after the epoch with the lowest validation (else training) loss
resume.safetensors   weights, buffers, optimizer state and history of an unfinished run
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from flatprobe.models.architectures import CONFIG
from flatprobe.utils.arguments import as_json
from flatprobe.utils.atomic import is_abandoned, leftovers
from flatprobe.utils.tensor_files import State, bytes_of, read_json, read_tensors, write_tensors, write_text

Row = dict[str, Any]

_HISTORY = "history.json"
_LAST = "last.safetensors"
_BEST = "best.safetensors"
_RESUME = "resume.safetensors"
_FILES = (CONFIG, _HISTORY, _LAST, _BEST, _RESUME)
_WEIGHTS = "network."
_FIX = "delete the run's folder and train again, or choose another folder"
_CODE = ". A source is the digest of user-defined code; flatprobe 0.1 had another digest of a lambda's code"


class OtherRunError(ValueError):
    """The folder holds a run with another configuration."""


@dataclass(frozen=True)
class Progress:
    """Progress of an interrupted run: rows of its finished epochs, weights and buffers, optimizer state."""

    history: list[Row]
    state: State
    optimizer: State


class RunFolder:
    """Files of one run, each replaced as a whole, so that an interruption leaves no half-written file.

    A process killed while it writes (kill -9) leaves a temporary file, which the next claim removes. The temporary
    file of a running process is kept. Only one process at a time may train in a folder.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def claim(self, config: Mapping[str, Any], *, resume: bool) -> dict[str, Any]:
        """Begin the run, or find that the same run has begun, and remove the temporary files of a killed process.

        Args:
            config: the settings, network, data and environment of the run.
            resume: whether a run that has begun may be continued.

        Returns:
            The configuration on disk: the given one, or the one that the run began with.

        Raises:
            FileExistsError: if the folder holds something else, or a run and `resume` is False.
            OtherRunError: if it holds a run with another configuration, with the differing settings.
        """
        if not (self.path / CONFIG).is_file():
            # A run that was killed while it wrote its first file has left only a temporary file.
            if self.path.exists() and (not self.path.is_dir() or {*self.path.iterdir()} - {*self._leftovers()}):
                msg = f"out {self.path} exists and is no run folder; expected a new or empty folder: choose another"
                raise FileExistsError(msg)
            self._clear()
            write_text(self.path / CONFIG, json.dumps(config, indent=2, default=as_json))
            return dict(config)
        recorded = self.config()
        if not resume:
            msg = (
                f"the folder {self.path} holds a run already, and resume is False; choose another folder, or delete it"
            )
            raise FileExistsError(msg)
        if not any(path.name != CONFIG for path in {*self.path.iterdir()} - {*self._leftovers()}):
            # Nothing was saved: a call that failed at once leaves its configuration, which the corrected call replaces.
            write_text(self.path / CONFIG, json.dumps(config, indent=2, default=as_json))
            self._clear()
            return dict(config)
        given = json.loads(json.dumps({**config, "environment": None}, default=as_json))
        differing = differences({**recorded, "environment": None}, given)
        if differing:
            code = any(entry.startswith("settings.") and ".source was " in entry for entry in differing)
            msg = (
                f"the folder {self.path} holds a run with other settings: {'; '.join(differing[:5])}; expected the "
                "same ones to continue it: choose another folder, or train(run.model, ...) to go on from its weights"
                f"{_CODE if code else ''}"
            )
            raise OtherRunError(msg)
        self._clear()
        return recorded

    def config(self) -> dict[str, Any]:
        """The configuration on disk.

        Raises:
            FileExistsError: if another program wrote the file, which is kept.
            FileNotFoundError: if the folder is no run folder.
        """
        if not (self.path / CONFIG).is_file():
            msg = f"{self.path} holds no {CONFIG}; expected the folder of a run that train(out=...) wrote"
            raise FileNotFoundError(msg)
        config = read_json(self.path / CONFIG, _FIX)
        if not all(isinstance(config.get(part), dict) for part in ("settings", "environment")):
            msg = (
                f"the {CONFIG} in {self.path} is another program's, not that of a flatprobe run; expected a new or "
                "empty folder, or a run's: choose another"
            )
            raise FileExistsError(msg)
        return config

    def finished(self) -> list[Row] | None:
        """The history of a finished run; None of an unfinished run.

        Raises:
            ValueError: if the file holds something else.
        """
        if not (self.path / _HISTORY).is_file():
            return None
        history = read_json(self.path / _HISTORY, _FIX)
        rows = history.get("epochs")
        if not isinstance(rows, list) or (history.get("finished") and not rows):
            msg = f"{self.path / _HISTORY} holds no epochs; {_FIX}"
            raise ValueError(msg)
        return rows if history.get("finished") else None

    def progress(self) -> Progress | None:
        """The progress of an interrupted run; None if nothing is saved.

        Raises:
            ValueError: if the file is damaged, or another program's.
        """
        if not (self.path / _RESUME).is_file():
            return None
        tensors, metadata = read_tensors(self.path / _RESUME)
        weights = {name: value for name, value in tensors.items() if name.startswith(_WEIGHTS)}
        if "history" not in metadata:
            msg = f"{self.path / _RESUME} holds no history; {_FIX}"
            raise ValueError(msg)
        return Progress(
            history=json.loads(metadata["history"]),
            state={name.removeprefix(_WEIGHTS): value for name, value in weights.items()},
            optimizer={name: value for name, value in tensors.items() if name not in weights},
        )

    def save(self, progress: Progress, best: State | None, *, finished: bool) -> None:
        """Write the present state of the run.

        The file for resuming is written last. A resumed run writes files that are ahead of it again, with the same
        bits.

        Args:
            progress: history, weights and optimizer state at the end of an epoch.
            best: the weights of the best epoch if it is later than the last save, else None.
            finished: whether there will be no further epoch.
        """
        if best is not None:
            write_tensors(best, self.path / _BEST)
        write_tensors(progress.state, self.path / _LAST)
        history = {"finished": finished, "epochs": progress.history}
        write_text(self.path / _HISTORY, json.dumps(history, indent=1))
        if finished:
            (self.path / _RESUME).unlink(missing_ok=True)
            return
        weights = {_WEIGHTS + name: value for name, value in progress.state.items()}
        metadata = {"history": json.dumps(progress.history)}
        write_tensors({**weights, **progress.optimizer}, self.path / _RESUME, metadata)

    def _leftovers(self) -> list[Path]:
        return [left for name in _FILES for left in leftovers(self.path / name)]

    def _clear(self) -> None:
        """Remove temporary files of killed processes, and the file for resuming of a finished run."""
        for left in filter(is_abandoned, self._leftovers()):
            left.unlink(missing_ok=True)
        if self.finished() is not None:
            (self.path / _RESUME).unlink(missing_ok=True)


def hash_state(module: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and values of the parameters and buffers, in hex."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(bytes_of(value))
    return digest.hexdigest()


def differences(recorded: object, given: object, name: str = "") -> list[str]:
    """The entries in which two JSON values differ, by their dotted names.

    >>> differences({"seed": 0, "data": {"name": "digits"}}, {"seed": 1, "data": {"name": "digits"}})
    ['seed was 0, now 1']
    """
    if isinstance(recorded, dict) and isinstance(given, dict):
        keys = dict.fromkeys((*recorded, *given))
        return [
            difference
            for key in keys
            for difference in differences(recorded.get(key), given.get(key), f"{name}.{key}" if name else str(key))
        ]
    if isinstance(recorded, list) and isinstance(given, list) and len(recorded) == len(given):
        pairs = enumerate(zip(recorded, given, strict=True))
        return [entry for place, (was, now) in pairs for entry in differences(was, now, f"{name}.{place}")]
    return [] if recorded == given else [f"{name} was {_short(recorded)}, now {_short(given)}"]


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
