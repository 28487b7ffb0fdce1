"""Figures of one family of networks: Poggio et al. (2017), Figs 5, 11, 12, 16, 17, 19 and 20, Tables 1 and 2."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from figures import kinds

LABELS = ("natural", "random")
NAMES = {"cifar": "CIFAR-10", "mnist": "MNIST"}
INTERPOLATED = "interpolated"
ZOOM = 0.1  # largest noise level of the right-hand panels of Fig. 20


def gradient_noise(frame: pd.DataFrame, _metadata: dict[str, Any]) -> Figure:
    """Fig. 5: histograms of the components of minibatch gradients, over their standard deviation."""
    ended = frame[(frame["stage"] == INTERPOLATED) & (frame["labels"] == "natural")]
    sizes = sorted(ended["batch_size"].unique())
    cells = [(scale, size) for scale in (1, 10) for size in sizes]
    titles = [f"x{scale}, {size} samples" for scale, size in cells]
    figure, axes = kinds.panels(titles, columns=len(sizes), size=(3.0, 2.8), title="Components at 100 % accuracy")
    edges = np.append(np.sort(frame["from"].unique()), frame["to"].max())
    normal = np.diff(stats.norm.cdf(edges))
    for ax, (scale, size) in zip(axes, cells, strict=True):
        part = ended[(ended["scale"] == scale) & (ended["batch_size"] == size)]
        part = part.assign(noise=(part["from"] + part["to"]) / 2)
        kinds.distributions(ax, part, "noise", weight="share", bins=edges)
        ax.plot((edges[1:] + edges[:-1]) / 2, normal, color="#333333", linewidth=1, label="normal")
        ax.set(
            xlabel="noise / standard deviation", title=f"{ax.get_title()}: excess {part['mean_kurtosis'].mean():.2g}"
        )
    axes[0].legend()
    return figure


def landscapes(frame: pd.DataFrame, _metadata: dict[str, Any]) -> Figure:
    """Figs 11 and 12: training accuracy over the triangle, natural beside random labels."""
    data = frame["data"].iloc[0]
    chosen = frame[(frame["data"] == data) & (frame["stage"] == INTERPOLATED) & (frame["draw"] == 0)]
    chosen = chosen.assign(accuracy=1 - chosen["error"].clip(lower=1e-9))  # contours leave out their last level
    found = {
        f"x{scale}, {labels}, {minima} start": part
        for scale in (1, 10)
        for minima in chosen["minima"].unique()
        for labels in LABELS
        if len(part := chosen[(chosen["scale"] == scale) & (chosen["minima"] == minima) & (chosen["labels"] == labels)])
    }
    columns = 2 * chosen["minima"].nunique()
    return kinds.triangles(found, "accuracy", columns=columns, title=f"{NAMES[data]}, training accuracy", limits=(0, 1))


def fan_in(frame: pd.DataFrame, _metadata: dict[str, Any]) -> Figure:
    """Fig. 16: quantiles of the units' fan-in norms, at the start and at 100 % accuracy."""
    quantiles = [name for name in frame.columns if name[0].isdigit()]
    frame = frame.assign(group=frame["labels"].where(frame["stage"] == INTERPOLATED, "start"))[
        frame["stage"].isin([INTERPOLATED, "initial"])
    ]
    long = frame.melt(["data", "scale", "layer", "draw", "group"], quantiles, "quantile", "fan-in l1 norm")
    long["quantile"] = long["quantile"].astype(float)
    keys = ["data", "scale", "layer", "draw", "group", "quantile"]
    long = long.groupby(keys, sort=False)["fan-in l1 norm"].mean().reset_index()
    cells = list(long.groupby(["data", "scale", "layer"]))
    titles = [f"{NAMES[data]}, x{scale}, layer {layer[-1]}" for (data, scale, layer), _ in cells]
    figure, axes = kinds.panels(titles, columns=4, size=(3.4, 3.0))
    for ax, (_, part) in zip(axes, cells, strict=True):
        kinds.curves(ax, part, "quantile", "fan-in l1 norm", by="group")
    return figure


