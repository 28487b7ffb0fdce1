"""Measurements and axes of the command line: probes with arguments, a file of measurements, groups, the axis."""

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flatprobe.utils.natural import listed

if TYPE_CHECKING:
    from flatprobe.studies.chosen import Given

_FORM = """'{"measurements": [{"probe": "flatness_radius", "arguments": {"law": "adaptive"}}]}'"""

_FIELDS = {"probe", "arguments", "name", "on", "samples"}


@Parameter(name="*")
@dataclass(frozen=True)
class MeasurementOptions:
    """Options of the commands that measure networks.

    Parameters
    ----------
    probe: list[str]
        A probe with its arguments, such as --probe 'flatness_radius law=adaptive directions=20'. The values are JSON,
        or else text; name=... names the records. Repeat the option for several. `flatprobe probes` lists the probes.
    probes: list[str]
        Names of probes at their defaults, separated by spaces or commas.
    config: Path
        JSON or TOML file with a list of measurements, each with probe, and optionally arguments, name, on (train or
        test) and samples.
    """

    probe: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    probes: Annotated[tuple[str, ...], Parameter(negative=(), consume_multiple=True)] = ()
    config: Path | None = None


def measurements_of(options: MeasurementOptions) -> "list[Given] | None":
    """The measurements of all three options; None without any, for the default.

    Raises:
        ValueError: for an unknown probe or argument, or a file of another form.
    """
    first = [text.split()[0] for text in options.probe if text.split()]
    names = [name for words in options.probes for name in words.split(",") if name]
    if names or first:
        from flatprobe.studies.chosen import check_names
        from flatprobe.studies.probes_by_name import PROBES

        check_names([*names, *(name for name in first if ":" not in name and name not in PROBES)])
    found: list[Given] = [*names]
    found += [_measurement(text) for text in options.probe]
    found += [] if options.config is None else _of_file(options.config)
    return found or None


def _measurement(text: str) -> "Given":
    """The measurement of 'probe argument=value ...'; the name of a default with no arguments is that default.

    Raises:
        ValueError: if a word has no `=`, or an argument is unknown.
    """
    from flatprobe.studies.measurement import Measurement
    from flatprobe.studies.probes_by_name import LANDSCAPE, NAMED

    probe, *words = re.findall(r"""(?:[^\s"'\[{]|"[^"]*"|'[^']*'|\[[^\]]*\]|\{[^}]*\})+""", text) or [""]
    arguments: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name.isidentifier() or name in arguments:
            msg = (
                f"--probe must be a probe and different arguments name=value, got {word!r} in {text!r}. Write "
                "--probe 'flatness_radius law=adaptive directions=20'."
            )
            raise ValueError(msg)
        try:
            arguments[name] = json.loads(value)
        except json.JSONDecodeError:
            arguments[name] = value.strip("\"'")
    named = arguments.pop("name", None)
    options = {key: arguments.pop(key) for key in ("on", "samples") if key in arguments}
    if (not arguments and not options and named is None and probe in NAMED) or probe == LANDSCAPE:
        return str(probe)
    base, given = NAMED.get(probe, (probe, {}))
    words = [f"{key}={json.dumps(value)}".replace('"', "") for key, value in (arguments | options).items()]
    name = named or (f"{probe} ({', '.join(words)})" if words else probe)
    return Measurement(base, arguments={**given, **arguments}, name=str(name), **options)


def _of_file(path: Path) -> "list[Given]":
    """The measurements of a JSON or TOML file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file of another form.
    """
    from flatprobe.studies.measurement import Measurement

    if not path.is_file():
        msg = f"--config must name a JSON or TOML file, got {path}, which is not there."
        raise FileNotFoundError(msg)
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        msg = f"--config must name a JSON or TOML file, got {path}, which cannot be read ({error})."
        raise ValueError(msg) from error
    entries = content.get("measurements") if isinstance(content, Mapping) else content
    if not isinstance(entries, list) or not entries:
        msg = f"{path} must hold a list of measurements such as {_FORM}, got {str(content)[:100]}."
        raise ValueError(msg)
    found: list[Given] = []
    for entry in entries:
        if isinstance(entry, str):
            found.append(_measurement(entry))
        elif isinstance(entry, Mapping) and entry.keys() <= _FIELDS:
            if "probe" not in entry:
                msg = f"a measurement in {path} must have a probe, got {dict(entry)}."
                raise ValueError(msg)
            found.append(Measurement(**entry))
        else:
            msg = f"a measurement in {path} must have fields among {', '.join(sorted(_FIELDS))}, got {entry!r}."
            raise ValueError(msg)
    return found


