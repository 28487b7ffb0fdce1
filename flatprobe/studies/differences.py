"""Differences of a headline figure between networks, paired where two networks share samples, directions or draws."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.generalization import TEST, TRAIN, Generalization
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.probes.per_sample import PerSample
from flatprobe.probes.robustness import Robustness
from flatprobe.probes.smoothing import SmoothedCertificate
from flatprobe.studies.headlines import better, headline
from flatprobe.utils.results import Result

Values = np.ndarray[Any, np.dtype[np.float64]]
LEVEL = 0.95
_RESAMPLES = 400  # for the standard error of a difference of medians, whose own relative error is then 4 %


@dataclass(frozen=True)
class Difference:
    """Difference of the headline figure of two networks, or of the means of two groups.

    Attributes:
        measurement: name of the measurement.
        figure: name of the figure.
        network: the network, or the group.
        reference: the network or group with the best value; of `differences_of(worst=True)`, the worst one.
        difference: value of the network - value of the reference.
        lower: lower end of the simultaneous interval; NaN where the figure has no known uncertainty.
        upper: upper end.
        over: what varies: "samples", "directions", "draws" or "networks"; "" where nothing is known to.
        count: number of pairs, or the smaller of the two numbers.
        paired: True where both networks have the same samples, directions or draws.
        separated: True where the interval excludes 0.
    """

    measurement: str
    figure: str
    network: str
    reference: str
    difference: float
    lower: float
    upper: float
    over: str
    count: int
    paired: bool
    separated: bool


@dataclass(frozen=True)
class _Units:
    """Values of one result per unit; their mean (or median) is the compared figure."""

    values: Values
    over: str
    key: object  # units of two results with equal keys are the same ones
    median: bool = False


def differences_of(
    measurement: str,
    results: Mapping[str, Result],
    facts: Mapping[str, Mapping[str, Any]],
    level: float = LEVEL,
    *,
    worst: bool = False,
) -> list[Difference]:
    """Each network against the best one, or the worst one, by the headline figure.

    That network is chosen from the same values. The intervals are therefore made for all k (k - 1) / 2 pairs at
    once (Bonferroni): with probability `level` all of them hold, whichever network turns out best or worst.

    - Paired: Student's interval for the mean of the differences.
    - Unpaired: Welch's interval.
    - Medians: the normal interval with the bootstrap's standard error, resampled in pairs where paired.
    - Proportions without values per sample: Newcombe's interval (1998, method 10) from Wilson's.

    Returns:
        One per network but the reference; none where no direction is better, or below two networks.
    """
    figures = {name: found for name, result in results.items() if (found := headline(result)) is not None}
    way = {better(results[name]) for name in figures}
    if len(figures) < 2 or len(way) > 1 or None in way or len({found.figure for found in figures.values()}) > 1:
        return []
    units = _units({name: results[name] for name in figures}, facts)
    values = {name: _value(units[name]) if name in units else found.value for name, found in figures.items()}
    values = {name: value for name, value in values.items() if not math.isnan(value)}
    rows: list[Difference] = []
    if len(values) < 2:
        return rows
    reference = (max if (way == {"higher"}) != worst else min)(values, key=lambda name: values[name])
    alpha = (1 - level) / math.comb(len(values), 2)
    for name in values:
        if name != reference:
            ends, over, count, paired = _interval(results, units, name, reference, alpha)
            separated = ends[0] > 0 or ends[1] < 0
            difference = values[name] - values[reference]
            head = measurement, figures[name].figure, name, reference, difference
            rows.append(Difference(*head, *ends, over, count, paired, separated))
    return rows


def group_differences_of(
    measurement: str, results: Mapping[str, Result], groups: Mapping[str, str], level: float = LEVEL
) -> list[Difference]:
    """The same between the means of groups over their networks, by Welch's interval; groups of one are left out."""
    figures = {name: found for name, result in results.items() if (found := headline(result)) is not None}
    way = {better(results[name]) for name in figures}
    units = _units({name: results[name] for name in figures}, {})  # censored radii count up to the common limit
    members: dict[str, list[float]] = {}
    for name, found in figures.items():
        value = _value(units[name]) if name in units else found.value
        if name in groups and not math.isnan(value):
            members.setdefault(groups[name], []).append(value)
    arrays = {group: np.array(own) for group, own in members.items() if len(own) > 1}
    if len(arrays) < 2 or len(way) > 1 or None in way or len({found.figure for found in figures.values()}) > 1:
        return []
    best = (max if way == {"higher"} else min)(arrays, key=lambda group: float(arrays[group].mean()))
    alpha = (1 - level) / math.comb(len(arrays), 2)
    rows = []
    for group, own in arrays.items():
        if group != best:
            low, high = _welch(own, arrays[best], alpha)
            difference = float(own.mean()) - float(arrays[best].mean())
            count, figure = min(len(own), len(arrays[best])), next(iter(figures.values())).figure
            separated = low > 0 or high < 0
            head = measurement, figure, group, best, difference
            rows.append(Difference(*head, low, high, "networks", count, paired=False, separated=separated))
    return rows


