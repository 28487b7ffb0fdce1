"""The gradient of the loss in the inputs, in the norm dual to an attack's (O20 section 10.5)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.points import NORMS, dual_length
from flatprobe.training.forward import ForwardPass
from flatprobe.utils.arguments import one_of


@dataclass(frozen=True)
class GradientDualNorm:
    """P = (1/b) sum_i ||grad_x l(z_i, y_i)||_*, l the objective's loss: its total variation.

    To first order, what an attack of budget e adds to the loss, per unit of e. ||.||_* is not differentiable where an
    entry (`"linf"`) or the whole gradient (`"l2"`) is 0: it counts as constant there.

    Exact. Cost: one backward pass to the inputs, the pass' own gradient (`ForwardPass.gradient`), which other penalties
    share.

    BatchNorm: the batch's statistics, constants in the derivative (`ForwardPass`).

    Args:
        norm: the attack's: `"l2"`, whose dual norm is the l2 norm, or `"linf"`, whose is the l1 norm.

    Raises:
        ValueError: for another norm; when it is called, if the logits do not depend differentiably on the inputs.

    Source: O20 section 10.5 (R_AT), the attacks those of its eqs 8.3 to 8.5.

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
