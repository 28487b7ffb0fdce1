"""Curves of the smoothed classifier's certified accuracy, with their confidence bands."""

from collections.abc import Mapping

import matplotlib as mpl
import torch
from matplotlib.axes import Axes

from flatprobe.plotting import bands, canvas
from flatprobe.plotting.names import agreed, caption, legend, looks, named
from flatprobe.probes.smoothing import SmoothedCertificate
from flatprobe.utils.results import Result

_POINTS = 400


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result],
    ax: Axes | None = None,
    *,
    groups: Mapping[str, str] | None = None,
    level: float = 0.95,
) -> Axes:
    """The certified accuracy against the l2 radius, with Wilson's band; abstentions are noted beside the names.

    A dotted line marks the largest radius that a unanimous vote of this many draws can certify.

    Args:
        results: one `SmoothedCertificate`, or several by name, of the same sigma, alpha and draws.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.
        level: confidence of the band; 0.95 by convention.

    Returns:
        The axes, one line and one band a result.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, a different sigma, alpha or number of draws, or a level outside (0, 1).
    """
    curves = named(results, SmoothedCertificate)
    sigma, alpha, draws = (agreed(curves, name) for name in ("sigma", "alpha", "draws"))
    own = looks(list(curves), groups)
    ax = canvas.axes(ax)
    most = sigma * float(torch.special.ndtri(torch.tensor(alpha, dtype=torch.float64, device="cpu") ** (1 / draws)))
    radii = torch.linspace(0, 1.04 * most, _POINTS, dtype=torch.float64, device="cpu")
    handles = {}
    for place, (name, result) in enumerate(curves.items()):
        accuracy, band = result.certified_accuracy(radii), result.interval(radii, level)
        markers = (place * 5 % 40, 40)  # for the eye, at places of its own
        handles[name] = bands.curve(ax, own[name], radii, accuracy, band, markevery=markers)
    ax.axvline(most, color="#555555", linestyle=":", linewidth=1.2)
    ax.annotate(
        f"most that {draws:,}\ndraws certify", (most, 1), (-6, -6), xycoords=("data", "axes fraction"),
        textcoords="offset points", ha="right", va="top", color="#555555", fontsize=9.5,
    )  # fmt: skip
    ax.set_xlim(0, 1.04 * most)
    ax.set_ylim(0, 1.02)
    ax.set_xlabel(f"l2 radius around the input (pixel scale 0-1, noise {sigma:g})")
    ax.set_ylabel("certified accuracy of the\nsmoothed classifier")
    legend(ax, handles, groups, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)  # clear of every curve
    _note_abstentions(ax, curves)
    return ax


def _note_abstentions(ax: Axes, curves: Mapping[str, SmoothedCertificate]) -> None:
    words = {caption(name): f"abstains on {100 * result.abstained:.3g} %" for name, result in curves.items()}
    box = ax.get_legend()
    if box is None:
        ax.text(0, 1.02, words[""], transform=ax.transAxes, color="#555555", va="bottom")
        return
    for text in box.get_texts():
        if text.get_text() in words:
            text.set_text(f"{text.get_text()} ({words[text.get_text()]})")
