"""Squared spectral norm of the input Jacobian."""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.points import divide_by_largest, dual_norm_maximizer
from flatprobe.functional.jacobian_rows import (
    gram,
    gram_of_softmax,
    likeliest_first,
    relative_rows,
    rows_of,
    squared_frobenius,
    top_eigenvector,
)
from flatprobe.functional.losses import softmax_product
from flatprobe.training.forward import ForwardPass
from flatprobe.utils.arguments import Whole, at_least, one_of


@dataclass(frozen=True)
class JacobianSpectral:
    """P = (1/b) sum_i ||J(x_i)||_2^2, J = dz/dx of the logits or dp/dx of the softmax.

    P = (1/b) sum_i ||J^T u||^2 with u the unit left singular vector of the largest singular value s, detached: since u
    maximizes ||J^T u||, the gradient does not go through u (d s^2 = 2 s u^T dJ v). Where several vectors share the
    largest singular value, u is one of them, and the gradient is a subgradient.

    Exact: u is the top eigenvector of J J^T, formed in float64 from rows as in the probe `jacobian_norms`.

    Sampled: `iterations` steps of the power iteration u <- J J^T u from a random start. Then ||J^T u|| <= ||J||_2: an
    *estimate from below*, biased, with the gradient of the estimate at constant u.

    Cost:

    - exact: 1 backward pass to the inputs per class (for the softmax one fewer) without a graph, and 1 with a graph,
    - sampled: 2 backward passes per step and 1 more without a graph, and 1 with a graph, for any number of classes;
      cheaper from some tens of classes on.

    BatchNorm: the batch's statistics, detached in the derivative (`ForwardPass`).

    Args:
        iterations: None: exact; else the number of steps of the power iteration.
        outputs: `"logits"`, or `"softmax"` as in S17.

    Raises:
        ValueError: for fewer than 1 iteration, or other outputs.
        ValueError: when called, if the logits do not depend differentiably on the inputs.

    Source: Sokolić et al. (2017), eq. 48 [S17], who prefer eq. 49 (`JacobianFrobenius`) because of the cost.

    >>> network = torch.nn.Linear(2, 2, bias=False)
    >>> _ = network.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> passed = ForwardPass(network, torch.zeros(1, 2), torch.tensor([0]))
    >>> float(JacobianSpectral()(passed).detach())
    16.0
    """

    iterations: Whole | None = None
    outputs: str = "logits"

    def __post_init__(self) -> None:
        at_least(1, iterations=self.iterations)
        one_of("outputs", self.outputs, ("logits", "softmax"))

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """P on one batch, differentiable in the weights at constant u."""
        logits, softmax = passed.logits, self.outputs == "softmax"
        top = _exact(passed, softmax=softmax) if self.iterations is None else self._iterate(passed, softmax=softmax)
        along = softmax_product(logits, top) if softmax else top
        return squared_frobenius([passed.derivative(logits, along)]).mean()

    def _iterate(self, passed: ForwardPass, *, softmax: bool) -> Tensor:
        logits = passed.logits
        outer = partial(softmax_product, logits.detach()) if softmax else torch.clone
        dual = torch.zeros_like(logits).requires_grad_()
        pulled = passed.derivative(logits, outer(dual))  # J^T u as a function of u, whose derivative is J
        top = _unit(passed.normal(tuple(logits.shape), "jacobian_spectral"))
        for _ in range(self.iterations or 0):
            right = passed.derivative(logits, outer(top), create_graph=False)
            top = _unit(passed.derivative(pulled, _unit(right), at=dual, create_graph=False))
        return top


def _exact(passed: ForwardPass, *, softmax: bool) -> Tensor:
    logits = passed.logits
    derivative = partial(passed.derivative, logits, create_graph=False)
    if not softmax:
        return top_eigenvector(gram([row.double() for row in rows_of(logits, derivative)])).to(logits)
    rows = relative_rows(logits, derivative)
    top = top_eigenvector(gram_of_softmax(logits.detach(), gram([row.double() for row in rows]))).to(logits)
    return torch.zeros_like(top).scatter(1, likeliest_first(logits), top)


def _unit(vectors: Tensor) -> Tensor:
    return dual_norm_maximizer(divide_by_largest(vectors), "l2")
