"""Histograms of Jacobian norms, of samples or of the largest on segments."""

from collections.abc import Mapping

import matplotlib as mpl
import torch
from matplotlib.axes import Axes

from flatprobe.plotting import canvas, histogram
from flatprobe.plotting.names import agreed, looks, named
from flatprobe.probes.jacobian import JacobianNorms
from flatprobe.probes.jacobian_maximum import JacobianMaximum
from flatprobe.utils.results import Result


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """Histograms over samples, with common bins; the axis is logarithmic where norms span a factor of ten or more.

    Args:
        results: one `JacobianNorms` or `JacobianMaximum`, or several by name, of the same norm and outputs.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, or for different norms or outputs.
    """
    given = list(results.values()) if isinstance(results, Mapping) else [results]
    segments = all(isinstance(result, JacobianMaximum) for result in given) and bool(given)
    norms = _samples(named(results, JacobianMaximum)) if segments else named(results, JacobianNorms)
    norm, outputs, along = (agreed(norms, name) for name in ("norm", "outputs", "along"))
    own = looks(list(norms), groups)
    low = min(float(result.values.min()) for result in norms.values())
    high = max(float(result.values.max()) for result in norms.values())
    logarithmic = 0 < 10 * low <= high
    ax = canvas.axes(ax)
    histogram.outlines(ax, norms, histogram.edges(norms, logarithmic=logarithmic), own, groups)
    if logarithmic:
        ax.set_xscale("log")
    largest = "largest " if along == "segments" else ""
    ax.set_xlabel(f"{largest}{norm} norm of the input Jacobian ({outputs} per unit of the input)")
    if along == "segments":
        ax.set_ylabel("fraction of segments")
    return ax


def _samples(maxima: Mapping[str, JacobianMaximum]) -> dict[str, JacobianNorms]:
    """The largest norms as the norms of samples, which is how they are drawn."""
    return {
        name: JacobianNorms(values=own.values, labels=torch.zeros_like(own.first), settings=own.settings)
        for name, own in maxima.items()
    }
