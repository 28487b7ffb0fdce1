"""Figures of Sokolic et al. (2017): decision regions, regularizers over depth, weight normalization."""

from collections.abc import Sequence
from functools import partial

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from analyses.sokolic2017.figure3 import DECAY, JACOBIAN
from analyses.sokolic2017.weight_normalised import ALL
from figures.kinds import CYCLE, curves, panels
from flatprobe.plotting import canvas

PALE = ("#cfe3f1", "#f6d9c4")  # regions of class 1 and 2
SIZE_COLOURS = ("#D62728", "#1F77B4", "#000000")  # the paper's: red, blue, black from the smallest n on


@mpl.rc_context(canvas.STYLE)
def decision_regions(frame: pd.DataFrame, _metadata: dict) -> Figure:
    """Fig. 2: regions with the samples in the input space, and the samples with the boundary at the output."""
    grid = frame[frame["kind"] == "grid"]
    samples = frame[(frame["kind"] == "sample") & (frame["draw"] == grid["draw"].iloc[0])]
    figure, (inner, outer) = panels(["(a) input space", "(b) output space"], size=(4.6, 3.6))
    wide = grid.pivot_table(index="x_2", columns="x_1", values="label")
    inner.pcolormesh(wide.columns, wide.index, wide, cmap=ListedColormap(PALE), shading="nearest", rasterized=True)
    inner.contour(wide.columns, wide.index, wide, levels=[0.5], colors="#333333", linewidths=1.2)
    low, high = samples[["z_1", "z_2"]].to_numpy().min() - 1, samples[["z_1", "z_2"]].to_numpy().max() + 1
    outer.fill_between([low, high], [low, low], [low, high], color=PALE[0], linewidth=0)
    outer.fill_between([low, high], [low, high], [high, high], color=PALE[1], linewidth=0)
    outer.plot([low, high], [low, high], color="#333333", linewidth=1.2)
    for label, shade in enumerate(CYCLE[:2]):
        own = samples[samples["label"] == label]
        for ax, name in ((inner, "x"), (outer, "z")):
            ax.plot(own[f"{name}_1"], own[f"{name}_2"], ".", color=shade, markersize=5, label=f"class {label + 1}")
    inner.set(xlabel="$x_1$", ylabel="$x_2$")
    outer.set(xlabel="$z_1$ (logit)", ylabel="$z_2$", xlim=(low, high), ylim=(low, high))
    inner.legend(loc="lower left")
    for ax in (inner, outer):
        ax.grid(visible=False)
    return figure


@mpl.rc_context(canvas.STYLE)
def regularizers(frame: pd.DataFrame, _metadata: dict) -> Figure:
    """Fig. 3: test accuracy by depth, solid with the Jacobian regularizer, dashed with weight decay, a colour per n."""
    final = frame[frame["stage"] == "final"].assign(accuracy=lambda rows: 100 * (1 - rows["test error"]))
    final["curve"] = final["method"] + ", n = " + final["n"].astype(str)
    shades = dict(zip(sorted(final["n"].unique()), SIZE_COLOURS, strict=False))
    styles = {
        f"{method}, n = {n}": {"color": shade, "linestyle": line, "marker": "o" if method == JACOBIAN else "s"}
        for n, shade in shades.items()
        for method, line in ((JACOBIAN, "-"), (DECAY, "--"))
    }
    figure, (ax,) = panels(["MNIST"], size=(6.2, 4.2))
    curves(ax, final, "L", "accuracy", by="curve", styles=styles)
    labelled(ax, "L, layers", "test accuracy (%)", sorted(final["L"].unique()))
    return figure


@mpl.rc_context(canvas.STYLE)
def over_width(frame: pd.DataFrame, _metadata: dict, *, columns: Sequence[str], log: bool = False) -> Figure:
    """Fig. 4: quantities against the width, a curve per depth; the first one also against the depth.

    Args:
        frame: the table of the weight-normalised networks.
        columns: of the panels; the first is the paper's.
        log: whether the vertical axes are logarithmic.
    """
    main = frame[frame["normalised"] == ALL].sort_values(["L", "M"])
    main = main.assign(depth="L = " + main["L"].astype(str))
    first, widest = columns[0], main["M"].max()
    others = frame[frame["normalised"] != ALL]
    by_kind = frame[frame["M"] == others["M"].iloc[0]].sort_values("L")
    over_depth = {
        f"{first}\nM = {widest}": (frame[frame["M"] == widest].sort_values("L"), "normalised"),
        f"{first}\nM = {by_kind['M'].iloc[0]}": (by_kind, "normalised"),
    }
    figure, grid = panels([*columns, *over_depth], size=(4.0, 3.8))
    for ax, column in zip(grid, columns, strict=False):
        curves(ax, main.dropna(subset=[column]), "M", column, by="depth", scale="log")
        labelled(ax, "M, units per hidden layer", column, sorted(main["M"].unique()))
        ax.minorticks_off()
    for ax, (part, by) in zip(grid[len(columns) :], over_depth.values(), strict=True):
        curves(ax, part, "L", first, by=by)
        labelled(ax, "L, layers", first, sorted(frame["L"].unique()))
    for ax in grid if log else ():
        ax.set_yscale("log")
    return figure


def labelled(ax: Axes, x: str, y: str, ticks: Sequence[float]) -> None:
    """Labels of the axes, and ticks of the horizontal one."""
    ax.set(xlabel=x, ylabel=y)
    ax.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])


@mpl.rc_context(canvas.STYLE)
def bounds(frame: pd.DataFrame, _metadata: dict) -> Figure:
    """Section VI-A2: test error, products of norms and bounds against the depth, a curve per width."""
    main = frame[frame["normalised"] == ALL].sort_values(["M", "L"])
    main = main.assign(width="M = " + main["M"].astype(str), error=100 - main["test accuracy"])
    columns = {
        "error": "test error (%)",
        "product of spectral norms": "product of spectral norms",
        "product of Frobenius norms": "product of Frobenius norms",
        "log10 bound, eq. 37": "log10 of the bound, eqs 37, 38",
        "log10 bound, eq. 44": "log10 of the bound, eq. 44",
    }
    columns = {column: name for column, name in columns.items() if main[column].notna().any()}
    figure, grid = panels(list(columns.values()), columns=3, size=(4.1, 3.4))
    for ax, (column, name) in zip(grid, columns.items(), strict=True):
        curves(ax, main.dropna(subset=[column]), "L", column, by="width")
        labelled(ax, "L, layers", name, sorted(main["L"].unique()))
        if column.startswith("product"):
            ax.set_yscale("log")
    return figure


def norms(on: str) -> list[str]:
    """The columns of Fig. 4 (c) or (d): the paper's, the median, and on logits."""
    return [f"largest norm, {on}, softmax", f"median norm, {on}, softmax", f"largest norm, {on}, logits"]


FIGURES = {
    "S17-F2": decision_regions,
    "S17-F3": regularizers,
    "S17-F4a": partial(over_width, columns=["test accuracy", "train accuracy"]),
    "S17-F4b": partial(over_width, columns=["smallest score"]),
    "S17-F4c": partial(over_width, columns=norms("train"), log=True),
    "S17-F4d": partial(over_width, columns=norms("test"), log=True),
    "S17-VIA2": bounds,
}
