"""Provenance of the measurements: arguments, data, networks and versions."""

from collections.abc import Iterable, Mapping
from typing import Any

from flatprobe.report.section import Table
from flatprobe.report.sections import make_title
from flatprobe.utils.results import Result

Records = Mapping[str, Mapping[str, Result]]


def provenance(records: Records) -> list[tuple[str, Table]]:
    """Titled tables of arguments, data, networks and machines.

    Args:
        records: measurement -> network -> result.

    Returns:
        (title, table) each.
    """
    return [
        ("Measurements", Table(("measurement", "arguments"), tuple(_arguments(records)))),
        ("Data", Table(("data", "measured on it"), tuple(_collect_values(records, ("subject", "data"))))),
        ("Networks", Table(("network", "measured in"), tuple(_collect_values(records, ("subject", "network"))))),
        (
            "Versions and machine",
            Table(("versions and machine", "measured there"), tuple(_collect_values(records, ("environment",)))),
        ),
    ]


def words(value: object) -> str:
    """A value of a record on one line.

    >>> words({"name": "digits", "shape": [1, 8, 8], "noise": {"seed": None, "rate": 0.10000000001}})
    'name digits; shape [1, 8, 8]; noise (seed none; rate 0.1)'
    """
    if isinstance(value, Mapping):
        return "; ".join(
            f"{name} ({words(own)})" if isinstance(own, Mapping) else f"{name} {words(own)}"
            for name, own in value.items()
        )
    if isinstance(value, list | tuple):
        shown = [words(own) for own in value]
        return f"[{', '.join(shown if len(shown) <= 12 else [*shown[:3], f'... {len(shown)} in all ...', shown[-1]])}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value)


def _arguments(records: Records) -> Iterable[tuple[str, str]]:
    """Arguments, loss and batch size per measurement."""
    for key, results in records.items():
        values: dict[str, list[str]] = {}
        for result in results.values():
            subject = result.settings.get("subject", {})
            further = {name: value for name, value in subject.items() if name not in ("network", "data")}
            for name, value in (further | result.settings.get("arguments", {})).items():
                values.setdefault(name, []).append(words(value))
        parts = [f"{name} {' | '.join(dict.fromkeys(own))}" for name, own in values.items()]
        yield make_title(key), "; ".join(parts) or "none"


def _collect_values(records: Records, path: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    """Distinct values at this path of the settings, with their networks or groups."""
    found: dict[str, list[str]] = {}
    for results in records.values():
        for name, result in results.items():
            value: Any = result.settings
            for step in path:
                value = value.get(step, {}) if isinstance(value, Mapping) else {}
            if value:
                found.setdefault(words(value), []).append(name)
    for description, names in found.items():
        yield description, ", ".join(dict.fromkeys(names))
