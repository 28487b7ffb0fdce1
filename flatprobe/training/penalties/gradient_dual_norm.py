"""Input gradient of the loss in the dual norm of an attack."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.points import NORMS, dual_length
from flatprobe.training.forward import ForwardPass
from flatprobe.utils.arguments import one_of


@dataclass(frozen=True)
class GradientDualNorm:
    """P = (1/b) sum_i ||grad_x l(z_i, y_i)||_*, l the objective's loss: its total variation.

    To first order, the increase of the loss by an attack of budget e, per unit of e. ||.||_* is not differentiable
    where an entry (`"linf"`) or the whole gradient (`"l2"`) is 0. It is differentiated as a constant there.

    Exact. Cost: 1 backward pass to the inputs (`ForwardPass.gradient`), shared with other penalties.

    BatchNorm: the batch's statistics, detached in the derivative (`ForwardPass`).

    Args:
        norm: of the attack: `"l2"`, with the l2 norm as dual norm, or `"linf"`, with the l1 norm.

    Raises:
        ValueError: for another norm.
        ValueError: when called, if the logits do not depend differentiably on the inputs.

    Source: Oberman (2020), section 10.5 (R_AT), with the attacks of eqs 8.3 to 8.5 [O20].

    >>> import torch
    >>> passed = ForwardPass(torch.nn.Identity(), torch.zeros(1, 2), torch.tensor([0]))
    >>> GradientDualNorm("linf")(passed).item()  # the gradient is p - e_y
    1.0
    """

    norm: str = "l2"

    def __post_init__(self) -> None:
        one_of("norm", self.norm, NORMS)

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """P on one batch, differentiable in the weights."""
        return dual_length(passed.gradient(), self.norm).mean()
