"""Curves of the error under Gaussian noise, with their confidence bands."""

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.axes import Axes

from flatprobe.plotting import bands, canvas
from flatprobe.plotting.names import legend, looks, named
from flatprobe.probes.robustness import Robustness
from flatprobe.utils.results import Result


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result],
    ax: Axes | None = None,
    *,
    groups: Mapping[str, str] | None = None,
    level: float = 0.95,
) -> Axes:
    """The error averaged over the draws against the noise level, with Wilson's band (T3 Fig. 20).

    Args:
        results: one `Robustness`, or several by name.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.
        level: confidence of the band; 0.95 by convention.

    Returns:
        The axes, one line and one band a result.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, or a level outside (0, 1).
    """
    curves = named(results, Robustness)
    own = looks(list(curves), groups)
    ax = canvas.axes(ax)
    handles = {
        name: bands.curve(ax, own[name], result.gammas, result.mean, result.interval(level))
        for name, result in curves.items()
    }
    ax.set_ylim(bottom=0)
    ax.set_xlabel("noise standard deviation (pixel scale 0-1)")
    ax.set_ylabel("fraction misclassified")
    legend(ax, handles, groups)
    return ax
