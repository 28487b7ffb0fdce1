"""Files of tensors and of JSON: atomic writing, and reading that executes no code."""

import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from flatprobe.utils.atomic import UNSEALED, add_seal, is_intact, write_beside

State = dict[str, Tensor]

_SEAL = "flatprobe_seal"  # in the header of the files that are written here
_INDEX = ".index.json"
_HEADER = 10**8  # largest number of bytes of a safetensors header
_MOST = 10**5  # largest number of tensors in a file; a header of that size can name millions of empty tensors


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with write_beside(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")  # for names that the system could not decode


def read_json(file: Path, fix: str) -> dict[str, Any]:
    """The JSON object of a file.

    Args:
        file: the file.
        fix: what the error advises.

    Raises:
        ValueError: if the file is no JSON, is nested too deep, or holds no object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"{file} is not valid JSON ({str(error)[:100]}); {fix}"
        raise ValueError(msg) from error
    if not isinstance(content, dict):
        msg = f"{file} holds a {type(content).__name__}; expected a JSON object, {{...}}: {fix}"
        raise ValueError(msg)
    return content


def bytes_of(value: Tensor) -> memoryview:
    """The bytes of a tensor, for a fingerprint."""
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, atomically and with its SHA-256.

    safetensors knows neither shared storage nor strides: a tied tensor is stored once under each of its
    names, and a tensor in any memory layout as a contiguous one.

    Args:
        tensors: name -> tensor.
        path: the file; replaced if it exists.
        metadata: strings for the header of the file.
    """
    stored = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    with write_beside(path) as temporary:
        # save_file would write a file that only its owner may read.
        temporary.write_bytes(add_seal(safetensors.torch.save(stored, {**(metadata or {}), _SEAL: UNSEALED})))


def read_tensors(file: Path) -> tuple[State, dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and the strings of its header.

    Raises:
        ValueError: if the file is truncated or damaged. A changed bit is noticed only in files of `write_tensors`,
            which carry a digest.
    """
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            seal = metadata.pop(_SEAL, None)
            if len(opened.keys()) > _MOST:
                raise ValueError(_damage_message(file, f"its header names {len(opened.keys())} tensors"))
            _check_seal(file, seal)
            # Copies, so that a later change of the memory-mapped file cannot change the tensors.
            return {name: opened.get_tensor(name).clone() for name in opened.keys()}, metadata  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise ValueError(_damage_message(file, str(error))) from error


def _damage_message(file: Path, reason: str) -> str:
    size = file.stat().st_size
    return f"the safetensors file {file} ({size} bytes) is truncated or corrupt ({reason}); copy or save it again"


def _check_seal(file: Path, seal: str | None) -> None:
    """Compare the file with the digest that it carries, if any.

    Raises:
        ValueError: if the file has changed.
    """
    if seal is None:
        return
    with (
        file.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        intact = is_intact(view, content.find(seal.encode()))
    if not intact:
        raise ValueError(_damage_message(file, "its SHA-256 is another than when it was written"))


def is_safetensors(file: Path) -> bool:
    """True if the file's name or beginning is that of a safetensors file."""
    with file.open("rb") as opened:
        start = opened.read(9)
    return file.suffix.lower() == ".safetensors" or (
        start[8:] == b"{" and int.from_bytes(start[:8], "little") <= _HEADER
    )


def is_index(file: Path) -> bool:
    """True if the file's name is that of an index of several files of weights."""
    return file.name.endswith(_INDEX)


def shards(index: Path) -> list[Path]:
    """The files of weights that an index names, all in the folder of the index.

    They are safetensors files, or files of torch.save where the index is that of such files (`.bin.index.json`).

    Raises:
        ValueError: if the file is no such index, or names a file in another folder or of another kind.
    """
    named = read_json(index, "copy it again").get("weight_map")
    if not isinstance(named, dict) or not named:
        msg = f"{index} has no weight_map; expected the index of a checkpoint in several files"
        raise ValueError(msg)
    ending = ".bin" if index.name.endswith(f".bin{_INDEX}") else ".safetensors"
    return [within(index.parent, name, ending) for name in dict.fromkeys(map(str, named.values()))]


def within(folder: Path, name: str, ending: str = ".safetensors") -> Path:
    """The file of weights of that name in the folder.

    The cache of the Hugging Face hub keeps the files of a folder as links to `blobs` beside `snapshots`. Other links
    out of the folder are refused.

    Raises:
        ValueError: if the file is in another folder, missing or of another kind.
    """
    file, home = folder / name, folder.resolve()
    real = file.resolve().parent
    homes = {home, home.parent.parent / "blobs"} if home.parent.name == "snapshots" else {home}
    if not name.endswith(ending) or real not in homes or not file.is_file():
        msg = (
            f"{folder} names {name!r} as a file of weights; expected a {ending.lstrip('.')} file in the folder itself: "
            "copy it there, or save the weights again with safetensors"
        )
        raise ValueError(msg)
    return file
