"""Several results in one picture: their names, shared arguments, looks and legend."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D

from flatprobe.plotting import canvas
from flatprobe.studies.headlines import common as common
from flatprobe.utils.results import Result, printable

R = TypeVar("R", bound=Result)

# Okabe and Ito's palette, told apart with every common colour vision; its yellow is left out (too light on white).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 4)))
MARKERS = ("o", "s", "D", "P", "X", "v")  # the triangle that points up is kept for censored directions
_SHADES = (0.0, 0.5, -0.5)  # towards white or black, from the seventh network of a group on, when the lines repeat
_LONGEST = 40  # letters of a name in a picture
_LETTER, _HANDLE, _ROW = 0.078, 0.55, 0.23  # inches in a legend: a letter, the handle, a row
_UPRIGHT = 8  # networks, at most, whose labels along an axis are upright, and whose legend may be within given axes


@dataclass(frozen=True)
class Look:
    """Colour, line and marker of one network."""

    colour: str
    line: Any
    marker: str


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


def looks(names: Sequence[str], groups: Mapping[str, str] | None) -> dict[str, Look]:
    """Look per network: a colour per group, then line, marker and shade.

    Raises:
        ValueError: if a network has no group.
    """
    missing = [name for name in names if groups is not None and name not in groups]
    if missing:
        msg = f"no group is given for {', '.join(map(repr, missing))}; expected one for every network in the picture"
        raise ValueError(msg)
    group_of = {name: groups[name] if groups is not None else name for name in names}
    order = list(dict.fromkeys(group_of.values()))
    found: dict[str, Look] = {}
    for place, name in enumerate(names):
        colour = COLOURS[order.index(group_of[name]) % len(COLOURS)]
        member = place if groups is None else sum(group_of[other] == group_of[name] for other in found)
        if groups is not None:
            colour = _shade(colour, _SHADES[member // len(LINES) % len(_SHADES)])
        found[name] = Look(colour, LINES[member % len(LINES)], MARKERS[member % len(MARKERS)])
    return found


def _shade(colour: str, shade: float) -> str:
    end = 1.0 if shade > 0 else 0.0
    red, green, blue = (part + abs(shade) * (end - part) for part in to_rgb(colour))
    return to_hex((red, green, blue)).upper()


def caption(name: str) -> str:
    r"""A name of at most 40 letters that matplotlib draws letter by letter.

    >>> caption(r"lr$\frac{$"), len(caption("long" * 100))
    ('lr\\$\\frac{\\$', 40)
    """
    shown = printable(name)
    shown = shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 13]}\N{HORIZONTAL ELLIPSIS}{shown[-12:]}"
    # matplotlib leaves a label that begins with an underscore out of a legend: an empty letter goes before it.
    return ("\N{ZERO WIDTH SPACE}" if shown.startswith("_") else "") + shown.replace("$", r"\$")


def strip_width(labels: Sequence[str]) -> float:
    """The width (inches) of a figure with these labels side by side along the x axis."""
    upright = min(max(0.95, 0.094 * _longest_line(labels)), 1.15)
    turned = 0.15 + 0.2 * max(label.count("\n") + 1 for label in labels)
    return 1.3 + (upright if len(labels) <= _UPRIGHT else turned) * len(labels)


def label_networks(ax: Axes, places: Sequence[float], labels: Sequence[str]) -> None:
    """Label the networks along the x axis, turned where labels would overlap."""
    aslant = 3 < len(places) <= _UPRIGHT and _longest_line(labels) > 12
    angle = 90 if len(places) > _UPRIGHT else 30 if aslant else 0
    ax.set_xticks(places, labels, rotation=angle, ha="right" if aslant else "center")
    ax.set_xlim(min(places) - 0.6, max(places) + 0.6)
    ax.grid(visible=False, axis="x")


def _longest_line(labels: Sequence[str]) -> int:
    return max(len(line) for label in labels for line in label.split("\n"))


@dataclass(frozen=True)
class Picture:
    """The axes of several named results, with their looks and their legend.

    Attributes:
        ax: the axes.
        looks: network name -> its look.
        legend_columns: the (name, label) pairs of the legend by column; a group's heading has an empty name.
        above: whether the legend is above the axes, clear of all data; else it is at matplotlib's best place within.
    """

    ax: Axes
    looks: dict[str, Look]
    legend_columns: list[list[tuple[str, str]]]
    above: bool

    def legend(self, handles: Mapping[str, Any]) -> None:
        """Draw the legend of the named handles; none for a single unnamed result."""
        if not self.legend_columns:
            return
        blank, height = Line2D([], [], linestyle="none"), max(map(len, self.legend_columns))
        entries = [pair for column in self.legend_columns for pair in [*column, *[("", "")] * (height - len(column))]]
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2} if self.above else {"loc": "best"}
        artists, labels = [handles.get(name, blank) for name, _ in entries], [label for _, label in entries]
        self.ax.legend(artists, labels, ncols=len(self.legend_columns), **place)


def prepare(
    ax: Axes | None,
    names: Sequence[str],
    groups: Mapping[str, str] | None,
    *,
    notes: Mapping[str, str] | None = None,
    width: float = 7.0,
    height: float = 3.9,
) -> Picture:
    """Axes and looks; a new figure (inches) has room for the legend above its axes.

    In axes that were given, where a title may be above, a legend of up to eight networks is within.

    Args:
        ax: the axes, or None.
        names: the networks.
        groups: network name -> group; each group is a column of the legend, headed by its name.
        notes: network name -> words in the legend after the name.
        width: of a new figure.
        height: of a new figure without its legend.
    """
    given, own = ax is not None, looks(names, groups)
    ax = canvas.axes(ax, width=width, height=height)
    figure = ax.get_figure(root=True)
    assert figure is not None
    above = not given or len(names) > _UPRIGHT
    columns = _legend_columns(names, groups, notes, ax.bbox.width / figure.dpi if above else 0)
    if not given:
        figure.set_figheight(height + _ROW * max(map(len, columns), default=0))
    return Picture(ax, own, columns, above)


def _legend_columns(
    names: Sequence[str], groups: Mapping[str, str] | None, notes: Mapping[str, str] | None, width: float
) -> list[list[tuple[str, str]]]:
    if list(names) == [""]:
        return []
    entries = [(name, f"{caption(name)} ({notes[name]})" if notes else caption(name)) for name in names]
    if groups is not None and any(groups[name] != name for name in names):
        heads = dict.fromkeys(groups[name] for name in names)
        return [[("", caption(str(head))), *(own for own in entries if groups[own[0]] == head)] for head in heads]
    fitting = int(width / (_HANDLE + _LETTER * max(len(label) for _, label in entries)))
    rows = -(-len(entries) // max(fitting, 1))
    return [entries[start : start + rows] for start in range(0, len(entries), rows)]
