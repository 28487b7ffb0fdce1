"""Figures without pyplot: style, axes, scales, colour bars, PNG and SVG files."""

import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

WIDTH = 6.4  # inches of every figure: on a telephone of 420 pixels its smallest letters are still 8 pixels high
INK = "#333333"  # of words and axes; an SVG file takes the colour of the page's text instead
_COLUMNS = {1: 1, 2: 4, 3: 9}  # panels in a row -> number of panels, at most

# Sizes in points, for figures of this width.
STYLE: dict[str, Any] = {
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the second is as wide, where an SVG file is read without the first
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.titlesize": 11.5,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.fontsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#808080",  # seen on white and on black
    "grid.alpha": 0.22,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "flatprobe",
}


@contextmanager
def drawing() -> Iterator[None]:
    """The package's style; the caller's settings are put back."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # seaborn 0.13 calls matplotlib's boxplot with an argument that matplotlib will deprecate.
        warnings.filterwarnings("ignore", message="vert: bool", category=PendingDeprecationWarning)
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure (inches) with constrained layout that pyplot does not know."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def axes(ax: Axes | None, *, width: float = WIDTH, height: float = 3.9, projection: str | None = None) -> Axes:
    """The given axes, or the only axes of a new figure (inches)."""
    return blank(width, height).add_subplot(projection=projection) if ax is None else ax


def figure_of(picture: Axes | Figure) -> Figure:
    """The whole figure of axes."""
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert figure is not None
    return figure


def panels(count: int, *, height: float, projection: str | None = None) -> tuple[Figure, list[Axes]]:
    """A figure of panels: two in a row up to four panels, three up to nine, else four.

    Args:
        count: number of panels.
        height: of a panel, relative to its width.
        projection: of the axes, such as "ternary".
    """
    columns = next((columns for columns, most in _COLUMNS.items() if count <= most), 4)
    rows, width = -(-count // columns), WIDTH / max(columns, 2)
    figure = blank(WIDTH, rows * (width * height + 0.3) + 0.7)  # room for titles, and for a colour bar
    return figure, [figure.add_subplot(rows, columns, k + 1, projection=projection) for k in range(count)]


def scale(
    ax: Axes, which: Literal["x", "y"], values: Iterable[Any], *, room: float = 0.05, logarithmic: bool = True
) -> None:
    """Limits of an axis over the finite values, with room at the far ends, in parts of the axis.

    The axis is logarithmic where positive values span a factor of ten or more. Otherwise the axis includes 0, so that
    small differences look small.

    Args:
        ax: the axes.
        which: "x" or "y".
        values: arrays of values.
        room: between the values and the ends of the axis.
        logarithmic: whether the axis may be logarithmic.
    """
    every = np.concatenate([np.ravel(np.asarray(own, dtype=float)) for own in values])
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 0.0)
    if logarithmic and 0 < 10 * low <= high:
        getattr(ax, f"set_{which}scale")("log")
        use_plain_ticks(getattr(ax, f"{which}axis"), subs=(1, 2, 5) if high < 300 * low else (1,))
        limits = (low * (low / high) ** room, high * (high / low) ** room)
    else:
        low, high = min(low, 0.0), max(high, 0.0)
        span = high - low or 1.0
        limits = (low - room * span if low < 0 else 0.0, high + room * span if high > 0 or low == high else 0.0)
    getattr(ax, f"set_{which}lim")(*limits)


def towards(label: str, words: str, better: Literal["higher", "lower"]) -> str:
    """An axis label with an arrow towards the better end.

    >>> towards("radius", "flatter", "higher").split(), towards("trace", "flatter", "lower").split()
    (['radius', 'flatter', '→'], ['←', 'flatter', 'trace'])
    """
    space = 2 * "\N{EM SPACE}"  # SVG makes one of several common spaces
    return f"{label}{space}{words} →" if better == "higher" else f"← {words}{space}{label}"


def colour_bar(axes: list[Axes], norm: Normalize, palette: str, label: str, **options: Any) -> None:
    """One colour bar beside all the axes of one figure."""
    bar = figure_of(axes[0]).colorbar(ScalarMappable(norm, palette), ax=axes, label=label, **options)
    if isinstance(norm, LogNorm):
        assert norm.vmin is not None
        assert norm.vmax is not None
        decades = np.log10(norm.vmax / norm.vmin)
        axis = bar.ax.xaxis if bar.orientation == "horizontal" else bar.ax.yaxis
        use_plain_ticks(axis, subs=(1, 2, 5) if decades < 1.5 else (1,))


def use_plain_ticks(axis: Axis, subs: tuple[int, ...]) -> None:
    """Plain numbers on a logarithmic axis, at these multiples of the powers of ten."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _save(picture: Axes | Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with drawing(), warnings.catch_warnings():
        # Letters that the font lacks are drawn as boxes; the tables beside the picture have the name in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure_of(picture).savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def png(picture: Axes | Figure, *, resolution: float = 200) -> bytes:
    """The whole figure as the bytes of a PNG file.

    Args:
        picture: axes that a `draw` returned, or a figure.
        resolution: dots per inch; the default is twice that of a common screen.

    Returns:
        The file's bytes, the same for a picture that is drawn anew.
    """
    return _save(picture, "png", dpi=resolution, metadata={"Software": None})


def _round(tag: re.Match[str]) -> str:
    """A tag with its coordinates to 0.01 points; words between tags stay as they are."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag[0])


def svg(picture: Axes | Figure, *, resolution: float = 200) -> str:
    """The whole figure as an SVG element to be put into a page.

    Words are text, and words and axes have the colour of the page's text, so that a dark page needs no other picture.
    The background is clear. Large clouds of points are images within the element.

    Args:
        picture: axes that a `draw` returned, or a figure.
        resolution: dots per inch of images within the element.

    Returns:
        The element, the same for a picture that is drawn anew. No part has an `id` that another picture of the page may
        have with other content.
    """
    empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    text = _save(picture, "svg", dpi=resolution, transparent=True, metadata=empty).decode()
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])  # names such as axes_1, the same in every picture
    text = re.sub("<[^>]*>", _round, text)
    # Words without a colour of their own are black in SVG.
    return text.replace("<svg", '<svg fill="currentColor"', 1).replace(INK, "currentColor")
