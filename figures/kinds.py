"""The kinds of figures: curves with bands, bars beside published values, triangles, distributions, images."""

import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import mpltern  # noqa: F401 (registers the projection "ternary")
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.rules import student
from flatprobe.plotting import canvas

# Okabe and Ito's colours, which the colour-blind can tell apart.
NAMED = {"natural": "#0072B2", "random": "#D55E00"}
_LETTERS = 10  # of a figure's title per inch
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@canvas.drawing()
def panels(
    titles: Sequence[str],
    *,
    columns: int | None = None,
    size: tuple[float, float] = (4.4, 3.6),
    title: str = "",
    projection: str | None = None,
    **shared: Any,
) -> tuple[Figure, list[Axes]]:
    """An empty figure with a panel per title, row by row.

    Args:
        titles: of the panels, in order.
        columns: panels per row; None for all in one row.
        size: width and height of a panel in inches.
        title: of the whole figure.
        projection: of the axes, such as "ternary".
        **shared: `sharex` and `sharey`, as in matplotlib.

    Returns:
        Figure and axes, in the order of the titles.
    """
    columns = columns or len(titles)
    lines = math.ceil(len(titles) / columns)
    title = textwrap.fill(title, int(_LETTERS * size[0] * columns))
    figure = canvas.blank(size[0] * columns, size[1] * lines + (0.3 * (title.count("\n") + 1) if title else 0))
    grid = figure.subplots(lines, columns, squeeze=False, subplot_kw={"projection": projection}, **shared).flatten()
    for ax, name in zip(grid, titles, strict=False):
        ax.set_title(name)
    for ax in grid[len(titles) :]:
        ax.remove()
    if title:
        figure.suptitle(title)
    return figure, list(grid[: len(titles)])


@canvas.drawing()
def curves(
    ax: Axes,
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    by: str | None = None,
    published: Mapping[Any, Mapping[float, float] | float] | None = None,
    scale: str = "linear",
    styles: Mapping[Any, Mapping[str, Any]] | None = None,
) -> Axes:
    """Means of y over the seeds against x, a curve per group, with bands of Student's 95 % interval.

    Args:
        ax: where to draw.
        frame: one row per seed, group and x. Rows of one seed that share group and x must be averaged before.
        x: column of the horizontal axis.
        y: column of the vertical axis.
        by: column of the groups; None for one curve.
        published: by group (or by another name, for a curve of the source alone), the printed y by x, drawn as crosses;
            or one printed y, drawn as a dotted line.
        scale: of the horizontal axis, "linear", "log" or "symlog".
        styles: by group, keywords of matplotlib's `plot`, such as `{"linestyle": "--"}`.

    Returns:
        The axes, with the names of the columns as labels.
    """
    groups = [(None, frame)] if by is None else list(frame.groupby(by, sort=False))
    colours = colour(group for group, _ in groups)
    for group, part in groups:
        given = {"color": colours[group], "marker": "o", "markersize": 4} | dict((styles or {}).get(group, {}))
        sns.lineplot(
            part, x=x, y=y, errorbar=lambda values: student(values.to_numpy())[1:], legend=False, markeredgewidth=0,
            label=None if group is None else str(group), err_kws={"alpha": 0.15, "linewidth": 0}, ax=ax, **given,
        )  # fmt: skip
    for group, printed in (published or {}).items():
        _published(ax, group, printed, colours.get(group, "#555555"))
    ax.set(xlabel=x, ylabel=y, xscale=scale)
    if by is not None or published:
        ax.legend()
    return ax


def _published(ax: Axes, group: Any, printed: Mapping[float, float] | float, shade: str) -> None:
    name = "published" if group is None else f"{group}, published"
    if isinstance(printed, Mapping):
        ax.plot(list(printed), list(printed.values()), "x", color=shade, markersize=8, markeredgewidth=2, label=name)
    else:
        ax.axhline(printed, color=shade, linestyle=":", label=name)


@canvas.drawing()
def bars(
    ax: Axes,
    measured: Mapping[str, Sequence[float]],
    published: Mapping[str, float | tuple[float, float]],
    *,
    label: str = "",
) -> Axes:
    """Bars of means over the seeds with Student's 95 % interval, and beside each the published value.

    Args:
        ax: where to draw.
        measured: by name, one value per seed.
        published: by name, the printed value, or value and standard deviation; names without one have no second bar.
        label: of the vertical axis.

    Returns:
        The axes.
    """
    places = np.arange(len(measured), dtype=float)
    found = np.array([student(values) for values in measured.values()])
    errors = np.stack([found[:, 0] - found[:, 1], found[:, 2] - found[:, 0]])  # NaN for one seed: no error bar
    ax.bar(places - 0.2, found[:, 0], 0.38, yerr=errors, capsize=3, color=CYCLE[0], label="flatprobe")
    printed = [np.atleast_1d(published.get(name, math.nan)) for name in measured]
    spreads = [float(value[1]) if len(value) > 1 else math.nan for value in printed]
    ax.bar(
        places + 0.2, [float(value[0]) for value in printed], 0.38, yerr=spreads, capsize=3, color="#BBBBBB",
        label="published",
    )  # fmt: skip
    ax.set_xticks(places, list(measured))
    ax.set_ylabel(label)
    ax.grid(visible=False, axis="x")
    ax.legend()
    return ax


