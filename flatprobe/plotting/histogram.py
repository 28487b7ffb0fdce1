"""Histograms of per-sample values: functional margins, scores and Jacobian norms."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes

from flatprobe.plotting import canvas
from flatprobe.plotting.names import common, name_results, prepare
from flatprobe.probes.jacobian import JacobianNorms
from flatprobe.probes.jacobian_maximum import JacobianMaximum
from flatprobe.probes.margins import Margins
from flatprobe.utils.results import Result

KINDS = (Margins, JacobianNorms, JacobianMaximum)
_FEWEST, _MOST = 20, 60


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """Histograms of per-sample values in common bins, an outline per network.

    - `Margins`: functional margins or scores. Samples left of the line at 0 are misclassified.
    - `JacobianNorms` and `JacobianMaximum`: the axis is logarithmic where the norms span a factor of ten or more.

    Args:
        results: one result, or several of one class by name. Margins must share probe and outputs, Jacobian norms norm
            and outputs.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes.

    Raises:
        TypeError: for results of another class, or of several.
        ValueError: for no results, margins mixed with scores, or arguments that differ between the results.
    """
    found: dict[str, Any] = name_results(results, *KINDS)
    signed = isinstance(next(iter(found.values())), Margins)
    label = _margin_label(found) if signed else _norm_label(found)
    values = {name: result.values.numpy() for name, result in found.items()}
    low, high = min(float(own.min()) for own in values.values()), max(float(own.max()) for own in values.values())
    logarithmic = not signed and 0 < 10 * low <= high
    edges = _bin_edges(list(values.values()), low, high, logarithmic=logarithmic)
    picture = prepare(ax, list(values), groups)
    ax, handles = picture.ax, {}
    for name, column in values.items():
        heights, look = np.histogram(column, edges)[0] / len(column), picture.looks[name]
        ax.stairs(heights, edges, fill=True, color=look.colour, alpha=0.08)
        handles[name] = ax.stairs(heights, edges, color=look.colour, linestyle=look.line, linewidth=1.6, label=name)
    if signed:
        ax.axvline(0, color="#333333", linewidth=1.2)
    if signed and low < 0:
        ax.annotate(
            "misclassified", (0, 1), (-2, -4), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="right", va="top", rotation=90,
        )  # fmt: skip
    if logarithmic:
        ax.set_xscale("log")
    ax.set_ylim(bottom=0)
    ax.set_xlabel(label)
    ax.set_ylabel(f"fraction of {'segments' if common(found, 'along') == 'segments' else 'samples'}")
    picture.legend(handles)
    return ax


def _margin_label(results: Mapping[str, Margins]) -> str:
    probes = sorted({str(result.settings["probe"]) for result in results.values()})
    if len(probes) > 1:
        msg = f"the results are {' and '.join(probes)}; expected one of them: their units differ, draw them apart"
        raise ValueError(msg)
    outputs = common(results, "outputs")
    return f"score ({outputs})" if probes == ["scores"] else "functional margin (logits)"


def _norm_label(results: Mapping[str, JacobianNorms | JacobianMaximum]) -> str:
    norm, outputs, along = (common(results, name) for name in ("norm", "outputs", "along"))
    largest = "largest " if along == "segments" else ""
    return f"{largest}{norm} norm of the input Jacobian ({outputs} per unit of the input)"


def _bin_edges(values: list[np.ndarray], low: float, high: float, *, logarithmic: bool) -> Float[np.ndarray, " edges"]:
    """Edges of equal bins of the values or their logarithms, over all networks.

    Their number is that of Freedman and Diaconis' rule for the narrowest histogram, between 20 and 60.
    """
    scaled = [np.log(own) if logarithmic else own for own in values]
    width = min(2 * (np.quantile(own, 0.75) - np.quantile(own, 0.25)) / len(own) ** (1 / 3) for own in scaled)
    spread = max(own.max() for own in scaled) - min(own.min() for own in scaled)
    bins = int(np.clip(spread / width, _FEWEST, _MOST)) if width > 0 else _MOST
    if low == high:
        low, high = (low / 2, high * 2) if logarithmic else (low - 0.5, high + 0.5)
    edges = np.geomspace(low, high, bins + 1) if logarithmic else np.linspace(low, high, bins + 1)
    # Rounding in the powers must not push an extreme value out of the outermost bin.
    edges[[0, -1]] = low, high
    return edges
