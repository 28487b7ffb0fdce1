"""Folders of records: the results by measurement and network, and what the comparison knew of the networks."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flatprobe.utils.natural import natural
from flatprobe.utils.results import Result, file_stem, load, network_name, save
from flatprobe.utils.tensor_files import read_json, write_text

Records = dict[str, dict[str, Result]]
STATE = "comparison.json"
_FORMAT = 1  # of the file above

# Words before a number that count or measure something, where other numbers are other networks and no replicates.
_COUNTED = (
    "epoch", "ep", "e", "step", "iter", "iteration", "it", "ckpt", "checkpoint", "update", "batch", "width", "depth",
    "layer", "unit", "size", "lr", "rate", "wd", "decay", "momentum", "noise", "sample", "n",
    "dropout", "dim", "channel",
)  # fmt: skip
_NUMBERED = re.compile(r"(?P<stem>.*?)[-_ =/]?(?P<number>\d+)$", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+$")


def groups_by_name(names: Iterable[str]) -> dict[str, str]:
    """The group of each network: names that differ in a number at their end, which tells replicates apart.

    The numbers of a group are consecutive, as those of seeds. They are no part of a decimal number, and do not follow a
    word such as epoch, step, width or lr. Every other network is a group of its own.

    >>> groups_by_name(["natural-0", "natural-1", "epoch-1", "epoch-2", "lr=0.1", "lr=0.2", "net18", "net34"])
    {'natural-0': 'natural', 'natural-1': 'natural', 'epoch-1': 'epoch-1', 'epoch-2': 'epoch-2', 'lr=0.1': 'lr=0.1', \
'lr=0.2': 'lr=0.2', 'net18': 'net18', 'net34': 'net34'}
    """
    names = list(names)
    members: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        if (found := _stem_and_number(name)) is not None:
            members.setdefault(found[0], []).append((found[1], name))
    groups = {name: name for name in names}
    for stem, own in members.items():
        numbers = sorted(number for number, _ in own)
        if len(own) > 1 and numbers == list(range(numbers[0], numbers[0] + len(own))):
            groups |= {name: stem for _, name in own}
    return groups


def _stem_and_number(name: str) -> tuple[str, int] | None:
    """The name without the number of a replicate at its end, and that number; None for a number of another kind."""
    found = _NUMBERED.fullmatch(name)
    if found is None or not found["stem"] or found["stem"].endswith("."):
        return None
    word = _WORD.search(found["stem"])
    counted = word is not None and word.group().lower().removesuffix("s") in _COUNTED
    return None if counted else (found["stem"], int(found["number"]))


def load_records(folder: str | os.PathLike[str]) -> Records:
    """Read all records `folder/MEASUREMENT/NETWORK.parquet`.

    Args:
        folder: folder of the records; other files in it are ignored.

    Returns:
        Measurement -> network -> result, both sorted by name, with numbers in names by value.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if the folder holds no record, or a parquet file that is no record.
    """
    folder = Path(folder)
    if not folder.is_dir():
        msg = f"there is no folder of records at {folder}"
        raise FileNotFoundError(msg)
    found: Records = {}
    for path in sorted(folder.glob("*/*.parquet"), key=lambda path: (natural(path.parent.name), natural(path.stem))):
        if not path.name.startswith("."):
            found.setdefault(network_name(path.parent.name), {})[network_name(path.stem)] = load(path)
    if not found:
        msg = (
            f"{folder} holds no records; expected MEASUREMENT/NETWORK.parquet in it, as `flatprobe probe` or "
            "fp.compare(...).save writes them"
        )
        raise ValueError(msg)
    return found


def record_path(folder: str | os.PathLike[str], measurement: str, network: str) -> Path:
    """The file of a record."""
    return Path(folder) / file_stem(measurement) / f"{file_stem(network)}.parquet"


def save_record(result: Result, folder: str | os.PathLike[str], measurement: str, network: str) -> Path:
    """Write a result to its place in a folder of records."""
    return save(result, record_path(folder, measurement, network))


def read_state(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """State of a comparison beside its records: groups, along, refusals and facts; empty without one.

    Raises:
        ValueError: for a file of another version.
    """
    path = Path(folder) / STATE
    if not path.is_file():
        return {}
    found = read_json(path, "delete it, and measure again")
    if found.get("format") != _FORMAT:
        msg = (
            f"{path} must have the format {_FORMAT}, got {found.get('format')!r}. It is of another version of "
            "flatprobe: delete it, and measure again"
        )
        raise ValueError(msg)
    return found


def write_state(folder: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write `read_state`'s file; facts and groups of other networks whose records are in the folder stay."""
    try:
        before = read_state(folder)
    except ValueError:  # of another version, which is replaced
        before = {}
    merged: dict[str, Any] = {
        key: {**_kept(folder, before.get(key) or {}), **state[key]} for key in ("groups", "facts")
    }
    merged["measurements"] = list(dict.fromkeys([*state["measurements"], *before.get("measurements", [])]))
    write_text(Path(folder) / STATE, json.dumps({"format": _FORMAT, **state, **merged}, indent=2))


def _kept(folder: str | os.PathLike[str], before: Mapping[str, Any]) -> dict[str, Any]:
    names = {network_name(path.stem) for path in Path(folder).glob("*/*.parquet")}
    return {name: value for name, value in before.items() if name in names}
