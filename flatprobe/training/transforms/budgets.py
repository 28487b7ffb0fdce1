"""Budgets, boxes and ascent directions of the adversarial transforms."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks import NORMS, Box
from flatprobe.attacks.points import divide_by_largest
from flatprobe.training.forward import ForwardPass
from flatprobe.training.forward.labels import steering_losses
from flatprobe.utils.arguments import Number, given, is_number, one_of, positive

Points = Float[Tensor, "samples ..."]


def check_budget(budget: Number, norm: str) -> None:
    """Check the budget and the norm.

    Raises:
        ValueError: for a budget that is not positive and finite, or an unknown norm.
    """
    given(budget=budget)
    positive(budget=budget)
    one_of("norm", norm, NORMS)


def as_box(box: Sequence[float] | Any | None) -> Box:
    """The box as a pair of numbers, from a list in JSON too.

    Raises:
        ValueError: for anything but an interval.
    """
    if box is None:
        return None
    bounds = list(box) if isinstance(box, Sequence) else []
    if len(bounds) != 2 or not all(map(is_number, bounds)) or not bounds[0] < bounds[1]:
        msg = f"box is {box!r}; expected (low, high) with low below high, the range of the inputs, or None"
        raise ValueError(msg)
    return float(bounds[0]), float(bounds[1])


def budgets(budget: float, like: Points) -> Float[Tensor, " samples"]:
    """The budget, repeated for every sample."""
    return torch.full((len(like),), budget, dtype=like.dtype, device=like.device)


def ascent_direction(passed: ForwardPass, at: Points | None = None) -> Points:
    """A positive multiple per sample of grad_x l, the direction of increasing loss.

    The network is in training mode, with the batch's BatchNorm statistics detached. Cost: 1 backward pass at x;
    1 forward and 1 backward pass at other points.

    Args:
        passed: a batch.
        at: other points; None: x.

    Returns:
        Shaped like the inputs, with a largest entry of 1, or 0 where the gradient is 0. Squares of the gradient's
        entries would underflow where the network is certain.
    """
    points = None if at is None else at.detach().requires_grad_()
    logits = passed.logits if points is None else passed.again(points)
    return divide_by_largest(
        passed.derivative(steering_losses(passed.kernel, logits, passed.labels), at=points, create_graph=False)
    )
