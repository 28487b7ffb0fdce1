"""Densities of gradient noise beside the normal density of the same variance."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes

from flatprobe.plotting import bands, canvas
from flatprobe.plotting.names import Groups, common, name_results
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.utils.results import Result

_REACH, _BINS = 6.0, 49


@canvas.drawing()
def draw(results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Groups = None) -> Axes:
    """Density of gradient noise in standard deviations per component (T3 Fig. 5).

    The grey curve is the normal density, a parabola on this scale: noise with heavier tails is above it at the sides.
    Values beyond 6 standard deviations are counted in the outermost bins.

    Args:
        results: one `GradientNoise`, or several by name, of one minibatch size.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes, with one curve per result, or per group where there are more than six.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, or different minibatch sizes.
    """
    noises = name_results(results, GradientNoise)
    size = common(noises, "batch_size")
    edges = np.linspace(-_REACH, _REACH, _BINS + 1)
    width, least = float(edges[1] - edges[0]), 1.0
    curves = []
    for name, result in noises.items():
        values = (result.noise / result.noise.square().mean(0).sqrt()).flatten().numpy()
        values = values[np.isfinite(values)].clip(-_REACH, _REACH)
        density = np.histogram(values, edges)[0] / (max(len(values), 1) * width)
        least = min(least, 1 / (max(len(values), 1) * width))
        # An empty bin is below the axis.
        x, y = (torch.from_numpy(own) for own in (edges[:-1] + width / 2, density.clip(least / 100)))
        curves.append(bands.Curve(name, x, y, options={"drawstyle": "steps-mid", "marker": "", "linewidth": 1.6}))
    ax = bands.draw(curves, ax, groups)
    grid = np.linspace(-_REACH, _REACH, 201)
    ax.plot(grid, np.exp(-(grid**2) / 2) / (2 * np.pi) ** 0.5, color="#777777", linewidth=1.2, zorder=1)
    ax.set_yscale("log")
    ax.set_ylim(least / 2, 1.0)
    ax.set_xlim(-_REACH, _REACH)
    ax.set_xlabel(f"component of the noise in its standard deviations (batches of {size})")
    ax.set_ylabel("density")
    ax.annotate("normal density", (2.0, 0.054), (6, 4), textcoords="offset points")
    return ax
