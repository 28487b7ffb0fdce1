"""Tables of the figures of the weights."""

from collections.abc import Mapping

from flatprobe.plotting.names import layer_names
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.probes.hessian_eigenvalues import HessianEigenvalues
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.probes.interpolation import Interpolation
from flatprobe.probes.sharpness import WorstCaseSharpness
from flatprobe.probes.slices import RandomSlice
from flatprobe.probes.surfaces import has_error
from flatprobe.probes.weight_norms import WeightNorms
from flatprobe.report.section import Table
from flatprobe.utils.numbers import MISSING, percent, plus_minus, three


def radii(results: Mapping[str, FlatnessRadii]) -> Table:
    """Loss and error at the start, radii, and number of evaluations."""
    heading = ("network", "loss at the start", "error at the start", "mean ± sd", "median", "reached", "evaluations")
    rows = [
        (
            name,
            three(result.start.loss),
            f"{percent(result.start.error)} %" if "error" in result.start.figures() else MISSING,
            plus_minus(result.mean, result.std),
            three(result.median),
            f"{len(result.radii) - result.censored} of {len(result.radii)}",
            str(int(result.evaluations.sum())),
        )
        for name, result in results.items()
    ]
    return Table(heading, tuple(rows))


def landscapes(results: Mapping[str, Interpolation]) -> Table:
    """Loss at the networks and largest loss between them; for lines also the barrier."""
    lines = all(result.coefficients.shape[1] == 2 for result in results.values())
    heading = ("landscape", "loss at the networks", "largest loss", "least accuracy", "points", "not finite")
    rows = []
    for name, result in results.items():
        corners = (result.coefficients == 1).any(1)
        known = result.loss.isfinite()
        row = (
            name,
            ", ".join(three(value) for value in result.loss[corners].tolist()),
            three(float(result.loss[known].max())) if bool(known.any()) else MISSING,
            f"{percent(float(result.accuracy[known].min()))} %" if has_error(result) and bool(known.any()) else MISSING,
            str(len(result.loss)),
            str(int((~known).sum())),
        )
        rows.append((*row, three(result.barrier)) if lines else row)
    return Table((*heading, "barrier") if lines else heading, tuple(rows))


def slices(results: Mapping[str, RandomSlice]) -> Table:
    """Loss at the weights and its largest increase."""
    heading = ("network", "loss at the weights", "largest increase", "points", "not finite")
    rows = []
    for name, result in results.items():
        figures = result.summary()
        row = (three(figures["center_loss"]), three(figures["max_increase"]))
        rows.append((name, *row, str(result.loss.numel()), str(int(figures["not_finite"]))))
    return Table(heading, tuple(rows))


def eigenvalues(results: Mapping[str, HessianEigenvalues]) -> Table:
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


def trace(results: Mapping[str, HessianTrace]) -> Table:
    """Trace of the Hessian, and of the block of each layer."""
    names = list(dict.fromkeys(layer for result in results.values() for layer in layer_names(result, result.layers)))
    rows = []
    for name, result in results.items():
        shown = layer_names(result, list(result.per_layer))
        cells = {layer: plus_minus(*own) for layer, own in zip(shown, result.per_layer.values(), strict=True)}
        whole = plus_minus(result.trace, result.standard_error)
        rows.append((name, str(len(result.forms)), whole, *(cells.get(layer, MISSING) for layer in names)))
    return Table(("network", "draws", "trace ± standard error", *names), tuple(rows))


def worst(results: Mapping[str, WorstCaseSharpness]) -> Table:
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


def noise(results: Mapping[str, GradientNoise]) -> Table:
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


def weights(results: Mapping[str, WeightNorms]) -> Table:
    """Norms and their products."""
    figures = {name: result.summary() for name, result in results.items()}
    heading = ("network", *(name.replace("_", " ") for name in next(iter(figures.values()))))
    return Table(heading, tuple((name, *map(three, own.values())) for name, own in figures.items()))
