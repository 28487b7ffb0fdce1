"""Named results in one picture: which they are, what they agree on, and how each looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from flatprobe.utils.results import Result, printable

R = TypeVar("R", bound=Result)

# Okabe and Ito's palette, told apart with every common colour vision; its yellow is left out (too light on white).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 4)))
_LONGEST = 40  # letters of a name in a picture
MARKERS = ("o", "s", "D", "P", "X", "v")  # the triangle that points up is kept for what was censored


@dataclass(frozen=True)
class Look:
    """How one network is drawn."""

    colour: str
    line: Any
    marker: str


def named(results: object, kind: type[R]) -> dict[str, R]:
    """One result, or several by name, as a mapping of names to results of this kind; one result has an empty name.

    Raises:
        TypeError: for anything but results of this kind.
        ValueError: for an empty mapping.
    """
    mapping = {str(name): result for name, result in results.items()} if isinstance(results, Mapping) else {"": results}
    if not mapping:
        msg = f"there are no results to draw; expected at least one {kind.__name__}"
        raise ValueError(msg)
    found: dict[str, R] = {}
    for name, result in mapping.items():
        if not isinstance(result, kind):
            what = f"{name!r} is" if name else "the result is"
            msg = f"{what} of type {type(result).__name__}; expected {kind.__name__}, which this picture draws"
            raise TypeError(msg)
        found[name] = result
    return found


def agreed(results: Mapping[str, Result], argument: str) -> Any:
    """The argument's value, which the results in one picture must share; None where none of them records it.

    Raises:
        ValueError: if they differ.
    """
    values = {name: result.settings.get("arguments", {}).get(argument) for name, result in results.items()}
    distinct = list(dict.fromkeys(map(str, values.values())))
    if len(distinct) > 1:
        msg = (
            f"the results were measured with different values of {argument}: {', '.join(distinct)}; expected one, "
            "since they are not comparable: draw them apart"
        )
        raise ValueError(msg)
    return next(iter(values.values()))


def looks(names: Sequence[str], groups: Mapping[str, str] | None) -> dict[str, Look]:
    """A colour for each group, and a line and a marker for each network in it; without groups, a colour each.

    Raises:
        ValueError: if a network has no group.
    """
    missing = [name for name in names if groups is not None and name not in groups]
    if missing:
        msg = f"no group is given for {', '.join(map(repr, missing))}; expected one for every network in the picture"
        raise ValueError(msg)
    own = {name: groups[name] if groups is not None else name for name in names}
    order = list(dict.fromkeys(own.values()))
    found: dict[str, Look] = {}
    for place, name in enumerate(names):
        group = order.index(own[name])
        member = place if groups is None else sum(own[other] == own[name] for other in found)
        found[name] = Look(COLOURS[group % len(COLOURS)], LINES[member % len(LINES)], MARKERS[member % len(MARKERS)])
    return found


def caption(name: str) -> str:
    r"""A name as matplotlib draws it letter by letter: no formula between dollars, no control characters, 40 letters.

    >>> caption(r"lr$\frac{$"), len(caption("long" * 100))
    ('lr\\$\\frac{\\$', 40)
    """
    shown = printable(name)
    shown = shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 13]}\N{HORIZONTAL ELLIPSIS}{shown[-12:]}"
    # A label that begins with an underscore is left out of a legend: an empty letter goes before it.
    return ("\N{ZERO WIDTH SPACE}" if shown.startswith("_") else "") + shown.replace("$", r"\$")


def legend(ax: Axes, handles: Mapping[str, Any], groups: Mapping[str, str] | None, **options: Any) -> None:
    """A legend of the named handles, one column a group headed by its name; none for a single unnamed result."""
    if list(handles) == [""]:
        return
    if groups is None or all(groups[name] == name for name in handles):
        ax.legend(list(handles.values()), list(map(caption, handles)), **options)
        return
    columns = {
        group: [name for name in handles if groups[name] == group] for group in dict.fromkeys(map(groups.get, handles))
    }
    blank = Line2D([], [], linestyle="none")
    height = max(map(len, columns.values()))
    artists: list[Any] = []
    labels: list[str] = []
    for group, names in columns.items():
        padding = height - len(names)
        artists += [blank, *(handles[name] for name in names), *[blank] * padding]
        labels += [caption(str(group)), *map(caption, names), *[""] * padding]
    ax.legend(artists, labels, ncols=len(columns), **options)
