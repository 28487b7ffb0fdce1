"""Squared Frobenius norm of the input Jacobian."""

from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor

from flatprobe.functional.jacobian_rows import gram, gram_of_softmax, relative_rows, rows_of, squared_frobenius
from flatprobe.functional.losses import softmax_product
from flatprobe.training.forward import ForwardPass
from flatprobe.utils.arguments import Whole, at_least, one_of


@dataclass(frozen=True)
class JacobianFrobenius:
    """P = (1/b) sum_i ||J(x_i)||_F^2, J = dz/dx of the logits or dp/dx of the softmax.

    Exact: by the rows of J, as in the probe `jacobian_norms`. dp/dx = (diag(p) - p p^T) J depends only on the rows'
    differences. It is formed in float64 from their Gram matrix, so that nothing cancels where the network is certain.

    Sampled: ||J||_F^2 = E ||J^T v||^2 for every v with E v v^T = I. Here v is a Rademacher vector, which has the least
    variance of all v with independent entries, 2 sum_{j != k} (J J^T)_jk^2. Value and gradient are unbiased. (Hoffman
    et al. take unit vectors, with the factor C.)

    Cost: exact, 1 backward pass to the inputs per class (for the softmax one fewer); sampled, 1 per projection.

    BatchNorm: the batch's statistics, detached in the derivative (`ForwardPass`).

    Args:
        projections: None: exact; else the number of independent v per sample, whose terms are averaged.
        outputs: `"logits"` (N20 eq. 56) or `"softmax"` (S17 eq. 49, N20 eq. 50).

    Raises:
        ValueError: for fewer than 1 projection, or other outputs.
        ValueError: when called, if the logits do not depend differentiably on the inputs.

    Source: Sokolić et al. (2017), eq. 49 [S17]; Thumwanit (2020), eqs 50 and 56 [N20]; Hoffman et al. (2019), "Robust
    learning with Jacobian regularization".

    >>> import torch
    >>> network = torch.nn.Linear(2, 2, bias=False)
    >>> _ = network.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> passed = ForwardPass(network, torch.zeros(1, 2), torch.tensor([0]))
    >>> float(JacobianFrobenius()(passed).detach()), float(JacobianFrobenius(projections=1)(passed).detach())
    (25.0, 25.0)
    """

    projections: Whole | None = None
    outputs: str = "logits"

    def __post_init__(self) -> None:
        at_least(1, projections=self.projections)
        one_of("outputs", self.outputs, ("logits", "softmax"))

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """P on one batch, differentiable in the weights."""
        logits, softmax = passed.logits, self.outputs == "softmax"
        derivative = partial(passed.derivative, logits)
        if self.projections is not None:
            shape = tuple(logits.shape)
            draws = [passed.signs(shape, "jacobian_frobenius", draw) for draw in range(self.projections)]
            along = [softmax_product(logits, draw) if softmax else draw for draw in draws]
            return squared_frobenius([derivative(v) for v in along]).mean() / self.projections
        if softmax:
            products = gram_of_softmax(logits, gram(relative_rows(logits, derivative)))
            return products.diagonal(dim1=1, dim2=2).sum(1).mean().to(logits)
        return squared_frobenius(rows_of(logits, derivative)).mean()
