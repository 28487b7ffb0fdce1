"""Distributions of per-sample values: functional margins, scores and Jacobian norms."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from flatprobe.plotting import canvas, rows
from flatprobe.plotting.names import FEW, Groups, common, legend, looks, name_results
from flatprobe.probes.jacobian import JacobianNorms
from flatprobe.probes.jacobian_maximum import JacobianMaximum
from flatprobe.probes.margins import Margins
from flatprobe.utils.results import Result

KINDS = (Margins, JacobianNorms, JacobianMaximum)
_BINS = 40  # at most
_LARGEST = 2**0.5  # of the scores of softmax outputs


@canvas.drawing()
def draw(results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Groups = None) -> Axes:
    """Distributions of per-sample values: a histogram, a cumulative curve per network, or a box per network.

    One network has a histogram. Up to six have the fraction of samples at or below each value. More have a row each,
    sorted by their medians, with a box of quartiles and range.

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
    unit = "segments" if common(found, "along") == "segments" else "samples"
    values = {name: result.values.numpy() for name, result in found.items()}
    if len(values) > FEW:
        medians = {name: float(np.median(own)) for name, own in values.items()}
        table = rows.prepare(list(values), ax, groups, medians)
        table.distributions(values)
        ax = table.ax
    else:
        ax = _curves(values, ax, groups, unit)
    canvas.scale(ax, "x", values.values(), room=0.02)
    if signed:
        ax.axvline(0, color=canvas.INK, linewidth=1.2)
    if signed and common(found, "outputs") == "softmax" and max(map(np.max, values.values())) > 0.98 * _LARGEST:
        ax.axvline(_LARGEST, color=canvas.INK, linewidth=1.2, linestyle=":")
        label = f"{label}\ndotted: √2, where scores saturate"
    ax.set_xlabel(label)
    return ax


def _curves(values: Mapping[str, np.ndarray], ax: Axes | None, groups: Groups, unit: str) -> Axes:
    own, given = looks(list(values), groups), ax is not None
    ax, handles = canvas.axes(ax), {}
    if len(values) == 1:
        (column,) = values.values()
        logarithmic = bool(0 < 10 * column.min() <= column.max())
        bins = int(np.clip(len(column) ** 0.5, 10, _BINS))
        sns.histplot(x=column, bins=bins, stat="proportion", element="step", log_scale=logarithmic, ax=ax)
    for name, column in values.items() if len(values) > 1 else ():
        sns.ecdfplot(x=column, color=own[name].colour, linestyle=own[name].line, ax=ax, label=name)
        handles[name] = ax.lines[-1]
    if handles:
        legend(ax, handles, given=given, groups=groups)
        ax.set_ylim(0, 1.02)
    ax.set_ylabel(f"fraction of {unit}{' up to here' if handles else ''}")
    return ax


def _margin_label(results: Mapping[str, Margins]) -> str:
    probes = sorted({str(result.settings["probe"]) for result in results.values()})
    if len(probes) > 1:
        msg = f"the results are {' and '.join(probes)}; expected one of them: their units differ, draw them apart"
        raise ValueError(msg)
    outputs = common(results, "outputs")
    wrong = "; below 0: misclassified" if any(bool((own.values < 0).any()) for own in results.values()) else ""
    return f"score ({outputs}{wrong})" if probes == ["scores"] else f"functional margin (logits{wrong})"


def _norm_label(results: Mapping[str, JacobianNorms | JacobianMaximum]) -> str:
    norm, outputs, along = (common(results, name) for name in ("norm", "outputs", "along"))
    largest = "largest " if along == "segments" else ""
    label = f"{largest}{norm} norm of the input Jacobian\n({outputs} per unit of the input)"
    return canvas.towards(label, "less sensitive", "lower")
