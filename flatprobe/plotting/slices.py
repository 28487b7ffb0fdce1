"""Random slices: curves along a line, filled contours over a plane."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flatprobe.plotting import bands, canvas
from flatprobe.plotting.names import Groups, name_results
from flatprobe.plotting.scale import Limits, Scale, finite, row
from flatprobe.probes.slices import RandomSlice
from flatprobe.utils.results import Result


@canvas.drawing()
def draw(
    results: Result | Mapping[str, Result],
    ax: Axes | None = None,
    *,
    groups: Groups = None,
    quantity: str = "loss",
    limits: Limits | None = None,
) -> Axes:
    """Training loss or accuracy along random lines, or over a random plane.

    A cross marks the network itself. Points whose loss is not finite are crosses at the upper edge of a line, and grey
    crosses in a hole of a plane. The loss is on a logarithmic scale, unless the lower limit is 0.

    Args:
        results: one `RandomSlice`, or several of one dimension by name; `draw_row` draws several planes.
        ax: where to draw; None makes a figure.
        groups: name -> group; lines of one group share a colour.
        quantity: `"loss"` or `"accuracy"`.
        limits: (lower, upper) ends of the scale, 0 included; values beyond are drawn in the end's colour. None takes
            those of the finite values.

    Returns:
        The axes.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, an unknown quantity, several planes, lines with planes, limits that are not in
            order, or if no point is finite.
    """
    slices = name_results(results, RandomSlice)
    scale = Scale.over(slices.values(), quantity, limits)
    if {result.loss.ndim for result in slices.values()} == {1}:
        return _draw_lines(ax, slices, scale, groups)
    if len(slices) > 1:
        msg = f"there are {len(slices)} slices, not all of them lines; expected lines, or one plane: use draw_row"
        raise ValueError(msg)
    ax = canvas.axes(ax, width=5.0, height=4.0)
    (result,) = slices.values()
    _draw_plane(result, ax, scale)
    scale.colour_bar([ax], shrink=0.8)
    return ax


@canvas.drawing()
def draw_row(results: Mapping[str, Result], *, quantity: str = "loss", limits: Limits | None = None) -> Figure:
    """Planes side by side on one colour scale with one colour bar.

    Args:
        results: name -> `RandomSlice` over a plane.
        quantity: `"loss"` or `"accuracy"`.
        limits: as in `draw`.

    Returns:
        The figure.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, a line, an unknown quantity, limits that are not in order, or if no point is finite.
    """
    slices = name_results(results, RandomSlice)
    for name, result in slices.items():
        if result.loss.ndim != 2:
            msg = f"the slice {name!r} is a line; expected planes: draw lines with draw"
            raise ValueError(msg)
    return row(slices, Scale.over(slices.values(), quantity, limits), _draw_plane)


def _draw_lines(ax: Axes | None, slices: Mapping[str, RandomSlice], scale: Scale, groups: Groups) -> Axes:
    curves = []
    for name, result in slices.items():
        values = torch.where(result.loss.isfinite(), getattr(result, scale.quantity), torch.nan)
        values = values.clamp(min=scale.low) if scale.floored else values
        curves.append(bands.Curve(name, result.coefficients[:, 0], values, options={"markersize": 3.5}))
    ax = bands.draw(curves, ax, groups)
    if scale.logarithmic:
        ax.set_yscale("log")
        canvas.use_plain_ticks(ax.yaxis, subs=(1, 2, 5) if scale.high < 300 * scale.low else (1,))
        room = (scale.high / scale.low) ** 0.04
        ax.set_ylim(scale.low / room, scale.high * room)
    else:
        ax.set_ylim(scale.low, scale.high + 0.04 * (scale.high - scale.low))
    ax.set_xlabel("$a$ in $w + a u$, $u$ a random direction")
    ax.set_ylabel(scale.label)
    return ax


def _draw_plane(result: RandomSlice, ax: Axes, scale: Scale) -> None:
    a, b = result.coefficients.unbind(-1)
    known = finite(result)
    values = np.ma.masked_array(scale.values(result), ~known)
    ax.contourf(a.numpy(), b.numpy(), values, levels=scale.levels, norm=scale.norm, cmap=scale.palette)
    ax.plot(0, 0, marker="+", color="white", markersize=9, markeredgewidth=1.6)
    if not known.all():
        ax.scatter(a[~known], b[~known], marker="x", s=14, color="#777777", linewidths=1, label="not finite")
        ax.legend(loc="upper right", handletextpad=0.2, frameon=True)
    ax.set_aspect("equal")
    ax.locator_params(nbins=4)
    ax.grid(visible=False)
    ax.set(xlabel="$a$", ylabel="$b$")
