"""Tables with metadata, one parquet file each: written atomically, and refused after a change."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatprobe.utils.arguments import as_json
from flatprobe.utils.atomic import UNSEALED, add_seal, is_intact, write_beside

if TYPE_CHECKING:
    import pandas

_KEY = b"flatprobe"
_SEAL = "seal"  # the metadata key of the file's SHA-256


def write_table(frame: "pandas.DataFrame", path: str | os.PathLike[str], metadata: Mapping[str, object]) -> Path:
    """Write a tidy table as parquet with JSON metadata under the key "flatprobe", atomically.

    A table that flatprobe wrote there before is replaced.

    Args:
        frame: the table.
        path: path of the file, ending in .parquet; missing folders are created.
        metadata: JSON values by name.

    Returns:
        The path.

    Raises:
        FileExistsError: if the path holds something other than a record.
        ValueError: if the path does not end in .parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    check_place(path)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), _KEY: json.dumps({**metadata, _SEAL: UNSEALED}, default=as_json)}
    )
    with write_beside(path) as beside:
        pq.write_table(table, beside)
        beside.write_bytes(add_seal(beside.read_bytes()))
    return path


def check_place(path: Path) -> None:
    """Check that a path is free, or holds a table that flatprobe wrote, which may be replaced.

    Raises:
        FileExistsError: if the path holds something other than a record.
        ValueError: if the path does not end in .parquet.
    """
    if path.suffix != ".parquet":
        msg = f"the record's path must end in .parquet, got {path}"
        raise ValueError(msg)
    if path.exists() and not (path.is_file() and _KEY in path.read_bytes()):
        msg = f"{path} exists and is no record of flatprobe. Choose another path, or that of an earlier record"
        raise FileExistsError(msg)


def read_table(path: str | os.PathLike[str]) -> tuple["pandas.DataFrame", dict[str, Any]]:
    """The table and the metadata of a file from `write_table`.

    Args:
        path: a parquet file.

    Returns:
        Table and metadata.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or another program wrote it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        msg = f"there is no record at {path}"
        raise FileNotFoundError(msg)
    content = Path(path).read_bytes()
    try:
        opened = pq.ParquetFile(pa.BufferReader(content))
        words = (opened.metadata.metadata or {}).get(_KEY)
        metadata = None if words is None else json.loads(words)
        seal = metadata.pop(_SEAL, None) if isinstance(metadata, dict) else None
        if seal is not None and not is_intact(memoryview(content), content.find(str(seal).encode())):
            msg = "its SHA-256 has changed since it was written"
            raise ValueError(msg)
        table = opened.read()
        frame = table.to_pandas()
    except (pa.ArrowException, OSError, ValueError, TypeError, RecursionError) as error:
        msg = (
            f"{path} is not a readable parquet file ({str(error)[:200]}). It may be truncated or damaged: delete it "
            "and measure again"
        )
        raise ValueError(msg) from error
    if not isinstance(metadata, dict):
        msg = f"{path} must be a record that fp.save wrote, got a parquet file without flatprobe's metadata"
        raise ValueError(msg)
    return frame, metadata
