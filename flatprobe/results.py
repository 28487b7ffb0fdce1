"""The base of all results: raw values with their settings, one parquet file each."""

import importlib
import json
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import torch

from flatprobe.atomic import written_beside
from flatprobe.checks import as_json

if TYPE_CHECKING:
    import pandas

_KEY = b"flatprobe"


def environment() -> dict[str, object]:
    """Versions, threads and machine, for the record of a measurement."""
    return {
        "versions": {name: version(name) for name in ("flatprobe", "numpy", "scipy")}
        | {"torch": str(torch.__version__), "python": platform.python_version()},
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} logical cores",
    }


def settings(probe: str, subject: Mapping[str, object], **arguments: object) -> dict[str, Any]:
    """What a result records beside its values: the probe, its arguments, what it looked at, and where it ran."""
    return {"probe": probe, "arguments": arguments, "subject": dict(subject), "environment": environment()}


@dataclass(frozen=True, kw_only=True)
class Result(ABC):
    """Raw values of one measurement. Subclasses are frozen dataclasses defined beside their probe."""

    settings: dict[str, Any] = field(repr=False)

    @abstractmethod
    def to_frame(self) -> "pandas.DataFrame":
        """The values as one tidy table: a row per observation. It holds every value of the result."""

    @classmethod
    @abstractmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "Result":
        """The inverse of `to_frame`."""

    @abstractmethod
    def summary(self) -> dict[str, float]:
        """The headline figures, by name."""

    def __repr__(self) -> str:
        """The headline figures on one line."""
        figures = ", ".join(f"{name}={value:.4g}" for name, value in self.summary().items())
        return f"{type(self).__name__}({figures})"


def save(result: Result, path: str | os.PathLike[str]) -> Path:
    """Write a result to one parquet file: its tidy table, with kind and settings in the file's metadata.

    The file is written beside its place and then renamed, so that a reader never sees half of it.

    Args:
        result: what a probe returned.
        path: where to; missing folders are made.

    Returns:
        The path.

    Raises:
        ValueError: if the path does not end in .parquet.
    """
    kind = f"{type(result).__module__}:{type(result).__qualname__}"
    return write_table(result.to_frame(), path, {"kind": kind, "settings": result.settings})


def file_stem(name: str) -> str:
    """A network's name as that of its record, without the ending; `network_name` is the inverse.

    >>> file_stem("google/vit 100%"), network_name("google%2Fvit 100%25")
    ('google%2Fvit 100%25', 'google/vit 100%')
    """
    stem = "".join(quote(letter, safe="") if letter in "/\\%\0" else letter for letter in name)
    return f"%2E{stem[1:]}" if stem.startswith(".") else stem  # a leading dot would hide the file


def network_name(stem: str) -> str:
    """The name that `file_stem` wrote."""
    return unquote(stem)


def load(path: str | os.PathLike[str]) -> Any:
    """Read what `save` wrote.

    Args:
        path: a parquet file.

    Returns:
        The result, equal to the one that was saved.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a flatprobe record.
    """
    frame, metadata = read_table(path)
    module, _, name = str(metadata.get("kind", "")).partition(":")
    kind = getattr(importlib.import_module(module), name, None) if module.startswith("flatprobe.") else None
    if not (isinstance(kind, type) and issubclass(kind, Result)):
        msg = (
            f"{path} holds a table of kind {metadata.get('kind')!r}; expected the record of a flatprobe result: read "
            "it with pandas"
        )
        raise ValueError(msg)
    return kind.from_frame(frame, metadata["settings"])


def write_table(frame: "pandas.DataFrame", path: str | os.PathLike[str], metadata: Mapping[str, object]) -> Path:
    """A tidy table as parquet with JSON metadata under the key "flatprobe"; written beside, then renamed.

    Args:
        frame: the table.
        path: where to, ending in .parquet; missing folders are made.
        metadata: anything JSON can say.

    Returns:
        The path.

    Raises:
        ValueError: if the path does not end in .parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if path.suffix != ".parquet":
        msg = f"the record's path is {path}; expected it to end in .parquet"
        raise ValueError(msg)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata(
        {**(table.schema.metadata or {}), _KEY: json.dumps(metadata, default=as_json)}
    )
    with written_beside(path) as beside:
        pq.write_table(table, beside)
    return path


def read_table(path: str | os.PathLike[str]) -> tuple["pandas.DataFrame", dict[str, Any]]:
    """The table and the metadata that `write_table` wrote.

    Args:
        path: a parquet file.

    Returns:
        Both.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or was written by something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        msg = f"there is no record at {path}"
        raise FileNotFoundError(msg)
    try:
        table = pq.ParquetFile(path).read()
    except pa.ArrowInvalid as error:
        msg = f"{path} is not a readable parquet file ({error}); it may be truncated: measure it again"
        raise ValueError(msg) from error
    metadata = (table.schema.metadata or {}).get(_KEY)
    if metadata is None:
        msg = f"{path} is a parquet file without flatprobe's metadata; expected a record that fp.save wrote"
        raise ValueError(msg)
    return table.to_pandas(), json.loads(metadata)
