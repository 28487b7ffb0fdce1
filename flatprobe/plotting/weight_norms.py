"""Spectral norms of the layers, as linear operators and as reshaped kernels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from flatprobe.plotting import canvas
from flatprobe.plotting.names import FEW, Groups, caption, colours, group_of, layer_names, legend, looks, name_results
from flatprobe.probes.weight_norms import WeightNorms
from flatprobe.utils.results import Result

_SPREAD = 0.5  # of a row, over which the networks' points of one layer are spread


@canvas.drawing()
def draw(results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Groups = None) -> Axes:
    """Spectral norms by layer, the first layer at the top: as operators (filled) and of reshaped kernels (open).

    More than six networks have a box per layer and group (quartiles, range) of the norms as operators. The axis is
    logarithmic where the norms span a factor of ten or more.

    Args:
        results: one `WeightNorms`, or several by name.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes, with two lines per network: "NAME" and "NAME reshaped". Layers are named where all networks have the
        same layers.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results.
    """
    norms = name_results(results, WeightNorms)
    named = [layer_names(result, result.names) for result in norms.values()]
    longest = max(named, key=len)
    same = all(own == longest for own in named)
    layers = [caption(name, 24) if same else f"layer {k}" for k, name in enumerate(longest, 1)]
    given, few = ax is not None, len(norms) <= FEW
    ax = canvas.axes(ax, height=1.1 + (0.3 if len(layers) <= 30 else 0.2) * max(len(layers), 2))
    (_points if few else _boxes)(ax, norms, groups, given=given)
    reshaped = [result.of("reshaped_spectral").numpy() for result in norms.values() if few]
    canvas.scale(ax, "x", [result.of("spectral").numpy() for result in norms.values()] + reshaped)
    ax.set_yticks(range(len(layers)), layers)
    ax.set_ylim(len(layers) - 0.4, -0.6)
    differ = any(not result.of("spectral").equal(result.of("reshaped_spectral")) for result in norms.values())
    words = f"filled: operator{', open: reshaped kernel' * differ}" if few else "operator; quartiles, range of networks"
    ax.set(xlabel=f"spectral norm ({words})", ylabel="")
    return ax


def _points(ax: Axes, norms: Mapping[str, WeightNorms], groups: Groups, *, given: bool) -> None:
    own, handles = looks(list(norms), groups), {}
    for k, (name, result) in enumerate(norms.items()):
        places = np.arange(len(result.names)) + (_SPREAD * (k / (len(norms) - 1) - 0.5) if len(norms) > 1 else 0)
        style: dict[str, Any] = {
            "color": own[name].colour,
            "marker": own[name].marker,
            "markersize": 6,
            "linestyle": "none",
        }
        (handles[name],) = ax.plot(result.of("spectral").numpy(), places, label=name, **style)
        ax.plot(result.of("reshaped_spectral").numpy(), places, label=f"{name} reshaped", fillstyle="none", **style)
    legend(ax, handles, given=given, groups=groups)


def _boxes(ax: Axes, norms: Mapping[str, WeightNorms], groups: Groups, *, given: bool) -> None:
    group = dict.fromkeys(norms, "") if groups is None else group_of(list(norms), groups)
    shades = colours(list(dict.fromkeys(group.values())))
    lengths = [len(result.names) for result in norms.values()]
    sns.boxplot(
        x=np.concatenate([result.of("spectral").numpy() for result in norms.values()]),
        y=np.concatenate([np.arange(length) for length in lengths]),
        hue=np.repeat([group[name] for name in norms], lengths),
        palette=shades, orient="h", whis=(0, 100), fill=False, showfliers=False, legend=False, linewidth=1.2, ax=ax,
    )  # fmt: skip
    legend(ax, {head: Line2D([], [], color=shade, linewidth=6) for head, shade in shades.items()}, given=given)
