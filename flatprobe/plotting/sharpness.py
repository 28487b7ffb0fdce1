"""Curvature of the minimum: one column of points a network, for eigenvalues, the trace and the worst case."""

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.axes import Axes

from flatprobe.plotting import canvas
from flatprobe.plotting.names import agreed, caption, looks, named
from flatprobe.probes.hessian_eigenvalues import HessianEigenvalues
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.probes.sharpness import WorstCaseSharpness
from flatprobe.utils.results import Result

Curvature = HessianEigenvalues | HessianTrace | WorstCaseSharpness


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """Each eigenvalue, the trace with its standard error, or each restart's increase, a column a network.

    Args:
        results: one `HessianEigenvalues`, `HessianTrace` or `WorstCaseSharpness`, or several of one kind by name.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes.

    Raises:
        TypeError: for results of another kind, or of several.
        ValueError: for no results, or results that were measured differently.
    """
    found = named(results, _kind(results))
    own = looks(list(found), groups)
    ax = canvas.axes(ax)
    for place, (name, result) in enumerate(found.items()):
        values, error = _points(result)
        ax.errorbar(
            [place] * len(values), values, yerr=error, fmt=own[name].marker, color=own[name].colour, capsize=5,
            markersize=6, alpha=0.8,
        )  # fmt: skip
    low, high = ax.get_ylim()
    room = 0.08 * (max(high, 0) - min(low, 0))  # so that no edge cuts a point
    ax.set_ylim(low - room if low < 0 else 0, high + room if high > 0 else 0)
    ax.set_xlim(-0.6, len(found) - 0.4)
    ax.set_xticks(range(len(found)), list(map(caption, found)))
    ax.grid(visible=False, axis="x")
    ax.set_ylabel(_label(found))
    return ax


def _kind(results: object) -> type[Curvature]:
    first = next(iter(results.values()), None) if isinstance(results, Mapping) else results
    return type(first) if isinstance(first, Curvature) else HessianEigenvalues


def _points(result: Curvature) -> tuple[list[float], float | None]:
    if isinstance(result, HessianEigenvalues):
        return result.eigenvalues.tolist(), None
    if isinstance(result, HessianTrace):
        return [result.trace], result.standard_error
    return result.increases.tolist(), None


def _label(found: Mapping[str, Curvature]) -> str:
    first = next(iter(found.values()))
    if isinstance(first, HessianEigenvalues):
        return f"{agreed(found, 'which')} Hessian eigenvalues\nof the training loss"
    if isinstance(first, HessianTrace):
        return "trace of the training loss's Hessian"
    law, radius = agreed(found, "law"), agreed(found, "radius")
    return f"largest rise of the training loss\nfound within {radius:g} ({law} ball)"
