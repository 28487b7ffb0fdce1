"""Sections of the probes of the weights."""

import math
from typing import Any

from flatprobe.plotting import gradient_noise, line, radii, sharpness, triangle, weight_norms
from flatprobe.plotting import slices as slice_plot
from flatprobe.plotting.names import common, layer_names
from flatprobe.report import weight_tables as tables
from flatprobe.report.kind import Groups, Kind, Results
from flatprobe.utils.numbers import three


def _listed(*words: str) -> str:
    return ", ".join(filter(None, words))


def _law(results: Results) -> str:
    law = common(results, "law")
    return f"{law} law" if law else ""


def _parameters(results: Results) -> str:
    names = common(results, "parameters")
    if names is None:
        return "all parameters"
    if isinstance(names, str):
        return "last layer" if names == "last" else f"parameters {names}"
    shown = layer_names(next(iter(results.values())), names)
    return ", ".join(shown) if len(shown) <= 2 else f"{len(names)} parameter tensors"


def _selection(results: Results) -> str:
    return "" if common(results, "parameters") is None else _parameters(results)


def _radii_particulars(results: Results) -> str:
    objective, epsilon = (common(results, name) for name in ("objective", "epsilon"))
    change = f"change of the {objective or 'loss'} by {epsilon:g}" if epsilon is not None else ""
    directions = len(next(iter(results.values())).radii)
    return _listed(_law(results), _parameters(results), change, f"{directions} directions")


RADII = Kind(
    title="Flatness radii",
    sentence=lambda _results: (
        "The distance that the weights can move along a random direction before the training loss (or error) first "
        "changes by the given amount. Each point is one direction. An open triangle at the right edge is a direction "
        "without such a change before the search ended. A larger radius means a flatter minimum. The isotropic law "
        "measures distance in weight space, so compare it with the norm of the weights; the adaptive and filter laws "
        "measure it in units of the weights, and a rescaling of units does not change the adaptive one."
    ),
    particulars=_radii_particulars,
    picture=lambda results, groups: radii.draw(results, groups=groups),
    shows="A point per direction and a box per network",
    table=tables.radii,
)


def _largest_losses(results: Results) -> tuple[str, dict[str, float]]:
    known = {name: result.loss[result.loss.isfinite()] for name, result in results.items()}
    return "largest loss between the networks", {name: float(own.max()) for name, own in known.items() if len(own)}


def _least_accuracies(results: Results) -> tuple[str, dict[str, float]]:
    known = {name: result.accuracy[result.loss.isfinite()] for name, result in results.items()}
    return "least accuracy between the networks", {name: float(own.min()) for name, own in known.items() if len(own)}


TRIANGLES = Kind(
    title="Landscape: loss",
    live="loss",
    suffix=": loss",
    sentence=lambda _results: (
        "Training loss at the combinations a w₁ + b w₂ + c w₃ (a + b + c = 1) of the weights of three trained "
        "networks, which are the corners in the given order. All panels have the same logarithmic colours. A dark "
        "area between bright corners is a barrier that separates the networks."
    ),
    picture=lambda results, _groups: triangle.draw_row(results),
    shows="A triangle of loss per group, between three networks in the corners",
    table=tables.landscapes,
    values=_largest_losses,
)
SURFACES = Kind(
    title="Landscape: accuracy",
    live="accuracy",
    suffix=": accuracy",
    sentence=lambda _results: (
        "Training accuracy at the same combinations as the height of a surface over the triangle. A level surface "
        "means that the networks can be mixed without loss, a sagging surface that accuracy is lost between them."
    ),
    picture=lambda results, _groups: triangle.draw_row(results, quantity="accuracy", surface=True),
    shows="A surface of accuracy over the triangle per group",
    table=lambda _results: None,
    values=_least_accuracies,
)
LINES = Kind(
    title="Landscape: line",
    live="loss",
    suffix=": line",
    sentence=lambda _results: (
        "Training loss on the straight line between the weights of two trained networks. The arrow is the barrier, the "
        "largest excess of the loss over the straight line between its values at the two networks. Without a barrier "
        "the networks are in one basin."
    ),
    picture=lambda results, _groups: line.draw(results),
    shows="A curve of loss between two networks per group",
    table=tables.landscapes,
    values=lambda results: ("barrier", {name: result.barrier for name, result in results.items()}),
)


