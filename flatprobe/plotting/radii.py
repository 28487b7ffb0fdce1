"""Flatness radii: a point per direction and a box per network."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from flatprobe.plotting import canvas, rows
from flatprobe.plotting.names import Groups, common, name_results
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.utils.results import Result


@canvas.drawing()
def draw(results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Groups = None) -> Axes:
    """Flatness radii: a row per network with a point per direction and a box (quartiles, range).

    Censored directions are open triangles at the right edge, and words below the network's name say how many directions
    are censored beyond which radius. The axis starts at 0, and is logarithmic where the radii span a factor of ten or
    more. More than six networks are sorted by their medians, within their groups.

    Args:
        results: one `FlatnessRadii`, or several by name, of the same law, epsilon and objective.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes. Triangles are `PathCollection` objects with the label "censored NAME".

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results, or for different laws, epsilons or objectives.
    """
    radii = name_results(results, FlatnessRadii)
    law, epsilon, objective = (common(radii, name) for name in ("law", "epsilon", "objective"))
    notes = {name: _note(result) for name, result in radii.items()}
    medians = {name: float(np.median(result.radii.numpy())) for name, result in radii.items()}
    table = rows.prepare(list(radii), ax, groups, medians, notes if any(notes.values()) else None)
    reached = {name: result.radii[result.reached].numpy() for name, result in radii.items()}
    every = [*reached.values()] if any(map(len, reached.values())) else [max(map(_limit, radii.values()))]
    canvas.scale(table.ax, "x", every, room=0.12 if any(notes.values()) else 0.05)
    table.distributions(reached)
    for place, name in enumerate(table.order):
        count = radii[name].censored
        if count:
            # Side by side in the row, at the right edge.
            heights = place + np.linspace(-0.25, 0.25, count) if count > 1 else [place]
            table.ax.scatter(
                np.full(count, 0.975), heights, s=30, facecolors="none", edgecolors=table.colours[name], marker=">",
                transform=table.ax.get_yaxis_transform(), label=f"censored {name}", zorder=3,
            )  # fmt: skip
    # Short enough for a browser whose letters are wider than matplotlib's.
    unit = "in weight space" if law == "isotropic" else f"{law} law"
    label = canvas.towards(f"flatness radius ({unit})", "flatter", "higher")
    first = "" if epsilon is None else f"\nfirst change of the training {objective} by {epsilon:g}"
    table.ax.set_xlabel(label + first)
    return table.ax


def _limit(result: FlatnessRadii) -> float:
    return float(result.settings.get("arguments", {}).get("max_radius") or result.lower.max())


def _note(result: FlatnessRadii) -> str:
    limit = f"{float(f'{_limit(result):.3g}'):,g}"
    return f"{result.censored} of {len(result.radii)} beyond {limit}" if result.censored else ""