def groups_of(names: Sequence[str], options: Sequence[str], along: str | None) -> dict[str, str]:
    """The group of each network: that of the first `label=pattern` that fits, or else by its name.

    Names that differ only in consecutive numbers at their end are replicates, unless these count epochs, steps or the
    like. Along an axis that is read from the names, the number after its word does not count.

    Raises:
        ValueError: for another form, or a pattern that fits no network.
    """
    from flatprobe.studies.records import groups_by_name

    patterns: list[tuple[str, str]] = []
    for option in options:
        own, sign, pattern = option.partition("=")
        if not (own and sign and pattern):
            msg = f"--group must be LABEL=PATTERN such as natural='natural-*', got {option!r}."
            raise ValueError(msg)
        if not any(fnmatchcase(name, pattern) for name in names):
            msg = f"--group must have a pattern that fits a network, got {option!r}. The networks: {listed(names)}."
            raise ValueError(msg)
        patterns.append((own, pattern))
    by_name = groups_by_name(names) if along is None else {name: _without_number(name, along) for name in names}
    given = {name: next((label for label, pattern in patterns if fnmatchcase(name, pattern)), None) for name in names}
    return {name: given[name] or by_name[name] for name in names}


def along_of(places: Mapping[str, Path], option: str | None) -> tuple[dict[str, float] | None, str | None]:
    """The number of each network on the axis, and the axis's name.

    Args:
        places: network -> path of its checkpoint.
        option: a word, whose number is read from the names ("epoch" of "epoch-12.pt") or else from the runs' settings
            ("learning_rate"); or FILE.csv:COLUMN, a table with a column of names first.

    Raises:
        ValueError: if a network has no number.
    """
    if option is None:
        return None, None
    if ".csv:" in option:
        path, _, column = option.rpartition(":")
        found: dict[str, float | None] = dict(_column(Path(path), column, list(places)))
        name = column
    else:
        name = option
        found = {own: _number(own, option) for own in places}
        if all(value is None for value in found.values()):
            found = {own: _setting(path, option) for own, path in places.items()}
    missing = [own for own, value in found.items() if value is None]
    if missing:
        fix = (
            "Complete the column; the first column has the names of the networks."
            if ".csv:" in option
            else f"Name the checkpoints such as {option}-1, or give a table: --along FILE.csv:COLUMN with their names "
            "in its first column."
        )
        msg = (
            f"--along must have a finite number for every network, got none of {option!r} for {listed(missing)}. {fix}"
        )
        raise ValueError(msg)
    return {own: value for own, value in found.items() if value is not None}, name


def _pattern(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z]){re.escape(word)}[-_=. ]*(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)", re.IGNORECASE)


def _number(name: str, word: str) -> float | None:
    found = _pattern(word).findall(name)
    return float(found[-1]) if found else None


def _without_number(name: str, word: str) -> str:
    """The name without the axis's number; "networks" if nothing is left."""
    return _pattern(word.rpartition(":")[2]).sub("", name).strip("-_=./ ") or "networks"


def _setting(path: Path, word: str) -> float | None:
    """A number of the run's settings by its name, wherever it is in the file."""
    config = (path if path.is_dir() else path.parent) / "config.json"
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    waiting = [content]
    while waiting:
        own = waiting.pop(0)
        if isinstance(own, Mapping):
            value = own.get(word)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
            waiting += own.values()
    return None


def _column(path: Path, column: str, names: Sequence[str]) -> dict[str, float | None]:
    """The column of a table by the names in its first column.

    Raises:
        ValueError: if the file is not there, or has no such column.
    """
    import pandas as pd

    if not path.is_file():
        msg = f"--along must name a CSV file that is there, got {path}."
        raise ValueError(msg)
    frame = pd.read_csv(path)
    if column not in frame.columns[1:]:
        msg = f"--along must name a column of {path}, got {column!r}. Its columns: {listed(list(frame.columns[1:]))}."
        raise ValueError(msg)
    numbers = pd.to_numeric(frame[column], errors="coerce")
    own = frame.iloc[:, 0].astype(str)
    if len(twice := list(own[own.duplicated()].unique())):
        msg = f"{path} must name each network once in its first column, got {listed(twice)} more than once."
        raise ValueError(msg)
    known = dict(zip(own, numbers, strict=True))
    return {name: float(known[name]) if math.isfinite(known.get(name, math.nan)) else None for name in names}
