"""Figures of a comparison against the epoch, or whatever its networks are ordered along."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flatprobe.plotting import canvas
from flatprobe.plotting.names import caption, colours
from flatprobe.probes.generalization import TEST, TRAIN, Generalization
from flatprobe.studies.comparison import Comparison
from flatprobe.studies.headlines import better, headline
from flatprobe.utils.results import Result

_MARKED = 30  # checkpoints, at most, that have a marker each
_SPLITS = {TRAIN: "-", TEST: "--"}
_HEIGHT = 1.75  # inches of a panel


@dataclass(frozen=True)
class _Point:
    network: str
    value: float
    lower: float
    upper: float


Series = dict[str, list[_Point]]  # line style -> points


@canvas.drawing()
def draw(comparison: Comparison) -> Figure:
    """Small panels of every headline figure against the epoch, or another number; loss and accuracy on top.

    A line per group. Its band is the figure's own interval, as the table has it; where several networks of a group
    share the number, the line is their median and the band their quartiles. Training figures are solid, test figures
    dashed. The horizontal axis is logarithmic for numbers that are spread like powers, as learning rates are. The
    vertical axis is logarithmic over a factor of ten or more.

    Args:
        comparison: a comparison with `along`.

    Returns:
        The figure.

    Raises:
        ValueError: for a comparison without `along`, or without a figure to draw.
    """
    if not comparison.along:
        msg = "the networks must be along a number, got none. Compare with along=..., or draw a heatmap"
        raise ValueError(msg)
    panels = {**_generalization(comparison.results), **_headlines(comparison.results)}
    if not panels:
        msg = "there are no figures to draw; expected at least one measurement of the networks"
        raise ValueError(msg)
    group = {name: str(comparison.groups.get(name, "")) for name in comparison.along}
    heads = list(dict.fromkeys(group.values()))
    shades = colours(heads)
    rows = -(-len(panels) // 2)
    figure = canvas.blank(canvas.WIDTH, _HEIGHT * rows + 0.8)
    grid = figure.subplots(rows, 2, sharex=True, squeeze=False).flatten()
    for ax, (title, series) in zip(grid, panels.items(), strict=False):
        for line, points in series.items():
            for head in heads:
                own = [point for point in points if point.network in group and group[point.network] == head]
                _line(ax, own, comparison.along, shades[head], line)
        _scale(ax, title, series)
        ax.set_title(title, loc="left", fontsize=10.5)
    for ax in grid[len(panels) :]:
        ax.remove()
    for ax in grid[max(0, len(panels) - 2) : len(panels)]:
        ax.xaxis.set_tick_params(labelbottom=True)
        ax.xaxis.label.set_visible(True)
        ax.set_xlabel(comparison.along_name or "")
    if _spread_like_powers(list(comparison.along.values())):
        grid[0].set_xscale("log")
    _legend(figure, shades, panels)
    return figure


def _generalization(results: Mapping[str, Mapping[str, Result]]) -> dict[str, Series]:
    """Loss and accuracy by split, from the first measurement of that class."""
    found = next((own for own in results.values() if isinstance(next(iter(own.values()), None), Generalization)), {})
    panels: dict[str, Series] = {}
    for kind, way in (("loss", "↓ better"), ("accuracy", "↑ better")):
        series: Series = {}
        for split, line in _SPLITS.items():
            figure = f"{split}_{kind}"
            points = [
                _Point(name, own.summary()[figure], *own.interval(figure))
                for name, own in found.items()
                if isinstance(own, Generalization) and figure in own.summary()
            ]
            if points:
                series[line] = points
        if series:
            panels[f"{kind}  {way}"] = series
    return panels


def _headlines(results: Mapping[str, Mapping[str, Result]]) -> dict[str, Series]:
    """The headline figure of every other measurement of networks; a landscape has none."""
    panels: dict[str, Series] = {}
    for measurement, own in results.items():
        points, title = [], ""
        for name, result in own.items():
            found = None if isinstance(result, Generalization) else headline(result)
            if found is not None:
                points.append(_Point(name, found.value, found.lower, found.upper))
                way = {"higher": "  ↑ better", "lower": "  ↓ better", None: ""}[better(result)]
                title = f"{caption(measurement.replace('_', ' '), 30)}\n{found.figure.replace('_', ' ')}{way}"
        if points:
            panels[title] = {"-": points}
    return panels


def _line(ax: Axes, points: list[_Point], along: Mapping[str, float], colour: str, line: str) -> None:
    points = sorted((own for own in points if math.isfinite(own.value)), key=lambda own: along[own.network])
    if not points:
        return
    x = np.array([along[own.network] for own in points])
    value, lower, upper = (np.array([getattr(own, name) for own in points]) for name in ("value", "lower", "upper"))
    alone = len(set(x)) == len(x)
    if alone:
        ax.fill_between(x, lower, upper, color=colour, alpha=0.15, linewidth=0)
    marker = "o" if len(set(x)) <= _MARKED else None
    style = {"linestyle": line, "marker": marker, "markersize": 4, "markeredgewidth": 0, "linewidth": 1.5}
    summary = {"estimator": None, "errorbar": None} if alone else {"estimator": "median", "errorbar": ("pi", 50)}
    sns.lineplot(x=x, y=value, ax=ax, color=colour, **style, **summary)
    ax.set(xlabel="", ylabel="")


def _scale(ax: Axes, title: str, series: Series) -> None:
    if title.startswith("accuracy"):
        ax.set_ylim(top=1.02)
        return
    values = [point.value for points in series.values() for point in points]
    # The end of an interval far below all values would take the axis away from them.
    floor = min(values) / 2 if min(values) > 0 else -math.inf
    ends = [max(end, floor) for points in series.values() for point in points for end in (point.lower, point.upper)]
    canvas.scale(ax, "y", [values, ends])


def _spread_like_powers(values: list[float]) -> bool:
    """True for positive numbers over a factor of ten or more, most of them in the lowest quarter of the range.

    >>> _spread_like_powers([1e-4, 1e-3, 1e-2, 1e-1]), _spread_like_powers(list(range(1, 21)))
    (True, False)
    """
    low, high = min(values), max(values)
    return 0 < 10 * low <= high and float(np.median(values)) < low + (high - low) / 4


def _legend(figure: Figure, shades: Mapping[str, str], panels: Mapping[str, Series]) -> None:
    handles: list[Any] = []
    if len(shades) > 1:
        handles += [Line2D([], [], color=shade, linewidth=4, label=caption(head)) for head, shade in shades.items()]
    if any("--" in series for series in panels.values()):
        handles += [Line2D([], [], color=canvas.INK, linestyle=line, label=split) for split, line in _SPLITS.items()]
    if handles:
        columns = 2 if max(len(handle.get_label()) for handle in handles) > 18 else 4
        figure.set_figheight(figure.get_figheight() + 0.23 * -(-len(handles) // columns))
        figure.legend(handles=handles, loc="outside upper left", ncols=columns)
