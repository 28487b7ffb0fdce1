"""The squared Frobenius norm of the input Jacobian (S17 eq. 49; N20 eqs 50, 56)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flatprobe.checks import at_least, one_of
from flatprobe.training.passes import ForwardPass


@dataclass(frozen=True)
class JacobianFrobenius:
    """P = (1/b) sum_i ||J(x_i)||_F^2, J = dz/dx of the logits or dp/dx of the softmax.

    Exact: one backward pass to the inputs a class. Sampled: `||J||_F^2 = E ||J^T v||^2` for v with E v v^T = I, here
    standard normal; one backward pass a projection. Value and gradient of the sampled form are unbiased.

    Args:
        projections: None: exact; else the number of independent v a sample, over which is averaged.
        outputs: `"logits"` (N20 eq. 56) or `"softmax"` (S17 eq. 49, N20 eq. 50).

    Raises:
        ValueError: for fewer than 1 projection, or other outputs.

    Source: S17 eq. 49, N20 eqs 50 and 56; Hoffman et al. 2019, "Robust learning with Jacobian regularization".
    """

    projections: int | None = None
    outputs: str = "logits"

    def __post_init__(self) -> None:
        at_least(1, projections=self.projections)
        one_of("outputs", self.outputs, ("logits", "softmax"))

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """P on one batch, differentiable in the weights."""
        outputs = passed.logits if self.outputs == "logits" else passed.logits.softmax(1)
        if self.projections is None:
            rows = [passed.derivative(outputs[:, k]) for k in range(outputs.shape[1])]
        else:
            shape = tuple(outputs.shape)
            draws = [passed.normal(shape, "jacobian_frobenius", draw) for draw in range(self.projections)]
            rows = [passed.derivative(outputs, draw) for draw in draws]
        total = sum(row.flatten(1).square().sum(1).mean() for row in rows)
        assert isinstance(total, Tensor)
        return total if self.projections is None else total / self.projections
