"""Curves with confidence bands: robustness, adversarial and certified accuracy."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from flatprobe.plotting import canvas
from flatprobe.plotting.names import Look, common, name_results, prepare
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.robustness import Robustness
from flatprobe.probes.smoothing import SmoothedCertificate
from flatprobe.utils.results import Result

Points = Float64[Tensor, " points"]
Groups = Mapping[str, str] | None

KINDS = (Robustness, AdversarialAccuracy, SmoothedCertificate)
_RADII = 400  # at which the certified accuracy is drawn
_APART = 40  # points from marker to marker of a dense curve


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Groups = None, level: float = 0.95
) -> Axes:
    """A curve per network with Wilson's confidence band.

    - `Robustness`: error, averaged over the draws, against the noise level (T3 Fig. 20).
    - `AdversarialAccuracy`: accuracy under attack against the budget.
    - `SmoothedCertificate`: certified accuracy against the l2 radius. The dotted line marks the largest radius that a
      unanimous vote of this many draws certifies. The legend gives the fraction of abstentions.

    Args:
        results: one result, or several of one class by name. Adversarial accuracies must share attack and norm,
            certificates sigma, alpha and draws.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.
        level: confidence of the band; 0.95 by convention.

    Returns:
        The axes, with one line and one band per result.

    Raises:
        TypeError: for results of another class, or of several.
        ValueError: for no results, arguments that differ between the results, or a level outside (0, 1).
    """
    found: dict[str, Any] = name_results(results, *KINDS)
    kind = type(next(iter(found.values())))
    if kind is Robustness:
        curves = {name: (own.gammas, own.mean, own.interval(level)) for name, own in found.items()}
        ax = _curves(curves, ax, groups)
        ax.set_ylim(bottom=0)
        ax.set(xlabel="noise standard deviation (pixel scale 0-1)", ylabel="fraction misclassified")
    elif kind is AdversarialAccuracy:
        attack, norm = common(found, "attack"), common(found, "norm")
        curves = {name: (own.budgets, own.accuracy, own.interval(level)) for name, own in found.items()}
        ax = _curves(curves, ax, groups)
        ax.set_ylim(0, 1.02)
        ax.set_xlim(left=0)
        ax.set(xlabel=f"{norm} budget of the perturbation (pixel scale 0-1)", ylabel=f"accuracy under {attack.upper()}")
    else:
        ax = _certificates(found, ax, groups, level)
    return ax


def plot(
    ax: Axes, look: Look, x: Points, y: Points, band: tuple[Points, Points] | None = None, **options: Any
) -> Line2D:
    """One curve with its band; non-finite points are crosses at the upper edge.

    Args:
        ax: where to draw.
        look: colour, line and marker.
        x: (points,) abscissae, in any order.
        y: (points,) the curve.
        band: (points,) lower and upper bounds.
        **options: of the line.

    Returns:
        The line.
    """
    order = x.argsort()
    places, heights = x[order].numpy(), y[order].numpy()
    if band is not None:
        lower, upper = (bound[order].numpy() for bound in band)
        ax.fill_between(places, lower, upper, color=look.colour, alpha=0.15, linewidth=0)
    known = np.isfinite(heights)
    if not known.all():
        edge = np.full((~known).sum(), 0.98)
        ax.scatter(places[~known], edge, marker="x", color=look.colour, transform=ax.get_xaxis_transform())
    style = {"color": look.colour, "linestyle": look.line, "marker": look.marker, "markersize": 5}
    (line,) = ax.plot(places, np.where(known, heights, np.nan), **(style | options))
    return line


def _curves(
    curves: Mapping[str, tuple[Points, Points, tuple[Points, Points]]],
    ax: Axes | None,
    groups: Groups,
    notes: Mapping[str, str] | None = None,
) -> Axes:
    picture = prepare(ax, list(curves), groups, notes=notes)
    handles = {}
    for place, (name, (x, y, band)) in enumerate(curves.items()):
        # The markers of a dense curve are thinned out, and shifted from network to network so that all are seen.
        marked = (place * 5 % _APART, _APART) if len(x) > _APART else None
        handles[name] = plot(picture.ax, picture.looks[name], x, y, band, markevery=marked)
    picture.legend(handles)
    return picture.ax


def _certificates(results: Mapping[str, SmoothedCertificate], ax: Axes | None, groups: Groups, level: float) -> Axes:
    sigma, alpha, draws = (common(results, name) for name in ("sigma", "alpha", "draws"))
    most = sigma * float(torch.special.ndtri(torch.tensor(alpha, dtype=torch.float64, device="cpu") ** (1 / draws)))
    radii = torch.linspace(0, 1.04 * most, _RADII, dtype=torch.float64, device="cpu")
    curves = {n: (radii, own.certified_accuracy(radii), own.interval(radii, level)) for n, own in results.items()}
    notes = {name: f"abstains on {100 * own.abstained:.3g} %" for name, own in results.items()}
    ax = _curves(curves, ax, groups, notes)
    if list(notes) == [""]:
        ax.text(0, 1.02, notes[""], transform=ax.transAxes, color="#555555", va="bottom")
    ax.axvline(most, color="#555555", linestyle=":", linewidth=1.2)
    ax.annotate(
        f"most that {draws:,}\ndraws certify", (most, 1), (-6, -6), xycoords=("data", "axes fraction"),
        textcoords="offset points", ha="right", va="top", color="#555555", fontsize=9.5,
    )  # fmt: skip
    ax.set_xlim(0, 1.04 * most)
    ax.set_ylim(0, 1.02)
    ax.set_xlabel(f"l2 radius around the input (pixel scale 0-1, noise {sigma:g})")
    ax.set_ylabel("certified accuracy of the\nsmoothed classifier")
    return ax
