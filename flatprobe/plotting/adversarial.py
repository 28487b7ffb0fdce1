"""Curves of adversarial accuracy against the budget, with their confidence bands."""

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.axes import Axes

from flatprobe.plotting import bands, canvas
from flatprobe.plotting.names import agreed, legend, looks, named
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.utils.results import Result


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result],
    ax: Axes | None = None,
    *,
    groups: Mapping[str, str] | None = None,
    level: float = 0.95,
) -> Axes:
    """The accuracy under attack against the budget, with Wilson's band.

    Args:
        results: one `AdversarialAccuracy`, or several by name, of the same attack and norm.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.
        level: confidence of the band; 0.95 by convention.

    Returns:
        The axes, one line and one band a result.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, different attacks or norms, or a level outside (0, 1).
    """
    curves = named(results, AdversarialAccuracy)
    attack, norm = agreed(curves, "attack"), agreed(curves, "norm")
    own = looks(list(curves), groups)
    ax = canvas.axes(ax)
    handles = {
        name: bands.curve(ax, own[name], result.budgets, result.accuracy, result.interval(level))
        for name, result in curves.items()
    }
    ax.set_ylim(0, 1.02)
    ax.set_xlim(left=0)
    ax.set_xlabel(f"{norm} budget of the perturbation (pixel scale 0-1)")
    ax.set_ylabel(f"accuracy under {attack.upper()}")
    legend(ax, handles, groups)
    return ax
