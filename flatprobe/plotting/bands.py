"""One curve with its confidence band, in a network's look."""

from typing import Any

from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from flatprobe.plotting.names import Look

Curve = Float64[Tensor, " points"]


def curve(ax: Axes, look: Look, x: Curve, y: Curve, band: tuple[Curve, Curve], **options: Any) -> Line2D:
    """Draw y over x, in the order of x, above the band from its lower to its upper end.

    Args:
        ax: where to draw.
        look: colour, line and marker.
        x: (points,) abscissae, in any order.
        y: (points,) the curve.
        band: its lower and upper ends, (points,) each.
        **options: of the line.

    Returns:
        The line.
    """
    order = x.argsort()
    places, heights, lower, upper = (values[order].numpy() for values in (x, y, *band))
    ax.fill_between(places, lower, upper, color=look.colour, alpha=0.15, linewidth=0)
    (line,) = ax.plot(
        places, heights, color=look.colour, linestyle=look.line, marker=look.marker, markersize=5, **options
    )
    return line
