"""Flatness radii: a point per direction and a box per network."""

from collections.abc import Mapping
from itertools import pairwise

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from flatprobe.plotting import canvas
from flatprobe.plotting.names import Look, caption, common, label_networks, looks, name_results, strip_width
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.utils.results import Result

_SPREAD = 0.36  # width of a strip, where neighbouring networks are 1 apart
_GOLDEN = (5**0.5 - 1) / 2


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """Flatness radii: a point per direction and a box (quartiles, range) per network.

    Censored directions are open triangles at the upper edge, and the network's label says how many directions are
    censored beyond which radius. The axis starts at 0, and is logarithmic where the radii span a factor of ten or more.

    Args:
        results: one `FlatnessRadii`, or several by name, of the same law, epsilon and objective.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes. Points and triangles are `PathCollection` objects with the labels "radii NAME" and "censored NAME".

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, or for different laws, epsilons or objectives.
    """
    radii = name_results(results, FlatnessRadii)
    law = common(radii, "law")
    epsilon, objective = common(radii, "epsilon"), common(radii, "objective")
    own = looks(list(radii), groups)
    places = _places(list(radii), groups)
    labels = [_label(name, result) for name, result in radii.items()]
    ax = canvas.axes(ax, width=max(5.0, strip_width(labels)))
    reached = np.concatenate([result.radii[result.reached].numpy() for result in radii.values()])
    _scale(ax, reached, max(_limit(result) for result in radii.values()), any(r.censored for r in radii.values()))
    for name, result in radii.items():
        _strip(ax, name, result, places[name], own[name])
    label_networks(ax, list(places.values()), labels)
    if groups is not None:
        shown = {groups[name]: own[name].colour for name in reversed(list(radii))}
        handles = [Line2D([], [], color=colour, linewidth=6, alpha=0.8) for colour in reversed(shown.values())]
        ax.legend(handles, list(map(caption, reversed(shown))), handlelength=1)
    unit = "distance in weight space" if law == "isotropic" else f"relative to the weights, {law} law"
    ax.set_ylabel(f"flatness radius\n({unit})")
    if epsilon is not None:
        ax.set_title(f"first change of the training {objective} by {epsilon:g}", loc="left")
    return ax


def _places(names: list[str], groups: Mapping[str, str] | None) -> dict[str, float]:
    """Positions along the axis, half a step further apart between groups."""
    own = [groups[name] if groups is not None else "" for name in names]
    gaps = np.cumsum([0.0] + [0.5 * (a != b) for a, b in pairwise(own)])
    return {name: place + float(gap) for place, (name, gap) in enumerate(zip(names, gaps, strict=True))}


def _strip(ax: Axes, name: str, result: FlatnessRadii, place: float, look: Look) -> None:
    # The offsets along the axis only keep points apart: the golden ratio spreads any number of points evenly.
    x = place + _SPREAD * ((np.arange(len(result.radii)) * _GOLDEN + 0.5) % 1 - 0.5)
    reached, radii = result.reached.numpy(), result.radii.numpy()
    if reached.any():
        ax.boxplot(
            [radii[reached]],
            positions=[place],
            widths=0.62,
            showfliers=False,
            whis=(0, 100),
            manage_ticks=False,
            boxprops={"color": look.colour},
            whiskerprops={"color": look.colour},
            capprops={"color": look.colour},
            medianprops={"color": look.colour, "linewidth": 2.4},
        )
        ax.scatter(
            x[reached], radii[reached], s=26, color=look.colour, marker=look.marker, alpha=0.65, linewidths=0,
            label=f"radii {name}", zorder=3,
        )  # fmt: skip
    if not reached.all():
        ax.scatter(
            x[~reached], np.full((~reached).sum(), 0.96), s=46, facecolors="none", edgecolors=look.colour, marker="^",
            transform=ax.get_xaxis_transform(), label=f"censored {name}", zorder=3,
        )  # fmt: skip


def _scale(ax: Axes, reached: np.ndarray, limit: float, censored: bool) -> None:
    """The axis over the radii, with room for the triangles at its upper edge."""
    top = float(reached.max()) if len(reached) else limit
    low = float(reached.min()) if len(reached) else limit
    room = 1.18 if censored else 1.06
    if top >= 10 * low:
        ax.set_yscale("log")
        ax.set_ylim(low / 1.3, top * (top / low) ** (room - 1))
    else:
        ax.set_ylim(0, top * room)


def _limit(result: FlatnessRadii) -> float:
    return float(result.settings.get("arguments", {}).get("max_radius") or result.lower.max())


def _label(name: str, result: FlatnessRadii) -> str:
    if not result.censored:
        return caption(name)
    limit = f"{float(f'{_limit(result):.3g}'):,g}"
    return f"{caption(name)}\n{result.censored} of {len(result.radii)}\nbeyond {limit}".lstrip("\n")
