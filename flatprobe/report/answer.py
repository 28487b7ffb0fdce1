"""The answer: tables of the headline figures, and a sentence per figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from flatprobe.report.differences import Differences
from flatprobe.report.figures import FLATNESS, Figure, by_topic
from flatprobe.report.section import Cell, Table
from flatprobe.report.verdicts import finite_values, grouped, verdict
from flatprobe.studies.headlines import Headline
from flatprobe.utils.numbers import MISSING, plus_minus

_ARROWS = {"higher": "↑ higher is better", "lower": "↓ lower is better"}


@dataclass(frozen=True)
class Topic:
    """A table of headline figures, and sentences (figure, words)."""

    title: str
    table: Table
    verdicts: tuple[tuple[str, str], ...]


def answer(
    figures: list[Figure],
    differences: Differences,
    groups: Mapping[str, str] | None,
    along: Mapping[str, float] | None = None,
    along_name: str = "",
) -> list[Topic]:
    """One topic per table.

    Args:
        figures: headline figures.
        differences: differences between networks.
        groups: network -> group.
        along: network -> number, such as the epoch, by which the rows are ordered.
        along_name: name of the number.
    """
    found = []
    for title, own in by_topic(figures).items():
        shown = [figure for figure in own if not figure.saturated]
        table = _table(shown, differences, groups, along, along_name) if shown else None
        said = ((figure.title, verdict(figure, differences, groups, along, along_name)) for figure in own)
        verdicts = tuple((name, words) for name, words in said if words)
        if table is not None:
            found.append(Topic(title, table, verdicts))
        elif found:
            found[-1] = Topic(found[-1].title, found[-1].table, (*found[-1].verdicts, *verdicts))
    return found


def _table(
    figures: Sequence[Figure],
    differences: Differences,
    groups: Mapping[str, str] | None,
    along: Mapping[str, float] | None,
    along_name: str,
) -> Table:
    """A row per group of several networks, for two groups their ratio, and a row per network."""
    names = list(dict.fromkeys(name for figure in figures for name in figure.values))
    if along:
        names.sort(key=lambda name: along.get(name, math.inf))
    marks = [{} if along else differences.marks(figure) for figure in figures]
    rows: list[tuple[Cell, ...]] = []
    kinds: list[str] = []
    members = grouped(names, groups)
    for group, own in members.items() if not along else ():
        cells = (_across([figure.values[name] for name in own if name in figure.values]) for figure in figures)
        rows.append((Cell(group, small=f"mean of {len(own)} networks"), *cells))
        kinds.append("group")
    if len(members) == 2 and not along:
        (first, one), (second, two) = members.items()
        cells = (_ratio(figure, one, two) for figure in figures)
        rows.append((Cell(f"{first} / {second}", small="ratio of the means"), *cells))
        kinds.append("ratio")
    for name in names:
        cells = (cell(figure, name, own.get(name, "")) for figure, own in zip(figures, marks, strict=True))
        position = (Cell(f"{along[name]:g}"),) if along and name in along else (Cell(MISSING),) if along else ()
        rows.append((Cell(name), *position, *cells))
        kinds.append("member" if members else "")
    heading = (Cell("network"), *((Cell(along_name or "along"),) if along else ()), *map(_head, figures))
    return Table(heading, tuple(rows), tuple(kinds))


def _head(figure: Figure) -> Cell:
    plain = "scale-invariant" if figure.invariant and figure.topic == FLATNESS else ""
    return Cell(figure.title, small="; ".join(filter(None, (figure.unit, _ARROWS.get(figure.way or "", ""), plain))))


def cell(figure: Figure, name: str, mark: str = "") -> Cell:
    """The figure of one network with its interval under it."""
    own = figure.values.get(name)
    if own is None:
        return Cell(MISSING, note=f"{figure.title} of {name}: not measured")
    words, bracket, rest = own.words.partition(" [")
    value = math.inf if own.censored and math.isnan(own.value) else own.scale * own.value
    note = f"{figure.title} of {name}: {own.words}"
    return Cell(words, small=(bracket + rest).strip(), value=value, mark=mark, note=note)  # type: ignore[arg-type]


def _across(figures: Sequence[Headline]) -> Cell:
    """Mean and standard deviation (n - 1) over networks, with the sign of a lower bound and the censored count."""
    values = [own.scale * own.value for own in figures if not math.isnan(own.value)]
    censored = sum(own.censored for own in figures)
    small = f"({censored} censored)" if censored else ""
    if not values:
        return Cell(MISSING, small=small)
    sign = "≥ " if any(own.words.startswith("≥") for own in figures) else ""
    words = plus_minus(mean(values), stdev(values) if len(values) > 1 else math.nan)
    return Cell(f"{sign}{words}", small=small, value=mean(values))


def _ratio(figure: Figure, one: Sequence[str], two: Sequence[str]) -> Cell:
    """mean(one) / mean(two) ± standard error to first order, if both means are positive."""
    first, second = (finite_values(figure, names) for names in (one, two))
    if not first or not second or not (mean(first) > 0 and mean(second) > 0):
        return Cell(MISSING)
    ratio = mean(first) / mean(second)
    spread = math.nan
    if min(len(first), len(second)) > 1:
        spread = ratio * math.hypot(*(stdev(own) / mean(own) / len(own) ** 0.5 for own in (first, second)))
    return Cell(plus_minus(ratio, spread), value=ratio)
