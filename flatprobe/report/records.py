"""Folders of records, as `flatprobe.studies.compare` writes them."""

import os
import re
from pathlib import Path

from flatprobe.utils.results import Result, load, network_name

Records = dict[str, dict[str, Result]]


def load_records(folder: str | os.PathLike[str]) -> Records:
    """Read `folder/MEASUREMENT/NETWORK.parquet`, whatever is there.

    Args:
        folder: where the records lie; other files in it are not looked at.

    Returns:
        Measurement -> network -> result, both sorted by name, with numbers in names by value.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no record, or a file that is not one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        msg = f"there is no folder of records at {folder}"
        raise FileNotFoundError(msg)
    found: Records = {}
    for path in sorted(folder.glob("*/*.parquet"), key=lambda path: (_natural(path.parent.name), _natural(path.stem))):
        if not path.name.startswith("."):
            found.setdefault(path.parent.name, {})[network_name(path.stem)] = load(path)
    if not found:
        msg = (
            f"{folder} holds no records; expected MEASUREMENT/NETWORK.parquet in it, as `flatprobe probe` or "
            "fp.compare(...).save writes them"
        )
        raise ValueError(msg)
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts "natural 10" after "natural 2"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
