"""The run that a training returns."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from flatprobe.models.checkpoints import load_checkpoint
from flatprobe.training.run_folder import Row, RunFolder
from flatprobe.training.settings import reached

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A trained network and how it came about.

    Attributes:
        model: the network after the last epoch, in eval mode.
        history: a row an epoch: `epoch` (from 1), `train_loss` and `train_accuracy` (over all training data, in eval
            mode, at the epoch's end), `validation_loss` and `validation_accuracy` where there was validation data, each
            penalty by its name (the mean over the epoch's steps, as the steps saw it, without the strength),
            `learning_rate` (of the epoch's last step), `seconds`.
        reached: whether the stopping rule was met within the epochs; True for a fixed number of epochs.
        settings: what config.json holds: network, data, validation, settings, environment.
        path: the run folder, None if nothing was written.
    """

    model: nn.Module = field(repr=False)
    history: list[Row] = field(repr=False)
    reached: bool
    settings: dict[str, Any] = field(repr=False)
    path: Path | None

    @property
    def interpolated(self) -> bool:
        """Whether the training accuracy was 100 % at the end of the last epoch."""
        return bool(self.history[-1]["train_accuracy"] == 1.0)

    @property
    def epochs(self) -> int:
        """The number of epochs done."""
        return len(self.history)

    def to_frame(self) -> "pandas.DataFrame":
        """The history as a table, a row an epoch."""
        import pandas as pd

        return pd.DataFrame(self.history)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module | None = None) -> "TrainingRun":
        """Read a finished run from its folder.

        Args:
            path: the `out` of `train`.
            model: the architecture, needed where the network was not one of `flatprobe.models`; it is not changed.

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
            reached=reached(config["settings"], history[-1]),
            settings=config,
            path=folder.path,
        )
