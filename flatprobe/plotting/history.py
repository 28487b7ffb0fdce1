"""Training histories: error or loss by epoch."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import matplotlib as mpl
import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor

from flatprobe.plotting import canvas, curve
from flatprobe.plotting.names import prepare
from flatprobe.utils.arguments import Checked, one_of

_APART = 30  # epochs, at most, that all have a marker
_PARTS = {"train": "-", "validation": "--"}


@runtime_checkable
class History(Protocol):
    """A run with a `history` of one row per epoch, such as `fp.TrainingRun`."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows with `epoch`, `train_loss` and `train_accuracy`, and the same of `validation` where there was any."""


@mpl.rc_context(canvas.STYLE)
def draw(
    runs: History | Mapping[str, History],
    ax: Axes | None = None,
    *,
    quantity: Checked[Literal["error", "loss"]] = "error",
    groups: Mapping[str, str] | None = None,
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
    picture = prepare(ax, list(histories), groups)
    ax = picture.ax
    handles: dict[str, Line2D] = {}
    lowest, highest = torch.inf, 0.0
    for name, history in histories.items():
        look = picture.looks[name]
        epochs = _column(history, "epoch")
        spacing = max(1, len(epochs) // _APART)
        for part, style in _PARTS.items():
            values = _values(history, part, quantity)
            if values is None:
                continue
            line = curve.plot(
                ax,
                look,
                epochs,
                values,
                linestyle=style,
                markevery=spacing,
                markersize=4,
                label=f"{name} {part}".strip(),
            )
            handles.setdefault(name, line)
            known = values[values.isfinite()]
            if len(known):
                lowest, highest = min(lowest, float(known.min())), max(highest, float(known.max()))
    if quantity == "loss" and 0 < 10 * lowest <= highest:
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=min(0.0, lowest))
    validated = any("validation_loss" in history[0] for history in histories.values())
    words = "training (solid), validation (dashed)" if validated else "training"
    ax.set(xlabel="epoch", ylabel=f"{quantity}: {words}" if validated else f"{words} {quantity}")
    picture.legend(handles)
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
