"""Spectral norms of the layers, as linear operators and as reshaped kernels."""

from collections.abc import Mapping

import matplotlib as mpl
import torch
from matplotlib.axes import Axes

from flatprobe.plotting import canvas
from flatprobe.plotting.names import caption, name_results, prepare
from flatprobe.probes.weight_norms import WeightNorms
from flatprobe.utils.results import Result

_SLOT = 0.45  # inches per layer


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """Spectral norms of layers as operators (filled) and of reshaped kernels (open).

    The axis is logarithmic where the norms span a factor of ten or more.

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
    longest = max(norms.values(), key=lambda result: len(result.names)).names
    picture = prepare(ax, list(norms), groups, width=max(7.0, 1.5 + _SLOT * len(longest)))
    ax = picture.ax
    handles = {}
    for name, result in norms.items():
        look, places = picture.looks[name], range(1, len(result.names) + 1)
        style = {"color": look.colour, "linestyle": look.line, "marker": look.marker, "markersize": 6, "linewidth": 1.2}
        (handles[name],) = ax.plot(places, result.of("spectral").numpy(), label=name, **style)
        reshaped = result.of("reshaped_spectral").numpy()
        ax.plot(places, reshaped, **(style | {"linestyle": "none"}), fillstyle="none", label=f"{name} reshaped")
    values = torch.cat([result.of(norm) for result in norms.values() for norm in ("spectral", "reshaped_spectral")])
    if 0 < 10 * values.min() <= values.max():
        ax.set_yscale("log")
        canvas.use_plain_ticks(ax.yaxis, subs=(1, 2, 5))
    same = all(result.names == longest for result in norms.values())
    ax.set_xticks(range(1, len(longest) + 1), list(map(caption, longest)) if same else None)
    if same and max(map(len, longest)) * len(longest) > 60:
        ax.tick_params(axis="x", labelrotation=45)
        for label in ax.get_xticklabels():
            label.set_horizontalalignment("right")
    ax.set_xlabel("layer, in order of application")
    ax.set_ylabel("spectral norm (filled: operator,\nopen: reshaped kernel)")
    picture.legend(handles)
    return ax
