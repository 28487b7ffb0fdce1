"""The loss on the line between two networks, with its barrier."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes

from flatprobe.plotting import canvas, curve
from flatprobe.plotting.names import name_results, prepare
from flatprobe.plotting.scale import QUANTITIES
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
    """Training loss or accuracy on the line w_t = (1 - t) w_0 + t w_1.

    The arrow is where the loss is furthest above the straight line between its values at the two networks, and is as
    long as the barrier. Points whose loss is not finite are crosses at the upper edge.

    Args:
        results: one `Interpolation` of two endpoints, or several by name.
        ax: where to draw; None makes a figure.
        quantity: `"loss"` or `"accuracy"`.
        groups: name -> group; lines of one group share a colour.

    Returns:
        The axes, with one line per result.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, an unknown quantity, or another number of endpoints.
    """
    one_of("quantity", quantity, QUANTITIES)
    lines = name_results(results, Interpolation)
    for name, result in lines.items():
        endpoints = result.coefficients.shape[1]
        if endpoints != 2:
            msg = f"{name!r} must be between 2 endpoints, got {endpoints}. Draw three with flatprobe.plotting.triangle"
            raise ValueError(msg)
    picture = prepare(ax, list(lines), groups)
    ax, handles = picture.ax, {}
    for name, result in lines.items():
        values = torch.where(result.loss.isfinite(), getattr(result, quantity), torch.nan)
        handles[name] = curve.plot(ax, picture.looks[name], result.coefficients[:, 1], values, markersize=4)
        if quantity == "loss" and bool(values.isfinite().all()) and result.barrier > 0:
            _annotate_barrier(ax, result, picture.looks[name].colour)
    ax.margins(y=0.12)
    ax.set_xlabel("$t$, from the first network (0) to the second (1)")
    ax.set_ylabel(f"training {quantity}")
    picture.legend(handles)
    return ax


def _annotate_barrier(ax: Axes, result: Interpolation, colour: str) -> None:
    order = result.coefficients[:, 1].argsort()
    t, loss = result.coefficients[order, 1].numpy(), result.loss[order].numpy()
    chord = (1 - t) * loss[0] + t * loss[-1]
    peak = int(np.argmax(loss - chord))
    top = (t[peak], loss[peak])
    arrow = {"arrowstyle": "<->", "color": colour, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", top, (t[peak], chord[peak]), arrowprops=arrow)
    words = f"barrier {result.barrier:.3g}"
    ax.annotate(words, top, (0, 6), textcoords="offset points", ha="center", color=colour)