def margins(frame: pd.DataFrame, _metadata: dict[str, Any]) -> Figure:
    """Fig. 17: quantiles of the margins, raw and over the product of spectral norms, and the l2 norm."""
    frame = frame[frame["stage"] == INTERPOLATED]
    frame = frame.assign(cell=frame["labels"] + frame["scale"].map(" x{}".format))
    columns = [name for name in frame.columns if name.startswith("margin ")]
    long = frame.melt(["data", "scale", "labels", "draw", "cell", "product"], columns, "quantile", "margin")
    long["quantile"] = long["quantile"].str.removeprefix("margin ").astype(float)
    long["margin / norms"] = long["margin"] / long["product"]
    titles = [f"{name}: {what}" for name in NAMES.values() for what in ("margins", "over norms", "norm of weights")]
    figure, axes = kinds.panels(titles, columns=3)
    styles = {cell: STYLES[cell] for cell in frame["cell"].unique()}
    for place, data in enumerate(NAMES):
        part = long[long["data"] == data]
        raw, divided, norm = axes[3 * place : 3 * place + 3]
        kinds.curves(raw, part, "quantile", "margin", by="cell", styles=styles)
        kinds.curves(divided, part, "quantile", "margin / norms", by="cell", styles=styles)
        divided.set_yscale("log")
        kinds.curves(norm, frame[frame["data"] == data], "scale", "l2", by="labels", scale="log")
        norm.set(xlabel="factor of the initial weights", ylabel="l2 norm", yscale="log")
    return figure


def noisy_image(frame: pd.DataFrame, _metadata: dict[str, Any]) -> Figure:
    """Fig. 19: an image, and the same under noise."""
    pictures = {}
    for gamma, part in frame.groupby("gamma"):
        ordered = part.sort_values(["channel", "row", "column"])
        shape = tuple(ordered[axis].max() + 1 for axis in ("channel", "row", "column"))
        pictures["original" if gamma == 0 else f"perturbation {gamma:g}"] = ordered["value"].to_numpy().reshape(shape)
    return kinds.images(pictures)


def robustness(frame: pd.DataFrame, _metadata: dict[str, Any]) -> Figure:
    """Fig. 20: error on noisy training images, and the same near no noise."""
    frame = frame[frame["stage"] == INTERPOLATED]
    cells = [(data, scale) for data in NAMES for scale in (1, 10)]
    titles = [f"{NAMES[data]}, x{scale}{zoom}" for data, scale in cells for zoom in ("", ", zoomed in")]
    figure, axes = kinds.panels(titles, columns=4, size=(3.4, 3.0))
    for place, (data, scale) in enumerate(cells):
        part = frame[(frame["data"] == data) & (frame["scale"] == scale)].sort_values("labels")
        kinds.curves(axes[2 * place], part, "gamma", "error", by="labels")
        kinds.curves(axes[2 * place + 1], part[part["gamma"] <= ZOOM], "gamma", "error", by="labels")
    return figure


def radii(frame: pd.DataFrame, metadata: dict[str, Any]) -> Figure:
    """Table 1 on CIFAR-10, and on the same networks for MNIST: mean radii beside the published ones."""
    published = {
        (row["data"], row["parameters"], row["labels"]): (row["mean"], row["std"]) for row in metadata["published"]
    }
    cells = [(data, scale) for data in NAMES for scale in (1, 10)]
    figure, axes = kinds.panels([f"{NAMES[data]}, x{scale}" for data, scale in cells], columns=4, size=(3.6, 3.4))
    for ax, (data, scale) in zip(axes, cells, strict=True):
        part = frame[(frame["data"] == data) & (frame["scale"] == scale)]
        names = {f"{p}\n{y}": (p, y) for p in ("all", "top") for y in LABELS}
        measured = {
            name: part[(part["parameters"] == p) & (part["labels"] == y)]["mean"].tolist()
            for name, (p, y) in names.items()
        }
        kinds.bars(
            ax, measured, {name: published[data, p, y] for name, (p, y) in names.items()}, label="flatness radius"
        )
    return figure


def accuracies(frame: pd.DataFrame, metadata: dict[str, Any]) -> Figure:
    """Table 2: test accuracies beside the published ones."""
    figure, (ax,) = kinds.panels(["Test accuracy without regularizers"], size=(5.5, 3.8))
    trained = frame.dropna()
    measured = {
        row["network"]: trained[trained["network"] == row["network"]]["test"].tolist() for row in metadata["published"]
    }
    published = {row["network"]: row["test"] for row in metadata["published"]}
    kinds.bars(ax, {name: values for name, values in measured.items() if values}, published, label="test accuracy, %")
    return figure


STYLES = {
    f"{labels} x{scale}": {"color": kinds.NAMED[labels], "linestyle": "-" if scale == 1 else "--"}
    for labels in LABELS
    for scale in (1, 10)
}
FIGURES = {
    "T3-F5": gradient_noise,
    "T3-F11": landscapes,
    "T3-F12": landscapes,
    "T3-F16": fan_in,
    "T3-F17": margins,
    "T3-F19": noisy_image,
    "T3-F20": robustness,
    "T3-T1-CIFAR": radii,
    "T3-T2": accuracies,
}
