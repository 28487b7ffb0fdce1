"""Sentences on the headline figures."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean

from flatprobe.report.differences import Differences
from flatprobe.report.figures import Figure
from flatprobe.studies.differences import Difference
from flatprobe.utils.natural import listed
from flatprobe.utils.numbers import three

_NAMED = 3  # networks that a sentence names


def verdict(
    figure: Figure,
    differences: Differences,
    groups: Mapping[str, str] | None = None,
    along: Mapping[str, float] | None = None,
    along_name: str = "",
) -> str:
    """Sentence on one figure of the networks.

    Empty for a single network, for a figure without a better direction, and where nothing is known of the difference
    of a figure that is not the first of its measurement.
    """
    order = [name for name, own in figure.values.items() if not math.isnan(own.value)]
    if figure.saturated:
        return f"all {three(math.sqrt(2))}, saturated at √2, the largest score: it tells no network from another."
    if len(order) < 2 or figure.way is None:
        return ""
    if along:
        return _along(figure, [name for name in order if name in along], along, along_name, differences)
    if not figure.first:
        return ""
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
    values = {name: finite_values(figure, own) for name, own in members.items()}
    one, two = sorted(values, key=lambda name: mean(values[name]), reverse=figure.way != "lower")
    means = " against ".join(three(mean(values[name])) for name in (one, two)) + " on average"
    scale = next(iter(figure.values.values())).scale
    difference = differences.between(figure, one, two, groups=True)
    if _contradicts(figure, difference):
        one, two = two, one
        difference = differences.between(figure, one, two, groups=True)
        means = " against ".join(three(mean(values[name])) for name in (one, two)) + " on average"
    return _compared(figure, (f"the networks of {one}", f"those of {two}"), means, difference, scale, verb="are")


def _contradicts(figure: Figure, difference: Difference | None) -> bool:
    """True if the order of the table's figures is not that of the difference, for which censored directions count."""
    known = _known(difference)
    return known is not None and (known.difference > 0 if figure.way == "lower" else known.difference < 0)


def _two(figure: Figure, one: str, two: str, differences: Differences) -> str:
    if _contradicts(figure, differences.between(figure, one, two)):
        one, two = two, one
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
    first, last = ("highest", "lowest") if figure.way == "higher" else ("lowest", "highest")
    best, worst = order[0], order[-1]
    known = {name: _known(differences.between(figure, best, name)) for name in order[1:]}
    close = [name for name, own in known.items() if own is not None and not own.separated]
    head = f"{best} is {first}, {_words(figure, best)}"
    if close and len(close) == len(known):
        head += ", separated from no other"
    elif close:
        head += f", not separated from {listed(close, _NAMED)}"
    elif all(known.values()):
        head += ", separated from all others"
    return f"{head}; {worst} is {last}, {_words(figure, worst)}."


def _known(difference: Difference | None) -> Difference | None:
    """The difference, if it has an interval."""
    return None if difference is None or math.isnan(difference.lower) else difference


def _along(
    figure: Figure, names: list[str], along: Mapping[str, float], along_name: str, differences: Differences
) -> str:
    """The figure at both ends of the axis, its extreme between them, and the places that are not separated from it."""
    names = sorted(names, key=lambda name: along[name])
    if len(names) < 2:
        return ""
    first, last = names[0], names[-1]
    places = {name: f"{along_name} {along[name]:g}".strip() for name in names}
    top = max(names, key=lambda name: figure.values[name].value * (1 if figure.way == "higher" else -1))
    ends = {first: "the start", last: "the end"}
    where = ends.get(top, f"{places[top]} ({_words(figure, top)})")
    known = {name: _known(differences.between(figure, top, name)) for name in names if name != top}
    close = [places[name] for name, own in known.items() if own is not None and not own.separated]
    extreme = "highest" if figure.way == "higher" else "lowest"
    apart = f", not separated from {listed(close, _NAMED)}" if close else ""
    return (
        f"{_words(figure, first)} at {places[first]}, {_words(figure, last)} at {places[last]}; "
        f"{extreme} at {where}{apart}."
    )


def grouped(names: Sequence[str], groups: Mapping[str, str] | None) -> dict[str, list[str]]:
    """Group -> its networks; empty unless there are several groups, of which one has several networks.

    >>> grouped(["a1", "a2", "b"], {"a1": "a", "a2": "a", "b": "b"}), grouped(["a", "b"], {"a": "a", "b": "b"})
    ({'a': ['a1', 'a2'], 'b': ['b']}, {})
    """
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault((groups or {}).get(name, name), []).append(name)
    return members if 1 < len(members) < len(names) else {}


def finite_values(figure: Figure, names: Sequence[str]) -> list[float]:
    """The finite figures of these networks, in the unit of the table."""
    known = (figure.values[name] for name in names if name in figure.values)
    return [own.scale * own.value for own in known if not math.isnan(own.value)]
