"""A row per network: boxes, points and intervals along a horizontal axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.lines import Line2D

from flatprobe.plotting import canvas
from flatprobe.plotting.names import FEW, Groups, caption, colours, group_of, legend

Values = Float[np.ndarray, " values"]

_SPREAD = 0.4  # of a row, over which its points are spread
_GOLDEN = (5**0.5 - 1) / 2
_MANY = 200  # points of a network, at most, that are drawn one by one


@dataclass(frozen=True)
class Rows:
    """Axes with a row per network, the first at the top.

    Attributes:
        ax: the axes.
        order: the networks from the top.
        colours: network -> colour.
    """

    ax: Axes
    order: list[str]
    colours: dict[str, str]

    def distributions(self, values: Mapping[str, Values], *, box: bool = True) -> None:
        """A box (quartiles, range) per network, and its points where they are at most 200."""
        lengths = [len(values[name]) for name in self.order]
        data = {
            "x": np.concatenate([values[name] for name in self.order]),
            "y": np.repeat(self.order, lengths),
            "hue": np.repeat(self.order, lengths),
        }
        shared: dict[str, Any] = {"order": self.order, "palette": self.colours, "legend": False, "ax": self.ax}
        if box:
            sns.boxplot(**data, **shared, whis=(0, 100), fill=False, showfliers=False, width=0.62, linewidth=1.4)
        if max(lengths) <= _MANY:
            clouded = sum(lengths) > 5 * _MANY  # as vectors, many points make a large file
            before, state = len(self.ax.collections), np.random.get_state()
            sns.stripplot(**data, **shared, size=5, alpha=0.65, jitter=False, zorder=3, rasterized=clouded)
            np.random.set_state(state)  # seaborn draws numbers from the global generator even without jitter
            for points in self.ax.collections[before:]:
                self._spread(points)
        _relabel(self)

    def _spread(self, points: Collection) -> None:
        """Shift the points of a row apart, and label them by their network.

        The golden ratio spreads any number of points evenly, and the same in each picture, unlike seaborn's jitter.
        """
        places = np.array(points.get_offsets())
        if len(places):
            points.set_label(self.order[round(places[0, 1])])
            places[:, 1] += _SPREAD * ((np.arange(len(places)) * _GOLDEN + 0.5) % 1 - 0.5)
            points.set_offsets(places)

    def interval(
        self, name: str, value: float, lower: float, upper: float, *, shift: float = 0.0, filled: bool = True
    ) -> None:
        """A point with the interval around it, shifted down within the row."""
        self.ax.errorbar(
            value, self.order.index(name) + shift, xerr=[[value - lower], [upper - value]], fmt="o", markersize=6,
            capsize=4, color=self.colours[name], fillstyle="full" if filled else "none",
        )  # fmt: skip


def prepare(
    names: Sequence[str],
    ax: Axes | None,
    groups: Groups,
    medians: Mapping[str, float],
    notes: Mapping[str, str] | None = None,
) -> Rows:
    """Axes with a row per network; a new figure grows with their number.

    Up to six networks keep their order. More are sorted by their medians, within their groups.

    Args:
        names: the networks.
        ax: where to draw; None makes a figure.
        groups: network -> group; networks of one group share a colour.
        medians: network -> value by which many are sorted.
        notes: network -> words under its name.

    Raises:
        ValueError: if a network has no group.
    """
    group, given = group_of(names, groups), ax is not None
    heads = list(dict.fromkeys(group.values()))
    shades = colours(heads)
    order = list(names)
    if len(order) > FEW:
        order.sort(key=lambda name: (heads.index(group[name]) if groups is not None else 0, medians[name]))
    height = 0.47 if notes else 0.42 if len(names) <= FEW else 0.27
    ax = canvas.axes(ax, height=max(1.2 + height * len(names), 1.9))
    ax.set_yticks(range(len(order)), [_label(name, notes) for name in order])
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    if len(heads) < len(names):
        legend(ax, {head: Line2D([], [], color=shades[head], linewidth=6) for head in heads}, given=given)
    return Rows(ax, order, {name: shades[group[name]] for name in names})


def _label(name: str, notes: Mapping[str, str] | None) -> str:
    return "\n".join(words for words in (caption(name, 24), (notes or {}).get(name, "")) if words)


def _relabel(rows: Rows) -> None:
    """Limits and labels of the rows as they were before seaborn set its own."""
    ax = rows.ax
    ax.set_ylim(len(rows.order) - 0.4, -0.6)
    ax.set(xlabel="", ylabel="")
