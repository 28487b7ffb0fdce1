"""Training histories: error or loss by epoch."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from torch import Tensor

from flatprobe.plotting import bands, canvas
from flatprobe.plotting.names import Groups
from flatprobe.utils.arguments import Checked, one_of

_APART = 30  # epochs, at most, that all have a marker
_PARTS = {"train": "-", "validation": "--"}


@runtime_checkable
class History(Protocol):
    """A run with a `history` of one row per epoch, such as `fp.TrainingRun`."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows with `epoch`, `train_loss` and `train_accuracy`, and the same of `validation` where there was any."""


@canvas.drawing()
def draw(
    runs: History | Mapping[str, History],
    ax: Axes | None = None,
    *,
    quantity: Checked[Literal["error", "loss"]] = "error",
    groups: Groups = None,
) -> Axes:
    """Training (solid) and validation (dashed) error or loss at the end of each epoch.

    Losses over a factor of ten are on a logarithmic axis. Values that are not finite are crosses at the upper edge.

    Args:
        runs: one run, or several by name.
        ax: where to draw; None makes a figure.
        quantity: `"error"`, the fraction misclassified, or `"loss"`.
        groups: name -> group; runs of one group share a colour and differ in their markers.

    Returns:
        The axes, with one line per run, and one more where it has validation data.

    Raises:
        TypeError: for anything but runs.
        ValueError: for no runs, an unknown quantity, or a run without epochs.
    """
    one_of("quantity", quantity, ("error", "loss"))
    histories = _histories(runs)
    curves = []
    for name, history in histories.items():
        epochs = _column(history, "epoch")
        options = {"markevery": max(1, len(epochs) // _APART), "markersize": 4}
        for part, style in _PARTS.items():
            values = _values(history, part, quantity)
            if values is not None:
                label = {"label": f"{name} {part}".strip()}
                curves.append(bands.Curve(name, epochs, values, line=style, options=options | label))
    ax = bands.draw(curves, ax, groups)
    canvas.scale(ax, "y", [curve.y for curve in curves], logarithmic=quantity == "loss")
    validated = any("validation_loss" in history[0] for history in histories.values())
    words = "training (solid), validation (dashed)" if validated else "training"
    ax.set(xlabel="epoch", ylabel=f"{quantity}: {words}" if validated else f"{words} {quantity}")
    return ax


def _histories(runs: object) -> dict[str, list[dict[str, Any]]]:
    named = {str(name): run for name, run in runs.items()} if isinstance(runs, Mapping) else {"": runs}
    if not named:
        msg = "runs must hold at least one run, got none"
        raise ValueError(msg)
    found = {}
    for name, run in named.items():
        if not isinstance(run, History):
            msg = f"runs must be of fp.train, got {f'{name!r}, ' if name else ''}a {type(run).__name__}"
            raise TypeError(msg)
        if not run.history:
            msg = f"the history must have at least one epoch, got none{f' in {name!r}' if name else ''}"
            raise ValueError(msg)
        found[name] = run.history
    return found


def _column(history: list[dict[str, Any]], name: str) -> Float64[Tensor, " points"]:
    return torch.tensor([row[name] for row in history], dtype=torch.float64, device="cpu")


def _values(history: list[dict[str, Any]], part: str, quantity: str) -> Float64[Tensor, " points"] | None:
    column = f"{part}_{'loss' if quantity == 'loss' else 'accuracy'}"
    if column not in history[0]:
        return None
    values = _column(history, column)
    return values if quantity == "loss" else 1 - values
