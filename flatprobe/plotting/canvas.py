"""Figures without pyplot: style, axes, colour bars, PNG files."""

import io
import warnings
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

# Sizes in points, for a figure about 7 inches wide that is still read on a telephone.
STYLE: dict[str, Any] = {
    "font.size": 11.5,
    "axes.labelsize": 11.5,
    "axes.titlesize": 12,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.fontsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def blank(width: float, height: float) -> Figure:
    """An empty figure (inches) with constrained layout that pyplot does not know."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def axes(ax: Axes | None, *, width: float = 7.0, height: float = 3.9, projection: str | None = None) -> Axes:
    """The given axes, or the only axes of a new figure (inches)."""
    return blank(width, height).add_subplot(projection=projection) if ax is None else ax


def colour_bar(axes: list[Axes], norm: Normalize, palette: str, label: str, **options: Any) -> None:
    """One colour bar beside all the axes of one figure."""
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(ScalarMappable(norm, palette), ax=axes, label=label, **options)
    if isinstance(norm, LogNorm):
        assert norm.vmin is not None
        assert norm.vmax is not None
        decades = np.log10(norm.vmax / norm.vmin)
        use_plain_ticks(bar.ax.yaxis, subs=(1, 2, 5) if decades < 3 else (1,))


def use_plain_ticks(axis: Axis, subs: tuple[int, ...]) -> None:
    """Plain numbers on a logarithmic axis, at these multiples of the powers of ten."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def png(picture: Axes | Figure, *, resolution: float = 200, colours: int | None = None) -> bytes:
    """The whole figure as the bytes of a PNG file.

    Args:
        picture: axes that a `draw` returned, or a figure.
        resolution: dots per inch; the default is twice that of a common screen.
        colours: number of colours, at most 256, which takes about a third of the bytes; None keeps all.

    Returns:
        The file's bytes, the same for the same picture.
    """
    figure = picture if isinstance(picture, Figure) else picture.get_figure(root=True)
    assert figure is not None
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Letters that the font lacks are drawn as boxes; the tables beside the picture have the name in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        figure.savefig(buffer, format="png", dpi=resolution, metadata={"Software": None})
    if colours is None:
        return buffer.getvalue()
    with Image.open(buffer) as image:
        fewer = image.convert("RGB").quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    fewer.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