def _units(results: Mapping[str, Result], facts: Mapping[str, Mapping[str, Any]]) -> dict[str, _Units]:
    found = {}
    limit = min((_limit(result) for result in results.values() if isinstance(result, FlatnessRadii)), default=math.inf)
    for name, result in results.items():
        kind = next((kind for kind in _KINDS if isinstance(result, kind)), None)
        if kind is not None:
            over, read = _KINDS[kind]
            values = np.asarray(read(result), dtype=np.float64)
            if isinstance(result, FlatnessRadii):
                values = np.minimum(values, limit)
            key = _samples_key(result) if over == "samples" else _weights_key(result, facts.get(name, {}))
            found[name] = _Units(values, over, key, isinstance(result, GeometricMargins))
    return found


def _limit(result: FlatnessRadii) -> float:
    """The censoring distance where a direction is censored: means of min(radius, distance) are then compared."""
    given = result.settings.get("arguments", {}).get("max_radius")
    return math.inf if not result.censored or given is None else float(given)


def _generalization_values(result: Generalization) -> Any:
    split, _, kind = next(iter(result.summary())).partition("_")
    losses, correct = result.of(split)
    return losses if kind == "loss" else correct


def _certified_values(result: SmoothedCertificate) -> Any:
    return ((result.predicted == result.labels) & (result.radius >= result.settings["arguments"]["sigma"])).double()


# What varies, and its values; a class that is not here has a figure without known uncertainty.
_KINDS: dict[type[Result], tuple[str, Callable[[Any], Any]]] = {
    Generalization: ("samples", _generalization_values),
    PerSample: ("samples", lambda result: result.values),
    SmoothedCertificate: ("samples", _certified_values),
    AdversarialAccuracy: ("samples", lambda result: result.correct[result.shown].double()),
    GeometricMargins: ("samples", lambda result: result.upper),
    FlatnessRadii: ("directions", lambda result: result.radii),
    HessianTrace: ("draws", lambda result: result.forms.sum(1)),
}


def _samples_key(result: Result) -> object:
    """The fingerprint of the samples; of a generalization, of those of its headline."""
    subject = result.settings.get("subject", {})
    name = "data"
    if isinstance(result, Generalization):
        name = {TEST: "test_data", TRAIN: "data"}[next(iter(result.summary())).partition("_")[0]]
    return subject.get(name, {}).get("fingerprint", object())


def _weights_key(result: Result, facts: Mapping[str, Any]) -> object:
    """The shapes of the weights, and the arguments that the directions or draws depend on."""
    own, network = result.settings.get("arguments", {}), result.settings.get("subject", {}).get("network", {})
    shapes = facts.get("shapes") or (network.get("parameters", object()), str(network.get("recipe")))
    return str((shapes, own.get("seed"), own.get("law"), own.get("parameters"), result.settings.get("selected")))


