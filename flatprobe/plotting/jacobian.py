"""Histograms of per-sample Jacobian norms."""

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.axes import Axes

from flatprobe.plotting import canvas, histogram
from flatprobe.plotting.names import agreed, looks, named
from flatprobe.probes.jacobian import JacobianNorms
from flatprobe.results import Result


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """Histograms over samples, with common bins; the axis is logarithmic where norms span a factor of ten or more.

    Args:
        results: one `JacobianNorms`, or several by name, of the same norm and outputs.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, or for different norms or outputs.
    """
    norms = named(results, JacobianNorms)
    norm, outputs = agreed(norms, "norm"), agreed(norms, "outputs")
    own = looks(list(norms), groups)
    low = min(float(result.values.min()) for result in norms.values())
    high = max(float(result.values.max()) for result in norms.values())
    logarithmic = 0 < 10 * low <= high
    ax = canvas.axes(ax)
    histogram.outlines(ax, norms, histogram.edges(norms, logarithmic=logarithmic), own, groups)
    if logarithmic:
        ax.set_xscale("log")
    ax.set_xlabel(f"{norm} norm of the input Jacobian ({outputs} per unit of the input)")
    return ax
