"""Decision regions of a network on a plane of inputs, with their boundaries and the given points."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from flatprobe.plotting import canvas
from flatprobe.plotting.names import COLOURS, MARKERS, caption, name_results
from flatprobe.probes.decision_regions import DecisionRegions
from flatprobe.utils.results import Result

_PALE = 0.55  # of a region's colour that is white
_NAMED = 6  # given points, at most, that have a marker and a name each


@canvas.drawing()
def draw(
    result: Result, ax: Axes | None = None, *, names: Sequence[str] | None = None, classes: Sequence[str] | None = None
) -> Axes:
    """The region of each class, the boundaries between them, and the given points.

    A boundary is where the margin is 0, by linear interpolation between grid points. Grid points whose logits are not
    finite are grey.

    Args:
        result: a `DecisionRegions`.
        ax: where to draw; None makes a figure.
        names: words for the given points in the legend; None takes x_0, x_1, ..., and none for more than 6 points.
        classes: name of each class, by its number; None takes the numbers.

    Returns:
        The axes, with equal units on both.

    Raises:
        TypeError: for a result of another kind.
        ValueError: for another number of names than points, or too few names of classes.
    """
    (regions,) = name_results(result, DecisionRegions).values()
    places, steps = regions.points.numpy(), regions.steps
    if names is not None and len(names) != len(places):
        msg = f"names must be one word per given point, {len(places)}, got {len(names)}"
        raise ValueError(msg)
    present = [k for k in sorted({*regions.classes.tolist(), *regions.predicted}) if k >= 0]
    if classes is not None and present[-1] >= len(classes):
        msg = f"classes must name class {present[-1]}, got {len(classes)} names. Give one per logit"
        raise ValueError(msg)
    ax = canvas.axes(ax, height=4.0)
    a, b = regions.a.view(steps, steps).numpy(), regions.b.view(steps, steps).numpy()
    grid, margins = regions.classes.view(steps, steps).numpy(), regions.margins.view(steps, steps).numpy()
    colours = _colours(len(present))
    index = np.searchsorted(present, grid)
    shown = np.where(grid >= 0, index, len(present))
    pale = [*map(_pale, colours), "#bbbbbb"]
    ax.pcolormesh(
        a, b, shown, cmap=ListedColormap(pale), vmin=-0.5, vmax=len(present) + 0.5, shading="nearest", rasterized=True
    )
    for own in present if len(present) > 1 else []:
        # The margin changes its sign at a boundary: linear in between, so that the line is not a staircase.
        lead = np.where(grid == own, margins, -margins)
        if (lead > 0).any() and (lead < 0).any():
            ax.contour(a, b, np.ma.masked_invalid(lead), levels=[0.0], colors="#333333", linewidths=1.2)
    handles = [
        Patch(color=pale[k], label=f"class {own}" if classes is None else caption(classes[own]))
        for k, own in enumerate(present)
    ]
    if (grid < 0).any():
        handles.append(Patch(color=pale[-1], label="not finite"))
    ax.legend(handles=[*handles, *_mark(ax, places, names)], loc="center left", bbox_to_anchor=(1, 0.5))
    ax.set_aspect("equal")
    ax.set(xlim=(a.min(), a.max()), ylim=(b.min(), b.max()), xlabel="$a$ (input units)", ylabel="$b$")
    ax.grid(visible=False)
    return ax


def _pale(colour: str) -> str:
    red, green, blue = (_PALE + (1 - _PALE) * part for part in mpl.colors.to_rgb(colour))
    return mpl.colors.to_hex((red, green, blue))


def _mark(ax: Axes, places: np.ndarray, names: Sequence[str] | None) -> list[mpl.lines.Line2D]:
    """The given points: a marker each with its name, or dots."""
    if names is None and len(places) > _NAMED:
        ax.plot(*places.T, linestyle="none", marker=".", markersize=4, color="black", clip_on=False)
        return []
    words = [f"$x_{k}$" for k in range(len(places))] if names is None else [caption(str(name)) for name in names]
    lines = []
    for k, (place, word) in enumerate(zip(places, words, strict=True)):
        lines += ax.plot(
            *place, linestyle="none", marker=MARKERS[k % len(MARKERS)], markersize=7, color="black",
            markeredgecolor="white", label=word, clip_on=False,
        )  # fmt: skip
    return lines


def _colours(count: int) -> list[str]:
    """One colour per class; beyond seven, those of matplotlib's twenty."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [mpl.colors.to_hex(mpl.colormaps["tab20"](k % 20)) for k in range(count)]
