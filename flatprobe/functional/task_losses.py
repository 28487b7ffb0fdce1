"""Losses per sample of tasks other than classification: regression, attributes, pixels and tokens."""

from collections.abc import Callable
from typing import NoReturn

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from flatprobe.functional.token_loss import negative_log_likelihood

Outputs = Float[Tensor, "samples ..."]
Targets = Shaped[Tensor, "samples ..."]
Values = Float[Tensor, " samples"]


def squared_error(outputs: Outputs, targets: Targets) -> Values:
    """(1/k) sum_j (f_j - t_j)^2 over the k outputs, whose mean over the samples is torch's `nn.MSELoss`.

    >>> squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 0.0]]))
    tensor([2.5000])
    """
    return _mean((outputs - _like(outputs, targets, "squared_error")).square())


def absolute_error(outputs: Outputs, targets: Targets) -> Values:
    """(1/k) sum_j |f_j - t_j| over the k outputs, whose mean over the samples is torch's `nn.L1Loss`."""
    return _mean((outputs - _like(outputs, targets, "absolute_error")).abs())


def binary_cross_entropy(outputs: Outputs, targets: Targets) -> Values:
    """(1/k) sum_j (log(1 + exp z_j) - t_j z_j) over the k logits, as torch's `nn.BCEWithLogitsLoss`, in nats."""
    targets = _like(outputs, targets, "binary_cross_entropy")
    return _mean(F.binary_cross_entropy_with_logits(outputs, targets, reduction="none"))


def pixel_cross_entropy(outputs: Outputs, targets: Targets, *, ignore_index: int = -100) -> Values:
    """Mean of log sum_c exp(z_c) - z_y over the pixels of an image that count, in nats.

    Args:
        outputs: (samples, classes, ...).
        targets: y, (samples, ...) integers.
        ignore_index: the target of pixels that do not count.
    """
    if outputs.ndim < 3 or targets.shape != (len(outputs), *outputs.shape[2:]):
        _refuse("pixel_cross_entropy", "(samples, classes, ...) and integers (samples, ...)", outputs, targets)
    values = F.cross_entropy(outputs, targets, ignore_index=ignore_index, reduction="none")
    return mean_of_counted(values, targets != ignore_index)


def token_cross_entropy(outputs: Outputs, targets: Targets, *, ignore_index: int = -100, shift: bool = False) -> Values:
    """Mean of log sum_c exp(z_c) - z_y over the tokens of a sequence that count, in nats.

    No second tensor of the size of the outputs is held, beside the gradient itself.

    Args:
        outputs: (samples, tokens, classes).
        targets: y, (samples, tokens) integers.
        ignore_index: the target of tokens that do not count, such as padding.
        shift: True for a causal language model, whose outputs at a token predict the next one.
    """
    if outputs.ndim != 3 or targets.shape != outputs.shape[:2]:
        expected = "(samples, tokens, classes) and integers (samples, tokens)"
        _refuse("token_cross_entropy", expected, outputs, targets)
    if shift:  # The targets move, not the outputs, which would be copied.
        targets = torch.cat((targets[:, 1:], torch.full_like(targets[:, :1], ignore_index)), 1)
    counted = targets != ignore_index
    return mean_of_counted(negative_log_likelihood(outputs, targets.where(counted, 0)), counted)


def own_loss(outputs: Outputs, _targets: Targets) -> Values:
    """The loss that the network computes itself, sample by sample."""
    return outputs


TASK_LOSSES: dict[str, Callable[..., Tensor]] = {
    "squared_error": squared_error,
    "absolute_error": absolute_error,
    "binary_cross_entropy": binary_cross_entropy,
    "pixel_cross_entropy": pixel_cross_entropy,
    "token_cross_entropy": token_cross_entropy,
    "model": own_loss,
}


def mean_of_counted(values: Tensor, counted: Tensor) -> Values:
    """Mean over the entries of each sample that count; NaN for a sample without any."""
    counted = counted.to(values).flatten(1)
    return (values.flatten(1) * counted).sum(1) / counted.sum(1)


def _mean(values: Tensor) -> Values:
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def _like(outputs: Tensor, targets: Tensor, loss: str) -> Tensor:
    """The targets in the shape and dtype of the outputs; of one output, (samples,) or (samples, 1)."""
    if targets.shape != outputs.shape:
        if {targets.shape[1:], outputs.shape[1:]} != {(), (1,)}:
            _refuse(loss, "of one shape", outputs, targets)
        targets = targets.view_as(outputs)
    return targets.to(outputs)


def _refuse(loss: str, expected: str, outputs: Tensor, targets: Tensor) -> NoReturn:
    msg = (
        f"the loss {loss} takes outputs and labels {expected}, got outputs {tuple(outputs.shape)} and labels "
        f"{tuple(targets.shape)}. Choose the loss of this task, or the output by output="
    )
    raise ValueError(msg)
