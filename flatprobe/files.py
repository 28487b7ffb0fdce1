"""Files of tensors: written whole or not at all, and read without executing code."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from flatprobe.atomic import written_beside

State = dict[str, Tensor]

_PICKLED = (".pt", ".pth", ".bin")
_NESTS = ("state_dict", "model_state_dict", "model")
_CURE = "save model.state_dict() with safetensors.torch.save_file"


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with written_beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def bytes_of(value: Tensor) -> memoryview:
    """A tensor's bytes, for a fingerprint."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, atomically.

    safetensors knows neither shared storage nor strides: tied tensors are stored once under each of their
    names, and tensors in any memory layout as contiguous ones.

    Args:
        tensors: by name.
        path: the file; replaced if it exists.
        metadata: words for the file's header.
    """
    stored = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    with written_beside(path) as temporary:
        # Not save_file, whose files only their owner may read.
        temporary.write_bytes(safetensors.torch.save(stored, dict(metadata) if metadata else None))


def read_tensors(file: Path) -> tuple[State, dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and the words of its header.

    Raises:
        ValueError: if it is truncated or otherwise damaged.
    """
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            # Copied out of the memory map, so that replacing the file later cannot reach them.
            return {name: opened.get_tensor(name).clone() for name in opened.keys()}, metadata  # noqa: SIM118
    except safetensors.SafetensorError as error:
        msg = (
            f"the safetensors file {file} ({file.stat().st_size} bytes) is truncated or corrupt ({error}); "
            "copy or save it again"
        )
        raise ValueError(msg) from error


def read_state(file: Path) -> State:
    """The tensors of a checkpoint file by name, on the CPU.

    Args:
        file: safetensors; or .pt, .pth, .bin holding a state_dict, itself or under one of the customary keys.
            Pickles are read by torch's weights-only unpickler, which builds tensors and plain containers and
            nothing else.

    Returns:
        The state_dict.

    Raises:
        ValueError: if the file is of another kind.
    """
    suffix = file.suffix.lower()
    if suffix == ".safetensors":
        return read_tensors(file)[0]
    if suffix in _PICKLED:
        return _unnested(_unpickled(file), file)
    msg = (
        f"the checkpoint {file} was refused: {suffix or 'a file without suffix'} is none of .safetensors, "
        f"{', '.join(_PICKLED)} (torch.export archives, .pt2, could execute code when read); {_CURE}"
    )
    raise ValueError(msg)


def _unpickled(file: Path) -> object:
    """What the file holds.

    Raises:
        ValueError: if it holds code or is damaged.
    """
    _refuse_archives(file)
    try:
        with warnings.catch_warnings():
            # torch warns of pickle protocols that it did not write before it refuses what they hold.
            warnings.simplefilter("ignore", UserWarning)
            content: object = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else "it holds more than tensors, or is damaged"
        msg = f"the pickle {file} was refused, since reading it could execute code: {reason}; {_CURE}"
        raise ValueError(msg) from error
    except Exception as error:  # damaged bytes lead the unpickler to exceptions of any kind
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        size = file.stat().st_size
        msg = f"the checkpoint {file} ({size} bytes) is truncated or corrupt ({reason}); copy or save it again"
        raise ValueError(msg) from error
    return content


def _refuse_archives(file: Path) -> None:
    """TorchScript and torch.export archives are zip files, as state_dicts are, but hold programs.

    Raises:
        ValueError: if the file is one.
    """
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        names = {Path(name).name for name in archive.namelist()}
    if names & {"constants.pkl", "archive_format"}:
        msg = f"{file} is a TorchScript or torch.export archive and was refused: it holds a program; {_CURE}"
        raise ValueError(msg)


def _unnested(content: object, file: Path) -> State:
    """The state_dict itself, or the one under a customary key.

    Raises:
        ValueError: if there is none.
    """
    if isinstance(content, Mapping):
        for candidate in (content, *(content[key] for key in _NESTS if key in content)):
            if isinstance(candidate, Mapping) and candidate and _all_tensors(candidate):
                return {str(name): value for name, value in candidate.items()}
    keys = f" with the keys {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
    msg = (
        f"the checkpoint {file} holds a {type(content).__name__}{keys}; expected a state_dict (names to "
        f"tensors), itself or under one of {', '.join(_NESTS)}; {_CURE}"
    )
    raise ValueError(msg)


def _all_tensors(mapping: Mapping[object, object]) -> bool:
    return all(isinstance(value, Tensor) for value in mapping.values())