def _value(units: _Units) -> float:
    return float(np.median(units.values)) if units.median else float(units.values.mean())


def _interval(
    results: Mapping[str, Result], units: Mapping[str, _Units], name: str, best: str, alpha: float
) -> tuple[tuple[float, float], str, int, bool]:
    if name not in units or best not in units:
        pair = results[name], results[best]
        if isinstance(pair[0], Robustness) and isinstance(pair[1], Robustness):
            return _newcombe(pair[0], pair[1], alpha), "samples", min(pair[0].samples, pair[1].samples), False
        return (math.nan, math.nan), "", 0, False
    own, other = units[name], units[best]
    paired = own.key == other.key and len(own.values) == len(other.values)
    count = min(len(own.values), len(other.values))
    if own.median:
        return _median_difference(own.values, other.values, alpha, paired=paired), own.over, count, paired
    if not paired:
        return _welch(own.values, other.values, alpha), own.over, count, paired
    return _student(own.values - other.values, alpha), own.over, count, paired


def _student(values: Values, alpha: float) -> tuple[float, float]:
    from scipy import stats

    if len(values) < 2 or not bool(np.isfinite(values).all()):
        return math.nan, math.nan
    half = float(stats.t.isf(alpha / 2, len(values) - 1)) * float(values.std(ddof=1)) / len(values) ** 0.5
    return float(values.mean()) - half, float(values.mean()) + half


def _welch(one: Values, two: Values, alpha: float) -> tuple[float, float]:
    from scipy import stats

    if min(len(one), len(two)) < 2 or not bool(np.isfinite(np.concatenate([one, two])).all()):
        return math.nan, math.nan
    parts = [float(own.var(ddof=1)) / len(own) for own in (one, two)]
    middle, variance = float(one.mean() - two.mean()), sum(parts)
    if variance == 0:
        return middle, middle
    freedom = variance**2 / sum(part**2 / (len(own) - 1) for part, own in zip(parts, (one, two), strict=True))
    half = float(stats.t.isf(alpha / 2, freedom)) * variance**0.5
    return middle - half, middle + half


def _median_difference(one: Values, two: Values, alpha: float, *, paired: bool) -> tuple[float, float]:
    from scipy import stats

    if min(len(one), len(two)) < 2:  # the bootstrap of one value has no spread
        return math.nan, math.nan
    generator = np.random.default_rng(0)
    first = generator.integers(len(one), size=(_RESAMPLES, len(one)))
    second = first if paired else generator.integers(len(two), size=(_RESAMPLES, len(two)))
    with np.errstate(invalid="ignore"):  # infinite medians, where most samples have no adversarial point
        drawn = np.median(one[first], axis=1) - np.median(two[second], axis=1)
        middle = float(np.median(one) - np.median(two))
    if not bool(np.isfinite(drawn).all()):
        return math.nan, math.nan
    half = float(stats.norm.isf(alpha / 2)) * float(drawn.std(ddof=1))
    return middle - half, middle + half


def _newcombe(one: Robustness, two: Robustness, alpha: float) -> tuple[float, float]:
    (p, p_low, p_high), (q, q_low, q_high) = (
        [float(part[own.shown]) for part in (own.mean, *own.interval(1 - alpha))] for own in (one, two)
    )
    return p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low)


def marks_of(
    measurement: str, results: Mapping[str, Result], facts: Mapping[str, Mapping[str, Any]], level: float = LEVEL
) -> dict[str, str]:
    """The best and the worst network, each only if it is separated from all others: network -> "best" or "worst"."""
    marks = {}
    for mark in ("worst", "best"):
        rows = differences_of(measurement, results, facts, level, worst=mark == "worst")
        if rows and len(rows) == len(results) - 1 and all(row.separated for row in rows):
            marks[rows[0].reference] = mark
    return marks
