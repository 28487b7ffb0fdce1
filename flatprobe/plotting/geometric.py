"""The distribution of the geometric margin, between those of its lower and its upper end."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from flatprobe.plotting import canvas
from flatprobe.plotting.names import agreed, legend, looks, named
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.utils.results import Result

_DECADES = 4  # below the largest end, at most: a misclassified sample's 0 has no place on a logarithmic axis


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """The fraction of samples whose end lies within a distance, for both ends: the margin's own curve runs between.

    The upper end's curve (thick) is what attacks achieve within the distance, the lower end's (thin) what is not ruled
    out. Misclassified samples count at every distance; samples whose upper end was not reached keep the thick curve
    below 1. The axis is logarithmic, since a certificate is often a hundred times shorter than an attack.

    Args:
        results: one `GeometricMargins`, or several by name, of the same norm.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes, two lines and the band between them a network.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, or different norms.
    """
    margins = named(results, GeometricMargins)
    norm = agreed(margins, "norm")
    own = looks(list(margins), groups)
    ax = canvas.axes(ax)
    grid = _grid(margins)
    handles = {}
    for name, result in margins.items():
        look = own[name]
        upper, lower = (_within(end.numpy(), grid) for end in (result.upper, result.lower))
        ax.fill_between(grid, upper, np.maximum(lower, upper), color=look.colour, alpha=0.12, linewidth=0)
        (handles[name],) = ax.plot(grid, upper, color=look.colour, linestyle=look.line)
        ax.plot(grid, lower, color=look.colour, linestyle=look.line, linewidth=0.9)
    ax.set_xscale("log")
    ax.set_ylim(0, 1.02)
    ax.set_xlim(grid[0], grid[-1])
    ax.set_xlabel(f"{norm} distance (pixel scale 0-1)")
    ax.set_ylabel("fraction of samples within")
    ends = "certified" if all(r.certified or r.uncertified for r in margins.values()) else "estimated"
    ax.annotate(
        f"thick: adversarial points found; thin: {ends} lower ends", (0, 1), (0, 4), xycoords="axes fraction",
        textcoords="offset points", fontsize=9.5, color="#555555",
    )  # fmt: skip
    legend(ax, handles, groups, loc="upper left")
    return ax


def _grid(margins: Mapping[str, GeometricMargins]) -> Float[np.ndarray, " points"]:
    ends = np.concatenate([np.concatenate([result.lower.numpy(), result.upper.numpy()]) for result in margins.values()])
    known = ends[np.isfinite(ends) & (ends > 0)]
    if not len(known):
        return np.geomspace(0.1, 1, 400)
    high = 1.1 * float(known.max())
    return np.geomspace(max(0.9 * float(known.min()), high * 10.0**-_DECADES), high, 400)


def _within(ends: Float[np.ndarray, " samples"], grid: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
    return np.searchsorted(np.sort(ends), grid, side="right") / len(ends)
