"""The base class of results, and their records: one parquet file per result."""

import importlib
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, unquote

import torch

from flatprobe.utils.atomic import check_writable
from flatprobe.utils.columns import Axes, Columns, from_table, to_table
from flatprobe.utils.html import described, facts_of
from flatprobe.utils.precision import describe_products
from flatprobe.utils.result_classes import HOMES
from flatprobe.utils.rng import NOISE
from flatprobe.utils.tables import check_place, read_table, write_table

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas

_LONGEST = 200  # bytes of a file name; most file systems allow 255, with suffixes


def environment() -> dict[str, object]:
    """Versions, number of threads, machine and arithmetic, for the settings of a measurement."""
    return {
        "versions": dict(_versions()),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} logical cores",
        "float32_products": describe_products(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


@cache  # reading a package's metadata takes longer than a small network's margins
def _versions() -> Mapping[str, str]:
    return {name: version(name) for name in ("flatprobe", "numpy", "scipy")} | {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def settings(probe: str, subject: Mapping[str, object], **arguments: object) -> dict[str, Any]:
    """The settings of a result: the probe, its arguments, the subject of the measurement, and the environment."""
    # Earlier records without the law of the noise hold noise of torch's mt19937 generator, in blocks of 64 samples.
    measured = environment() | {"noise": NOISE}
    return {"probe": probe, "arguments": arguments, "subject": dict(subject), "environment": measured}


@dataclass(frozen=True, kw_only=True)
class Result:
    """The raw values of one measurement, with its settings. Subclasses are frozen dataclasses.

    A subclass needs no methods where each field is one of:

    - a column of the table: a tensor of one axis or a tuple of words, all of one length,
    - a single value that `settings` holds too, under the field's name; `load` reads it from there.

    A subclass with other fields defines `to_frame` and `from_frame`. A subclass may define `summary`. A record names
    the subclass, not its module, so `load` finds a user-defined subclass once it is defined.

    Attributes:
        settings: probe, arguments, subject and environment of the measurement, as JSON values.

    >>> @dataclass(frozen=True, kw_only=True, repr=False)
    ... class Depths(Result):
    ...     layers: tuple[str, ...]
    ...     depths: torch.Tensor
    ...     total: int
    >>> depths = Depths(layers=("in", "out"), depths=torch.tensor([1, 2]), total=3, settings={"total": 3})
    >>> depths, depths.to_frame().to_dict("list")
    (Depths(depths=1.5, total=3), {'layers': ['in', 'out'], 'depths': [1, 2]})
    """

    # The columns in their order, where they are not the fields under the fields' names; see `flatprobe.utils.columns`.
    _columns: ClassVar[Columns] = {}
    _axes: ClassVar[Axes] = {}

    settings: dict[str, Any] = field(repr=False)

    def to_frame(self) -> "pandas.DataFrame":
        """The values as one tidy table, with one row per observation. `settings` holds the other values."""
        columns = self._columns or {name: name for name in self._fields() if self._is_column(name)}
        return to_table(self, columns, self._axes)

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "Result":
        """The inverse of `to_frame`."""
        known = cls._fields()
        columns = cls._columns or {str(name): str(name) for name in frame}
        held = {column: name for column, name in columns.items() if not name or name in known}
        return cls(**cls._from_settings(settings) | from_table(frame, held, cls._axes), settings=settings)

    def summary(self) -> dict[str, float]:
        """The headline figures by name. By default: each number, and the mean of each tensor."""
        values = {name: getattr(self, name) for name in self._fields()}
        return {
            name: float(value.double().mean()) if isinstance(value, torch.Tensor) else float(value)
            for name, value in values.items()
            if isinstance(value, torch.Tensor | int | float)
        }

    def plot(self, ax: "matplotlib.axes.Axes | None" = None, **options: Any) -> "matplotlib.axes.Axes":
        """Picture of the result, by `flatprobe.plotting.draw`, which also draws several results in one picture.

        Args:
            ax: where to draw; None makes a figure, `.plot().figure`.
            **options: options of the class's picture, such as `quantity="accuracy"` for a landscape.

        Returns:
            The axes.

        Raises:
            TypeError: for a class that has no picture.
        """
        axes: matplotlib.axes.Axes = importlib.import_module("flatprobe.plotting").draw(self, ax, **options)
        return axes

    @classmethod
    def _from_settings(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The fields whose values the settings hold."""
        return {name: settings[name] for name in cls._fields() if name in settings}

    @classmethod
    def _fields(cls) -> list[str]:
        return [entry.name for entry in fields(cls) if entry.name != "settings"]

    def _is_column(self, name: str) -> bool:
        value = getattr(self, name)
        return isinstance(value, torch.Tensor) or name not in self.settings or bool(self.settings[name] != value)

    def __repr__(self) -> str:
        """The headline figures on one line."""
        figures = ", ".join(f"{name}={value:.4g}" for name, value in self.summary().items())
        return f"{type(self).__name__}({figures})"

    def _repr_html_(self) -> str:
        """The headline figures as a small table for notebooks, with data and arguments folded below."""
        return described(type(self).__name__, self._html_rows(), facts_of(self.settings))

    def _html_rows(self) -> list[tuple[object, ...]]:
        """The rows of the table for notebooks: name and value of each headline figure."""
        return [*self.summary().items()]


def save(result: Result, path: str | os.PathLike[str]) -> Path:
    """Write a result to one parquet file: its tidy table, with class and settings in the file's metadata.

    The file is written under another name and then renamed, so that a reader never sees an incomplete file.

    Args:
        result: the result of a probe.
        path: path of the file, ending in .parquet; missing folders are created.

    Returns:
        The path.

    Raises:
        FileExistsError: if the path holds something other than a record.
        ValueError: if the path does not end in .parquet.
        ValueError: if a user-defined class has the name of one of flatprobe's result classes.
    """
    kind = type(result).__name__
    if kind in HOMES and type(result).__module__ != HOMES[kind]:
        msg = f"{type(result).__module__}.{kind} must not have the name of flatprobe's own {kind}. Rename the class"
        raise ValueError(msg)
    return write_table(result.to_frame(), path, {"kind": kind, "settings": result.settings})


def file_stem(name: str) -> str:
    """The file name of a network's record, without the ending; `network_name` is the inverse.

    Raises:
        ValueError: if the name is empty, or too long for a file.

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
            f"the name {name[:40]!r} must be 1 to {_LONGEST} bytes long as a file name, got {len(os.fsencode(stem))}. "
            "Give another"
        )
        raise ValueError(msg)
    return stem


def network_name(stem: str) -> str:
    """The network's name from the `file_stem` of its record."""
    try:
        return unquote(stem, errors="surrogatepass")  # a name may hold bytes that the system could not decode
    except UnicodeDecodeError:
        return unquote(stem)


def printable(name: str) -> str:
    r"""A name on one line for terminals and images, with control characters escaped.

    >>> printable("a\x1b[31mred\n")
    'a\\x1b[31mred\\n'
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name)


def load(path: str | os.PathLike[str]) -> Any:
    """Read a record that `save` wrote.

    Args:
        path: a parquet file.

    Returns:
        The result, equal to the saved one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not a record of flatprobe.
    """
    frame, metadata = read_table(path)
    kind, own = _kind(metadata.get("kind")), metadata.get("settings")
    if kind is None or not isinstance(own, dict):
        msg = (
            f"{path} must be the record of a flatprobe result, got a table of kind "
            f"{str(metadata.get('kind'))[:100]!r} with settings of type {type(own).__name__}. Read it with pandas, "
            "or a sweep's records with flatprobe.studies.sweep.rows"
        )
        raise ValueError(msg)
    try:
        return kind.from_frame(frame, own)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        msg = (
            f"{path} must hold a {kind.__name__} as fp.save wrote it, got {type(error).__name__}: {str(error)[:200]}. "
            "Measure it again"
        )
        raise ValueError(msg) from error


def _kind(reference: object) -> type[Result] | None:
    """The result class that a record names, or None.

    Records of flatprobe 0.1 name `module:class`; the class alone counts.
    """
    name = str(reference).rpartition(":")[2]
    if name in HOMES:
        own: type[Result] = getattr(importlib.import_module(HOMES[name]), name)
        return own
    defined = [kind for kind in _subclasses(Result) if kind.__name__ == name]
    return defined[-1] if defined else None  # the newest, since a notebook may define a class again


def _subclasses(kind: type[Result]) -> Iterator[type[Result]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def check_places(folder: str | os.PathLike[str], names: Mapping[str, Iterable[str]]) -> None:
    """Check that the records can be written as `folder/measurement/network.parquet`.

    Raises:
        FileExistsError: if a path holds something other than a record.
        OSError: if a folder cannot be written.
        ValueError: if a name cannot be the name of a file.
    """
    folder = Path(folder)
    for measurement, own in names.items():
        for name in own:
            check_place(folder / measurement / f"{file_stem(name)}.parquet")
    for place in (folder, *(folder / measurement for measurement in names)):
        if place == folder or place.exists():
            check_writable(place)
