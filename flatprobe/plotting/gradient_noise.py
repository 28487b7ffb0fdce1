"""Histograms of gradient noise beside the normal density of the same variance."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from flatprobe.plotting import canvas
from flatprobe.plotting.names import common, name_results, prepare
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.utils.results import Result

_REACH, _BINS = 6.0, 49


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """Density of gradient noise in standard deviations per component (T3 Fig. 5).

    The grey curve is the normal density, a parabola on this scale: noise with heavier tails is above it at the sides.
    Values beyond 6 standard deviations are counted in the outermost bins.

    Args:
        results: one `GradientNoise`, or several by name, of one minibatch size.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes, with one outline per result.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, or different minibatch sizes.
    """
    noises = name_results(results, GradientNoise)
    size = common(noises, "batch_size")
    picture = prepare(ax, list(noises), groups)
    ax = picture.ax
    bounds = np.linspace(-_REACH, _REACH, _BINS + 1)
    width, least = float(bounds[1] - bounds[0]), 1.0
    handles = {}
    for name, result in noises.items():
        values = (result.noise / result.noise.square().mean(0).sqrt()).flatten().numpy()
        values = values[np.isfinite(values)].clip(-_REACH, _REACH)
        density = np.histogram(values, bounds)[0] / (max(len(values), 1) * width)
        least = min(least, 1 / (max(len(values), 1) * width))
        look = picture.looks[name]
        handles[name] = ax.stairs(density, bounds, color=look.colour, linestyle=look.line, linewidth=1.6, label=name)
    grid = np.linspace(-_REACH, _REACH, 201)
    ax.plot(grid, np.exp(-(grid**2) / 2) / (2 * np.pi) ** 0.5, color="#777777", linewidth=1.2, zorder=1)
    ax.set_yscale("log")
    ax.set_ylim(least / 2, 1.0)
    ax.set_xlim(-_REACH, _REACH)
    ax.set_xlabel(f"component of the noise in its standard deviations (minibatches of {size})")
    ax.set_ylabel("density")
    ax.annotate("normal density", (2.0, 0.054), (6, 4), textcoords="offset points", color="#555555")
    picture.legend(handles)
    return ax
