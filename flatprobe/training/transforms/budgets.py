"""What the adversarial transforms share: their settings, and the gradient that they climb."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks import NORMS, Box
from flatprobe.attacks.points import divide_by_largest
from flatprobe.training.forward import ForwardPass
from flatprobe.training.forward.labels import steered
from flatprobe.utils.arguments import Number, given, is_number, one_of, positive

Points = Float[Tensor, "samples ..."]


def check_budget(budget: Number, norm: str) -> None:
    """The budget is a length and the norm is known.

    Raises:
        ValueError: for a budget that is not positive and finite, or another norm.
    """
    given(budget=budget)
    positive(budget=budget)
    one_of("norm", norm, NORMS)


def as_box(box: Sequence[float] | Any | None) -> Box:
    """The box as the attacks take it; JSON has lists.

    Raises:
        ValueError: for what is no interval.
    """
    if box is None:
        return None
    ends = list(box) if isinstance(box, Sequence) else []
    if len(ends) != 2 or not all(map(is_number, ends)) or not ends[0] < ends[1]:
        msg = f"box is {box!r}; expected (low, high) with low below high, the range of the inputs, or None"
        raise ValueError(msg)
    return float(ends[0]), float(ends[1])


def budgets(budget: float, like: Points) -> Float[Tensor, " samples"]:
    """The same budget for every sample, as the attacks take it."""
    return torch.full((len(like),), budget, dtype=like.dtype, device=like.device)


def uphill(passed: ForwardPass, at: Points | None = None) -> Points:
    """A positive multiple, a sample, of grad_x l: the direction in which the objective's loss grows.

    In the network in training mode, the batch's BatchNorm statistics held as constants. One backward pass at x; one
    forward and one backward pass elsewhere.

    Args:
        passed: a batch.
        at: other points; None: x.

    Returns:
        Like the inputs, with a largest entry of 1, or 0 where the gradient is 0: squares of the gradient's entries
        would underflow where the network is certain.
    """
    points = None if at is None else at.detach().requires_grad_()
    logits = passed.logits if points is None else passed.again(points)
    return divide_by_largest(
        passed.derivative(steered(passed.kernel, logits, passed.labels), at=points, create_graph=False)
    )
