"""Accuracy, or loss where the task has no classes, on the training and on the test samples."""

from collections.abc import Mapping

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from flatprobe.plotting import canvas
from flatprobe.plotting.names import caption, label_networks, looks, name_results, strip_width
from flatprobe.probes.generalization import TEST, TRAIN, Generalization
from flatprobe.utils.results import Result

_FILLED = {TRAIN: "full", TEST: "none"}


@mpl.rc_context(canvas.STYLE)
def draw(
    results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Mapping[str, str] | None = None
) -> Axes:
    """Training and test accuracy with their 95 % intervals, a column per network.

    Args:
        results: one `Generalization`, or several by name.
        ax: where to draw; None makes a figure.
        groups: network name -> group; networks of one group share a colour.

    Returns:
        The axes.

    Raises:
        TypeError: for results of another class.
        ValueError: for no results.
    """
    found = name_results(results, Generalization)
    own, labels = looks(list(found), groups), list(map(caption, found))
    ax = canvas.axes(ax, width=max(7.0, strip_width(labels)))
    kind = "accuracy" if all("train_accuracy" in result.summary() for result in found.values()) else "loss"
    scale = 100 if kind == "accuracy" else 1
    measured = set()
    for place, (name, result) in enumerate(found.items()):
        for split, shift in ((TRAIN, -0.12), (TEST, 0.12)):
            value = result.summary().get(f"{split}_{kind}")
            if value is None:
                continue
            measured.add(split)
            low, high = result.interval(f"{split}_{kind}")
            ax.errorbar(
                [place + shift], [scale * value], yerr=[[scale * (value - low)], [scale * (high - value)]],
                fmt=own[name].marker, color=own[name].colour, fillstyle=_FILLED[split], capsize=4, markersize=7,
            )  # fmt: skip
    label_networks(ax, range(len(found)), labels)
    ax.set_ylabel("% classified correctly" if kind == "accuracy" else "mean loss")
    handles = [Line2D([], [], marker="o", color="#555555", linestyle="none", fillstyle=_FILLED[s]) for s in _FILLED]
    shown = [(handle, split) for handle, split in zip(handles, _FILLED, strict=True) if split in measured]
    ax.legend(*zip(*shown, strict=True), loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
    return ax
