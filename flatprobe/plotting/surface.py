"""Three-point landscapes as surfaces over the triangle between the networks."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from mpl_toolkits.mplot3d import Axes3D

from flatprobe.plotting import canvas
from flatprobe.plotting.triangle import Scale, corners, finite, row, three_points, triangles
from flatprobe.probes.interpolation import Interpolation
from flatprobe.utils.results import Result


@mpl.rc_context(canvas.STYLE)
def draw(result: Result, ax: Axes | None = None, *, quantity: str = "accuracy") -> Axes:
    """The training accuracy, or the logarithm of the loss, as a surface over the triangle (T3 Figs 11 and 12).

    Points whose loss is not finite are grey crosses on the floor under a hole in the surface.

    Args:
        result: an `Interpolation` of three endpoints.
        ax: three-dimensional axes (`projection="3d"`); None makes a figure.
        quantity: `"loss"` or `"accuracy"`.

    Returns:
        The axes.

    Raises:
        TypeError: for a result of another kind, or axes that are flat.
        ValueError: for another number of endpoints, an unknown quantity, or if no point is finite.
    """
    interpolation = three_points(result)
    scale = Scale.over([interpolation], quantity)
    ax = canvas.axes(ax, width=5.0, height=4.0, projection="3d")
    _raise(interpolation, ax, scale)
    ax.set(zlabel=scale.label)
    return ax


@mpl.rc_context(canvas.STYLE)
def draw_row(results: Mapping[str, Result], *, quantity: str = "accuracy") -> Figure:
    """Surfaces side by side, with one height and one colour scale.

    Args:
        results: name (such as a group's) -> `Interpolation` of three endpoints.
        quantity: `"loss"` or `"accuracy"`.

    Returns:
        The figure.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, another number of endpoints, an unknown quantity, or if no point is finite.
    """
    return row(results, quantity, _raise, "3d")


def _raise(result: Interpolation, ax: Axes, scale: Scale) -> None:
    if not isinstance(ax, Axes3D):
        msg = f'the axes are {type(ax).__name__}; expected three-dimensional ones, made with projection="3d"'
        raise TypeError(msg)
    logarithmic = scale.quantity == "loss"
    height = np.log10 if logarithmic else np.asarray
    low, high = float(height(scale.low)), float(height(scale.high))
    mesh, known = triangles(result), finite(result)
    x, y = corners(result)
    if len(mesh.get_masked_triangles()):
        z = height(scale.values(result))
        ax.plot_trisurf(
            mesh, z, cmap=scale.palette, vmin=low, vmax=high, linewidth=0.2, edgecolor="#ffffff40", antialiased=True
        )
    if not known.all():
        ax.scatter(x[~known], y[~known], low, marker="x", s=14, color="#777777", label="not finite")
        ax.legend(loc="upper left")
    ax.plot([0, 1, 0.5, 0], [0, 0, 3**0.5 / 2, 0], low, color="#555555", linewidth=1)
    for (cx, cy), name in zip(((0.5, 0.98), (-0.1, -0.06), (1.1, -0.06)), ("$w_1$", "$w_2$", "$w_3$"), strict=True):
        ax.text(cx, cy, low, name, ha="center")
    ax.set_zlim(low, high)
    ax.set_facecolor("none")  # the panels of a row overlap
    ax.set_xticks([])
    ax.set_yticks([])
    if logarithmic:
        ax.zaxis.set_major_formatter(FuncFormatter(lambda power, _: f"{10**power:.2g}"))
    ax.set_box_aspect((1, 0.87, 0.65), zoom=1.05)
    ax.view_init(elev=30, azim=-75)
