"""What the callbacks share: when to probe, on what copy of the network, and what is kept and logged of it."""

import math
import warnings
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from flatprobe.network.copies import structural_copy
from flatprobe.network.modules import unwrapped
from flatprobe.risk.empirical import Risk
from flatprobe.utils.arguments import at_least
from flatprobe.utils.results import Result
from flatprobe.utils.rng import keep_global_states

if TYPE_CHECKING:
    import pandas

Probe = Callable[[nn.Module], Any]


class Probing:
    """Named probes of one network in training, and what they have measured.

    Each probe gets a copy of its own (see `eval_copy`), so that it changes neither the training nor the next probe, and
    torch's, NumPy's and Python's global random states end where they began. A probe that raises an `Exception` does not
    end the training: a RuntimeWarning names it, and NaN stands in place of its result, and of each figure that it
    had last.

    Args:
        probes: functions of a network by name; each returns a flatprobe result, a `Risk`, a number, or a mapping of
            names to numbers.
        epochs: from one probing to the next, at least 1.

    Attributes:
        results: (epoch, name, what the probe returned), in order; NaN where it raised.

    Raises:
        TypeError: if the probes are no mapping of strings to functions, or epochs no integer.
        ValueError: if there is no probe, or epochs is below 1.
    """

    def __init__(self, probes: object, epochs: object) -> None:
        if not isinstance(probes, Mapping) or not all(isinstance(n, str) and callable(p) for n, p in probes.items()):
            found = {name: type(probe).__name__ for name, probe in probes.items()} if isinstance(probes, Mapping) else (
                type(probes).__name__
            )  # fmt: skip
            msg = (
                f"the probes are {found}; expected functions of a network by name, such as "
                '{"radius": lambda model: fp.flatness_radius(fp.EmpiricalRisk(model, data))}'
            )
            raise TypeError(msg)
        if not probes:
            msg = "there are no probes; expected at least one function of a network, with its name"
            raise ValueError(msg)
        if isinstance(epochs, bool) or not isinstance(epochs, Integral):
            msg = f"epochs is {epochs!r}; expected an integer: how many from one probing to the next"
            raise TypeError(msg)
        at_least(1, epochs=int(epochs))
        self.probes: dict[str, Probe] = dict(probes)
        self.epochs = int(epochs)
        self.results: list[tuple[int, str, Any]] = []
        self._figures: list[tuple[int, str, str, float]] = []
        self._latest: dict[str, dict[str, float]] = {name: {"": math.nan} for name in self.probes}
        self._measured_at: int | None = None

    def begin(self) -> None:
        """A training begins: what another one measured at the same epoch does not stand for this one's weights."""
        self._measured_at = None

    def due(self, epoch: int, *, last: bool = False) -> bool:
        """Whether to probe after so many epochs; after the last one in any case, and never twice."""
        return epoch != self._measured_at and (last or epoch % self.epochs == 0)

    def measure(self, epoch: int, network: nn.Module) -> dict[str, float]:
        """What all probes say of the network after so many epochs.

        Returns:
            The figures to log: a number under its probe's name, a result's summary under "name/figure".
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
        except Exception as error:  # noqa: BLE001 - whatever a caller's function raises, the training is worth more
            msg = (
                f"the probe {name!r} raised {type(error).__name__} after epoch {epoch} ({error}); the training goes on "
                "and NaN is recorded for it"
            )
            warnings.warn(msg, RuntimeWarning, stacklevel=4)
            return math.nan, dict.fromkeys(self._latest[name], math.nan)
        self._latest[name] = figures
        return result, figures

    def to_frame(self) -> "pandas.DataFrame":
        """The figures as one tidy table: epoch, probe, figure ("value" where the probe returned a number), value."""
        import pandas as pd

        return pd.DataFrame(self._figures, columns=["epoch", "probe", "figure", "value"])


def figures_of(result: object) -> dict[str, float]:
    """The headline figures of what a probe returned; a plain number's name is empty.

    Raises:
        TypeError: if it is neither a result nor a risk, a number or a mapping of names to numbers.

    >>> figures_of(2), figures_of({"mean": 0.5})
    ({'': 2.0}, {'mean': 0.5})
    """
    if isinstance(result, Result):
        return {name: float(value) for name, value in result.summary().items()}
    if isinstance(result, Risk):
        return {"loss": result.loss, "error": result.error}
    found: dict[str, Any] = (
        {str(name): value for name, value in result.items()} if isinstance(result, Mapping) else {"": result}
    )
    if not found or not all(_is_number(value) for value in found.values()):
        msg = (
            f"it returned a {type(result).__name__}; expected a flatprobe result, a number, or a mapping of names to "
            "numbers"
        )
        raise TypeError(msg)
    return {name: float(value) for name, value in found.items()}


def _is_number(value: object) -> bool:
    """Python's, or a NumPy or torch scalar."""
    return isinstance(value, int | float) or (hasattr(value, "item") and getattr(value, "ndim", 0) == 0)


def check_whole(network: nn.Module) -> None:
    """Every process holds all of the network's weights.

    Raises:
        ValueError: naming a parameter of which it holds a part, as FSDP and DeepSpeed's stage 3 leave it.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    from torch.distributed.tensor import DTensor  # two seconds, so not before it can be met

    parts = [
        name for name, value in network.named_parameters() if isinstance(value, DTensor) or hasattr(value, "ds_id")
    ]
    parts += [name for name, layer in network.named_modules() if type(layer).__name__ == "FullyShardedDataParallel"]
    if parts:
        msg = (
            f"{parts[0] or type(network).__name__!r} of the network is sharded over processes, and the probes run in "
            "one of them alone; expected every process to hold all weights: train without FSDP or DeepSpeed's stage 3, "
            "or probe the saved checkpoints (fp.load_checkpoint)"
        )
        raise ValueError(msg)


def eval_copy(network: nn.Module) -> nn.Module:
    """A deep copy of a network in the middle of its training, in eval mode, which shares nothing that a pass changes.

    What `torch.compile` or data parallelism made of the network, or of a part, is taken off, and so is the autocast of
    mixed precision: the copy runs in the precision of its weights. Tensors that a module holds with their graph (losses
    gathered over an epoch, weights that a hook computes) are copied without it. Forward hooks are copied too.

    Raises:
        ValueError: if the network is sharded.
    """
    check_whole(unwrapped(network))
    copied = structural_copy(network)
    for layer in copied.modules():
        if "_trainer" in vars(layer):  # Lightning's, which a copy does not belong to
            vars(layer)["_trainer"] = None
    return copied.eval()
