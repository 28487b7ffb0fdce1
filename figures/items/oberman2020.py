"""Figures of Oberman (2020)."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.oberman2020.losses import EXTENT, PLANE
from figures.kinds import CYCLE, curves, panels
from flatprobe.plotting import canvas

BATCH, FULL = CYCLE[2], "#222222"  # the source's green and black


@mpl.rc_context(canvas.STYLE)
def minibatches(frame: pd.DataFrame, _metadata: dict) -> Figure:
    """Fig. 2: data, component gradients of a minibatch and their mean, far from and near the minimum; and the error."""
    distances = (1.0, 0.1)
    titles = [f"distance {distance:g} from the minimum" for distance in distances]
    figure, grid = panels([*titles, "relative error of the minibatch gradient"], size=(4.3, 4.2))
    points = frame[frame["part"] == "point"]
    batch = points[points["in_batch"].astype(bool)]
    mean = points[["x", "y"]].mean().to_numpy()
    for ax, distance in zip(grid, distances, strict=False):
        weights = mean + distance * np.array([0.8, -0.6])
        ax.plot(points["x"], points["y"], ".", color="#bbbbbb", markersize=4, label="data")
        ax.plot(batch["x"], batch["y"], "o", color=CYCLE[0], markersize=5, label="minibatch")
        ends = batch[["x", "y"]].to_numpy()
        for end in ends:  # minus half the gradient of (x - w)^2 leads from the weights to the sample
            _arrow(ax, weights, end, FULL, 0.6)
        _arrow(ax, weights, ends.mean(axis=0), BATCH, 3)
        _arrow(ax, weights, mean, CYCLE[1], 2)
        ax.plot(*weights, "s", color=FULL, markersize=6, label="weights")
        ax.plot(*mean, "*", color=CYCLE[1], markersize=12, label="minimum")
        for name, shade in (
            ("its components", FULL),
            ("minus minibatch gradient", BATCH),
            ("minus full gradient", CYCLE[1]),
        ):
            ax.plot([], [], color=shade, linewidth=1 if shade == FULL else 3, label=name)
        ax.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", xlim=(-0.05, 1.4), ylim=(-0.2, 1.25))
    grid[1].set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    curves(grid[2], frame[frame["part"] == "error"], "distance", "error", scale="log")
    x = np.array([0.02, 2.0])
    grid[2].plot(x, 0.092 / x, ":", color="#555555", label="1 / distance")
    grid[2].set(yscale="log", xlabel="distance from the minimum", ylabel="E ||g - grad|| / ||grad||")
    grid[2].legend()
    return figure


def _arrow(ax: Axes, start: np.ndarray, end: np.ndarray, shade: str, width: float) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": shade, "lw": width})


@mpl.rc_context(canvas.STYLE)
def level_sets(frame: pd.DataFrame, _metadata: dict) -> Figure:
    """Fig. 3: level sets of the max loss and the LSE losses with eps = 0.2 and 1, from left to right."""
    titles = {"maximum": "max loss", "smoothed 0.2": "LSE loss, eps = 0.2", "smoothed 1": "LSE loss, eps = 1"}
    title = "Loss of class 1 on the plane of three logits that sum to 0; white: classification boundary"
    figure, grid = panels(list(titles.values()), size=(3.9, 3.9), title=title)
    picture = frame[frame["statement"] == "picture"]
    levels = np.linspace(0, 6, 13)
    for ax, name in zip(grid, titles, strict=True):
        value = picture.pivot_table(index="y", columns="x", values=name)
        x, y = value.columns.to_numpy(), value.index.to_numpy()
        ax.contourf(x, y, value, levels=levels, cmap="viridis", extend="max")
        ax.contour(x, y, value, levels=levels[1:], colors="#222222", linewidths=0.6)
        for direction in PLANE:  # the two other logits tie on the ray against that of a class
            ax.plot(*(np.array([0, -2 * EXTENT])[:, None] * direction).T, color="white", linewidth=2)
        ax.set(xlim=(-EXTENT, EXTENT), ylim=(-EXTENT, EXTENT))
        for place, (a, b) in enumerate([(0, 2.4), (-2.2, -1.6), (2.2, -1.6)]):
            ax.text(a, b, f"class {place + 1}", color="white", ha="center", weight="bold")
        ax.set(aspect="equal", xticks=[], yticks=[])
        ax.grid(visible=False)
    canvas.colour_bar(grid, mpl.colors.Normalize(0, 6), "viridis", "loss", shrink=0.8)
    return figure


@mpl.rc_context(canvas.STYLE)
def splines(frame: pd.DataFrame, _metadata: dict) -> Figure:
    """Example 3.1: interpolants, the soft path, and its loss against its curvature."""
    titles = ["hard: interpolants", "soft: smoothing splines", "loss against curvature"]
    figure, grid = panels(titles, size=(4.4, 3.9))
    drawn, data = frame[frame["statement"] == "curve"], frame[frame["statement"] == "data"]
    for name, part in drawn.groupby("name", sort=False):
        if name == "natural spline":
            for ax in grid[:2]:
                ax.plot(part["x"], part["y"], color=FULL, linewidth=2.4, label="natural spline", zorder=3)
        elif str(name).startswith("lambda"):
            grid[1].plot(part["x"], part["y"], label=str(name))
        elif str(name) in {"PCHIP", "polynomial"}:
            grid[0].plot(part["x"], part["y"], "--", label=str(name))
        else:
            label = "other interpolants" if str(name).endswith(" 0") else None
            grid[0].plot(part["x"], part["y"], color="#bbbbbb", linewidth=1, label=label)
    for ax in grid[:2]:
        ax.plot(data["x"], data["y"], "o", color=CYCLE[0], markersize=7, zorder=4)
        margin = data["y"].max() - data["y"].min()
        ax.set(ylim=(data["y"].min() - 0.4 * margin, data["y"].max() + 0.6 * margin), xlabel="x", ylabel="f(x)")
        ax.legend(loc="upper center", ncols=2, fontsize=9)
    path = frame[frame["statement"] == "path"]
    for number, part in list(path.groupby("set"))[:3]:
        ordered = part.sort_values("strength")
        label = f"data set {int(number) + 1}"
        grid[2].plot(ordered["left"].clip(lower=1e-12), ordered["right"].clip(lower=1e-6), ".-", label=label)
    grid[2].set(xscale="log", yscale="log", xlabel="loss: mean (f(x) - y)^2", ylabel="curvature: int f''^2 dx")
    grid[2].legend(title="lambda from 1e-12 (left) to 1e4")
    return figure


@mpl.rc_context(canvas.STYLE)
def convergence(frame: pd.DataFrame, _metadata: dict) -> Figure:
    """Theorem 5.2: E q_k and the bound, with the corrected constant and with mu^2 / sigma^2."""
    names = {"corrected": "alpha = mu^2 / (sigma^2 + mu L q_0)", "mu^2 / sigma^2": "alpha = mu^2 / sigma^2"}
    figure, grid = panels(
        list(names.values()), size=(5.4, 4.2), title="E q_k (lines) and the bound (dotted), sigma^2 = 4"
    )
    for ax, name in zip(grid, names, strict=True):
        part = frame[(frame["statement"] == name) & (frame["variance"] == 4)]
        for shade, (start, found) in zip(CYCLE, part.groupby("start"), strict=False):
            ax.plot(found["k"], found["left"], color=shade, label=f"q_0 = {start:g}")
            ax.plot(found["k"], found["right"], ":", color=shade)
        ax.set(xscale="log", yscale="log", xlabel="step k", ylabel="squared distance from the minimum")
        ax.legend()
    return figure


@mpl.rc_context(canvas.STYLE)
def hypotheses(frame: pd.DataFrame, _metadata: dict) -> Figure:
    """Example 10.2: training and test loss against the width, and for the delta functions."""
    names = {"constant": "y = 1 (the source's)", "wave": "y = a wave (ours)"}
    figure, grid = panels(list(names.values()), size=(5.4, 4.2))
    for ax, target in zip(grid, names, strict=True):
        part = frame[frame["target"] == target]
        smooth = part[part["width"] > 0]
        curves(ax, smooth.assign(m=smooth["samples"].map("m = {:,}".format)), "width", "test", by="m", scale="log")
        delta = part[part["width"] == 0]
        ax.axhline(delta["test"].mean(), color=FULL, linestyle="--", label="delta functions, test")
        for shade, (samples, found) in zip(CYCLE, smooth.groupby("samples"), strict=False):
            means = found.groupby("width")["train"].mean()
            label = "training loss" if samples == smooth["samples"].min() else None
            ax.plot(means.index, means, ":", color=shade, label=label)
        ax.set(yscale="log", ylim=(1e-7, 5), xlabel="width of the Gaussian", ylabel="squared error, test")
        ax.legend()
    return figure


@mpl.rc_context(canvas.STYLE)
def noise(frame: pd.DataFrame, _metadata: dict) -> Figure:
    """Lemma 10.3: rises by quadrature against the printed and the corrected form, and the remainder of a sine."""
    titles = ["one quadratic f", "50 quadratics, Gaussian noise", "f = sin 2x, Gaussian noise"]
    figure, grid = panels(titles, size=(4.3, 4.0))
    first = frame[(frame["problem"] == 0) & frame["law"].notna()]
    for name, mark, line, shade in (("Gaussian", "o", "corrected", CYCLE[0]), ("signs", "s", "printed", CYCLE[1])):
        part = first[first["statement"] == f"{line} {name}"]
        noise = "Gaussian noise" if name == "Gaussian" else "noise +-sigma"
        grid[0].plot(
            part["sigma"], part["left"] / part["sigma"] ** 2, mark, color=shade, label=f"{noise}, by quadrature"
        )
        grid[0].plot(part["sigma"], part["right"] / part["sigma"] ** 2, color=shade, label=f"eq. 10.3, {line}")
    grid[0].set(xlabel="sigma", ylabel="rise of the loss / sigma^2")
    grid[0].legend(fontsize=9)
    for name, shade in (("printed", CYCLE[1]), ("corrected", CYCLE[0])):
        part = frame[frame["statement"] == f"{name} Gaussian"]
        grid[1].plot(part["right"], part["left"], ".", color=shade, markersize=5, label=f"eq. 10.3, {name}")
    ends = [part["left"].min(), part["left"].max()]
    grid[1].plot(ends, ends, color=FULL, linewidth=0.8)
    grid[1].set(xscale="symlog", yscale="symlog", xlabel="regularizer", ylabel="rise of the loss")
    grid[1].legend()
    for name, label in (
        ("curved", "corrected form"),
        ("curved further", "with sigma^4 (f_x f_xxx + (f - y) f_xxxx / 4)"),
    ):
        part = frame[frame["statement"] == name]
        grid[2].plot(part["sigma"], (part["left"] - part["right"]).abs(), "o-", label=label)
    grid[2].set(xscale="log", yscale="log", xlabel="sigma", ylabel="absolute remainder")
    grid[2].legend(fontsize=8.5)
    return figure


@mpl.rc_context(canvas.STYLE)
def adversarial(frame: pd.DataFrame, _metadata: dict) -> Figure:
    """Section 10.5: remainders against lambda, accuracy clean and under PGD, seconds per epoch."""
    figure, grid = panels(["remainder of the regularizer", "test accuracy", "one epoch"], size=(4.4, 4.0))
    for name in ("FGSM linf", "FGSM l2", "gradient step", "differences"):
        part = frame[frame["statement"] == name]
        grid[0].plot(part["step"], (part["left"] - part["right"]).abs(), "o-", markersize=4, label=name)
    grid[0].set(xscale="log", yscale="log", xlabel="lambda, or h of the differences", ylabel="absolute remainder")
    grid[0].legend()
    test, seconds = (frame[frame["statement"] == name] for name in ("test", "seconds"))
    methods = list(dict.fromkeys(test["method"]))
    methods.sort(key=lambda name: (name != "plain", name != "PGD", name))
    for shade, (budget, part) in zip(CYCLE, test.groupby("budget"), strict=False):
        for place, method in enumerate(methods):
            values = part.loc[part["method"] == method, "accuracy"]
            label = ("clean" if budget == 0 else f"PGD, l2 length {budget:g}") if place == 0 else None
            grid[1].plot([place] * len(values), values, "o", color=shade, alpha=0.6, label=label)
    grid[1].set(
        xticks=range(len(methods)),
        xticklabels=[name.replace(" ", "\n") for name in methods],
        ylabel="accuracy",
        ylim=(0, 1),
    )
    grid[1].legend()
    means = seconds.groupby("method")["seconds"].mean()
    grid[2].bar(range(len(methods)), [means[name] for name in methods], color=CYCLE[0])
    grid[2].set(xticks=range(len(methods)), xticklabels=[name.replace(" ", "\n") for name in methods], ylabel="seconds")
    return figure


FIGURES = {
    "O20-F2": minibatches,
    "O20-F3": level_sets,
    "O20-Ex3.1": splines,
    "O20-Thm5.2": convergence,
    "O20-Ex10.2": hypotheses,
    "O20-L10.3": noise,
    "O20-10.5": adversarial,
}
