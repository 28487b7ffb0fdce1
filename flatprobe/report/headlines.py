"""Headline figures of the summary, one per result, with their uncertainty."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flatprobe.plotting.names import common
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.probes.hessian_eigenvalues import HessianEigenvalues
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.probes.jacobian import JacobianNorms
from flatprobe.probes.jacobian_maximum import JacobianMaximum
from flatprobe.probes.margins import Margins
from flatprobe.probes.robustness import Robustness
from flatprobe.probes.sharpness import WorstCaseSharpness
from flatprobe.probes.slices import RandomSlice
from flatprobe.probes.smoothing import SmoothedCertificate
from flatprobe.probes.weight_norms import WeightNorms
from flatprobe.report.numbers import percent, plus_minus, three
from flatprobe.utils.results import Result

# The larger of the two noise levels of T3 Fig. 19; the nearest one measured is shown.
_LEVEL = 0.2


@dataclass(frozen=True)
class Headline:
    """Headline figure of a result: value, for statistics across networks, and words."""

    value: float
    words: str
    censored: int = 0


def headline(result: Result) -> Headline | None:
    """Headline figure of one result; None for a landscape, which has none."""
    entry = _KINDS.get(type(result))
    return entry[0](result) if entry else None


def unit(results: Mapping[str, Result]) -> str:
    """Meaning and unit of the headline figures of results of one class."""
    return _KINDS[type(next(iter(results.values())))][1](results)


def _radius(result: FlatnessRadii) -> Headline:
    total, censored = len(result.radii), result.censored
    words = plus_minus(result.mean, result.std)
    if censored:
        limit = result.settings.get("arguments", {}).get("max_radius", math.nan)
        words = (
            f"not reached by {three(limit)}"
            if censored == total
            else f"{words} ({censored} of {total} beyond {three(limit)})"
        )
    return Headline(result.mean, words, censored)


def _radius_unit(results: Mapping[str, Result]) -> str:
    law = common(results, "law")
    kind = "distance in weight space" if law == "isotropic" else f"relative to the weights, {law} law"
    return f"{kind}; mean ± sd across directions"


def _eigenvalue(result: HessianEigenvalues) -> Headline:
    value = result.summary()["eigenvalue"]
    return Headline(value, three(value))


def _trace(result: HessianTrace) -> Headline:
    return Headline(result.trace, plus_minus(result.trace, result.standard_error))


def _worst(result: WorstCaseSharpness) -> Headline:
    return Headline(result.sharpness, f"≥ {three(result.sharpness)}")


def _worst_unit(results: Mapping[str, Result]) -> str:
    return f"increase of the loss found within {common(results, 'radius'):g}, {common(results, 'law')} ball"


def _slice(result: RandomSlice) -> Headline:
    value = result.summary()["max_increase"]
    return Headline(value, three(value))


def _noise(result: GradientNoise) -> Headline:
    return Headline(result.noise_scale, plus_minus(result.noise_scale, result.noise_scale_error))


def _norms(result: WeightNorms) -> Headline:
    product = result.product()
    return Headline(product, f"{three(product)}; {three(result.path)}")


def _margin(result: Margins) -> Headline:
    value = result.summary()["median"]
    return Headline(value, three(value))


def _jacobian(result: JacobianNorms) -> Headline:
    figures = result.summary()
    mean = plus_minus(figures["mean"], figures["standard_error"])
    return Headline(figures["median"], f"{three(figures['median'])}; {mean}")


def _place(result: Robustness) -> int:
    return int((result.gammas - _LEVEL).abs().argmin())


def _error(result: Robustness) -> Headline:
    place = _place(result)
    lower, upper = (percent(float(end[place])) for end in result.interval())
    value = float(result.mean[place])
    return Headline(100 * value, f"{percent(value)} [{lower}, {upper}]")


def _error_unit(results: Mapping[str, Result]) -> str:
    common(results, "gammas")
    first = next(iter(results.values()))
    assert isinstance(first, Robustness)
    return f"% misclassified at noise {first.gammas[_place(first)]:g} [Wilson 95 %]"


def _certificate(result: SmoothedCertificate) -> Headline:
    at = [result.settings["arguments"]["sigma"]]
    value = float(result.certified_accuracy(at))
    lower, upper = (percent(float(end)) for end in result.interval(at))
    return Headline(100 * value, f"{percent(value)} [{lower}, {upper}]")


def _sandwich(result: GeometricMargins) -> Headline:
    figures = result.summary()
    value = figures["median_upper"]
    missed = int(figures["not_reached"])
    words = f"[{three(figures['median_lower'])}, {three(value)}]"
    return Headline(value, f"{words} ({missed} not found)" if missed else words, missed)


def _sandwich_unit(results: Mapping[str, Result]) -> str:
    first = next(iter(results.values()))
    assert isinstance(first, GeometricMargins)
    low = "certified" if first.certified or first.uncertified else "estimated"
    return f"{common(results, 'norm')} distance; medians over samples, {low} lower bound and shortest found"


def _budget(result: AdversarialAccuracy) -> int:
    """Position of the budget a third of the way up the grid."""
    order = result.budgets.argsort()
    return int(order[(len(order) + 1) // 3])


def _accuracy(result: AdversarialAccuracy) -> Headline:
    place = _budget(result)
    lower, upper = (percent(float(end[place])) for end in result.interval())
    value = float(result.accuracy[place])
    return Headline(100 * value, f"{percent(value)} [{lower}, {upper}]")


def _accuracy_unit(results: Mapping[str, Result]) -> str:
    common(results, "budgets")
    first = next(iter(results.values()))
    assert isinstance(first, AdversarialAccuracy)
    attack = str(common(results, "attack")).upper()
    return f"% correct under {attack}, {common(results, 'norm')} budget {first.budgets[_budget(first)]:g} [Wilson 95 %]"


_KINDS: dict[type[Result], tuple[Callable[[Any], Headline], Callable[[Mapping[str, Result]], str]]] = {
    FlatnessRadii: (_radius, _radius_unit),
    RandomSlice: (
        _slice,
        lambda results: (
            f"largest increase of the loss within {common(results, 'extent'):g}, {common(results, 'law')} law"
        ),
    ),
    HessianEigenvalues: (_eigenvalue, lambda results: f"loss per squared weight; {common(results, 'which')}"),
    HessianTrace: (_trace, lambda _results: "loss per squared weight; ± standard error over draws"),
    WorstCaseSharpness: (_worst, _worst_unit),
    WeightNorms: (_norms, lambda _results: "product of spectral norms; path norm"),
    GradientNoise: (_noise, lambda _results: "samples; noise scale ± standard error over draws"),
    Margins: (_margin, lambda results: f"{common(results, 'outputs') or 'logits'}; median over samples"),
    JacobianNorms: (
        _jacobian,
        lambda results: f"{common(results, 'outputs')} per input unit; median; mean ± standard error over samples",
    ),
    JacobianMaximum: (
        lambda result: Headline(result.maximum, f"≥ {three(result.maximum)}"),
        lambda results: f"{common(results, 'outputs')} per input unit; largest found",
    ),
    Robustness: (_error, _error_unit),
    SmoothedCertificate: (
        _certificate,
        lambda results: f"% certified at l2 radius {common(results, 'sigma'):g}, smoothed [Wilson 95 %]",
    ),
    GeometricMargins: (_sandwich, _sandwich_unit),
    AdversarialAccuracy: (_accuracy, _accuracy_unit),
}
