"""Curvature of the minimum: eigenvalues, trace, worst-case sharpness."""

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.axes import Axes

from flatprobe.plotting import canvas
from flatprobe.plotting.names import caption, common, label_networks, looks, name_results, strip_width
from flatprobe.probes.hessian_eigenvalues import HessianEigenvalues
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.probes.sharpness import WorstCaseSharpness
from flatprobe.utils.results import Result

Curvature = HessianEigenvalues | HessianTrace | WorstCaseSharpness
KINDS = (HessianEigenvalues, HessianTrace, WorstCaseSharpness)


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """Eigenvalues, trace with standard error, or increases, a column per network.

    Args:
        results: one `HessianEigenvalues`, `HessianTrace` or `WorstCaseSharpness`, or several of one class by name.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes.

    Raises:
        TypeError: for results of another class, or of several.
        ValueError: for no results, or results that were measured differently.
    """
    found: dict[str, Curvature] = name_results(results, *KINDS)
    own, labels = looks(list(found), groups), list(map(caption, found))
    ax = canvas.axes(ax, width=max(7.0, strip_width(labels)))
    for place, (name, result) in enumerate(found.items()):
        values, error = _points(result)
        ax.errorbar(
            [place] * len(values), values, yerr=error, fmt=own[name].marker, color=own[name].colour, capsize=5,
            markersize=6, alpha=0.8,
        )  # fmt: skip
    low, high = min(ax.get_ylim()[0], 0), max(ax.get_ylim()[1], 0)
    room = 0.04 * (high - low)  # no marker is cut in half by an edge
    ax.set_ylim(low - room if low < 0 else 0, high + room if high > 0 else 0)
    label_networks(ax, range(len(found)), labels)
    ax.set_ylabel(_label(found))
    return ax


def _points(result: Curvature) -> tuple[list[float], float | None]:
    if isinstance(result, HessianEigenvalues):
        return result.eigenvalues.tolist(), None
    if isinstance(result, HessianTrace):
        return [result.trace], result.standard_error
    return result.increases.tolist(), None


def _label(found: Mapping[str, Curvature]) -> str:
    first = next(iter(found.values()))
    if isinstance(first, HessianEigenvalues):
        return f"{common(found, 'which')} Hessian eigenvalues\nof the training loss"
    if isinstance(first, HessianTrace):
        return "trace of the training loss's Hessian"
    law, radius = common(found, "law"), common(found, "radius")
    return f"largest increase of the training loss\nfound within {radius:g} ({law} ball)"
