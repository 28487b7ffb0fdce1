"""User-defined losses with one value per sample."""

import copy
import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatprobe.functional.task_losses import mean_of_counted
from flatprobe.utils.arguments import Named, plain
from flatprobe.utils.fingerprint import fingerprint
from flatprobe.utils.rng import keep_global_states

# A name in `LOSSES` or `TASK_LOSSES`, with its arguments, or a function (outputs, targets) -> (samples,).
Loss = Named | Callable[[Tensor, Tensor], Tensor]

# Fix by the number of dimensions of the labels, where the outputs have one more or one less.
_FIXES = {1: "[:, None]", 2: ".squeeze(1)"}


class UserLoss:
    """A user-defined function or module l(z, y) with one value per sample.

    A loss with a `reduction`, as torch's losses, is called with "none". Several values per sample (of outputs, pixels
    or tokens) are averaged per sample; entries whose target is the loss's `ignore_index` do not count. A module is
    copied first, follows the device and dtype of the logits, and its parameters are constants. The risk is the plain
    mean over the samples. For a class-weighted loss that is the mean of w_y l, where torch divides by the sum of the
    w_y in place of n.

    A method `error(z, y) -> (samples,)` of the loss, such as the wrong share of a sample, is the error of the risk.

    Args:
        given: the function or module.

    Attributes:
        description: fingerprint for records.
        name: for messages.
        differentiable: whether the loss has a derivative in the logits; known after `check`.
        error: the `error` of the loss, or None.
    """

    def __init__(self, given: Callable[..., Any]) -> None:
        self._function = _without_reduction(given)
        self.description = fingerprint(self._function)
        self.name = str(self.description["name"])
        self.differentiable = True
        self.error: Callable[[Tensor, Tensor], Tensor] | None = getattr(self._function, "error", None)
        self._ignored = _ignored_index(self._function)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss per sample.

        Raises:
            ValueError: if the loss cannot be evaluated, or returns anything but one value per sample.
        """
        if isinstance(self._function, nn.Module):
            self._function.to(logits)
        try:
            values = self._function(logits, labels)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            one = not labels.is_floating_point() and logits.numel() == len(labels)
            fix = ". For the loss of a single output, give LabelledData labels.float() in the shape of the outputs"
            msg = (
                f"the loss {self.name} cannot be evaluated on logits {tuple(logits.shape)} ({logits.dtype}) and labels "
                f"{tuple(labels.shape)} ({labels.dtype}): {error}; expected a function of both with one value per "
                f"sample, whose tensors have this dtype and device{fix if one else ''}"
            )
            raise ValueError(msg) from error
        count = len(labels)
        if not isinstance(values, Tensor) or values.shape[:1] != (count,) or not values.is_floating_point():
            raise ValueError(self._wrong(values, count))
        if values.ndim == 1:
            return values
        if values.shape == (count, count) and {logits.shape, labels.shape} == {(count,), (count, 1)} and count > 1:
            msg = (
                f"the loss {self.name} compares each of {count} outputs with each of the labels, since their shapes "
                f"are {tuple(logits.shape)} and {tuple(labels.shape)}. Give both one shape: labels{_FIXES[labels.ndim]}"
            )
            raise ValueError(msg)
        self.description["averaged_over"] = list(values.shape[1:])
        if self._ignored is not None and values.shape == labels.shape:
            return mean_of_counted(values, labels != self._ignored)
        return values.flatten(1).mean(1)

    def check(self, logits: Tensor, labels: Tensor) -> None:
        """Check that the value of a sample does not depend on other samples, and repeats.

        Raises:
            ValueError: if a value depends on the batch, or a call fails.
        """
        with keep_global_states(), torch.inference_mode(mode=False), torch.enable_grad():
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
                "the values in two smaller batches; expected a function of each sample alone. Look for a mean or a "
                "division over the batch, or for random numbers"
            )
            raise ValueError(msg)

    def check_differentiable(self) -> None:
        """Check that the loss has a derivative in the logits.

        Raises:
            ValueError: if `check` has found none.
        """
        if not self.differentiable:
            msg = (
                f"the loss {self.name} has no gradient in the logits, and this probe differentiates it; expected a "
                "differentiable function. Look for argmax, rounding, .detach(), .item() or torch.no_grad() in it"
            )
            raise ValueError(msg)

    def _wrong(self, values: object, samples: int) -> str:
        if isinstance(values, Tensor):
            found = f"a tensor of shape {tuple(values.shape)}, {values.dtype}," if values.ndim else "a scalar"
        else:
            found = f"a {type(values).__name__}"
        fix = (
            'Leave out its mean over the samples (reduction="none" of torch\'s losses), which the risk takes'
            if not isinstance(values, Tensor) or values.ndim == 0
            else "The first dimension must be that of the samples"
        )
        return (
            f"the loss {self.name} returned {found} for {samples} samples; expected one floating value per sample, of "
            f"shape ({samples},), or several. {fix}"
        )


def as_loss(loss: object, *, classes: bool = True) -> Any:
    """The internal form of a loss: its name, or a `UserLoss`.

    With class indices, torch's plain cross-entropy, `F.cross_entropy` or `nn.CrossEntropyLoss()`, becomes
    "cross_entropy", whose properties are known. `per_sample_loss` refuses anything but names and callables, which is
    returned unchanged here.
    """
    plain_module = (
        type(loss) is nn.CrossEntropyLoss
        and loss.weight is None
        and loss.label_smoothing == 0
        and loss.ignore_index < 0
    )
    if classes and (loss is F.cross_entropy or plain_module):
        return "cross_entropy"
    return UserLoss(loss) if callable(loss) and not isinstance(loss, UserLoss | type) else loss


def describe_loss(loss: Any) -> Named:
    """Fingerprint of a loss in its internal form, for records."""
    return loss.description if isinstance(loss, UserLoss) else plain(loss)


def _without_reduction(given: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its `reduction`, if any, set to "none"."""
    if isinstance(given, nn.Module):
        module = copy.deepcopy(given).eval().requires_grad_(requires_grad=False)
        if hasattr(module, "reduction"):
            module.reduction = "none"  # type: ignore[assignment] # any attribute of a module may be a tensor
        return module
    with suppress(ValueError, TypeError):  # some callables have no signature
        if "reduction" in inspect.signature(given).parameters:
            return partial(given, reduction="none")
    return given


def _ignored_index(function: Any) -> int | None:
    """The target that does not count: the `ignore_index` of a module, of a partial, or its default."""
    if isinstance(function, nn.Module):
        return getattr(function, "ignore_index", None)
    given = getattr(function, "keywords", {}).get("ignore_index")
    with suppress(ValueError, TypeError):
        own = inspect.signature(function).parameters.get("ignore_index")
        given = own.default if given is None and own is not None and own.default is not own.empty else given
    return given if isinstance(given, int) else None
