"""A caller's own loss as a function of logits and labels with one value per sample."""

import copy
import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatprobe.utils.arguments import Named, plain
from flatprobe.utils.fingerprint import fingerprint
from flatprobe.utils.rng import global_states_kept

# A name of `flatprobe.functional.losses.LOSSES` (with its arguments), or a function (logits, labels) -> (samples,).
Loss = Named | Callable[[Tensor, Tensor], Tensor]


class OwnLoss:
    """l(z, y) by a caller's function or module, as one value per sample.

    What has a `reduction`, as torch's losses have, is called with "none" (a module is copied first, and follows the
    logits' device and dtype; parameters of its own are constants). So the risk is the plain mean over the samples: of a
    class-weighted loss, that of w_y l, where torch divides by the sum of the w_y in place of n.

    Args:
        given: the function or module.

    Attributes:
        description: what a record says of it, as it is called.
        name: for messages.
        differentiable: whether it has a derivative in the logits; known once `check` was called.
    """

    def __init__(self, given: Callable[..., Any]) -> None:
        self._function = _unreduced(given)
        self.description = fingerprint(self._function)
        self.name = str(self.description["name"])
        self.differentiable = True

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each sample.

        Raises:
            ValueError: if it cannot be evaluated on these, or returns anything but one value per sample.
        """
        if isinstance(self._function, nn.Module):
            self._function.to(logits)
        try:
            values = self._function(logits, labels)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            msg = (
                f"the loss {self.name} cannot be evaluated on logits {tuple(logits.shape)} ({logits.dtype}) and labels "
                f"{tuple(labels.shape)} ({labels.dtype}): {error}; expected a function of both with one value per "
                "sample: are tensors that it holds of this dtype and on this device?"
            )
            raise ValueError(msg) from error
        if not isinstance(values, Tensor) or values.shape != labels.shape or not values.is_floating_point():
            raise ValueError(self._wrong(values, len(labels)))
        return values

    def check(self, logits: Tensor, labels: Tensor) -> None:
        """The value of a sample is its own: the same beside other samples, and the same twice.

        Raises:
            ValueError: where it is not, or where a call fails.
        """
        with global_states_kept(), torch.inference_mode(mode=False), torch.enable_grad():
            logits, labels = logits.detach().clone().requires_grad_(), labels.clone()
            whole = self(logits, labels)
            self.differentiable = whole.requires_grad
            cut = max(1, len(labels) // 3)
            parts = [self(logits[own], labels[own]) for own in (slice(cut), slice(cut, None)) if len(labels[own])]
            whole, parted = whole.detach(), torch.cat(parts).detach()
        difference = float((whole - parted).abs().max())
        if difference > torch.finfo(whole.dtype).eps ** 0.5 * float(whole.abs().max()):
            msg = (
                f"the loss {self.name} gives {len(labels)} samples values that differ by up to {difference:.3g} from "
                "those in two smaller batches; expected a function of each sample alone: look for a mean or a division "
                "over the batch, or for random numbers"
            )
            raise ValueError(msg)

    def check_differentiable(self) -> None:
        """It has a derivative in the logits.

        Raises:
            ValueError: where `check` has found none.
        """
        if not self.differentiable:
            msg = (
                f"the loss {self.name} has no gradient in the logits, and this probe differentiates it; expected a "
                "differentiable function: look for argmax, rounding, .detach(), .item() or torch.no_grad() in it"
            )
            raise ValueError(msg)

    def _wrong(self, values: object, samples: int) -> str:
        if isinstance(values, Tensor):
            found = f"a tensor of shape {tuple(values.shape)}, {values.dtype}," if values.ndim else "a scalar"
        else:
            found = f"a {type(values).__name__}"
        cure = (
            'leave out its mean over the samples (reduction="none" of torch\'s losses), which the risk takes'
            if not isinstance(values, Tensor) or values.ndim == 0
            else "sum over the further dimensions, not over the samples"
        )
        return (
            f"the loss {self.name} returned {found} for {samples} samples; expected one floating value per sample, of "
            f"shape ({samples},): {cure}"
        )


def taken(loss: object) -> Any:
    """A loss as it is worked with: its name, or the caller's own as an `OwnLoss`.

    Torch's own plain cross-entropy, `F.cross_entropy` or `nn.CrossEntropyLoss()`, is "cross_entropy", so that what is
    known of that is known of it. What is neither a name nor callable is left for `per_sample_loss` to refuse.
    """
    if loss is F.cross_entropy or (
        type(loss) is nn.CrossEntropyLoss
        and loss.weight is None
        and loss.label_smoothing == 0
        and loss.ignore_index < 0
    ):
        return "cross_entropy"
    return OwnLoss(loss) if callable(loss) and not isinstance(loss, OwnLoss | type) else loss


def described_loss(loss: Any) -> Named:
    """What a record says of a loss that `taken` returned."""
    return loss.description if isinstance(loss, OwnLoss) else plain(loss)


def _unreduced(given: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its `reduction`, where it has one, at "none"."""
    if isinstance(given, nn.Module):
        module = copy.deepcopy(given).eval().requires_grad_(requires_grad=False)
        if hasattr(module, "reduction"):
            module.reduction = "none"  # type: ignore[assignment] # of a module any attribute may be a tensor
        return module
    with suppress(ValueError, TypeError):  # what Python knows no signature of
        if "reduction" in inspect.signature(given).parameters:
            return partial(given, reduction="none")
    return given
