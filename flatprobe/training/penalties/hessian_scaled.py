"""Input Jacobian scaled by the Hessian of the loss in the logits."""

from dataclasses import dataclass
from functools import partial
from itertools import combinations
from math import comb

from jaxtyping import Float
from torch import Tensor

from flatprobe.functional.jacobian_rows import gram, likeliest_first, relative_rows, rows_of, squared_frobenius
from flatprobe.functional.losses import hessian_root_product, softmax_jacobian, softmax_temperature
from flatprobe.training.forward import ForwardPass
from flatprobe.utils.arguments import Whole, at_least, one_of


@dataclass(frozen=True)
class HessianScaled:
    """P = (1/b) sum_i Tr(J^T H J), J = dz/dx and H the Hessian of the objective's loss in the logits.

    The cross-entropy has H = diag(p) - p p^T, p the softmax (positive *semi*definite: H 1 = 0). The smoothed maximum
    has the same H at z / epsilon, divided by epsilon. The squared losses have 2 I.

    Gaussian noise of variance v on the inputs raises the loss by (v / 2) (P + Q) to first order in v. P is the
    Gauss-Newton part; Q is the mean of the loss gradient in the logits times the Laplacian of the logits, which the
    source leaves out (docs, Definitions).

    Exact: Tr(J^T H J) = sum_{j,k} H_jk <J_j, J_k>, with the rows of J relative to the row of the likeliest class, since
    H 1 = 0. The formula needs no square root of p, whose derivative is infinite at 0.

    Sampled: E ||J^T L e||^2 for Rademacher vectors e and H = L L^T, L = diag(sqrt p) - p sqrt(p)^T. Value and gradient
    are unbiased, since the gradient goes through L. (The other identity, E_{k ~ p} ||grad_x log p_k||^2, is not used:
    at a fixed k its gradient lacks the score term, the contribution of the change of p.)

    Cost: exact, C - 1 backward passes to the inputs (C for the squared losses); sampled, 1 per projection.

    BatchNorm: the batch's statistics, detached in the derivative (`ForwardPass`).

    With `power=2`, P = (1/b) sum_i Tr(J^T H J)^2, as in eq. 66, which is written for one sample: the mean of the
    squares. Its sampled form is the mean product over all pairs of draws, which is unbiased and needs two draws.

    Args:
        projections: None: exact; else the number of independent e per sample.
        power: 1, or 2 for hsfob-db2.

    Raises:
        ValueError: for fewer than 1 projection, or than 2 with power 2; for another power.
        ValueError: when called, for a loss that is piecewise linear in the logits (`maximum`, `hinge`).
        ValueError: when called, if the logits do not depend differentiably on the inputs.

    Source: Thumwanit (2020), eqs 61-63 and 66 [N20].

    >>> import torch
    >>> network = torch.nn.Linear(2, 2, bias=False)
    >>> _ = network.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> passed = ForwardPass(network, torch.zeros(1, 2), torch.tensor([0]))
    >>> float(HessianScaled()(passed).detach())  # p = (1/2, 1/2): (9 + 16) / 4
    6.25
    """

    projections: Whole | None = None
    power: Whole = 1

    def __post_init__(self) -> None:
        one_of("power", self.power, (1, 2))
        at_least(1, projections=self.projections)
        if self.power == 2 and self.projections == 1:
            msg = (
                "projections is 1; expected at least 2 with power=2, or None: the square of one draw is no unbiased "
                "estimate of the squared trace"
            )
            raise ValueError(msg)

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """P on one batch, differentiable in the weights."""
        temperature = softmax_temperature(passed.named_loss)
        if self.projections is None:
            return (_exact(passed, temperature) ** self.power).mean()
        draws = [self._draw(passed, temperature, draw) for draw in range(self.projections)]
        if self.power == 1:
            return sum(draws[1:], draws[0]).mean() / self.projections
        products = [first * second for first, second in combinations(draws, 2)]
        return sum(products[1:], products[0]).mean() / comb(self.projections, 2)

    def _draw(self, passed: ForwardPass, temperature: float | None, draw: int) -> Float[Tensor, " samples"]:
        logits = passed.logits
        signs = passed.signs(tuple(logits.shape), "hessian_scaled", draw)
        if temperature is None:
            return 2 * squared_frobenius([passed.derivative(logits, signs)])
        root = hessian_root_product(logits / temperature, signs)
        return squared_frobenius([passed.derivative(logits, root)]) / temperature


def _exact(passed: ForwardPass, temperature: float | None) -> Float[Tensor, " samples"]:
    logits = passed.logits
    derivative = partial(passed.derivative, logits)
    if temperature is None:
        return 2 * squared_frobenius(rows_of(logits, derivative))
    products = gram(relative_rows(logits, derivative))
    ordered = (logits / temperature).gather(1, likeliest_first(logits))
    return (softmax_jacobian(ordered)[:, 1:, 1:] / temperature * products).sum((1, 2)).to(logits)
