"""Probes every k epochs of a training by transformers' Trainer."""

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from flatprobe.callbacks.probing import Probe, Probing, check_whole

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as missing:
    msg = (
        "flatprobe.callbacks.transformers needs transformers, which is not installed: pip install "
        "'flatprobe[transformers]'"
    )
    raise ImportError(msg) from missing

if TYPE_CHECKING:
    import pandas


class ProbeEvery(TrainerCallback):
    """Probes on a copy of the network after epochs k, 2k, ... of `Trainer.train`, and after the last one.

    Each probe gets a deep copy of the network in eval mode, in the precision of its weights, without the autocast of
    mixed precision. The training therefore ends with the same weights as without the callback. Cost: the copy and the
    probes.

    The figures (a number as it is, a result's `summary`) are logged with `Trainer.log`, as "name" or "name/figure", so
    TensorBoard and the others show them and `state.log_history` holds them. transformers does not pass the Trainer to a
    callback, so `attach` does. A callback passed only in `callbacks=` probes, but warns that it cannot log.

    An error in a probe does not end the training: a RuntimeWarning names the probe, and NaN is recorded and logged. In
    distributed training, rank zero probes while the other ranks wait at their next collective operation. A probe must
    therefore take less time than the process group's timeout. `results` holds the measurements of this process, and is
    not part of the Trainer's checkpoints.

    Args:
        probes: functions of a network (`nn.Module` in eval mode) by name; each returns a flatprobe result, a `Risk`, a
            number, or a mapping of names to numbers.
        epochs: k, at least 1. An epoch that `max_steps` cuts short counts as one.

    Raises:
        TypeError: if the probes are not a mapping of strings to functions, or epochs is not an integer.
        ValueError: if there is no probe, or epochs is below 1. When the training begins: if the model's weights are
            sharded over processes.

    >>> import flatprobe as fp
    >>> hook = ProbeEvery({"norms": lambda model: fp.weight_norms(model)}, epochs=5)
    >>> hook.results, list(hook.to_frame().columns)  # empty until hook.attach(trainer); trainer.train()
    ([], ['epoch', 'probe', 'figure', 'value'])
    """

    def __init__(self, probes: Mapping[str, Probe], *, epochs: int) -> None:
        self._probing = Probing(probes, epochs)
        self._trainer: Trainer | None = None
        self._training = False

    @property
    def results(self) -> list[tuple[int, str, Any]]:
        """(completed epochs, name of the probe, result), in order; NaN in place of the result after an error."""
        return self._probing.results

    def to_frame(self) -> "pandas.DataFrame":
        """The figures as one tidy table: epoch, probe, figure ("value" for a plain number), value."""
        return self._probing.to_frame()

    def attach(self, trainer: Trainer) -> None:
        """Add this callback to the Trainer, unless it is there already, and log through the Trainer.

        Args:
            trainer: the Trainer, before its `train`.
        """
        self._trainer = trainer
        if self not in trainer.callback_handler.callbacks:
            trainer.add_callback(self)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that the probes can measure the network, and warn if their figures cannot be logged."""
        self._probing.begin()
        self._training = True
        check_whole(kwargs["model"])
        if self._trainer is None or self._trainer.state is not state:
            msg = (
                "ProbeEvery does not know its Trainer, so its figures are in its results and are not logged. Call "
                "hook.attach(trainer) before trainer.train()"
            )
            warnings.warn(msg, RuntimeWarning, stacklevel=2)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Probe after each k-th epoch, and after the last one if the Trainer already stops there."""
        self._probe(state, control, kwargs["model"], last=control.should_training_stop)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Probe if another callback stops the training at this evaluation, before the best weights are loaded."""
        if self._training and control.should_training_stop:
            self._probe(state, control, kwargs["model"], last=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Probe after a training that stopped early."""
        self._training = False
        if not (args.load_best_model_at_end and state.best_model_checkpoint):
            self._probe(state, control, kwargs["model"], last=True)
        elif self._probing.due(_epochs(state), last=True):
            msg = (
                f"the weights after the last epoch, {_epochs(state)}, are not probed, since the Trainer has already "
                "loaded the best ones. Attach ProbeEvery after the callback that stops the training"
            )
            warnings.warn(msg, RuntimeWarning, stacklevel=2)

    def _probe(self, state: TrainerState, control: TrainerControl, network: nn.Module, *, last: bool) -> None:
        epoch = _epochs(state)
        if not state.is_world_process_zero or not self._probing.due(epoch, last=last):
            return
        figures = self._probing.measure(epoch, network)
        if self._trainer is not None and self._trainer.state is state:
            should_log = control.should_log
            self._trainer.log(figures)
            control.should_log = should_log  # otherwise the Trainer would skip its own log of this epoch


def _epochs(state: TrainerState) -> int:
    """Completed epochs, with one cut short, which `state.epoch` counts as a fraction."""
    return math.ceil(state.epoch or 0)
