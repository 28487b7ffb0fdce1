"""Squared input gradient of the loss."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flatprobe.training.forward import ForwardPass


@dataclass(frozen=True)
class DoubleBackpropagation:
    """P = (1/b) sum_i ||grad_x l(z_i, y_i)||_2^2, l the objective's loss.

    Exact. Cost: 1 backward pass to the inputs (`ForwardPass.gradient`), shared with other penalties.

    BatchNorm: the batch's statistics, detached in the derivative (`ForwardPass`).

    Raises:
        ValueError: when called, if the logits do not depend differentiably on the inputs.

    Source: Thumwanit (2020), eq. 49 [N20]; Drucker and LeCun (1992), "Improving generalization performance using double
    backpropagation".

    >>> import torch
    >>> passed = ForwardPass(torch.nn.Identity(), torch.zeros(1, 2), torch.tensor([0]))
    >>> DoubleBackpropagation()(passed).item()  # the gradient is p - e_y
    0.5
    """

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """P on one batch, differentiable in the weights."""
        return passed.gradient().flatten(1).square().sum(1).mean()