def _slice_particulars(results: Results) -> str:
    scale = "1 moves each filter by its own norm" if common(results, "law") == "filter" else ""
    return _listed(_law(results), scale, _selection(results))


def _below(results: Results, where: str) -> str:
    """A sentence on the networks whose loss is lower elsewhere on the line or plane than at their weights."""
    found = []
    for name, result in results.items():
        losses = result.loss[result.loss.isfinite()]
        least, center = three(float(losses.min()) if len(losses) else math.nan), three(result.center)
        if len(losses) and float(losses.min()) < result.center and least != center:
            found.append(f"{name} ({least} against {center})")
    if not found:
        return ""
    listed = ", ".join([*found[:3], *([f"and {len(found) - 3} more"] if found[3:] else [])])
    return f" The least loss on the {where} is below that at the weights, which are no minimum along it: {listed}."


def _slice(dimensions: int) -> Kind:
    where = "line" if dimensions == 1 else "plane"
    return Kind(
        title=f"Random {where}s",
        live="loss",
        sentence=lambda results: (
            f"The loss on a random {where} through the trained weights. The wider the valley, the flatter the minimum "
            f"in that direction; other directions may differ.{_below(results, where)}"
        ),
        particulars=_slice_particulars,
        picture=lambda results, groups: (
            slice_plot.draw(results, groups=groups) if dimensions == 1 else slice_plot.draw_row(results)
        ),
        shows="A curve of loss per network" if dimensions == 1 else "Contours of loss per network",
        table=tables.slices,
    )


LINE_SLICES, PLANE_SLICES = _slice(1), _slice(2)


def _blocks(results: Results) -> str:
    return ", separately for the block of each layer" if common(results, "per_layer") else ""


def _points(results: Results, groups: Groups) -> Any:
    return sharpness.draw(results, groups=groups)


EIGENVALUES = Kind(
    title="Hessian eigenvalues",
    sentence=lambda results: (
        f"The {common(results, 'which')} eigenvalues of the Hessian of the loss over the whole data set"
        f"{_blocks(results)}: the curvature along the eigenvectors. A smaller largest eigenvalue means a flatter "
        "minimum. It depends on the scale of the weights."
    ),
    particulars=_selection,
    picture=_points,
    shows="A point per eigenvalue and network",
    table=tables.eigenvalues,
)
TRACE = Kind(
    title="Hessian trace",
    sentence=lambda _results: (
        "The sum of all eigenvalues of the Hessian of the loss, estimated with Rademacher vectors, with its standard "
        "error. Smaller is flatter. It depends on the scale of the weights."
    ),
    particulars=_selection,
    picture=_points,
    shows="A point with its standard error per network",
    table=tables.trace,
)
WORST = Kind(
    title="Worst-case sharpness",
    sentence=lambda _results: (
        "The largest increase of the loss that gradient ascent found within a ball around the weights, one point per "
        "restart. It is a lower bound of the worst case. Smaller is flatter."
    ),
    particulars=lambda results: _listed(_law(results), f"radius {common(results, 'radius'):g}", _selection(results)),
    picture=_points,
    shows="A point per restart and network",
    table=tables.worst,
)
NOISE = Kind(
    title="Gradient noise",
    sentence=lambda results: (
        f"The difference between the gradients of random minibatches of {common(results, 'batch_size')} and the full "
        "gradient, per component in standard deviations, beside the normal density. The noise scale is the minibatch "
        "size whose noise is as long as the gradient."
    ),
    particulars=_selection,
    picture=lambda results, groups: gradient_noise.draw(results, groups=groups),
    shows="A histogram of gradient components per network",
    table=tables.noise,
)
WEIGHTS = Kind(
    title="Weight norms",
    sentence=lambda _results: (
        "The spectral norm of each layer as a linear operator, with BatchNorm folded in (filled), and of its kernel "
        "reshaped to a matrix (open), which is smaller for convolutions. Along a chain of layers the product of the "
        "filled norms bounds the steepness of the network. Smaller is smoother."
    ),
    picture=lambda results, groups: weight_norms.draw(results, groups=groups),
    shows="The norms of the layers of each network",
    table=tables.weights,
)
