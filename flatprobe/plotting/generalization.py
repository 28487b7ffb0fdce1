"""Accuracy, or loss where the task has no classes, on the training and on the test samples."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from flatprobe.plotting import canvas, rows
from flatprobe.plotting.names import Groups, name_results
from flatprobe.probes.generalization import TEST, TRAIN, Generalization
from flatprobe.utils.results import Result

_LOWEST = 80.0  # per cent: where the axis of accuracies begins, unless one of them is below


@canvas.drawing()
def draw(results: Result | Mapping[str, Result], ax: Axes | None = None, *, groups: Groups = None) -> Axes:
    """Training (filled) and test (open) accuracy with their 95 % intervals, a row per network.

    More than six networks are sorted by their first figure, within their groups.

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
    kind = quantity(found)
    scale = 100 if kind == "accuracy" else 1
    firsts = {name: next(iter(result.summary().values())) for name, result in found.items()}
    table = rows.prepare(list(found), ax, groups, firsts)
    ends = []
    for name, result in found.items():
        for split, shift in ((TRAIN, -0.12), (TEST, 0.12)):
            if f"{split}_{kind}" in result.summary():
                low, high = (scale * end for end in result.interval(f"{split}_{kind}"))
                value = scale * result.summary()[f"{split}_{kind}"]
                table.interval(name, value, low, high, shift=shift, filled=split == TRAIN)
                ends += [low, value, high]
    words = "filled: training, open: test"
    if kind == "accuracy":
        table.ax.set_xlabel(canvas.towards(f"% classified correctly, {words}", "better", "higher"))
        table.ax.set_xlim(0.95 * min(ends) if min(ends) < _LOWEST else _LOWEST, 100.5)
    else:
        table.ax.set_xlabel(canvas.towards(f"mean loss, {words}", "better", "lower"))
        canvas.scale(table.ax, "x", [ends])
    return table.ax


def quantity(results: Mapping[str, Generalization]) -> str:
    """The figure that is drawn: "accuracy" where all networks have one, else "loss"."""
    return "accuracy" if all("loss" not in next(iter(own.summary())) for own in results.values()) else "loss"
