"""Summary table of networks and groups, with headline figures and uncertainties."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from flatprobe.studies.headlines import Headline, headline, unit
from flatprobe.utils.numbers import MISSING, plus_minus
from flatprobe.utils.results import Result


@dataclass(frozen=True)
class Row:
    """A row of a network, of a group, or of the ratio of two groups."""

    kind: str
    label: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """Columns, each (title, unit), and rows of the summary table."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]


def make_title(key: str) -> str:
    """Key of a measurement as a title.

    >>> make_title("flatness_radius (top layer)")
    'Flatness radius (top layer)'
    """
    words = key.replace("_", " ")
    return words[:1].upper() + words[1:]


def summarize(records: Mapping[str, Mapping[str, Result]], groups: Mapping[str, str] | None) -> Summary:
    """Summary with a column per measurement and a row per group and network.

    The figure of a group is the mean and standard deviation (ddof 1) over its networks of the first figure in each
    cell. With exactly two groups, a last row has the ratio of their means with its standard error to first order.
    """
    figures: dict[str, dict[str, Headline]] = {}
    for key, results in records.items():
        found = {name: figure for name, result in results.items() if (figure := headline(result)) is not None}
        if found:
            figures[key] = found
    columns = tuple((make_title(key), unit(records[key])) for key in figures)
    names = list(dict.fromkeys(name for found in figures.values() for name in found))
    if groups is None:
        return Summary(columns, tuple(_network(name, figures) for name in names))
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(groups[name], []).append(name)
    rows: list[Row] = []
    for group, own in members.items():
        cells = tuple(_across([found[name] for name in own if name in found]) for found in figures.values())
        rows += [
            Row("group", f"{group} (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{len(own)})", cells),
            *(_network(name, figures) for name in own),
        ]
    if len(members) == 2:
        (first, one), (second, two) = members.items()
        cells = tuple(_ratio(_values(found, one), _values(found, two)) for found in figures.values())
        rows.append(Row("ratio", f"{first} / {second}", cells))
    return Summary(columns, tuple(rows))


def _network(name: str, figures: Mapping[str, Mapping[str, Headline]]) -> Row:
    return Row("network", name, tuple(found[name].words if name in found else MISSING for found in figures.values()))


def _values(found: Mapping[str, Headline], names: Sequence[str]) -> list[float]:
    return [found[name].value for name in names if name in found and not math.isnan(found[name].value)]


def _across(figures: Sequence[Headline]) -> str:
    """Mean ± standard deviation across networks, with the censored count."""
    if not figures:
        return MISSING
    values = [figure.scale * figure.value for figure in figures if not math.isnan(figure.value)]
    if not values:
        return f"{MISSING} ({sum(figure.censored for figure in figures)} censored)"
    words = plus_minus(mean(values), stdev(values) if len(values) > 1 else math.nan)
    censored = sum(figure.censored for figure in figures)
    return f"{words} ({censored} censored)" if censored else words


def _ratio(one: Sequence[float], two: Sequence[float]) -> str:
    """mean(one) / mean(two) ± standard error, if both means are positive."""
    if not one or not two or not (mean(one) > 0 and mean(two) > 0):
        return MISSING
    ratio = mean(one) / mean(two)
    if min(len(one), len(two)) < 2:
        return plus_minus(ratio, math.nan)
    relative = [stdev(values) / mean(values) / len(values) ** 0.5 for values in (one, two)]
    return plus_minus(ratio, ratio * math.hypot(*relative))
