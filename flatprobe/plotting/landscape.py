"""Three-point landscapes as filled contours over the triangle between the networks."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import mpltern  # noqa: F401 (registers the projection "ternary")
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flatprobe.plotting import canvas
from flatprobe.plotting.triangle import Scale, finite, row, three_points, triangles
from flatprobe.probes.interpolation import Interpolation
from flatprobe.utils.results import Result


@mpl.rc_context(canvas.STYLE)
def draw(result: Result, ax: Axes | None = None, *, quantity: str = "loss") -> Axes:
    """Filled contours of the training loss (logarithmic) or accuracy over the triangle (T3 Figs 11 and 12).

    The corners are the three networks, a point inside the affine combination of their weights. Points whose loss is
    not finite are grey crosses in a hole that is not filled.

    Args:
        result: an `Interpolation` of three endpoints.
        ax: ternary axes (`projection="ternary"`, after `import mpltern`); None makes a figure.
        quantity: `"loss"` or `"accuracy"`.

    Returns:
        The axes, with a colour bar beside them.

    Raises:
        TypeError: for a result of another kind.
        ValueError: for another number of endpoints, an unknown quantity, or if no point is finite.
    """
    interpolation = three_points(result)
    scale = Scale.over([interpolation], quantity)
    ax = canvas.axes(ax, width=5.0, height=4.0, projection="ternary")
    _fill(interpolation, ax, scale)
    scale.colour_bar([ax], shrink=0.8)
    return ax


@mpl.rc_context(canvas.STYLE)
def draw_row(results: Mapping[str, Result], *, quantity: str = "loss") -> Figure:
    """Landscapes side by side, on one colour scale with one colour bar, so that colours compare.

    Args:
        results: name (such as a group's) -> `Interpolation` of three endpoints.
        quantity: `"loss"` or `"accuracy"`.

    Returns:
        The figure.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, another number of endpoints, an unknown quantity, or if no point is finite.
    """
    return row(results, quantity, _fill, "ternary")


def _fill(result: Interpolation, ax: Any, scale: Scale) -> None:  # mpltern's axes are not typed
    top, left, right = result.coefficients.numpy().T
    filled, known = triangles(result).get_masked_triangles(), finite(result)
    if len(filled):
        values = scale.values(result)
        ax.tricontourf(top, left, right, filled, values, levels=scale.levels, norm=scale.norm, cmap=scale.palette)
    if not known.all():
        ax.scatter(
            top[~known], left[~known], right[~known], marker="x", s=16, color="#777777", linewidths=1,
            label="not finite",
        )  # fmt: skip
        ax.legend(loc="upper right", handletextpad=0.2)
    for axis, name in zip((ax.taxis, ax.laxis, ax.raxis), ("$w_1$", "$w_2$", "$w_3$"), strict=True):
        axis.set_ticks([])
        axis.set_label_text(name)
        axis.set_label_rotation_mode("horizontal")
    ax.grid(visible=False)
