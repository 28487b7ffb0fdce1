"""Result of a training."""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from flatprobe.models.checkpoints import load_checkpoint
from flatprobe.training.run_folder import Row, RunFolder
from flatprobe.training.settings import rule_met
from flatprobe.utils.html import described

if TYPE_CHECKING:
    import matplotlib.axes
    import pandas


_FIGURES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainingRun:
    """Trained network with its history and settings.

    Attributes:
        model: the network after the last epoch, in eval mode.
        history: one row per epoch: `epoch` (from 1), `train_loss` and `train_accuracy` (over all training data, in eval
            mode, at the epoch's end), `validation_loss` and `validation_accuracy` where there was validation data, each
            penalty by its name (the mean over the epoch's steps, without the strength),
            `learning_rate` (of the epoch's last step), `seconds`.
        reached: True if the stopping rule was met within the epochs, or the number of epochs was fixed.
        settings: the content of config.json: network, data, validation, settings, environment.
        path: the run folder; None if nothing was written.
    """

    model: nn.Module = field(repr=False)
    history: list[Row] = field(repr=False)
    reached: bool
    settings: dict[str, Any] = field(repr=False)
    path: Path | None

    def __repr__(self) -> str:
        """Epochs, losses and accuracies after the last one, and the folder."""
        figures = [f"epochs={self.epochs}", *(f"{name}={value:.4g}" for name, value in self.summary().items())]
        reached = [] if self.reached else ["reached=False"]
        return f"TrainingRun({', '.join([*figures, *reached, *([f'path={str(self.path)!r}'] if self.path else [])])})"

    def _repr_html_(self) -> str:
        """Losses and accuracies for notebooks, with the settings folded below."""
        own = self.settings.get("settings") or {}
        facts = [("folder", self.path or "none"), ("stopping rule met", self.reached), *own.items()]
        return described("TrainingRun", [("epochs", self.epochs), *self.summary().items()], facts)

    def summary(self) -> dict[str, float]:
        """Losses and accuracies at the end of the last epoch."""
        return {name: float(self.history[-1][name]) for name in _FIGURES if name in self.history[-1]}

    @property
    def interpolated(self) -> bool:
        """True if the training accuracy was 100 % at the end of the last epoch."""
        return bool(self.history[-1]["train_accuracy"] == 1.0)

    @property
    def epochs(self) -> int:
        """The number of epochs done."""
        return len(self.history)

    def to_frame(self) -> "pandas.DataFrame":
        """The history as a table, one row per epoch."""
        import pandas as pd

        return pd.DataFrame(self.history)

    def plot(self, ax: "matplotlib.axes.Axes | None" = None, **options: Any) -> "matplotlib.axes.Axes":
        """Picture of the history; `flatprobe.plotting.draw({name: run, ...})` has several runs in one picture.

        Args:
            ax: where to draw; None makes a figure, `.plot().figure`.
            **options: `quantity="error"` (default) or `"loss"`.

        Returns:
            The axes.
        """
        axes: matplotlib.axes.Axes = importlib.import_module("flatprobe.plotting").draw(self, ax, **options)
        return axes

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None) -> "TrainingRun":
        """Read a finished run from its folder.

        Args:
            path: the `out` of `train`.
            model: the architecture, needed unless the network is one of `flatprobe.models`; it is not changed.

        Returns:
            The run, with the weights of its last epoch.

        Raises:
            ValueError: if the run is not finished.
        """
        folder = RunFolder(path)
        config, history = folder.config(), folder.finished()
        if history is None:
            msg = (
                f"the run in {path} is not finished; call train again with the same arguments and out= to finish it "
                "(load_checkpoint reads the weights that it has saved so far)"
            )
            raise ValueError(msg)
        return cls(
            model=load_checkpoint(path, model),
            history=history,
            reached=rule_met(config["settings"], history[-1]),
            settings=config,
            path=folder.path,
        )
