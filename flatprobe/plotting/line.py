"""The loss on the line between two networks, with its barrier."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes

from flatprobe.plotting import bands, canvas
from flatprobe.plotting.names import FEW, Groups, name_results
from flatprobe.plotting.scale import check_quantity
from flatprobe.probes.interpolation import Interpolation
from flatprobe.utils.results import Result


@canvas.drawing()
def draw(
    results: Result | Mapping[str, Result],
    ax: Axes | None = None,
    *,
    quantity: str = "loss",
    groups: Groups = None,
) -> Axes:
    """Training loss or accuracy on the line w_t = (1 - t) w_0 + t w_1.

    The arrow of a single line is where the loss is furthest above the straight line between its values at the two
    networks, and is as long as the barrier. The barriers of up to six lines are in the legend. Points whose loss is not
    finite are crosses at the upper edge.

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
    lines = name_results(results, Interpolation)
    check_quantity(quantity, lines.values())
    for name, result in lines.items():
        endpoints = result.coefficients.shape[1]
        if endpoints != 2:
            msg = f"{name!r} must be between 2 endpoints, got {endpoints}. Draw three with flatprobe.plotting.triangle"
            raise ValueError(msg)
    curves = [
        bands.Curve(
            name,
            result.coefficients[:, 1],
            torch.where(result.loss.isfinite(), getattr(result, quantity), torch.nan),
        )
        for name, result in lines.items()
    ]
    few = quantity == "loss" and len(lines) <= FEW
    notes = {name: f"barrier {result.barrier:.3g}" for name, result in lines.items()} if few else {}
    ax = bands.draw(curves, ax, groups, notes=notes)
    if len(notes) == 1:
        _annotate_barrier(ax, next(iter(lines.values())), next(iter(notes.values())))
    ax.margins(y=0.12)
    ax.set_xlabel("$t$, from the first network (0) to the second (1)")
    ax.set_ylabel(f"training {quantity}")
    return ax


def _annotate_barrier(ax: Axes, result: Interpolation, words: str) -> None:
    if not bool(result.loss.isfinite().all()) or not result.barrier > 0:
        return
    order = result.coefficients[:, 1].argsort()
    t, loss = result.coefficients[order, 1].numpy(), result.loss[order].numpy()
    chord = (1 - t) * loss[0] + t * loss[-1]
    peak = int(np.argmax(loss - chord))
    top = (t[peak], loss[peak])
    arrow = {"arrowstyle": "<->", "color": canvas.INK, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", top, (t[peak], chord[peak]), arrowprops=arrow)
    ax.annotate(words, top, (0, 6), textcoords="offset points", ha="center")
