"""The base of all results: raw values with their settings, one parquet file each."""

import importlib
import inspect
import json
import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import torch

from flatprobe.utils.arguments import as_json
from flatprobe.utils.atomic import UNSEALED, add_seal, check_writable, is_intact, write_beside

if TYPE_CHECKING:
    import pandas

# The home of each result class that a record may name, so that a module can be renamed without losing old records.
_HOMES = {
    "AdversarialAccuracy": "flatprobe.probes.adversarial",
    "Audit": "flatprobe.studies.audit",
    "Bound": "flatprobe.bounds.bound",
    "FlatnessRadii": "flatprobe.probes.flatness",
    "GeometricMargins": "flatprobe.probes.geometric",
    "GradientNoise": "flatprobe.probes.gradient_noise",
    "HessianEigenvalues": "flatprobe.probes.hessian_eigenvalues",
    "HessianTrace": "flatprobe.probes.hessian_trace",
    "Interpolation": "flatprobe.probes.interpolation",
    "JacobianMaximum": "flatprobe.probes.jacobian_maximum",
    "JacobianNorms": "flatprobe.probes.jacobian",
    "Margins": "flatprobe.probes.margins",
    "PerSample": "flatprobe.probes.per_sample",
    "RandomSlice": "flatprobe.probes.slices",
    "Robustness": "flatprobe.probes.robustness",
    "SmoothedCertificate": "flatprobe.probes.smoothing",
    "Tuning": "flatprobe.training.tuning.result",
    "WeightNorms": "flatprobe.probes.weight_norms",
    "WorstCaseSharpness": "flatprobe.probes.sharpness",
}
_KEY = b"flatprobe"
_SEAL = "seal"  # in the metadata: the file's own SHA-256
_LONGEST = 200  # bytes of a file's name, of which most file systems take 255 with what is put around it


def environment() -> dict[str, object]:
    """Versions, threads and machine, for the record of a measurement."""
    return {
        "versions": dict(_versions()),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} logical cores",
    }


