"""The answer: tables of the headline figures, and a sentence per figure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from flatprobe.report.differences import Differences
from flatprobe.report.figures import FLATNESS, Figure, by_topic
from flatprobe.report.section import Cell, Table
from flatprobe.studies.differences import Difference
from flatprobe.studies.headlines import Headline
from flatprobe.utils.numbers import MISSING, plus_minus, three

_ARROWS = {"higher": "↑ higher is better", "lower": "↓ lower is better"}
_NAMED = 3  # networks that a sentence names


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
        verdicts = ((figure.title, words) for figure in own if (words := verdict(figure, differences, groups, along)))
        if table is not None:
            found.append(Topic(title, table, tuple(verdicts)))
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


def grouped(names: Sequence[str], groups: Mapping[str, str] | None) -> dict[str, list[str]]:
    """Group -> its networks; empty unless there are several groups, of which one has several networks.

    >>> grouped(["a1", "a2", "b"], {"a1": "a", "a2": "a", "b": "b"}), grouped(["a", "b"], {"a": "a", "b": "b"})
    ({'a': ['a1', 'a2'], 'b': ['b']}, {})
    """
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault((groups or {}).get(name, name), []).append(name)
    return members if 1 < len(members) < len(names) else {}


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
    first, second = (_values(figure, names) for names in (one, two))
    if not first or not second or not (mean(first) > 0 and mean(second) > 0):
        return Cell(MISSING)
    ratio = mean(first) / mean(second)
    spread = math.nan
    if min(len(first), len(second)) > 1:
        spread = ratio * math.hypot(*(stdev(own) / mean(own) / len(own) ** 0.5 for own in (first, second)))
    return Cell(plus_minus(ratio, spread), value=ratio)


def _values(figure: Figure, names: Sequence[str]) -> list[float]:
    known = (figure.values[name] for name in names if name in figure.values)
    return [own.scale * own.value for own in known if not math.isnan(own.value)]


def verdict(
    figure: Figure,
    differences: Differences,
    groups: Mapping[str, str] | None = None,
    along: Mapping[str, float] | None = None,
) -> str:
    """What one figure says about the networks, in a sentence; empty for a single network."""
    order = [name for name, own in figure.values.items() if not math.isnan(own.value)]
    if figure.saturated:
        return f"all {three(math.sqrt(2))}, saturated at √2, the largest score: it tells no network from another."
    if len(order) < 2:
        return ""
    if along:
        return _along(figure, [name for name in order if name in along], along)
    alike = {own.words for own in figure.values.values()}
    if len(alike) == 1:
        return f"{alike.pop()} for every network."
    members = grouped(order, groups)
    if len(members) == 2:
        return _groups(figure, members, differences)
    order.sort(key=lambda name: figure.values[name].value, reverse=figure.way != "lower")
    return _two(figure, order[0], order[-1], differences) if len(order) == 2 else _many(figure, order, differences)


def _words(figure: Figure, name: str) -> str:
    own = figure.values[name]
    return three(own.scale * own.value)


def _groups(figure: Figure, members: Mapping[str, list[str]], differences: Differences) -> str:
    values = {name: _values(figure, own) for name, own in members.items()}
    one, two = sorted(values, key=lambda name: mean(values[name]), reverse=figure.way != "lower")
    means = " against ".join(three(mean(values[name])) for name in (one, two)) + " on average"
    scale = next(iter(figure.values.values())).scale
    difference = differences.between(figure, one, two, groups=True)
    return _compared(figure, (f"the networks of {one}", f"those of {two}"), means, difference, scale, verb="are")


def _two(figure: Figure, one: str, two: str, differences: Differences) -> str:
    numbers = f"{_words(figure, one)} against {_words(figure, two)}"
    return _compared(figure, (one, two), numbers, differences.between(figure, one, two), figure.values[one].scale)


def _compared(
    figure: Figure,
    pair: tuple[str, str],
    numbers: str,
    difference: Difference | None,
    scale: float,
    verb: str = "is",
) -> str:
    one, two = pair
    if difference is None or math.isnan(difference.lower):
        return f"{one} against {two}: {numbers}; no interval of the difference."
    low, high = (three(scale * end) for end in (difference.lower, difference.upper))
    interval = f"difference {three(scale * difference.difference)} [{low}, {high}]"
    if difference.separated:
        return f"{one} {verb} {figure.says} than {two}: {numbers}, {interval}."
    return f"{one} and {two} are not separated: {numbers}, {interval}."


def _many(figure: Figure, order: Sequence[str], differences: Differences) -> str:
    """The networks at both ends, and those from which the best one is not separated."""
    words = {"higher": ("highest", "lowest"), "lower": ("lowest", "highest")}
    first, last = words.get(figure.way or "", ("largest", "smallest"))
    best, worst = order[0], order[-1]
    known = {name: differences.between(figure, best, name) for name in order[1:]}
    close = [name for name, own in known.items() if own is not None and not own.separated]
    head = f"{best} is {first}, {_words(figure, best)}"
    if close and len(close) == len(known):
        head += ", separated from no other"
    elif close:
        head += f", not separated from {_list(close)}"
    elif all(known.values()):
        head += ", separated from all others"
    return f"{head}; {worst} is {last}, {_words(figure, worst)}."


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _along(figure: Figure, names: list[str], along: Mapping[str, float]) -> str:
    names = sorted(names, key=lambda name: along[name])
    if len(names) < 2:
        return ""
    first, last = names[0], names[-1]
    words = f"{_words(figure, first)} at {along[first]:g}, {_words(figure, last)} at {along[last]:g}"
    if figure.way is None:
        return f"{words}."
    best = max(names, key=lambda name: figure.values[name].value * (1 if figure.way == "higher" else -1))
    where = (
        "the end" if best == last else "the start" if best == first else f"{along[best]:g}, with {_words(figure, best)}"
    )
    return f"{words}; best at {where}."
