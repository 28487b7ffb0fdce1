"""Squared slope of the loss along its input gradient, by finite differences."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.fixed import take_step
from flatprobe.training.forward import ForwardPass
from flatprobe.training.transforms.budgets import ascent_direction, budgets
from flatprobe.utils.arguments import Number, given, positive


@dataclass(frozen=True)
class TikhonovDifferences:
    """P = (1/b) sum_i ((l(x_i + h v_i) - l(x_i)) / h)^2, v = grad_x l / ||grad_x l||_2 detached, l the loss.

    P tends to ||grad_x l||_2^2 (`DoubleBackpropagation`) as h -> 0, with an error of the order of h times the curvature
    along v. It needs no second derivative. v is 0 where the gradient is 0, and so is the sample's term up to rounding.

    A difference, neither exact nor sampled. Cost: 1 backward pass to the inputs without a graph, and 1 forward pass.

    BatchNorm: the batch's statistics, detached in v; both losses are normalized with them (`ForwardPass.again`).

    The rounding error of the difference, about eps l / h (eps = 1.2e-7 in float32), grows as h falls; the truncation
    error, about h l'' / 2, grows with h. They are equal near sqrt(eps), 3.5e-4 in float32 and 1.5e-8 in float64, for
    losses and curvatures near 1. A smaller h only loses digits, and is refused.

    Args:
        step: h, an l2 length in the inputs' units. No default, as O20 gives none.

    Raises:
        ValueError: for a step that is not positive and finite.
        ValueError: when called, for a step below sqrt(eps) of the inputs' dtype.
        ValueError: when called, if the logits do not depend differentiably on the inputs.

    Source: Oberman (2020), section 10.5 (R_Tyc, "implemented using finite differences") [O20]; Finlay and Oberman
    (2019).

    >>> network = torch.nn.Linear(2, 2, bias=False).double()
    >>> _ = network.weight.data.copy_(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    >>> passed = ForwardPass(network, torch.ones(1, 2).double(), torch.tensor([0]), loss="maximum")
    >>> round(TikhonovDifferences(0.01)(passed).item(), 6)
    25.0
    """

    step: Number

    def __post_init__(self) -> None:
        given(step=self.step)
        positive(step=self.step)

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """P on one batch, differentiable in the weights."""
        inputs = passed.inputs.detach()
        _check_step(self.step, inputs.dtype)
        points = take_step(inputs, ascent_direction(passed), budgets(self.step, inputs), norm="l2", box=None)
        rise = passed.losses_at(points) - passed.losses
        return (rise / self.step).square().mean()


def _check_step(step: float, dtype: torch.dtype) -> None:
    """Check that the difference over this step is not mostly rounding.

    Raises:
        ValueError: for a step below sqrt(eps) of the dtype.
    """
    least = math.sqrt(torch.finfo(dtype).eps)
    if step < least:
        msg = (
            f"the step of TikhonovDifferences is {step:.3g} and the inputs are {dtype}; expected at least "
            f"sqrt(eps) = {least:.2g}: below it the difference of two losses is mostly rounding. Take a longer step, "
            "or DoubleBackpropagation, which needs none"
        )
        raise ValueError(msg)
