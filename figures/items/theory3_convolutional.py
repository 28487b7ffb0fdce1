"""T3 Figs 1 to 4, 6, 13 to 15 and 21 to 24: errors of all-convolutional networks against n, weights and epochs."""

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.theory3_2017.all_convolutional import usual
from figures.kinds import curves, panels

SETS = {"train_error": "training", "test_error": "test"}
STYLES = {"training": {"linestyle": "--"}}
BY_EPOCH = {"train_by_epoch": "training error", "validation_by_epoch": "validation error"}
WITHOUT_MARKS = {"marker": "", "linewidth": 1.3}


def _long(frame: pd.DataFrame, cell: list[str]) -> pd.DataFrame:
    """One row per network and set, with the columns `set` and `error`."""
    kept = frame.dropna(subset=list(SETS)).rename(columns=SETS)
    return kept.melt([*cell, "seed"], list(SETS.values()), var_name="set", value_name="error")


def _errors(ax: Axes, frame: pd.DataFrame, x: str, *, scale: str, boundary: float) -> None:
    """Training and test error against x, and the boundary W = n."""
    kept = usual(frame)
    curves(ax, _long(kept, [x]), x, "error", by="set", scale=scale, styles=STYLES)
    for epochs, part in frame.drop(kept.index).groupby("epochs"):
        means = part.groupby(x)["train_error"].mean()
        ax.plot(means.index, means, "^", color="#0072B2", markerfacecolor="none", label=f"training, {epochs} epochs")
    ax.legend()
    ax.axvline(boundary, color="#333333", linewidth=1.0, linestyle=":")
    ax.annotate("W = n", (boundary, 0.02), (3, 0), ("data", "axes fraction"), "offset points", fontsize=8)
    ax.axhline(0.9, color="#999999", linewidth=0.8, linestyle="-.")
    ax.set(ylim=(-0.02, 1.0), ylabel="error")


def against_samples(frame: pd.DataFrame, metadata: dict) -> Figure:
    """Errors against n at a fixed W."""
    figure, (ax,) = panels([_networks(frame)], size=(5.6, 4.0), title=_title(metadata))
    _errors(ax, frame, "n", scale="log", boundary=frame["weights"].dropna().iloc[0])
    ax.set_xlabel("training samples n")
    _ticks(ax, frame["n"].unique())
    return figure


def against_weights(scale: str) -> Callable[[pd.DataFrame, dict], Figure]:
    """Errors against W at a fixed n, on a log or a linear axis."""

    def draw(frame: pd.DataFrame, metadata: dict) -> Figure:
        title = f"n = {frame['n'].iloc[0]:,}, {frame['seed'].nunique()} draws"
        figure, (ax,) = panels([title], size=(5.6, 4.0), title=_title(metadata))
        _errors(ax, frame, "weights", scale=scale, boundary=frame["n"].iloc[0])
        ax.set_xlabel("weights W")
        return figure

    return draw


def by_epoch(frame: pd.DataFrame, metadata: dict) -> Figure:
    """Training and validation error by epoch, a curve per n, a row of panels per width."""
    widths = sorted(frame["k"].unique())
    titles = [f"{name}, k = {k}" for k in widths for name in BY_EPOCH.values()]
    figure, axes = panels(titles, columns=2, size=(4.8, 3.6), title=_title(metadata))
    places = iter(axes)
    for k in widths:
        part = frame[frame["k"] == k].assign(group=lambda rows: rows["n"].map("n = {:,}".format))
        styles = dict.fromkeys(part["group"].unique(), WITHOUT_MARKS)
        for name in BY_EPOCH:
            ax = next(places)
            curves(ax, part, "epoch", name, by="group", styles=styles)
            ax.set(ylabel="error", ylim=(-0.02, 1.0))
    return figure


def langevin(frame: pd.DataFrame, metadata: dict) -> Figure:
    """Loss and errors by epoch with and without noise."""
    part = frame.assign(group=lambda rows: rows["noise"].map(lambda s: f"SGDL, noise {s:g}" if s else "SGD"))
    styles = dict.fromkeys(part["group"].unique(), WITHOUT_MARKS)
    named = {"loss_by_epoch": "training loss", **BY_EPOCH}
    figure, axes = panels(list(named.values()), size=(4.4, 3.6), title=_title(metadata))
    for ax, name in zip(axes, named, strict=True):
        curves(ax, part, "epoch", name, by="group", styles=styles)
        ax.set_ylabel(named[name])
    axes[0].set(yscale="log", ylim=(0.5 * part["loss_by_epoch"].min(), None))
    return figure


def gap(frame: pd.DataFrame, metadata: dict) -> Figure:
    """Generalization gap and test error against W, a curve per n."""
    part = frame.dropna(subset="gap").assign(group=lambda rows: rows["n"].map("n = {:,}".format))
    titles = {"gap": "test error - training error", "test_error": "test error"}
    figure, axes = panels(list(titles.values()), size=(4.8, 3.8), title=_title(metadata))
    for ax, name in zip(axes, titles, strict=True):
        curves(ax, part, "weights", name, by="group", scale="log")
        ax.set(xlabel="weights W", ylabel=titles[name])
    return figure


def activations(frame: pd.DataFrame, metadata: dict) -> Figure:
    """Errors of the ReLU and the polynomial network against n."""
    figure, axes = panels(list(SETS.values()), size=(4.4, 3.6), title=_title(metadata), sharey=True)
    for ax, name in zip(axes, SETS, strict=True):
        curves(ax, frame[frame["batch_norm"]].dropna(subset=name), "n", name, by="activation", scale="log")
        ax.set(xlabel="training samples n", ylabel="error", ylim=(-0.02, 1.0))
        _ticks(ax, frame["n"].unique())
    return figure


def _networks(frame: pd.DataFrame) -> str:
    weights, labels = frame["weights"].dropna().iloc[0], frame["labels"].iloc[0]
    return f"{labels} labels, W = {weights:,.0f}, {frame['seed'].nunique()} draws"


def _title(metadata: dict) -> str:
    data = metadata["settings"]["data"]
    return f"{metadata['source']}\n{'CIFAR-10 (re-encoded as JPEG)' if 'cifar' in data else data}"


def _ticks(ax: Axes, sizes: object) -> None:
    ax.set_xticks(sorted(sizes), [f"{size:,}" for size in sorted(sizes)])
    ax.minorticks_off()


FIGURES = {
    **dict.fromkeys(("T3-F1", "T3-F2", "T3-F22", "T3-F23"), against_samples),
    "T3-F3": against_weights("log"),
    "T3-F4": against_weights("linear"),
    "T3-F24": against_weights("log"),
    "T3-F6": langevin,
    "T3-F13": by_epoch,
    "T3-F14": by_epoch,
    "T3-F15": gap,
    "T3-F21": activations,
}
