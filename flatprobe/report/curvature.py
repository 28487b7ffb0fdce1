"""Report sections of random slices, curvature and gradient noise."""

from collections.abc import Mapping
from typing import Any

from flatprobe.plotting import gradient_noise, png, sharpness
from flatprobe.plotting import slices as slice_plot
from flatprobe.plotting.names import common
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.probes.hessian_eigenvalues import HessianEigenvalues
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.probes.sharpness import WorstCaseSharpness
from flatprobe.probes.slices import RandomSlice
from flatprobe.report.section import Section, Table
from flatprobe.utils.numbers import MISSING, plus_minus, three

Results = Mapping[str, Any]
Groups = Mapping[str, str] | None


def slices(title: str, results: Results, groups: Groups) -> list[Section]:
    """Sections with the curves of lines and the contours of planes."""
    by_dimensions: dict[int, dict[str, RandomSlice]] = {}
    for name, result in results.items():
        by_dimensions.setdefault(result.loss.ndim, {})[name] = result
    law = common(results, "law")
    found = []
    for dimensions, own in sorted(by_dimensions.items()):
        where = "a random line" if dimensions == 1 else "a random plane"
        scale = ", where 1 moves each filter by its own norm" if law == "filter" else ""
        sentence = (
            f"The loss on {where} through the trained weights ({law} law{scale}{_selection(own)}). The wider the "
            "valley, the flatter the minimum in that direction; other directions may differ."
        )
        picture = png(slice_plot.draw(own, groups=groups) if dimensions == 1 else slice_plot.draw_row(own))
        words = _words("Curves of loss" if dimensions == 1 else "Contours of loss", own)
        found.append(Section(title, sentence, picture, words, _slices_table(own)))
    return found


def eigenvalues(title: str, results: Results, groups: Groups) -> list[Section]:
    """Section with the eigenvalues as points."""
    sentence = (
        f"The {common(results, 'which')} eigenvalues of the Hessian of the loss over the whole data set"
        f"{_blocks(results)}{_selection(results)}: the curvature along the eigenvectors. A smaller largest eigenvalue "
        "means a flatter minimum. It depends on the scale of the weights."
    )
    picture = png(sharpness.draw(results, groups=groups))
    return [Section(title, sentence, picture, _words("Points of curvature", results), _eigenvalues_table(results))]


def trace(title: str, results: Results, groups: Groups) -> list[Section]:
    """Section with the trace and its standard error."""
    sentence = (
        f"The sum of all eigenvalues of the Hessian of the loss{_selection(results)}, estimated with Rademacher "
        "vectors, with its standard error."
    )
    picture = png(sharpness.draw(results, groups=groups))
    return [Section(title, sentence, picture, _words("Points of curvature", results), _trace_table(results))]


def worst(title: str, results: Results, groups: Groups) -> list[Section]:
    """Section with the increase of each restart as points."""
    sentence = (
        "The largest increase of the loss that gradient ascent found within a ball around the weights "
        f"({common(results, 'law')} law, radius {common(results, 'radius'):g}{_selection(results)}), one point per "
        "restart. It is a lower bound of the worst case."
    )
    picture = png(sharpness.draw(results, groups=groups))
    return [Section(title, sentence, picture, _words("Points of increase", results), _worst_table(results))]


def noise(title: str, results: Results, groups: Groups) -> list[Section]:
    """Section with the histograms of the components."""
    sentence = (
        f"The difference between the gradients of random minibatches of {common(results, 'batch_size')} and the full "
        f"gradient{_selection(results)}, per component in standard deviations, beside the normal density. The noise "
        "scale is the minibatch size whose noise is as long as the gradient."
    )
    picture = png(gradient_noise.draw(results, groups=groups))
    return [Section(title, sentence, picture, _words("Histograms", results), _noise_table(results))]


def _selection(results: Results) -> str:
    """The selected weights in words, if not all."""
    selection = common(results, "parameters")
    if selection is None:
        return ""
    return f", of the selected weights only ({selection if isinstance(selection, str) else ', '.join(selection)})"


def _blocks(results: Results) -> str:
    return ", separately for the block of each layer" if common(results, "per_layer") else ""


def _words(what: str, results: Results) -> str:
    return f"{what} of {', '.join(results)}"


def _slices_table(results: Mapping[str, RandomSlice]) -> Table:
    """Loss at the weights and its largest increase."""
    heading = ("network", "loss at the weights", "largest increase", "points", "not finite")
    rows = []
    for name, result in results.items():
        figures = result.summary()
        row = (three(figures["center_loss"]), three(figures["max_increase"]))
        rows.append((name, *row, str(result.loss.numel()), str(int(figures["not_finite"]))))
    return Table(heading, tuple(rows))


def _eigenvalues_table(results: Mapping[str, HessianEigenvalues]) -> Table:
    """Eigenvalues with their residuals and their cost."""
    heading = ("network", "eigenvalues", "largest residual", "Hessian products")
    rows = [
        (
            name,
            ", ".join(three(value) for value in result.eigenvalues.tolist()),
            three(float(result.residuals.max())),
            str(result.products),
        )
        for name, result in results.items()
    ]
    return Table(heading, tuple(rows))


def _trace_table(results: Mapping[str, HessianTrace]) -> Table:
    """Trace of the Hessian, and of the block of each layer."""
    names = list(dict.fromkeys(layer for result in results.values() for layer in result.layers))
    rows = []
    for name, result in results.items():
        cells = {layer: plus_minus(*figures) for layer, figures in result.per_layer.items()}
        whole = plus_minus(result.trace, result.standard_error)
        rows.append((name, str(len(result.forms)), whole, *(cells.get(layer, MISSING) for layer in names)))
    return Table(("network", "draws", "trace ± standard error", *names), tuple(rows))


def _worst_table(results: Mapping[str, WorstCaseSharpness]) -> Table:
    """Largest and smallest increase over the restarts."""
    heading = ("network", "loss at the weights", "largest increase found", "least over the restarts", "restarts")
    rows = [
        (
            name,
            three(result.loss),
            three(result.sharpness),
            three(float(result.increases.min())),
            str(len(result.increases)),
        )
        for name, result in results.items()
    ]
    return Table(heading, tuple(rows))


def _noise_table(results: Mapping[str, GradientNoise]) -> Table:
    """Noise scale, excess kurtosis of the components, and norm of the gradient."""
    heading = (
        "network", "noise scale (samples) ± standard error", "mean excess kurtosis ± standard error", "tr Σ",
        "norm of the gradient", "components",
    )  # fmt: skip
    rows = [
        (
            name,
            plus_minus(result.noise_scale, result.noise_scale_error),
            plus_minus(result.mean_kurtosis, result.mean_kurtosis_error),
            three(result.trace_covariance),
            three(result.gradient_norm),
            f"{len(result.components):,} of {result.live:,}",
        )
        for name, result in results.items()
    ]
    return Table(heading, tuple(rows))
