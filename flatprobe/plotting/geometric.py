"""Distributions of the lower and upper bounds of the geometric margin."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from flatprobe.plotting import canvas
from flatprobe.plotting.names import common, name_results, prepare
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.utils.results import Result

_DECADES = 4  # below the largest bound, at most: the 0 of a misclassified sample has no place on a logarithmic axis


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """Distributions of both bounds of the geometric margin, which enclose its own.

    The curve of the upper bound (thick) is what attacks achieve within the distance. The curve of the lower bound
    (thin) is what is not ruled out. Misclassified samples count at every distance. Samples without an upper bound keep
    the thick curve below 1. The axis is logarithmic, since a certificate is often 100 times shorter than an attack.

    Args:
        results: one `GeometricMargins`, or several by name, of the same norm.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes, with two lines per network and the band between them.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, or different norms.
    """
    margins = name_results(results, GeometricMargins)
    norm = common(margins, "norm")
    picture = prepare(ax, list(margins), groups)
    ax = picture.ax
    grid = _grid(margins)
    handles = {}
    for name, result in margins.items():
        look = picture.looks[name]
        upper, lower = (_within(bound.numpy(), grid) for bound in (result.upper, result.lower))
        ax.fill_between(grid, upper, np.maximum(lower, upper), color=look.colour, alpha=0.12, linewidth=0)
        (handles[name],) = ax.plot(grid, upper, color=look.colour, linestyle=look.line)
        ax.plot(grid, lower, color=look.colour, linestyle=look.line, linewidth=0.9)
    ax.set_xscale("log")
    ax.set_ylim(0, 1.02)
    ax.set_xlim(grid[0], grid[-1])
    kind = "certified" if all(r.certified or r.uncertified for r in margins.values()) else "estimated"
    curves = f"thick: adversarial points found; thin: {kind} lower bounds"
    ax.set_xlabel(f"{norm} distance (pixel scale 0-1)\n{curves}")
    ax.set_ylabel("fraction of samples within")
    picture.legend(handles)
    return ax


def _grid(margins: Mapping[str, GeometricMargins]) -> Float[np.ndarray, " points"]:
    bounds = np.concatenate([bound.numpy() for result in margins.values() for bound in (result.lower, result.upper)])
    known = bounds[np.isfinite(bounds) & (bounds > 0)]
    if not len(known):
        return np.geomspace(0.1, 1, 400)
    high = 1.1 * float(known.max())
    return np.geomspace(max(0.9 * float(known.min()), high * 10.0**-_DECADES), high, 400)


def _within(bounds: Float[np.ndarray, " samples"], grid: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    return np.searchsorted(np.sort(bounds), grid, side="right") / len(bounds)
