"""Probes every k epochs of a Lightning training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from flatprobe.callbacks.probing import Probe, Probing, check_whole

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as missing:
    msg = "flatprobe.callbacks.lightning needs lightning, which is not installed: pip install 'flatprobe[lightning]'"
    raise ImportError(msg) from missing

if TYPE_CHECKING:
    import pandas


class ProbeEvery(Callback):
    """Probes on a copy of the network after epochs k, 2k, ... of `Trainer.fit`, and after the last one.

    Each probe gets a deep copy of the network in eval mode, in the precision of its weights, without the autocast of
    mixed precision. The training therefore ends with the same weights as without the callback. Cost: the copy and the
    probes. A LightningModule is copied without its trainer, but with its other attributes, such as data sets; `network`
    names a submodule to copy instead.

    The figures (a number as it is, a result's `summary`) go to Lightning's loggers through `log_dict`, as "name" or
    "name/figure", so other callbacks can monitor them. Those of a last epoch that is not a multiple of k go to the
    loggers directly, since `log_dict` is closed by then.

    An error in a probe does not end the training: a RuntimeWarning names the probe, and NaN is recorded and logged. In
    distributed training, rank zero probes while the other ranks wait at their next collective operation. A probe must
    therefore take less time than the process group's timeout. `results` holds the measurements of this process, and is
    not part of Lightning's checkpoints.

    Args:
        probes: functions of a network (`nn.Module` in eval mode) by name; each returns a flatprobe result, a `Risk`, a
            number, or a mapping of names to numbers.
        epochs: k, at least 1. An epoch that `max_steps` cuts short counts as one.
        network: path of the submodule to probe, such as "backbone"; None (default) probes the LightningModule itself,
            whose `forward` must return logits.

    Raises:
        TypeError: if the probes are not a mapping of strings to functions, or epochs is not an integer.
        ValueError: if there is no probe, or epochs is below 1. When the training begins: if there is no such
            submodule, or its weights are sharded over processes.

    >>> import flatprobe as fp
    >>> hook = ProbeEvery({"norms": lambda model: fp.weight_norms(model)}, epochs=5)
    >>> hook.results, list(hook.to_frame().columns)  # empty until Trainer(callbacks=[hook]).fit(...)
    ([], ['epoch', 'probe', 'figure', 'value'])
    """

    def __init__(self, probes: Mapping[str, Probe], *, epochs: int, network: str | None = None) -> None:
        self._probing = Probing(probes, epochs)
        self._network = network

    @property
    def results(self) -> list[tuple[int, str, Any]]:
        """(completed epochs, name of the probe, result), in order; NaN in place of the result after an error."""
        return self._probing.results

    def to_frame(self) -> "pandas.DataFrame":
        """The figures as one tidy table: epoch, probe, figure ("value" for a plain number), value."""
        return self._probing.to_frame()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check at the start that the probes can measure the network."""
        self._probing.begin()
        check_whole(self._subject(pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe after each k-th epoch."""
        epoch = trainer.current_epoch + 1  # Lightning counts this epoch after the hook
        if trainer.is_global_zero and self._probing.due(epoch):
            figures = self._probing.measure(epoch, self._subject(pl_module))
            pl_module.log_dict(figures, rank_zero_only=trainer.world_size > 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe after the last epoch."""
        epoch = trainer.current_epoch
        if trainer.is_global_zero and self._probing.due(epoch, last=True):
            figures = self._probing.measure(epoch, self._subject(pl_module))
            for logger in trainer.loggers:  # pl_module.log is closed; epoch and step are those of its last row
                logger.log_metrics({**figures, "epoch": epoch - 1}, step=max(trainer.global_step - 1, 0))
                logger.save()

    def _subject(self, module: nn.Module) -> nn.Module:
        if self._network is None:
            return module
        try:
            return module.get_submodule(self._network)
        except AttributeError as error:
            names = ", ".join(name for name, _ in module.named_children())
            kind = type(module).__name__
            msg = f"network must be a submodule of {kind}, got {self._network!r}. It has {names or 'none'}"
            raise ValueError(msg) from error
