"""Metadata files beside images, with one row per image."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FILE = "file_name"


def read_metadata(folder: Path, places: Sequence[str], pictures: Set[str]) -> Mapping[str, Mapping[str, Any]]:
    """Path of an image -> its row in the metadata files.

    Args:
        folder: the folder of the data set.
        places: the folders below it that may hold a metadata file ("", "train/").
        pictures: paths of the images relative to the folder.

    Returns:
        Path -> {column: value}; empty without a metadata file.

    Raises:
        ValueError: for a file that cannot be read, has no column `file_name`, or names an image that does not exist.
    """
    rows: dict[str, dict[str, Any]] = {}
    for place in places:
        for file in (folder / place / name for name in METADATA):
            if not file.is_file():
                continue
            frame = _read(file)
            values = frame.astype(object).where(frame.notna(), None).to_dict("records")
            for row in values:
                path = f"{place}{row.pop(_FILE)}"
                if path not in pictures:
                    msg = f"{file} names the image {path!r}, which {folder} does not hold; expected one image per row"
                    raise ValueError(msg)
                rows[path] = {str(column): value for column, value in row.items()}
    return rows


def _read(file: Path) -> "pandas.DataFrame":
    import pandas as pd

    try:
        if file.suffix == ".csv":
            frame = pd.read_csv(file)
        else:
            frame = pd.read_json(file, lines=True) if file.suffix == ".jsonl" else pd.read_parquet(file)
    except (OSError, ValueError) as error:
        msg = f"{file} cannot be read ({error}); expected a table with a column {_FILE!r}: repair or remove it"
        raise ValueError(msg) from error
    if _FILE not in frame.columns:
        msg = f"{file} has the columns {', '.join(map(str, frame.columns))}; expected {_FILE!r} among them"
        raise ValueError(msg)
    return frame
