"""Headline figures of a comparison, by topic."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flatprobe.bounds import Bound
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.generalization import Generalization
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
from flatprobe.report.sections import in_order, make_title
from flatprobe.studies.headlines import Headline, better, headline, invariant, unit
from flatprobe.utils.numbers import three
from flatprobe.utils.results import Result

GENERALIZATION, FLATNESS, INPUTS, BOUNDS = (
    "Generalization", "Flatness: the weights", "Margins, smoothness, robustness: the inputs", "Bounds",
)  # fmt: skip
_NORM = "Norm of the weights"
SATURATED = math.sqrt(2)  # the largest score


@dataclass(frozen=True)
class Figure:
    """One headline figure of all networks, a column of the answer.

    Attributes:
        measurement: key of the measurement.
        figure: its name in the summary of a result.
        title: heading of the column.
        unit: meaning, unit and interval.
        way: direction of the better network, if any.
        invariant: whether a rescaling of units leaves it unchanged.
        topic: heading of the table.
        says: comparative of the better network.
        values: network -> headline.
        first: whether it is the figure of its measurement that networks are compared by.
    """

    measurement: str
    figure: str
    title: str
    unit: str
    way: str | None
    invariant: bool
    topic: str
    says: str
    values: dict[str, Headline]
    first: bool = True

    @property
    def saturated(self) -> bool:
        """True if all are scores that have reached their maximum on the page."""
        return self.measurement.startswith("scores") and all(
            own.words.startswith(three(SATURATED)) for own in self.values.values()
        )


# Class -> topic, and what the better network is. A figure without a direction is only "larger".
_TOPICS: dict[type[Result], tuple[str, str]] = {
    FlatnessRadii: (FLATNESS, "flatter"),
    RandomSlice: (FLATNESS, "flatter"),
    HessianEigenvalues: (FLATNESS, "flatter"),
    HessianTrace: (FLATNESS, "flatter"),
    WorstCaseSharpness: (FLATNESS, "flatter"),
    GradientNoise: (FLATNESS, "larger"),
    WeightNorms: (FLATNESS, "larger"),
    Margins: (INPUTS, "more certain"),
    JacobianNorms: (INPUTS, "smoother"),
    JacobianMaximum: (INPUTS, "smoother"),
    Robustness: (INPUTS, "more robust"),
    SmoothedCertificate: (INPUTS, "more robust"),
    GeometricMargins: (INPUTS, "more robust"),
    AdversarialAccuracy: (INPUTS, "more robust"),
    Bound: (BOUNDS, "larger"),
}
_GENERALIZATION = {
    "train_accuracy": ("Training accuracy", "higher", "more accurate"),
    "test_accuracy": ("Test accuracy", "higher", "more accurate"),
    "accuracy_gap": ("Accuracy gap", "lower", "better generalizing"),
    "train_loss": ("Training loss", "lower", "of smaller loss"),
    "test_loss": ("Test loss", "lower", "of smaller loss"),
    "loss_gap": ("Loss gap", "lower", "better generalizing"),
}


def headline_figures(
    records: Mapping[str, Mapping[str, Result]], facts: Mapping[str, Mapping[str, Any]]
) -> list[Figure]:
    """Figures in the order of the page: generalization first, the norm of the weights before the radii.

    Args:
        records: measurement -> network -> result.
        facts: network -> facts, of which the norm of the weights is a figure where it was not measured.
    """
    found = [figure for key, results in in_order(records).items() for figure in _figures(key, results)]
    norms = {name: float(own["norm"]) for name, own in facts.items() if own.get("norm") is not None}
    if norms and not any(figure.title == _NORM for figure in found):
        values = {name: Headline("norm", value, math.nan, math.nan, three(value)) for name, value in norms.items()}
        found.append(Figure("norm", "norm", _NORM, "l2 norm of all weights", None, False, FLATNESS, "larger", values))
    return found


def _figures(key: str, results: Mapping[str, Result]) -> Iterator[Figure]:
    first = next(iter(results.values()))
    if isinstance(first, Generalization):
        yield from _generalization(key, results)
        return
    values = {name: own for name, result in results.items() if (own := headline(result)) is not None}
    if not values:
        return
    topic, says = _TOPICS.get(type(first), (INPUTS, "larger"))
    way = better(first)
    figure = next(iter(values.values())).figure
    unchanged = all(invariant(result) for result in results.values())
    title = _NORM if key == "weight_norms" else make_title(key)
    yield Figure(key, figure, title, unit(results), way, unchanged, topic, says if way else "larger", values)


def _generalization(key: str, results: Mapping[str, Result]) -> Iterator[Figure]:
    prefix = "" if key == "generalization" else f"{make_title(key)}: "
    found = {name: own for name, own in results.items() if isinstance(own, Generalization)}
    first = {own.figure for result in found.values() if (own := headline(result)) is not None}
    for figure, (title, way, says) in _GENERALIZATION.items():
        scale = 100.0 if "accuracy" in figure else 1.0
        values = {name: _headline(own, figure, scale) for name, own in found.items() if figure in own.summary()}
        if values:
            unit = "% [95 %]" if scale == 100 else "per sample [95 %]"
            yield Figure(key, figure, prefix + title, unit, way, True, GENERALIZATION, says, values, figure in first)


def _headline(result: Generalization, figure: str, scale: float) -> Headline:
    value, (lower, upper) = result.summary()[figure], result.interval(figure)
    shown, low, high = (three(scale * number) for number in (value, lower, upper))
    return Headline(
        figure, value, lower, upper, shown if math.isnan(lower) else f"{shown} [{low}, {high}]", scale=scale
    )


def by_topic(figures: list[Figure]) -> dict[str, list[Figure]]:
    """Topic -> its figures, with the norm of the weights first among those of the weights."""
    found = {
        topic: sorted((own for own in figures if own.topic == topic), key=lambda own: own.title != _NORM)
        for topic in (GENERALIZATION, FLATNESS, INPUTS, BOUNDS)
    }
    return {topic: own for topic, own in found.items() if own}
