"""Three-point landscapes over a triangle, as filled contours or a surface."""

from collections.abc import Mapping
from typing import Any

import mpltern  # noqa: F401 (registers the projection "ternary")
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from matplotlib.tri import TriAnalyzer, Triangulation
from mpl_toolkits.mplot3d import Axes3D

from flatprobe.plotting import canvas
from flatprobe.plotting.names import name_results
from flatprobe.plotting.scale import Scale, finite, row
from flatprobe.probes.interpolation import Interpolation
from flatprobe.utils.results import Result


@canvas.drawing()
def draw(result: Result, ax: Axes | None = None, *, quantity: str = "loss", surface: bool = False) -> Axes:
    """Training loss or accuracy over the triangle (T3 Figs 11 and 12).

    The corners are the three networks, a point inside is the affine combination of their weights. Points whose loss
    is not finite are grey crosses in a hole of the contours or the surface.

    Args:
        result: an `Interpolation` of three endpoints.
        ax: ternary axes (`projection="ternary"`, after `import mpltern`), or for a surface three-dimensional axes
            (`projection="3d"`); None makes a figure.
        quantity: `"loss"` or `"accuracy"`.
        surface: whether to draw a surface rather than filled contours.

    Returns:
        The axes; a colour bar is beside contours.

    Raises:
        TypeError: for a result of another kind, or axes of another projection.
        ValueError: for another number of endpoints, an unknown quantity, or if no point is finite.
    """
    (interpolation,) = _three_points(result).values()
    scale = Scale.over([interpolation], quantity)
    ax = canvas.axes(ax, width=5.0, height=4.0, projection="3d" if surface else "ternary")
    if surface:
        _draw_surface(interpolation, ax, scale)
        ax.set(zlabel=scale.label)
    else:
        _draw_contours(interpolation, ax, scale)
        scale.colour_bar([ax], shrink=0.8)
    return ax


@canvas.drawing()
def draw_row(results: Mapping[str, Result], *, quantity: str = "loss", surface: bool = False) -> Figure:
    """Landscapes side by side on one scale with one colour bar.

    Args:
        results: name (such as a group's) -> `Interpolation` of three endpoints.
        quantity: `"loss"` or `"accuracy"`.
        surface: whether to draw surfaces rather than filled contours.

    Returns:
        The figure.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, another number of endpoints, an unknown quantity, or if no point is finite.
    """
    landscapes = _three_points(results)
    scale = Scale.over(landscapes.values(), quantity)
    return row(landscapes, scale, _draw_surface if surface else _draw_contours, "3d" if surface else "ternary")


def _three_points(results: object) -> dict[str, Interpolation]:
    found = name_results(results, Interpolation)
    for result in found.values():
        endpoints = result.coefficients.shape[1]
        if endpoints != 3:
            fix = "Draw two with flatprobe.plotting.line" if endpoints == 2 else "Interpolate over fp.simplex(3)"
            msg = f"the landscape must be between 3 endpoints, the corners of a triangle, got {endpoints}. {fix}"
            raise ValueError(msg)
    return found


def _draw_contours(result: Interpolation, ax: Any, scale: Scale) -> None:  # mpltern's axes are not typed
    if not hasattr(ax, "taxis"):
        msg = f'ax must be ternary, got {type(ax).__name__}. Make it with projection="ternary", after import mpltern'
        raise TypeError(msg)
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


def _draw_surface(result: Interpolation, ax: Axes, scale: Scale) -> None:
    if not isinstance(ax, Axes3D):
        msg = f'ax must be three-dimensional, got {type(ax).__name__}. Make it with projection="3d"'
        raise TypeError(msg)
    height = np.log10 if scale.logarithmic else np.asarray
    low, high = float(height(scale.low)), float(height(scale.high))
    mesh, known = triangles(result), finite(result)
    x, y = places(result)
    if len(mesh.get_masked_triangles()):
        z = height(scale.values(result))
        ax.plot_trisurf(
            mesh, z, cmap=scale.palette, vmin=low, vmax=high, linewidth=0.2, edgecolor="#ffffff40", antialiased=True
        )
    if not known.all():
        ax.scatter(x[~known], y[~known], low, marker="x", s=14, color="#777777", label="not finite")
        ax.legend(loc="upper left")
    ax.plot([0, 1, 0.5, 0], [0, 0, 3**0.5 / 2, 0], low, color=canvas.INK, linewidth=1)
    # The corner at the back is named above the surface, which hides its place on the floor.
    for place, name in (((0.5, 0.87, high), "$w_1$"), ((-0.1, -0.06, low), "$w_2$"), ((1.1, -0.06, low), "$w_3$")):
        ax.text(*place, name, ha="center", va="bottom" if name == "$w_1$" else "center")
    ax.set_zlim(low, high)
    ax.set_facecolor("none")  # the panels of a row overlap
    ax.set_xticks([])
    ax.set_yticks([])
    if scale.logarithmic:
        powers = np.arange(np.ceil(low), np.floor(high) + 1)
        ticks = powers if len(powers) > 1 else np.linspace(low, high, 3)
        ax.zaxis.set_major_locator(FixedLocator(ticks.tolist()))
        ax.zaxis.set_major_formatter(FuncFormatter(lambda power, _: f"{10**power:.2g}"))
    cell = ax.get_subplotspec()
    columns = cell.get_gridspec().ncols if cell is not None else 1
    ax.set_box_aspect((1, 0.87, 0.65), zoom=1.05 if columns < 3 else 0.8)  # room for the ticks of a small panel
    ax.view_init(elev=30, azim=-75)


def places(result: Interpolation) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """(x, y) in an equilateral triangle of side 1: w_1 top, w_2 left, w_3 right."""
    top, _, right = result.coefficients.numpy().T
    return right + top / 2, top * 3**0.5 / 2


def triangles(result: Interpolation) -> Triangulation:
    """The points as triangles, except triangles at a point that is not finite."""
    triangulation = Triangulation(*places(result))
    flat = TriAnalyzer(triangulation).get_flat_tri_mask(1e-3)
    touching = ~finite(result)[triangulation.triangles].all(1)
    triangulation.set_mask(flat | touching)
    return triangulation