@canvas.drawing()
def triangles(
    landscapes: Mapping[str, pd.DataFrame],
    value: str,
    *,
    corners: tuple[str, str, str] = ("lambda_1", "lambda_2", "lambda_3"),
    columns: int | None = None,
    title: str = "",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Filled contours over the triangle between three networks, a panel per landscape, on one colour scale.

    Args:
        landscapes: by title, one row per point of the simplex.
        value: column of the contours, such as "accuracy"; points that are not finite are left out.
        corners: columns of the coefficients of the three networks.
        columns: panels per row; None for all in one row.
        title: of the whole figure.
        limits: of the colours; None for the smallest and the largest value.

    Returns:
        The figure.
    """
    figure, grid = panels(list(landscapes), columns=columns, size=(3.6, 3.3), title=title, projection="ternary")
    finite = {name: part[np.isfinite(part[value])] for name, part in landscapes.items()}
    every = np.concatenate([part[value] for part in finite.values()])
    low, high = limits or (float(every.min()), float(every.max()))
    for ax, part in zip(grid, finite.values(), strict=True):
        top, left, right = (part[corner] for corner in corners)
        levels = np.linspace(low, high if high > low else low + 1, 21)
        ax.tricontourf(top, left, right, part[value].clip(low, high), levels=levels, cmap="viridis")
        for axis, name in zip((ax.taxis, ax.laxis, ax.raxis), ("$w_1$", "$w_2$", "$w_3$"), strict=True):
            axis.set_ticks([])
            axis.set_label_text(name)
            axis.set_label_rotation_mode("horizontal")
        ax.grid(visible=False)
    canvas.colour_bar(grid, mpl.colors.Normalize(low, high), "viridis", value, shrink=0.8)
    return figure


@canvas.drawing()
def distributions(
    ax: Axes,
    frame: pd.DataFrame,
    value: str,
    *,
    by: str | None = None,
    weight: str | None = None,
    bins: int | Sequence[float] = 40,
    mark: float | None = None,
) -> Axes:
    """Histograms of a column in common bins, an outline per group; heights are shares of the group.

    Args:
        ax: where to draw.
        frame: one row per value, or per bin of an aggregated histogram.
        value: column of the values, or of the bins' centres.
        by: column of the groups; None for one histogram.
        weight: column of the counts of an aggregated histogram; None for one per row.
        bins: number of bins, or their edges; the edges of the aggregated histogram where there is one.
        mark: value of a vertical line.

    Returns:
        The axes.
    """
    edges = bins if isinstance(bins, int) else list(bins)  # seaborn takes no array
    look = {"color": CYCLE[0]} if by is None else {"palette": colour(frame[by].unique())}
    sns.histplot(
        frame.dropna(subset=[value]), x=value, hue=by, weights=weight, bins=edges, stat="proportion", common_norm=False,
        element="step", alpha=0.12, linewidth=1.6, ax=ax, **look,
    )  # fmt: skip
    if mark is not None:
        ax.axvline(mark, color="#333333", linewidth=1.2)
    ax.set(xlabel=value, ylabel="share")
    if by is not None:
        ax.get_legend().set_title("")
    return ax


@canvas.drawing()
def images(pictures: Mapping[str, np.ndarray], *, columns: int | None = None, title: str = "") -> Figure:
    """Images side by side, each with its title.

    Args:
        pictures: by title, (height, width) or (channels, height, width), in [0, 1].
        columns: per row; None for all in one row.
        title: of the whole figure.

    Returns:
        The figure.
    """
    figure, grid = panels(list(pictures), columns=columns, size=(2.2, 2.4), title=title)
    for ax, picture in zip(grid, pictures.values(), strict=True):
        array = np.asarray(picture)
        array = array.transpose(1, 2, 0).squeeze() if array.ndim == 3 else array
        ax.imshow(np.clip(array, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set_axis_off()
    return figure


def colour(groups: Iterable[Any]) -> dict[Any, str]:
    """A colour per group: those of `NAMED`, and the others in the order of `CYCLE`."""
    groups = list(groups)
    free = itertools.cycle(shade for shade in CYCLE if shade not in {NAMED.get(group) for group in groups})
    return {group: NAMED[group] if group in NAMED else next(free) for group in groups}
