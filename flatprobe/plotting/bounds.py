"""Generalization bounds as bars of their terms."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from flatprobe.bounds import Bound
from flatprobe.plotting import canvas
from flatprobe.plotting.names import COLOURS, FEW, caption, name_results
from flatprobe.utils.results import Result

_EMPIRICAL = "#777777"
_LONGEST = 2.0  # in units of M; the label gives the length of a longer bar


@canvas.drawing()
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """Generalization bounds as bars of their terms, in units of the loss's maximum M.

    A bound of 1 or more is vacuous. The axis ends at 2: a longer bar is cut there, and its label gives its length.

    Args:
        results: one `Bound`, or several by name.
        ax: where to draw; None makes a figure.
        groups: unused; a bound belongs to one network.

    Returns:
        The axes, with one bar per summand, labelled by its name.

    Raises:
        TypeError: for results of another kind.
        ValueError: for no results.
    """
    del groups
    found = name_results(results, Bound)
    ax = canvas.axes(ax, height=1.3 + (0.5 if len(found) <= FEW else 0.3) * len(found))
    names = list(dict.fromkeys(term for bound in found.values() for term in bound.terms))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    for place, bound in enumerate(found.values()):
        left = 0.0
        for name, value in {"empirical loss": bound.empirical, **bound.terms}.items():
            length = min(value / bound.maximum, _LONGEST - left)
            ax.barh(place, length, left=left, height=0.6, color=colours.get(name, _EMPIRICAL), label=name)
            left += length
        notes = [f"{bound.expected / bound.maximum:.3g}", *(["chosen after the data"] if bound.chosen else [])]
        ax.annotate(",\n".join(notes), (left, place), xytext=(4, 0), textcoords="offset points", va="center")
    ax.axvline(1, color="black", linewidth=1.2, linestyle="--")
    ax.set_xlim(0, 2.6)
    ax.set_xticks([0, 0.5, 1, 1.5, 2])
    ax.set_yticks(range(len(found)), [caption(name, 24) for name in found])
    ax.set_ylim(len(found) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("← tighter   bound / largest loss (from 1 on: vacuous)")
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    ax.legend(list(unique.values()), list(unique), loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return ax
