"""The loss on the line between two networks, with its barrier."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from flatprobe.plotting import canvas
from flatprobe.plotting.names import Look, legend, looks, named
from flatprobe.plotting.triangle import QUANTITIES, finite
from flatprobe.probes.interpolation import Interpolation
from flatprobe.utils.arguments import one_of
from flatprobe.utils.results import Result


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result],
    ax: Axes | None = None,
    *,
    quantity: str = "loss",
    groups: Mapping[str, str] | None = None,
) -> Axes:
    """Training loss or accuracy against t in w_t = (1 - t) w_0 + t w_1, with the loss barrier as an arrow.

    The arrow stands where the loss is furthest above the straight line between its ends, and is as long as the
    barrier. Points whose loss is not finite are crosses at the upper edge.

    Args:
        results: one `Interpolation` of two endpoints, or several by name.
        ax: where to draw; None makes a figure.
        quantity: `"loss"` or `"accuracy"`.
        groups: name -> group; lines of one group share a colour.

    Returns:
        The axes, one line a result.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, an unknown quantity, or another number of endpoints.
    """
    one_of("quantity", quantity, QUANTITIES)
    lines = named(results, Interpolation)
    for name, result in lines.items():
        endpoints = result.coefficients.shape[1]
        if endpoints != 2:
            msg = (
                f"the landscape {name!r} lies between {endpoints} endpoints; expected 2, the ends of a line: draw "
                "three with flatprobe.plotting.landscape"
            )
            raise ValueError(msg)
    own = looks(list(lines), groups)
    ax = canvas.axes(ax)
    handles = {name: _line(ax, result, quantity, own[name]) for name, result in lines.items()}
    ax.margins(y=0.12)
    ax.set_xlabel("$t$, from the first network (0) to the second (1)")
    ax.set_ylabel(f"training {quantity}")
    legend(ax, handles, groups)
    return ax


def _line(ax: Axes, result: Interpolation, quantity: str, look: Look) -> object:
    order = result.coefficients[:, 1].argsort()
    t, values = result.coefficients[order, 1].numpy(), getattr(result, quantity)[order].numpy()
    known = finite(result)[order.numpy()]
    (line,) = ax.plot(
        t, np.where(known, values, np.nan), color=look.colour, linestyle=look.line, marker=look.marker, markersize=4
    )
    if not known.all():
        edge = np.full((~known).sum(), 0.98)
        ax.scatter(t[~known], edge, marker="x", color=look.colour, transform=ax.get_xaxis_transform())
    if quantity == "loss" and known.all() and result.barrier > 0:
        chord = (1 - t) * values[0] + t * values[-1]
        peak = int((values - chord).argmax())
        ax.annotate(
            "", (t[peak], values[peak]), (t[peak], chord[peak]),
            arrowprops={"arrowstyle": "<->", "color": look.colour, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
        ax.annotate(
            f"barrier {result.barrier:.3g}", (t[peak], values[peak]), (0, 6), textcoords="offset points", ha="center",
            color=look.colour,
        )  # fmt: skip
    return line
