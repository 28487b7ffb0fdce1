"""Curves with confidence bands: robustness, adversarial and certified accuracy."""

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.axes import Axes

from flatprobe.plotting import bands, canvas
from flatprobe.plotting.bands import Curve
from flatprobe.plotting.names import FEW, Groups, common, name_results
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.robustness import Robustness
from flatprobe.probes.smoothing import SmoothedCertificate
from flatprobe.utils.results import Result

KINDS = (Robustness, AdversarialAccuracy, SmoothedCertificate)
_RADII = 400  # at which the certified accuracy is drawn


@canvas.drawing()
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Groups = None, level: float = 0.95
) -> Axes:
    """A curve per network with Wilson's confidence band; more than six networks as in `bands.draw`.

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
    if kind is SmoothedCertificate:
        return _certificates(found, ax, groups, level)
    noise, attack, norm = kind is Robustness, common(found, "attack"), common(found, "norm")
    ax = bands.draw(
        [
            Curve(name, own.gammas, own.mean, own.interval(level))
            if noise
            else Curve(name, own.budgets, own.accuracy, own.interval(level))
            for name, own in found.items()
        ],
        ax,
        groups,
    )
    ax.set_ylim(0, None if noise else 1.02)
    ax.set_xlim(left=0)
    if noise:
        ax.set_xlabel("standard deviation of the noise (pixel scale 0-1)")
        ax.set_ylabel(canvas.towards("fraction misclassified", "more robust", "lower"))
    else:
        ax.set_xlabel(f"{norm} budget of the perturbation (pixel scale 0-1)")
        ax.set_ylabel(canvas.towards(f"accuracy under {attack.upper()}", "more robust", "higher"))
    return ax


def _certificates(results: Mapping[str, SmoothedCertificate], ax: Axes | None, groups: Groups, level: float) -> Axes:
    sigma, alpha, draws = (common(results, name) for name in ("sigma", "alpha", "draws"))
    most = sigma * float(torch.special.ndtri(torch.tensor(alpha, dtype=torch.float64, device="cpu") ** (1 / draws)))
    radii = torch.linspace(0, 1.04 * most, _RADII, dtype=torch.float64, device="cpu")
    notes = {name: f"abstains on {100 * own.abstained:.3g} %" for name, own in results.items()}
    curves = [Curve(n, radii, own.certified_accuracy(radii), own.interval(radii, level)) for n, own in results.items()]
    ax = bands.draw(curves, ax, groups, notes=notes if len(notes) <= FEW else None)
    if list(notes) == [""]:
        ax.text(0, 1.02, notes[""], transform=ax.transAxes, va="bottom")
    ax.axvline(most, color=canvas.INK, linestyle=":", linewidth=1.2)
    ax.annotate(
        f"most that {draws:,}\ndraws certify", (most, 1), (-6, -6), xycoords=("data", "axes fraction"),
        textcoords="offset points", ha="right", va="top", fontsize=10,
    )  # fmt: skip
    ax.set_xlim(0, 1.04 * most)
    ax.set_ylim(0, 1.02)
    ax.set_xlabel(f"l2 radius around the input (pixel scale 0-1, noise {sigma:g})")
    ax.set_ylabel(canvas.towards("certified accuracy", "more robust", "higher"))
    return ax
