"""Random slices: curves along a line, filled contours over a plane."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from flatprobe.plotting import canvas
from flatprobe.plotting.names import caption, legend, looks, named
from flatprobe.plotting.triangle import QUANTITIES
from flatprobe.probes.slices import RandomSlice
from flatprobe.utils.arguments import one_of
from flatprobe.utils.results import Result

Limits = tuple[float, float]

_LEVELS = 25
_COLUMNS = 3
_PALETTES = {"loss": "viridis_r", "accuracy": "viridis"}  # bright is good


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result],
    ax: Axes | None = None,
    *,
    groups: Mapping[str, str] | None = None,
    quantity: str = "loss",
    limits: Limits | None = None,
) -> Axes:
    """The training loss or accuracy along a random line, a curve each, or over one random plane, as filled contours.

    A cross marks the network itself. Points whose loss is not finite are crosses at the upper edge of a line, and grey
    crosses in a hole of a plane. The loss is on a logarithmic scale, unless the lower limit is 0.

    Args:
        results: one `RandomSlice`, or several of one dimension by name; `draw_row` draws several planes.
        ax: where to draw; None makes a figure.
        groups: name -> group; lines of one group share a colour.
        quantity: `"loss"` or `"accuracy"`.
        limits: (lower, upper) ends of the scale, 0 included; values beyond are drawn in the end's colour. None takes
            the finite values' own.

    Returns:
        The axes.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, an unknown quantity, several planes, lines with planes, limits that are not in
            order, or if no point is finite.
    """
    slices = named(results, RandomSlice)
    dimensions = {result.loss.ndim for result in slices.values()}
    norm = _norm(slices, quantity, limits)
    if dimensions == {1}:
        return _lines(canvas.axes(ax), slices, quantity, norm, groups)
    if len(slices) > 1:
        msg = f"there are {len(slices)} slices, not all of them lines; expected lines, or one plane: use draw_row"
        raise ValueError(msg)
    ax = canvas.axes(ax, width=5.0, height=4.0)
    (result,) = slices.values()
    _plane(ax, result, quantity, norm)
    canvas.colour_bar([ax], norm, _PALETTES[quantity], _label(quantity, norm), shrink=0.8)
    return ax


@mpl.rc_context(canvas.STYLE)
def draw_row(results: Mapping[str, Result], *, quantity: str = "loss", limits: Limits | None = None) -> Figure:
    """Planes side by side, on one colour scale with one colour bar, so that colours compare.

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
    slices = named(results, RandomSlice)
    for name, result in slices.items():
        if result.loss.ndim != 2:
            msg = f"the slice {name!r} is a line; expected planes: draw lines with draw"
            raise ValueError(msg)
    norm = _norm(slices, quantity, limits)
    columns = min(len(slices), _COLUMNS)
    rows = -(-len(slices) // columns)
    figure = canvas.blank(3.1 * columns + 1.0, 3.1 * rows)
    panels: list[Axes] = []
    for place, (name, result) in enumerate(slices.items(), start=1):
        panels.append(figure.add_subplot(rows, columns, place))
        _plane(panels[-1], result, quantity, norm)
        panels[-1].set_title(caption(name))
    canvas.colour_bar(panels, norm, _PALETTES[quantity], _label(quantity, norm), shrink=0.8)
    return figure


def _norm(slices: Mapping[str, RandomSlice], quantity: str, limits: Limits | None) -> Normalize:
    """The scale over all results, or between the limits.

    Raises:
        ValueError: for limits that are not in order, or where no value is finite.
    """
    one_of("quantity", quantity, QUANTITIES)
    if limits is not None and not -np.inf < limits[0] < limits[1] < np.inf:
        msg = f"limits is {limits}; expected two finite numbers in ascending order; 0 may be the lower one"
        raise ValueError(msg)
    found = np.concatenate([_values(result, quantity)[_finite(result)] for result in slices.values()])
    if len(found) == 0:
        msg = f"no point of the slice has a finite loss; expected some, to draw the {quantity}"
        raise ValueError(msg)
    low, high = limits or (float(found.min()), float(found.max()))
    if high <= low:
        high = low * 1.01 if low > 0 else low + 0.01
    return LogNorm(low, high) if quantity == "loss" and low > 0 else Normalize(low, high)


def _values(result: RandomSlice, quantity: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    values: np.ndarray[Any, np.dtype[np.float64]] = getattr(result, quantity).numpy()
    return values


def _finite(result: RandomSlice) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where the loss is finite; elsewhere the network's accuracy means nothing either."""
    finite: np.ndarray[Any, np.dtype[np.bool_]] = result.loss.isfinite().numpy()
    return finite


def _lines(
    ax: Axes, slices: Mapping[str, RandomSlice], quantity: str, norm: Normalize, groups: Mapping[str, str] | None
) -> Axes:
    own = looks(list(slices), groups)
    handles = {}
    for name, result in slices.items():
        a, look, known = result.coefficients[:, 0].numpy(), own[name], _finite(result)
        values = np.where(known, _values(result, quantity), np.nan)
        (handles[name],) = ax.plot(
            a, values, color=look.colour, linestyle=look.line, marker=look.marker, markersize=3.5
        )
        if not known.all():
            edge = np.full((~known).sum(), 0.98)
            ax.scatter(a[~known], edge, marker="x", color=look.colour, transform=ax.get_xaxis_transform())
    logarithmic = isinstance(norm, LogNorm)
    if logarithmic:
        ax.set_yscale("log")
    ends = norm.vmin, norm.vmax
    assert ends[0] is not None
    assert ends[1] is not None
    room = (ends[1] / ends[0]) ** 0.04 if logarithmic else 0.04 * (ends[1] - ends[0])
    ax.set_ylim(ends[0] / room if logarithmic else ends[0], ends[1] * room if logarithmic else ends[1] + room)
    ax.set_xlabel("$a$ in $w + a u$, $u$ a random direction")
    ax.set_ylabel(_label(quantity, norm))
    legend(ax, handles, groups)
    return ax


def _plane(ax: Axes, result: RandomSlice, quantity: str, norm: Normalize) -> None:
    a, b = result.coefficients.unbind(-1)
    known = _finite(result)
    assert norm.vmin is not None
    assert norm.vmax is not None
    spaced = np.geomspace if isinstance(norm, LogNorm) else np.linspace
    levels = spaced(norm.vmin, norm.vmax, _LEVELS)
    # Rounding in the powers must not push an extreme value out of the outermost contour.
    levels[[0, -1]] = norm.vmin, norm.vmax
    values = np.ma.masked_array(_values(result, quantity).clip(norm.vmin, norm.vmax), ~known)
    ax.contourf(a.numpy(), b.numpy(), values, levels=levels, norm=norm, cmap=_PALETTES[quantity])
    ax.plot(0, 0, marker="+", color="white", markersize=9, markeredgewidth=1.6)
    if not known.all():
        ax.scatter(a[~known], b[~known], marker="x", s=14, color="#777777", linewidths=1, label="not finite")
        ax.legend(loc="upper right", handletextpad=0.2, frameon=True)
    ax.set_aspect("equal")
    ax.grid(visible=False)
    ax.set(xlabel="$a$", ylabel="$b$")


def _label(quantity: str, norm: Normalize) -> str:
    return f"training {quantity}{' (log scale)' if isinstance(norm, LogNorm) else ''}"
