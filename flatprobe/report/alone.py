"""Sentences that relate the figures of one network to each other."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.probes.jacobian import JacobianNorms
from flatprobe.probes.margins import Margins
from flatprobe.probes.robustness import Robustness
from flatprobe.utils.numbers import percent, three
from flatprobe.utils.results import Result

R = TypeVar("R", bound=Result)


def sentences(records: Mapping[str, Mapping[str, Result]], facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The radius against the weights' norm, distances against margins and slopes, and the error under noise.

    Empty for several networks. A sentence is left out where its figures were not measured.
    """
    if len(facts) != 1:
        return []
    ((name, own),) = facts.items()
    results = [found[name] for found in records.values() if name in found]
    return [words for words in (_radius(results, own.get("norm")), _distance(results), _noise(results)) if words]


def _radius(results: list[Result], norm: float | None) -> str:
    for result in _of(results, FlatnessRadii):
        own = result.settings.get("arguments", {})
        if own.get("law") == "isotropic" and own.get("parameters") is None and norm and math.isfinite(result.mean):
            beyond = f", in the {len(result.radii) - result.censored} of {len(result.radii)} directions that reach it"
            return (
                f"Along a random direction the weights move by {three(result.mean)} on average, "
                f"{three(100 * result.mean / norm)} % of their norm of {three(norm)}, before the "
                f"{own.get('objective', 'loss')} changes by {own.get('epsilon', math.nan):g}"
                f"{beyond if result.censored else ''}."
            )
    return ""


def _distance(results: list[Result]) -> str:
    found = next(iter(_of(results, GeometricMargins)), None)
    if found is None:
        return ""
    figures = found.summary()
    norm = found.settings.get("arguments", {}).get("norm", "l2")
    upper, lower = figures["median_upper"], figures["median_lower"]
    words = f"The nearest input of another class that was found is at {norm} distance {three(upper)} (median)"
    if found.certified and not found.uncertified:
        words += f"; within {three(lower)} (median) a certificate excludes any"
    else:
        reason = next(iter(found.uncertified.values()), "")
        words += f"; no distance is certified{f': {reason}' if reason else ''}"
    straight = _straight(results, found) if norm == "l2" else math.nan
    if math.isfinite(upper) and straight > 0:
        words += (
            f". If the lead of each sample's logit fell at the steepest slope there, it would be used up at "
            f"{three(straight)}, the median of margin / (√2 Jacobian norm): the distance found is "
            f"{three(upper / straight)} times that"
        )
    return f"{words}."


def _straight(results: list[Result], found: GeometricMargins) -> float:
    """Median over samples of max(margin, 0) / (√2 ||J||_2); NaN unless both were measured on the same samples."""
    margins = [own for own in _of(results, Margins) if own.settings.get("probe") == "functional_margins"]
    slopes = [own for own in _of(results, JacobianNorms) if own.settings["arguments"].get("outputs") == "logits"]
    slopes = [own for own in slopes if own.settings["arguments"].get("norm") == "spectral"]
    if not margins or not slopes or len({_data(own) for own in (margins[0], slopes[0], found)}) > 1:
        return math.nan
    ratios = margins[0].values.clamp(min=0) / (math.sqrt(2) * slopes[0].values)
    return float(torch.quantile(ratios, 0.5))


def _data(result: Result) -> object:
    return (result.settings.get("subject", {}).get("data") or {}).get("fingerprint")


def _noise(results: list[Result]) -> str:
    for result in _of(results, Robustness):
        errors = {float(gamma): float(error) for gamma, error in zip(result.gammas, result.mean, strict=True)}
        shown = float(result.gammas[result.shown])
        clean = f", against {percent(errors[0.0])} % without noise" if 0.0 in errors and shown else ""
        level = f"Under Gaussian noise of standard deviation {shown:g}"
        return f"{level}, {percent(errors[shown])} % of the samples are misclassified{clean}."
    return ""


def _of(results: list[Result], kind: type[R]) -> list[R]:
    return [result for result in results if isinstance(result, kind)]