@cache  # reading a package's metadata takes longer than a small network's margins
def _versions() -> Mapping[str, str]:
    return {name: version(name) for name in ("flatprobe", "numpy", "scipy")} | {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def settings(probe: str, subject: Mapping[str, object], **arguments: object) -> dict[str, Any]:
    """What a result records beside its values: the probe, its arguments, what it looked at, and where it ran."""
    return {"probe": probe, "arguments": arguments, "subject": dict(subject), "environment": environment()}


@dataclass(frozen=True, kw_only=True)
class Result(ABC):
    """Raw values of one measurement. Subclasses are frozen dataclasses defined beside their probe.

    A record names the subclass, not its module. `load` therefore finds a user-defined subclass once it is defined.
    """

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
        ValueError: if the path does not end in .parquet, or a user-defined class has the name of one of flatprobe's.
    """
    kind = type(result).__name__
    if kind in _HOMES and type(result).__module__ != _HOMES[kind]:
        msg = f"{type(result).__module__}.{kind} must not have the name of flatprobe's own {kind}. Rename the class"
        raise ValueError(msg)
    return write_table(result.to_frame(), path, {"kind": kind, "settings": result.settings})


def file_stem(name: str) -> str:
    """A network's name as that of its record, without the ending; `network_name` is the inverse.

    Raises:
        ValueError: if the name is empty, or longer than a file's name can be.

    >>> file_stem("google/vit 100%"), network_name("google%2Fvit 100%25")
    ('google%2Fvit 100%25', 'google/vit 100%')
    """
    stem = "".join(
        quote(letter, safe="", errors="surrogatepass")
        if letter in "/\\%" or letter < " " or "\ud800" <= letter <= "\udfff"
        else letter
        for letter in name
    )
    stem = f"%2E{stem[1:]}" if stem.startswith(".") else stem  # a leading dot would hide the file
    if not 0 < len(os.fsencode(stem)) <= _LONGEST:
        msg = (
            f"the name {name[:40]!r} is {len(os.fsencode(stem))} bytes long as a file's; expected 1 to {_LONGEST}"
            ": give another"
        )
        raise ValueError(msg)
    return stem


def network_name(stem: str) -> str:
    """The name that `file_stem` wrote."""
    try:
        return unquote(stem, errors="surrogatepass")  # of names that the system could not decode
    except UnicodeDecodeError:
        return unquote(stem)


def printable(name: str) -> str:
    r"""A name on one line, as a terminal and a picture can show it: control characters are written out.

    >>> printable("a\x1b[31mred\n")
    'a\\x1b[31mred\\n'
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


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
    kind, own = _kind(metadata.get("kind")), metadata.get("settings")
    if kind is None or not isinstance(own, dict):
        msg = (
            f"{path} holds a table of kind {str(metadata.get('kind'))[:100]!r} with settings of type "
            f"{type(own).__name__}; expected the record of a flatprobe result: read it with pandas"
        )
        raise ValueError(msg)
    try:
        return kind.from_frame(frame, own)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        msg = (
            f"{path} does not hold what a {kind.__name__} needs ({type(error).__name__}: {str(error)[:200]}); expected "
            "a record as fp.save wrote it: measure it again"
        )
        raise ValueError(msg) from error


def _kind(reference: object) -> type[Result] | None:
    """The result class that a record names, or None.

    Records of flatprobe 0.1 name `module:class`; the class alone counts.
    """
    name = str(reference).rpartition(":")[2]
    if name in _HOMES:
        own: type[Result] = getattr(importlib.import_module(_HOMES[name]), name)
        return own
    every = _subclasses(Result)  # type: ignore[type-abstract] # only walked, never called
    defined = [kind for kind in every if kind.__name__ == name and not inspect.isabstract(kind)]
    return defined[-1] if defined else None  # the newest, where a notebook has defined it again


def _subclasses(kind: type[Result]) -> Iterator[type[Result]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def write_table(frame: "pandas.DataFrame", path: str | os.PathLike[str], metadata: Mapping[str, object]) -> Path:
    """A tidy table as parquet with JSON metadata under the key "flatprobe"; written beside, then renamed.

    Args:
        frame: the table.
        path: where to, ending in .parquet; missing folders are made.
        metadata: anything JSON can say.

    Returns:
        The path.

    Raises:
        FileExistsError: if the path holds something that is no record.
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


def check_places(folder: str | os.PathLike[str], names: Mapping[str, Iterable[str]]) -> None:
    """The records of these measurements and networks can be written as `folder/measurement/network.parquet`.

    Raises:
        FileExistsError: if something else is in the place of one.
        OSError: if nothing can be written there.
        ValueError: if a name cannot be that of a file.
    """
    folder = Path(folder)
    for measurement, own in names.items():
        for name in own:
            check_place(folder / measurement / f"{file_stem(name)}.parquet")
    for place in (folder, *(folder / measurement for measurement in names)):
        if place == folder or place.exists():
            check_writable(place)


def check_place(path: Path) -> None:
    """A record may be written there: nothing is there, or an earlier record.

    Raises:
        FileExistsError: if the path holds something that is no record.
        ValueError: if the path does not end in .parquet.
    """
    if path.suffix != ".parquet":
        msg = f"the record's path is {path}; expected it to end in .parquet"
        raise ValueError(msg)
    if path.exists() and not (path.is_file() and _KEY in path.read_bytes()):
        msg = f"{path} exists and is no record of flatprobe; expected a new place, or an earlier record: choose another"
        raise FileExistsError(msg)


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
    content = Path(path).read_bytes()
    try:
        opened = pq.ParquetFile(pa.BufferReader(content))
        words = (opened.metadata.metadata or {}).get(_KEY)
        metadata = None if words is None else json.loads(words)
        seal = metadata.pop(_SEAL, None) if isinstance(metadata, dict) else None
        if seal is not None and not is_intact(memoryview(content), content.find(str(seal).encode())):
            msg = "its SHA-256 is another than when it was written"
            raise ValueError(msg)
        table = opened.read()
        frame = table.to_pandas()
    except (pa.ArrowException, OSError, ValueError, TypeError, RecursionError) as error:
        msg = (
            f"{path} is not a readable parquet file ({str(error)[:200]}); it may be truncated or damaged: delete it "
            "and measure again"
        )
        raise ValueError(msg) from error
    if not isinstance(metadata, dict):
        msg = f"{path} is a parquet file without flatprobe's metadata; expected a record that fp.save wrote"
        raise ValueError(msg)
    return frame, metadata
