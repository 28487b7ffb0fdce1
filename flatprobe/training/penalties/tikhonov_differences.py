"""The squared slope of the loss along its own gradient, by a difference of two losses (O20 section 10.5)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.fixed import take_step
from flatprobe.training.forward import ForwardPass
from flatprobe.training.transforms.budgets import budgets, uphill
from flatprobe.utils.arguments import Number, given, positive


@dataclass(frozen=True)
class TikhonovDifferences:
    """P = (1/b) sum_i ((l(x_i + h v_i) - l(x_i)) / h)^2, v = grad_x l / ||grad_x l||_2 held constant, l as in training.

    It tends to `DoubleBackpropagation`'s ||grad_x l||_2^2 as h -> 0, off by a term of the order of h times the
    curvature along v, and needs no derivative of a derivative. v is 0 where the gradient is 0, and so is the sample's
    term up to rounding.

    A difference, neither exact nor sampled. Cost: one backward pass to the inputs without a graph, and one more forward
    pass.

    BatchNorm: the batch's statistics, constants in v; both losses are normalised with them (`ForwardPass.again`).

    h is a compromise: the difference's rounding error, about eps l / h (eps = 1.2e-7 in float32), grows as h falls, and
    its truncation error, about h l'' / 2, as h grows. They meet near sqrt(eps), 3.5e-4 in float32 and 1.5e-8 in
    float64, for losses and curvatures near 1; below that a smaller h only loses digits, and is refused.

    Args:
        step: h, an l2 length in the inputs' units. No default: O20 gives none.

    Raises:
        ValueError: for a step that is not positive and finite; when it is called, for inputs whose dtype is too coarse
            for it, or if the logits do not depend differentiably on the inputs.

    Source: O20 section 10.5 (R_Tyc, "implemented using finite differences"); Finlay and Oberman 2019.

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
        points = take_step(inputs, uphill(passed), budgets(self.step, inputs), norm="l2", box=None)
        rise = passed.losses_at(points) - passed.losses
        return (rise / self.step).square().mean()


def _check_step(step: float, dtype: torch.dtype) -> None:
    """The difference over this step is not mostly rounding.

    Raises:
        ValueError: if it is below the square root of the dtype's unit.
    """
    least = math.sqrt(torch.finfo(dtype).eps)
    if step < least:
        msg = (
            f"the step of TikhonovDifferences is {step:.3g} and the inputs are {dtype}; expected at least "
            f"sqrt(eps) = {least:.2g}: below it the difference of two losses is mostly rounding. Take a longer step, "
            "or DoubleBackpropagation, which needs none"
        )
        raise ValueError(msg)
