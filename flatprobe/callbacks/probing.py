"""The core of the callbacks: the epochs to probe, the copy of the network, and the recorded figures."""

import math
import warnings
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flatprobe.network.copies import structural_copy
from flatprobe.network.modules import unwrap
from flatprobe.risk.empirical import Risk
from flatprobe.utils.arguments import at_least
from flatprobe.utils.results import Result
from flatprobe.utils.rng import keep_global_states

if TYPE_CHECKING:
    import pandas

Probe = Callable[[nn.Module], Any]


class Probing:
    """Named probes of one network in training, and their results.

    Each probe gets a separate copy of the network (`eval_copy`), so it changes neither the training nor the next probe.
    The global random states of torch, NumPy and Python are restored. An `Exception` in a probe does not end the
    training: a RuntimeWarning names the probe, and NaN replaces its result and each of its latest figures.

    Args:
        probes: functions of a network by name; each returns a flatprobe result, a `Risk`, a number, or a mapping of
            names to numbers.
        epochs: number of epochs between two probings, at least 1.

    Attributes:
        results: (epoch, name of the probe, result), in order; NaN in place of the result after an error.

    Raises:
        TypeError: if the probes are not a mapping of strings to functions, or epochs is not an integer.
        ValueError: if there is no probe, or epochs is below 1.
    """

    def __init__(self, probes: object, epochs: object) -> None:
        if not isinstance(probes, Mapping) or not all(isinstance(n, str) and callable(p) for n, p in probes.items()):
            found = {name: type(probe).__name__ for name, probe in probes.items()} if isinstance(probes, Mapping) else (
                type(probes).__name__
            )  # fmt: skip
            msg = (
                f"probes must be functions of a network by name, got {found}. Give a mapping such as "
                '{"radius": lambda model: fp.flatness_radius(fp.EmpiricalRisk(model, data))}'
            )
            raise TypeError(msg)
        if not probes:
            msg = "probes must hold at least one function of a network, with its name, got none"
            raise ValueError(msg)
        if isinstance(epochs, bool) or not isinstance(epochs, Integral):
            msg = f"epochs must be an integer, the number of epochs between two probings, got {epochs!r}"
            raise TypeError(msg)
        at_least(1, epochs=int(epochs))
        self.probes: dict[str, Probe] = dict(probes)
        self.epochs = int(epochs)
        self.results: list[tuple[int, str, Any]] = []
        self._figures: list[tuple[int, str, str, float]] = []
        self._latest: dict[str, dict[str, float]] = {name: {"": math.nan} for name in self.probes}
        self._measured_at: int | None = None

    def begin(self) -> None:
        """Start a training, so that an epoch probed in an earlier training is probed again."""
        self._measured_at = None

    def due(self, epoch: int, *, last: bool = False) -> bool:
        """True if the probes are due after this many epochs: every k-th and the last one, each once."""
        return epoch != self._measured_at and (last or epoch % self.epochs == 0)

    def measure(self, epoch: int, network: nn.Module) -> dict[str, float]:
        """Run all probes on the network after this many epochs.

        Returns:
            The figures to log: a plain number under the probe's name, a result's summary under "name/figure".
        """
        self._measured_at = epoch
        logged: dict[str, float] = {}
        for name in self.probes:
            result, figures = self._one(name, epoch, network)
            self.results.append((epoch, name, result))
            self._figures += [(epoch, name, figure or "value", value) for figure, value in figures.items()]
            logged |= {f"{name}/{figure}" if figure else name: value for figure, value in figures.items()}
        return logged

    def _one(self, name: str, epoch: int, network: nn.Module) -> tuple[Any, dict[str, float]]:
        try:
            with keep_global_states(), torch.inference_mode(mode=False), torch.enable_grad():
                result = self.probes[name](eval_copy(network))
            figures = figures_of(result)
        except Exception as error:  # noqa: BLE001 - no error of a user-defined probe may end the training
            msg = (
                f"the probe {name!r} raised {type(error).__name__} after epoch {epoch} ({error}). The training goes "
                "on, and NaN is recorded for the probe"
            )
            warnings.warn(msg, RuntimeWarning, stacklevel=4)
            return math.nan, dict.fromkeys(self._latest[name], math.nan)
        self._latest[name] = figures
        return result, figures

    def to_frame(self) -> "pandas.DataFrame":
        """The figures as one tidy table: epoch, probe, figure ("value" for a plain number), value."""
        import pandas as pd

        return pd.DataFrame(self._figures, columns=["epoch", "probe", "figure", "value"])


def figures_of(result: object) -> dict[str, float]:
    """The headline figures of a probe's return value; the name of a plain number is empty.

    Raises:
        TypeError: if the value is not a result, a risk, a number or a mapping of names to numbers.

    >>> figures_of(2), figures_of({"mean": 0.5})
    ({'': 2.0}, {'mean': 0.5})
    """
    if isinstance(result, Result):
        return {name: float(value) for name, value in result.summary().items()}
    if isinstance(result, Risk):
        return result.figures()
    found: dict[str, Any] = (
        {str(name): value for name, value in result.items()} if isinstance(result, Mapping) else {"": result}
    )
    if not found or not all(_is_number(value) for value in found.values()):
        msg = (
            f"a probe must return a flatprobe result, a number, or a mapping of names to numbers, got a "
            f"{type(result).__name__}"
        )
        raise TypeError(msg)
    return {name: float(value) for name, value in found.items()}


def _is_number(value: object) -> bool:
    """True for a number of Python, or a scalar of NumPy or torch."""
    return isinstance(value, int | float) or (hasattr(value, "item") and getattr(value, "ndim", 0) == 0)


def check_whole(network: nn.Module) -> None:
    """Check that every process holds all weights of the network.

    Raises:
        ValueError: if a parameter is sharded, as by FSDP and DeepSpeed's stage 3; the message names it.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    from torch.distributed.tensor import DTensor  # takes two seconds, and is needed here alone

    parts = [
        name for name, value in network.named_parameters() if isinstance(value, DTensor) or hasattr(value, "ds_id")
    ]
    parts += [name for name, layer in network.named_modules() if type(layer).__name__ == "FullyShardedDataParallel"]
    if parts:
        msg = (
            f"every process must hold all weights of the network, since one process runs the probes, got "
            f"{parts[0] or type(network).__name__!r} sharded over processes. Train without FSDP or DeepSpeed's stage "
            "3, or probe the saved checkpoints (fp.load_checkpoint)"
        )
        raise ValueError(msg)


def eval_copy(network: nn.Module) -> nn.Module:
    """A deep copy of a network in training, in eval mode, which shares no state that a forward pass changes.

    The wrappers of `torch.compile` and of data parallelism are removed, and the autocast of mixed precision too: the
    copy runs in the precision of its weights. Tensors held with their autograd graph, such as losses of an epoch or
    weights that a hook computes, are copied without the graph. Forward hooks are copied.

    Raises:
        ValueError: if the network is sharded.
    """
    check_whole(unwrap(network))
    copied = structural_copy(network)
    for layer in copied.modules():
        if "_trainer" in vars(layer):  # the copy does not belong to the trainer of Lightning
            vars(layer)["_trainer"] = None
    return copied.eval()
