"""Reading of folders of records."""

import os
import re
from pathlib import Path

from flatprobe.utils.results import Result, load, network_name

Records = dict[str, dict[str, Result]]


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
    """Sort key with "natural 10" after "natural 2"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
