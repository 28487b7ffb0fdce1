"""A curve per network with its band, or a band per group of networks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import seaborn as sns
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from flatprobe.plotting import canvas
from flatprobe.plotting.names import FEW, Groups, Look, colours, group_of, legend, looks, name_bar

Points = Float64[Tensor, " points"]

_APART = 40  # points from marker to marker of a dense curve


@dataclass(frozen=True)
class Curve:
    """One curve of a network.

    Attributes:
        name: the network.
        x: (points,) abscissae, in any order.
        y: (points,) the curve; values that are not finite become crosses at the upper edge.
        band: (points,) lower and upper bounds.
        line: the line's style where a network has several curves; None leaves it to the network.
        options: of the line.
    """

    name: str
    x: Points
    y: Points
    band: tuple[Points, Points] | None = None
    line: str | None = None
    options: Mapping[str, Any] | None = None


def draw(curves: Sequence[Curve], ax: Axes | None, groups: Groups, *, notes: Mapping[str, str] | None = None) -> Axes:
    """Curves of up to six networks; of more, a band per group, or thin curves on a scale of colours.

    A band is the median and the quartiles over the networks of a group that have a finite value there. Networks
    without groups, or in more than six of them, are thin curves, coloured in their order.

    Args:
        curves: the curves, those of one network behind each other.
        ax: where to draw; None makes a figure.
        groups: network -> group; networks of one group share a colour.
        notes: network -> words in the legend after its name.

    Returns:
        The axes.

    Raises:
        ValueError: if a network has no group.
    """
    names, given = list(dict.fromkeys(curve.name for curve in curves)), ax is not None
    group, ax = group_of(names, groups), canvas.axes(ax)
    heads = list(dict.fromkeys(group.values()))
    shades = colours(heads if len(heads) <= FEW else names)
    for curve in curves:
        _crosses(ax, curve, shades[group[curve.name] if len(heads) <= FEW else curve.name])
    if len(names) <= FEW:
        own, handles = looks(names, groups), dict[str, Line2D]()
        for curve in curves:
            handles.setdefault(curve.name, _line(ax, curve, own[curve.name], 5 * names.index(curve.name)))
        legend(ax, handles, given=given, groups=groups, notes=notes)
    elif len(heads) <= FEW:
        for head in heads:
            _band(ax, [curve for curve in curves if group[curve.name] == head], shades[head])
        count = {head: sum(own == head for own in group.values()) for head in heads}
        handles = {f"{h} ({count[h]})": Line2D([], [], color=shades[h], linewidth=4) for h in heads}
        legend(ax, handles, given=given)
    else:
        for curve in curves:
            x, y = _sorted(curve)
            ax.plot(x, y, color=shades[curve.name], linestyle=curve.line or "-", linewidth=1.1)
        name_bar(ax, shades)
    return ax


def _sorted(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    order = curve.x.argsort()
    y = curve.y[order].numpy()
    return curve.x[order].numpy(), np.where(np.isfinite(y), y, np.nan)


def _line(ax: Axes, curve: Curve, look: Look, shift: int) -> Line2D:
    x, y = _sorted(curve)
    if curve.band is not None:
        lower, upper = (bound[curve.x.argsort()].numpy() for bound in curve.band)
        ax.fill_between(x, lower, upper, color=look.colour, alpha=0.15, linewidth=0)
    # The markers of a dense curve are thinned out, and shifted from network to network so that all are seen.
    style: dict[str, Any] = {
        "color": look.colour, "linestyle": curve.line or look.line, "marker": look.marker, "markersize": 4.5,
        "markevery": (shift, _APART) if len(x) > _APART else None,
    }  # fmt: skip
    (line,) = ax.plot(x, y, **(style | dict(curve.options or {})))
    return line


def _band(ax: Axes, curves: Iterable[Curve], colour: str) -> None:
    by_line: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for curve in curves:
        by_line.setdefault(curve.line or "-", []).append(_sorted(curve))
    for line, pairs in by_line.items():
        x, y = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        sns.lineplot(
            x=x, y=y, ax=ax, color=colour, linestyle=line, estimator="median", errorbar=("pi", 50), legend=False
        )


def _crosses(ax: Axes, curve: Curve, colour: str) -> None:
    missing = curve.x[~curve.y.isfinite()].numpy()
    if len(missing):
        edge = np.full(len(missing), 0.98)
        ax.scatter(missing, edge, marker="x", color=colour, transform=ax.get_xaxis_transform())
