"""Alternative texts, which say what a picture shows."""

import math
from collections.abc import Mapping
from itertools import pairwise
from statistics import median

from flatprobe.report.kind import Groups, Kind, Results
from flatprobe.studies.headlines import headline
from flatprobe.utils.numbers import three

_LISTED = 6  # networks whose figures are listed one by one


def alternative(kind: Kind, results: Results, groups: Groups) -> str:
    """Form of the picture, then the figure of each network and their order."""
    figure, values = kind.values(results) if kind.values else _headlines(results)
    return f"{kind.shows}. {describe(figure, values, groups)}"


def _headlines(results: Results) -> tuple[str, dict[str, float]]:
    found = {name: own for name, result in results.items() if (own := headline(result)) is not None}
    figure = next((own.figure for own in found.values()), "")
    values = {name: own.scale * own.value for name, own in found.items()}
    percent = any(own.scale == 100 for own in found.values())
    return figure.replace("_", " ") + (" in percent" if percent else ""), values


def describe(figure: str, values: Mapping[str, float], groups: Groups = None) -> str:
    """Figures by network or group in words, and their order.

    >>> describe("mean", {"a": 3.25, "b": 7.0})
    'Mean: a 3.25, b 7.00; b above a.'
    >>> describe("mean", {f"net-{k}": float(k) for k in range(24)})
    'Mean of 24 networks: from 0 (net-0) to 23.0 (net-23), median 11.5.'
    >>> describe("mean", {"a": 1.0, "b": 2.0, "c": 5.0, "d": 6.0}, {"a": "low", "b": "low", "c": "high", "d": "high"})
    'Mean: low from 1.00 to 2.00 (2 networks), high from 5.00 to 6.00 (2 networks); high above low.'
    """
    known = {name: value for name, value in values.items() if math.isfinite(value)}
    head = figure[:1].upper() + figure[1:]
    if not known:
        return f"{head}: none is finite."
    members: dict[str, list[float]] = {}
    for name, value in known.items():
        members.setdefault(groups.get(name, name) if groups else name, []).append(value)
    if len(members) > _LISTED:
        low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        middle = three(median(known.values()))
        return (
            f"{head} of {len(known)} networks: from {three(known[low])} ({low}) to {three(known[high])} ({high}), "
            f"median {middle}."
        )
    words = ", ".join(f"{name} {_range(own)}" for name, own in members.items())
    missing = (
        f"; none for {', '.join(name for name in values if name not in known)}" if len(known) < len(values) else ""
    )
    return f"{head}: {words}{_order(members)}{missing}."


def _range(values: list[float]) -> str:
    if len(values) == 1:
        return three(values[0])
    return f"from {three(min(values))} to {three(max(values))} ({len(values)} networks)"


def _order(members: Mapping[str, list[float]]) -> str:
    """The order of the networks or groups, if their figures do not overlap."""
    order = sorted(members, key=lambda name: min(members[name]), reverse=True)
    apart = all(min(members[one]) > max(members[two]) for one, two in pairwise(order))
    return f"; {' above '.join(order)}" if len(order) > 1 and apart else ""
