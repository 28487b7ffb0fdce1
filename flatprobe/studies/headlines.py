"""Headline figure of a result: one statistic per class, the first of its summary, with its uncertainty."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.adversarial_points import AdversarialPoints
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.generalization import Generalization
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.probes.hessian_eigenvalues import HessianEigenvalues
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.probes.interpolation import Interpolation
from flatprobe.probes.jacobian import JacobianNorms
from flatprobe.probes.jacobian_maximum import JacobianMaximum
from flatprobe.probes.margins import Margins
from flatprobe.probes.per_sample import PerSample
from flatprobe.probes.robustness import Robustness
from flatprobe.probes.sharpness import WorstCaseSharpness
from flatprobe.probes.slices import RandomSlice
from flatprobe.probes.smoothing import SmoothedCertificate
from flatprobe.probes.weight_norms import WeightNorms
from flatprobe.utils.confidence import mean_interval
from flatprobe.utils.numbers import three
from flatprobe.utils.results import Result

Way = Literal["higher", "lower"]
Ends = tuple[float, float]

_UNKNOWN: Ends = (math.nan, math.nan)
_PERCENT = 100.0


@dataclass(frozen=True)
class Headline:
    """Headline figure of a result.

    Attributes:
        figure: name of the figure, the first of `result.summary()`.
        value: the figure, as in the summary.
        lower: lower end of the interval that `unit` names; NaN where there is none.
        upper: upper end.
        words: value and interval for a table, in percent for a proportion.
        censored: number of directions or samples without a value.
        scale: factor of the numbers in words, 100 for a proportion.
    """

    figure: str
    value: float
    lower: float
    upper: float
    words: str
    censored: int = 0
    scale: float = 1.0


@dataclass(frozen=True)
class _Kind:
    """Ends of the interval, unit in words, direction of better, and invariance under rescaling of one class."""

    ends: Callable[[Any], Ends]
    unit: Callable[[Mapping[str, Result]], str]
    better: Way | None = None
    invariant: Callable[[Any], bool] = lambda _result: True
    scale: float = 1.0
    censored: Callable[[Any], int] = lambda _result: 0


def headline(result: Result) -> Headline | None:
    """Headline figure of one result; None for a landscape, which belongs to several networks."""
    if isinstance(result, Interpolation):
        return None
    kind = _kind(result)
    figures = result.summary()
    if not figures:
        return None
    figure, value = next(iter(figures.items()))
    lower, upper = kind.ends(result) if kind else _UNKNOWN
    censored = kind.censored(result) if kind else 0
    scale = kind.scale if kind else 1.0
    return Headline(
        figure, value, lower, upper, _words(result, (value, lower, upper), censored, scale), censored, scale
    )


def unit(results: Mapping[str, Result]) -> str:
    """Meaning and unit of the headline figures of results of one class, and of their intervals."""
    first = next(iter(results.values()))
    kind = _kind(first)
    return kind.unit(results) if kind else next(iter(first.summary()), "").replace("_", " ")


def better(result: Result) -> Way | None:
    """Direction of the flatter, more robust or better generalizing network; None where there is no such direction."""
    kind = _kind(result)
    return kind.better if kind else None


def invariant(result: Result) -> bool:
    """True if the figure is the same for all weights of one function, as after a rescaling of ReLU units."""
    kind = _kind(result)
    return kind.invariant(result) if kind else False


def common(results: Mapping[str, Result], argument: str) -> Any:
    """The value of an argument that all results of a picture or column must share, or None.

    Raises:
        ValueError: if the values differ.
    """
    values = {name: result.settings.get("arguments", {}).get(argument) for name, result in results.items()}
    distinct = list(dict.fromkeys(map(str, values.values())))
    if len(distinct) > 1:
        msg = f"the results were measured with different values of {argument}: {', '.join(distinct)}. Draw them apart"
        raise ValueError(msg)
    return next(iter(values.values()))


def _kind(result: Result) -> _Kind | None:
    if isinstance(result, Generalization):
        return _LOSS if result.correct.isnan().any() else _ACCURACY
    return next((kind for own, kind in _KINDS.items() if isinstance(result, own)), None)


def _words(result: Result, numbers: tuple[float, float, float], censored: int, scale: float) -> str:
    value, lower, upper = (three(scale * number) for number in numbers)
    if isinstance(result, FlatnessRadii) and censored:
        limit = three(result.settings.get("arguments", {}).get("max_radius", math.nan))
        if censored == len(result.radii):
            return f"not reached by {limit}"
        return f"{value} [{lower}, {upper}] ({censored} of {len(result.radii)} beyond {limit})"
    if isinstance(result, WorstCaseSharpness | JacobianMaximum):
        return f"≥ {value}"
    words = value if math.isnan(numbers[1]) else f"{value} [{lower}, {upper}]"
    if isinstance(result, GeometricMargins):
        words = f"[{lower}, {upper}]"
    return f"{words} ({censored} not found)" if censored else words


def _argument(result: Result, name: str) -> Any:
    return result.settings.get("arguments", {}).get(name)


def _at(limits: tuple[torch.Tensor, torch.Tensor], place: int) -> Ends:
    return float(limits[0][place]), float(limits[1][place])


def _radius_unit(results: Mapping[str, Result]) -> str:
    law = common(results, "law")
    kind = "distance in weight space" if law == "isotropic" else f"relative to the weights, {law} law"
    return f"{kind}; mean over directions [95 %]"


def _scaled_by_weights(result: Result) -> bool:
    return bool(_argument(result, "law") == "adaptive")


def _error_unit(results: Mapping[str, Result]) -> str:
    common(results, "gammas")
    first = next(iter(results.values()))
    assert isinstance(first, Robustness)
    return f"% misclassified at noise {first.gammas[first.shown]:g} [Wilson 95 %]"


def _accuracy_unit(results: Mapping[str, Result]) -> str:
    common(results, "budgets")
    first = next(iter(results.values()))
    assert isinstance(first, AdversarialAccuracy)
    attack = str(common(results, "attack")).upper()
    budget = first.budgets[first.shown]
    return f"% correct under {attack}, {common(results, 'norm')} budget {budget:g} [Wilson 95 %]"


def _certificate_ends(result: SmoothedCertificate) -> Ends:
    return _at(result.interval([_argument(result, "sigma")]), 0)


def _distance_unit(results: Mapping[str, Result]) -> str:
    first = next(iter(results.values()))
    assert isinstance(first, GeometricMargins)
    low = "certified" if first.certified or first.uncertified else "estimated"
    return f"{common(results, 'norm')} distance; medians over samples, {low} lower bound and shortest found"


def _distance_ends(result: GeometricMargins) -> Ends:
    figures = result.summary()
    return figures["median_lower"], figures["median_upper"]


def _standard_ends(value: float, error: float) -> Ends:
    return value - 1.96 * error, value + 1.96 * error


def _generalization_ends(result: Generalization) -> Ends:
    return result.interval(next(iter(result.summary())))


def _split_of(results: Mapping[str, Result]) -> str:
    return " and ".join(dict.fromkeys(next(iter(own.summary())).partition("_")[0] for own in results.values()))


_ACCURACY = _Kind(
    _generalization_ends,
    lambda results: f"% of the {_split_of(results)} samples classified correctly [Wilson 95 %]",
    "higher",
    scale=_PERCENT,
)
_LOSS = _Kind(_generalization_ends, lambda results: f"mean loss of the {_split_of(results)} samples [95 %]", "lower")
# The first class that fits counts, so a subclass stands before its base.
_KINDS: dict[type[Result], _Kind] = {
    FlatnessRadii: _Kind(
        lambda result: mean_interval(result.radii[result.reached]),
        _radius_unit,
        "higher",
        _scaled_by_weights,
        censored=lambda result: result.censored,
    ),
    RandomSlice: _Kind(
        lambda _result: _UNKNOWN,
        lambda results: (
            f"largest increase of the loss within {common(results, 'extent'):g}, {common(results, 'law')} law"
        ),
        "lower",
        _scaled_by_weights,
    ),
    HessianEigenvalues: _Kind(
        lambda _result: _UNKNOWN,
        lambda results: f"loss per squared weight; {common(results, 'which')}",
        "lower",
        lambda _result: False,
    ),
    HessianTrace: _Kind(
        lambda result: mean_interval(result.forms.sum(1)),
        lambda _results: "loss per squared weight; mean over draws [95 %]",
        "lower",
        lambda _result: False,
    ),
    WorstCaseSharpness: _Kind(
        lambda _result: _UNKNOWN,
        lambda results: (
            f"increase of the loss found within {common(results, 'radius'):g}, {common(results, 'law')} ball"
        ),
        "lower",
        _scaled_by_weights,
    ),
    GradientNoise: _Kind(
        lambda result: _standard_ends(result.noise_scale, result.noise_scale_error),
        lambda _results: "samples; noise scale over draws [95 %]",
        None,
        lambda _result: False,
    ),
    WeightNorms: _Kind(
        lambda _result: _UNKNOWN, lambda _results: "l2 norm of all weights", None, lambda _result: False
    ),
    Margins: _Kind(
        lambda result: mean_interval(result.values),
        lambda results: f"{common(results, 'outputs') or 'logits'}; mean over samples [95 %]",
        "higher",
    ),
    JacobianNorms: _Kind(
        lambda result: mean_interval(result.values),
        lambda results: f"{common(results, 'outputs')} per input unit; mean over samples [95 %]",
        "lower",
    ),
    PerSample: _Kind(lambda result: mean_interval(result.values), lambda _results: "mean over samples [95 %]"),
    JacobianMaximum: _Kind(
        lambda _result: _UNKNOWN,
        lambda results: f"{common(results, 'outputs')} per input unit; largest found",
        "lower",
    ),
    Robustness: _Kind(lambda result: _at(result.interval(), result.shown), _error_unit, "lower", scale=_PERCENT),
    SmoothedCertificate: _Kind(
        _certificate_ends,
        lambda results: f"% certified at l2 radius {common(results, 'sigma'):g}, smoothed [Wilson 95 %]",
        "higher",
        scale=_PERCENT,
    ),
    GeometricMargins: _Kind(
        _distance_ends, _distance_unit, "higher", censored=lambda result: int((~result.reached).sum())
    ),
    AdversarialPoints: _Kind(
        lambda _result: _UNKNOWN,
        lambda results: f"{common(results, 'norm')} distance; median over samples of the shortest found",
        "higher",
        censored=lambda result: int((~result.reached).sum()),
    ),
    AdversarialAccuracy: _Kind(
        lambda result: _at(result.interval(), result.shown), _accuracy_unit, "higher", scale=_PERCENT
    ),
}
