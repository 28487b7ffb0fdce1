"""Contents of checkpoint files: their state_dicts by key, and the objects beside them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from flatprobe.utils.conversions import MODULE, lines
from flatprobe.utils.pickles import unpickle
from flatprobe.utils.placeholders import class_of, stand_ins
from flatprobe.utils.tensor_files import State, is_index, is_safetensors, read_tensors, shards

# Keys under which training programs store a state_dict, in the order of the search; averaged weights come last.
NESTS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights", "module",
    "backbone", "last", "best", "model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "ema",
)  # fmt: skip
_DEPTH = 3  # {"model": {"state_dict": ...}}
_PICKLES = (b"PK", b"\x80")  # first bytes of a zip archive and of a pickle, the two formats of torch.save
_OTHERS = (  # first bytes, what such a file is, and what to do
    (b"version https://git-lfs", "a pointer of Git LFS in place of the file", "Fetch the file with git lfs pull."),
    (b"<", "a web page, such as the page around a download", "Download the file itself."),
    (b"{", "JSON", "Give the file of weights, or its folder."),
    (b"\x89HDF", "HDF5, as Keras writes it", "Convert it to a PyTorch network first."),
    (b"GGUF", "GGUF, whose weights are quantized", "Take the checkpoint that it was made from."),
    (b"\x1f\x8b", "compressed", "Unpack it first."),
    (b"\x93NUMPY", "an array of NumPy", "Save the weights by name, as a state_dict."),
)


class Contents(NamedTuple):
    """Contents of a checkpoint file.

    Args:
        form: format of the file.
        states: key -> state_dict; keys of nested dictionaries are joined by dots, and "" is the file itself.
        beside: place -> class of the objects that were left out.
        metadata: strings in the header of a safetensors file.
        files: the files of weights that were read.
    """

    form: str
    states: dict[str, State]
    beside: dict[str, str]
    metadata: dict[str, str]
    files: list[Path]


def read_contents(file: Path) -> Contents:
    """What a checkpoint file holds, on the CPU.

    Args:
        file: a safetensors file, the index of several files of weights beside it (`.index.json`), or a file of
            torch.save. The content decides, not the ending. Pickles are read by torch's weights-only unpickler, which
            builds tensors and plain containers only.

    Raises:
        ValueError: if the file is of another kind, is damaged, calls code, or holds no state_dict.
    """
    if not file.is_file():
        msg = f"the checkpoint {file} must be a file or a folder, which can be read more than once"
        raise ValueError(msg)
    if is_index(file):
        parts = shards(file)
        read = [read_contents(part) for part in parts]
        whole = {name: value for part in read for state in part.states.values() for name, value in state.items()}
        return Contents(f"{read[0].form} in {len(parts)} files", {"": whole}, {}, {}, [file, *parts])
    if is_safetensors(file):
        tensors, metadata = read_tensors(file)
        return Contents("safetensors", {"": tensors}, {}, metadata, [file])
    _check_start(file)
    content = unpickle(file)
    states = _states(content, _DEPTH)
    if not states:
        raise ValueError(_refusal(content, file))
    return Contents("torch.save", states, stand_ins(content), {}, [file])


def _check_start(file: Path) -> None:
    """Refuse files that are neither an archive nor a pickle.

    Raises:
        ValueError: for such a file.
    """
    with file.open("rb") as opened:
        start = opened.read(64)
    if start.startswith(_PICKLES):
        return
    what, fix = next(
        ((what, fix) for first, what, fix in _OTHERS if start.lstrip().startswith(first)),
        ("truncated, corrupt, or of another program", "Copy it again, or save model.state_dict() with torch.save."),
    )
    msg = (
        f"the checkpoint {file} ({file.stat().st_size} bytes) was refused: it is neither a safetensors file nor a file "
        f"of torch.save; it is {what if start else 'empty'}. {fix if start else 'Copy it again.'}"
    )
    raise ValueError(msg)


def check_dense(state: Mapping[str, Tensor], file: Path) -> None:
    """Check that all tensors have values.

    Raises:
        ValueError: for a sparse, quantized, nested or meta tensor.
    """
    for name, value in state.items():
        if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_nested:
            msg = (
                f"the entry {name} of the checkpoint {file} is a tensor of layout {value.layout} and dtype "
                f"{value.dtype} on the device {value.device}; expected a dense tensor with values. Save it as such."
            )
            raise ValueError(msg)


def rank(key: str) -> int:
    """Place of a key among the customary ones; the number of these for another key."""
    places = [NESTS.index(part) for part in key.split(".") if part in NESTS]
    return -1 if not key else places[0] if places else len(NESTS)


def _states(content: object, depth: int, place: str = "") -> dict[str, State]:
    """Key -> state_dict.

    Entries that are no tensors (an epoch, a version, an empty _extra_state) are left out.
    """
    if isinstance(content, list | tuple) and len(content) <= 100:
        content = {str(k): value for k, value in enumerate(content) if isinstance(value, Mapping)}
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content) or depth < 0:
        return {}
    nested: dict[str, State] = {}
    for key, value in content.items():
        nested |= _states(value, depth - 1, f"{place}.{key}" if place else key)
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    known = any(rank(key.removeprefix(place).lstrip(".")) < len(NESTS) for key in nested)
    if tensors and not known and len(tensors) > max(map(len, nested.values()), default=0):
        return {place: tensors}
    return nested


def _modules(content: object, depth: int = 2, place: str = "") -> Iterator[tuple[str, str]]:
    """Key and class of the whole modules in the content of a pickle."""
    name = class_of(content)
    if name is not None and "_modules" in vars(content):
        yield place, name
    elif isinstance(content, Mapping) and depth:
        for key, value in content.items():
            yield from _modules(value, depth - 1, f"{place}.{key}" if place else str(key))


def _refusal(content: object, file: Path) -> str:
    for key, name in _modules(content):
        under = f" under the key {key!r}" if key else ""
        return (
            f"the checkpoint {file} holds a whole pickled module ({name}){under} and was refused: reading it would run "
            f"its code. {lines(file, MODULE, key)}"
        )
    words = [key[:40] for key in content if isinstance(key, str)] if isinstance(content, Mapping) else []
    keys = f" with the keys {', '.join(words[:10])}" if words else ""
    fix = "Save model.state_dict()."
    if any(name.startswith("numpy.") for name in stand_ins(content).values()):
        fix = "It has arrays of NumPy: save tensors, made by torch.from_numpy."
    return (
        f"the checkpoint {file} holds a {class_of(content) or type(content).__name__}{keys}; expected a state_dict "
        f"(names to tensors), itself or under a key such as {', '.join(NESTS[:5])}. {fix}"
    )
