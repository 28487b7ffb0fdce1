"""Curvature of the minimum: eigenvalues, trace, worst-case sharpness."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from flatprobe.plotting import canvas, rows
from flatprobe.plotting.names import Groups, common, name_results
from flatprobe.probes.hessian_eigenvalues import HessianEigenvalues
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.probes.sharpness import WorstCaseSharpness
from flatprobe.utils.results import Result

Curvature = HessianEigenvalues | HessianTrace | WorstCaseSharpness
KINDS = (HessianEigenvalues, HessianTrace, WorstCaseSharpness)


@canvas.drawing()
def draw(results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Groups = None) -> Axes:
    """Eigenvalues, trace with standard error, or increases, a row per network.

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
    label, values = _label(found), {name: _points(result) for name, result in found.items()}
    table = rows.prepare(list(found), ax, groups, {name: float(np.max(own)) for name, own in values.items()})
    canvas.scale(table.ax, "x", values.values())
    if all(isinstance(result, HessianTrace) for result in found.values()):
        for name, ends in values.items():
            table.interval(name, float(ends.mean()), *ends.tolist())
    else:
        table.distributions(values, box=False)
    table.ax.set_xlabel(canvas.towards(label, "flatter", "lower"))
    return table.ax


def _points(result: Curvature) -> np.ndarray:
    if isinstance(result, HessianEigenvalues):
        return result.eigenvalues.numpy()
    if isinstance(result, HessianTrace):
        error = float(np.nan_to_num(result.standard_error))  # nan for one draw
        return np.array([result.trace - error, result.trace + error])
    return np.asarray(result.increases)


def _label(found: Mapping[str, Curvature]) -> str:
    first = next(iter(found.values()))
    if isinstance(first, HessianEigenvalues):
        return f"{common(found, 'which')} Hessian eigenvalues\nof the training loss"
    if isinstance(first, HessianTrace):
        return "trace of the training loss's Hessian\n± standard error"
    law, radius = common(found, "law"), common(found, "radius")
    return f"largest increase of the training loss\nfound within {radius:g} ({law} ball)"
