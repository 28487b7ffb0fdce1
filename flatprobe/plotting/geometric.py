"""Distributions of the lower and upper bounds of the geometric margin."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from flatprobe.plotting import canvas, rows
from flatprobe.plotting.names import FEW, Groups, common, legend, looks, name_results
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.utils.results import Result

_DECADES = 4  # below the largest bound, at most: the 0 of a misclassified sample has no place on a logarithmic axis


@canvas.drawing()
def draw(results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Groups = None) -> Axes:
    """Distributions of both bounds of the geometric margin, which enclose its own.

    The curve of the upper bound (thick) is what attacks achieve within the distance. The curve of the lower bound
    (thin) is what is not ruled out. Misclassified samples count at every distance. Samples without an upper bound keep
    the thick curve below 1. The axis is logarithmic, since a certificate is often 100 times shorter than an attack.
    More than six networks have a row each, from the median lower bound to the median upper bound.

    Args:
        results: one `GeometricMargins`, or several by name, of the same norm.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, or different norms.
    """
    margins = name_results(results, GeometricMargins)
    norm = common(margins, "norm")
    label = canvas.towards(f"{norm} distance (pixel scale 0-1)", "more robust", "higher")
    kind = "certified" if all(r.certified or r.uncertified for r in margins.values()) else "estimated"
    if len(margins) > FEW:
        ax = _medians(margins, ax, groups)
        words = f"medians: {kind} lower bound to adversarial point"
    else:
        ax = _curves(margins, ax, groups)
        words = f"thick: adversarial points found; thin: {kind} lower bounds"
    ax.set_xlabel(f"{label}\n{words}")
    return ax


def _curves(margins: Mapping[str, GeometricMargins], ax: Axes | None, groups: Groups) -> Axes:
    own, given = looks(list(margins), groups), ax is not None
    ax, grid, handles = canvas.axes(ax), _grid(margins), {}
    for name, result in margins.items():
        style = {"color": own[name].colour, "linestyle": own[name].line}
        upper, lower = (_within(bound.numpy(), grid) for bound in (result.upper, result.lower))
        ax.fill_between(grid, upper, np.maximum(lower, upper), color=own[name].colour, alpha=0.12, linewidth=0)
        (handles[name],) = ax.plot(grid, upper, **style)
        ax.plot(grid, lower, linewidth=0.9, **style)
    canvas.scale(ax, "x", [grid], room=0)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("fraction of samples within")
    legend(ax, handles, given=given, groups=groups)
    return ax


def _medians(margins: Mapping[str, GeometricMargins], ax: Axes | None, groups: Groups) -> Axes:
    medians = {name: (float(own.lower.median()), float(own.upper.median())) for name, own in margins.items()}
    table = rows.prepare(list(margins), ax, groups, {name: ends[1] for name, ends in medians.items()})
    known = np.array([end for ends in medians.values() for end in ends if 0 < end < np.inf])
    canvas.scale(table.ax, "x", [known])
    edges = table.ax.get_xlim()
    for place, name in enumerate(table.order):
        low, high = np.clip(medians[name], *edges)  # half the samples misclassified, or without an adversarial point
        table.ax.plot([low, high], [place, place], color=table.colours[name], linewidth=6, solid_capstyle="butt")
    table.ax.set_xlim(edges)
    return table.ax


def _grid(margins: Mapping[str, GeometricMargins]) -> Float[np.ndarray, " points"]:
    bounds = np.concatenate([bound.numpy() for result in margins.values() for bound in (result.lower, result.upper)])
    known = bounds[np.isfinite(bounds) & (bounds > 0)]
    if not len(known):
        return np.geomspace(0.1, 1, 400)
    high = 1.1 * float(known.max())
    return np.geomspace(max(0.9 * float(known.min()), high * 10.0**-_DECADES), high, 400)


def _within(bounds: Float[np.ndarray, " samples"], grid: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    return np.searchsorted(np.sort(bounds), grid, side="right") / len(bounds)
