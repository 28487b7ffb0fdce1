"""Several results in one picture: names, shared arguments, colours and legends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, to_hex
from matplotlib.lines import Line2D

from flatprobe.plotting import canvas
from flatprobe.studies.headlines import common as common
from flatprobe.utils.results import Result, printable

R = TypeVar("R", bound=Result)
Groups = Mapping[str, str] | None

# Okabe and Ito's palette, told apart with every common colour vision. Its yellow is too light on white, and its black
# is lost on a dark page: both are left out.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#808080")
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 4)))
MARKERS = ("o", "s", "D", "P", "X", "v")
FEW = 6  # networks, at most, that have a curve each, with a colour, line and marker of its own
_LONGEST = 40  # letters of a name in a legend
_LETTER, _HANDLE, _ROW = 0.078, 0.55, 0.23  # inches in a legend: a letter, the handle, a row
_LABELLED = 24  # networks, at most, that are all named beside a colour bar


def name_results(results: object, *kinds: type[R]) -> dict[str, R]:
    """Name -> result of one class; a single result has an empty name.

    Raises:
        TypeError: for anything but results of one of these classes, or results of several.
        ValueError: for an empty mapping.
    """
    mapping = {str(name): result for name, result in results.items()} if isinstance(results, Mapping) else {"": results}
    if not mapping:
        msg = f"there are no results to draw; expected at least one {' or '.join(kind.__name__ for kind in kinds)}"
        raise ValueError(msg)
    found: dict[str, R] = {}
    for name, result in mapping.items():
        if not isinstance(result, kinds):
            what = f"{name!r} is" if name else "the result is"
            expected = " or ".join(kind.__name__ for kind in kinds)
            msg = f"{what} of type {type(result).__name__}; expected {expected}, which this picture draws"
            raise TypeError(msg)
        found[name] = result
        kinds = (type(result),)  # one picture has one class
    return found


def group_of(names: Sequence[str], groups: Groups) -> dict[str, str]:
    """The group per network; without groups each network is its own.

    Raises:
        ValueError: if a network has no group.
    """
    missing = [name for name in names if groups is not None and name not in groups]
    if missing:
        msg = f"no group is given for {', '.join(map(repr, missing))}; expected one for every network in the picture"
        raise ValueError(msg)
    return {name: str(groups[name]) if groups is not None else name for name in names}


def colours(keys: Sequence[str]) -> dict[str, str]:
    """A colour per group or network; more than seven are on a scale, in their order."""
    if len(keys) <= len(COLOURS):
        return dict(zip(keys, COLOURS, strict=False))
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.88, len(keys)))  # the light end is lost on white
    return {key: to_hex(shade) for key, shade in zip(keys, shades, strict=True)}


@dataclass(frozen=True)
class Look:
    """Colour, line and marker of one network."""

    colour: str
    line: Any
    marker: str


def looks(names: Sequence[str], groups: Groups) -> dict[str, Look]:
    """A look per network, of at most six: a colour per group, and a line and a marker per network of a group.

    Raises:
        ValueError: if a network has no group.
    """
    group = group_of(names, groups)
    shades, found = colours(list(dict.fromkeys(group.values()))), dict[str, Look]()
    for place, name in enumerate(names):
        member = place if groups is None else sum(group[other] == group[name] for other in found)
        found[name] = Look(shades[group[name]], LINES[member], MARKERS[member])
    return found


def caption(name: str, longest: int = _LONGEST) -> str:
    r"""A name of limited length that matplotlib draws letter by letter.

    >>> caption(r"lr$\frac{$"), len(caption("long" * 100))
    ('lr\\$\\frac{\\$', 40)
    """
    shown = printable(name)
    last = longest // 3
    shown = shown if len(shown) <= longest else f"{shown[: longest - last - 1]}\N{HORIZONTAL ELLIPSIS}{shown[-last:]}"
    # matplotlib leaves a label that begins with an underscore out of a legend: an empty letter goes before it.
    return ("\N{ZERO WIDTH SPACE}" if shown.startswith("_") else "") + shown.replace("$", r"\$")


def layer_names(result: Result, names: Sequence[str]) -> list[str]:
    """Names of layers within the network that `fp.Normalised` wraps."""
    network = result.settings.get("subject", {}).get("network") or {}
    wrapped = network.get("class") == "Normalised"
    return [name.removeprefix("network.") if wrapped else name for name in names]


def legend(
    ax: Axes,
    handles: Mapping[str, Any],
    *,
    given: bool,
    groups: Groups = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """A legend clear of the data: above the axes of a new figure, which grows by it, or right of given axes.

    Args:
        ax: the axes.
        handles: name -> artist; a single empty name has no legend.
        given: whether the caller gave the axes, and may put a title above.
        groups: name -> group; the names of a group are a column, headed by the group's name.
        notes: name -> words after the name.
    """
    if list(handles) == [""]:
        return
    blank, longest = Line2D([], [], linestyle="none"), 20 if given else _LONGEST
    words = {name: caption(name, longest) + (f" ({notes[name]})" if notes else "") for name in handles}
    entries = [(words[name], artist) for name, artist in handles.items()]
    room = ax.bbox.width / canvas.figure_of(ax).dpi
    if groups is not None and any(str(groups[name]) != name for name in handles):
        columns = []
        for head in dict.fromkeys(groups[name] for name in handles):
            members = [(words[name], handles[name]) for name in handles if groups[name] == head]
            columns.append([(caption(str(head), longest), blank), *members])
    else:
        fitting = max(1, int(room / (_HANDLE + _LETTER * max(map(len, words.values())))))
        rows = -(-len(entries) // fitting)
        columns = [entries[start : start + rows] for start in range(0, len(entries), rows)]
    if given or sum(_HANDLE + _LETTER * max(len(label) for label, _ in column) for column in columns) > room:
        columns = [[pair for column in columns for pair in column]]
    height = max(map(len, columns))
    flat = [pair for column in columns for pair in [*column, *[("", blank)] * (height - len(column))]]
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    if not given:
        figure = canvas.figure_of(ax)
        figure.set_figheight(figure.get_figheight() + _ROW * height)
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2, "ncols": len(columns)}
    ax.legend([artist for _, artist in flat], [label for label, _ in flat], **place)


def name_bar(ax: Axes, shades: Mapping[str, str]) -> None:
    """A colour bar of many networks, in their order from the top, named as far as the names have room."""
    names, count = list(shades), len(shades)
    norm = BoundaryNorm(np.arange(count + 1) - 0.5, count)
    bar = canvas.figure_of(ax).colorbar(ScalarMappable(norm, ListedColormap(list(shades.values()))), ax=ax, aspect=40)
    ticks = [round(float(place)) for place in np.linspace(0, count - 1, min(count, _LABELLED))]
    bar.set_ticks(ticks, labels=[caption(names[k], 20) for k in ticks])
    bar.ax.tick_params(labelsize=10, length=0)
    bar.ax.minorticks_off()
    bar.ax.invert_yaxis()
    bar.outline.set_visible(False)  # type: ignore[operator]  # a spine, in matplotlib's stubs a method
