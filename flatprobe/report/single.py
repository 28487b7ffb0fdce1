"""Report sections of weight norms, Jacobian maxima and generalization bounds."""

from collections.abc import Mapping
from typing import Any

from flatprobe.bounds import Bound
from flatprobe.plotting import bounds, histogram, png, weight_norms
from flatprobe.plotting.names import common
from flatprobe.probes.jacobian_maximum import JacobianMaximum
from flatprobe.probes.weight_norms import WeightNorms
from flatprobe.report.section import Section, Table
from flatprobe.utils.numbers import three

Results = Mapping[str, Any]
Groups = Mapping[str, str] | None


def weights(title: str, results: Results, groups: Groups) -> list[Section]:
    """Section with the norms of the layers and of all weights."""
    sentence = (
        "The spectral norm of each layer as a linear operator, with BatchNorm folded in (filled), and of its kernel "
        "reshaped to a matrix (open), which is smaller for convolutions. Along a chain of layers the product of the "
        "filled norms bounds the steepness of the network. Smaller is smoother."
    )
    words = f"Norms of the layers of {', '.join(results)}"
    return [Section(title, sentence, png(weight_norms.draw(results, groups=groups)), words, _weights_table(results))]


def _weights_table(results: Mapping[str, WeightNorms]) -> Table:
    figures = {name: result.summary() for name, result in results.items()}
    heading = ("network", *(name.replace("_", " ") for name in next(iter(figures.values()))))
    return Table(heading, tuple((name, *map(three, own.values())) for name, own in figures.items()))


def maximum(title: str, results: Results, groups: Groups) -> list[Section]:
    """Section with histograms of the largest norms."""
    norm, outputs, along = (common(results, name) for name in ("norm", "outputs", "along"))
    where = "each sample" if along == "samples" else "each segment between two random samples"
    sentence = (
        f"The largest {norm} norm of the Jacobian of the {outputs} found at {where}. The rightmost value is a lower "
        "bound of the supremum, which bounds the growth of distances. Smaller is smoother."
    )
    words = f"Histograms of {', '.join(results)}"
    return [Section(title, sentence, png(histogram.draw(results, groups=groups)), words, _maximum_table(results))]


def _maximum_table(results: Mapping[str, JacobianMaximum]) -> Table:
    rows = []
    for name, result in results.items():
        first, second, at = result.where
        place = f"sample {first}" if first == second else f"{three(at)} of the way from sample {first} to {second}"
        rows.append((name, three(result.maximum), place, str(len(result)), str(result.points)))
    return Table(("network", "largest", "found at", "samples or segments", "points on each"), tuple(rows))


def bound(title: str, results: Results, groups: Groups) -> list[Section]:
    """Section with the terms of the bounds as bars."""
    sentence = (
        "A generalization bound of the expected loss, term by term, in units of the largest possible loss. From 1 on "
        "(dashed) a bound is vacuous. If something was chosen after the data were seen, the stated probability does "
        "not hold."
    )
    words = f"Bars of {', '.join(results)}"
    return [Section(title, sentence, png(bounds.draw(results, groups=groups)), words, _bound_table(results))]


def _bound_table(results: Mapping[str, Bound]) -> Table:
    rows = [
        (
            name,
            three(own.expected),
            three(own.empirical),
            "; ".join(f"{term} {three(value)}" for term, value in own.terms.items()),
            "yes" if own.vacuous else "no",
            ", ".join(own.chosen) or "nothing",
            "theorem" if own.proven else "rate only",
        )
        for name, own in results.items()
    ]
    heading = ("bound", "expected loss at most", "empirical", "terms", "vacuous", "chosen after the data", "proven")
    return Table(heading, tuple(rows))
