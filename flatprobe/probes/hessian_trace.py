"""Trace of the Hessian of the empirical risk at the trained weights, in total and per layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from flatprobe.network.weights import Weights, as_given, layers, select
from flatprobe.risk.empirical import RiskFunction, describe
from flatprobe.risk.function import takes_risk
from flatprobe.risk.inactive import check_acts
from flatprobe.risk.protocols import Hessian
from flatprobe.utils import rng
from flatprobe.utils.arguments import Selection, Whole, at_least
from flatprobe.utils.results import Result, settings

# Draws that share one forward pass and gradient, and the bytes for the Rademacher vectors of all but the first.
_SHARED, _BYTES = 10, 2**25


@dataclass(frozen=True, kw_only=True, repr=False)
class HessianTrace(Result):
    """Quadratic forms of the Hessian with Rademacher vectors, whose mean is its trace: one row per draw and layer.

    Attributes:
        forms: (draws, layers) v_b^T (H v)_b per layer b; their sum over the layers is v^T H v.
        layers: names of the layers.
    """

    _columns: ClassVar = {"draw": "", "layer": "layers", "form": "forms"}
    _axes: ClassVar = {"draw": 0, "layer": 1}

    forms: Float64[Tensor, "draws layers"]
    layers: tuple[str, ...]

    @property
    def trace(self) -> float:
        """Mean of v^T H v over the draws."""
        return float(self.forms.sum(1).mean())

    @property
    def mean(self) -> float:
        """The trace, under the name that all results have for a mean over draws."""
        return self.trace

    @property
    def standard_error(self) -> float:
        """Standard error of the trace over the draws (ddof 1); nan for a single draw."""
        return _standard_error(self.forms.sum(1))

    @property
    def per_layer(self) -> dict[str, tuple[float, float]]:
        """Layer -> trace of its diagonal block and the standard error, from the same products."""
        columns = self.forms.unbind(1)
        return {
            layer: (float(column.mean()), _standard_error(column))
            for layer, column in zip(self.layers, columns, strict=True)
        }

    def summary(self) -> dict[str, float]:
        """Trace, standard error and number of draws."""
        return {"trace": self.trace, "standard_error": self.standard_error, "draws": len(self.forms)}


@takes_risk
def hessian_trace(
    risk: RiskFunction, *, draws: Whole = 100, parameters: Selection = None, seed: int = 0
) -> HessianTrace:
    """tr H = E v^T H v over Rademacher vectors v (Hutchinson), H the Hessian of I at the center, over all data.

    The variance is 2 (||H||_F^2 - sum_i H_ii^2) per draw, the least among laws of independent entries. The traces of
    the layers come from the same products, since E v_b^T (H v)_b = tr H_bb.

    Cost: 1 Hessian-vector product per draw. Up to ten draws share each forward pass and gradient, and all draws those
    of the first batches, whose graphs take up to a gigabyte (`flatprobe.risk.hessian.KEPT`). A draw costs 1 to 3
    gradients over the data. Memory: these graphs, about 4 copies of the weights, and at most 32 MB for draws that share
    a pass.

    Args:
        risk: an `EmpiricalRisk`, or any callable with a `center` and a method `hvp(weights, direction)`.
        draws: number of Rademacher vectors; 100 is our choice, as in PyHessian (Yao et al. 2020).
        parameters: None for all, `"last"`, or names or patterns: the trace over the selection.
        seed: draw k is a function of (seed, k).

    Returns:
        `HessianTrace` with `trace`, `standard_error` and `per_layer`.

    Raises:
        ValueError: for no draws, or a selection that matches nothing.
        ValueError: if a product is not finite; the message names the parameter.
        TypeError: for a risk without `hvp`.

    Source: Hutchinson (1990).
    """
    at_least(1, draws=draws)
    center = risk.center
    names = select(center, parameters)
    check_acts(risk, names)
    blocks = layers(names)
    size = sum(center[name].numel() * center[name].element_size() for name in names)
    together = min(_SHARED, 1 + _BYTES // size)
    forms = []
    with Hessian(risk, names) as hessian:
        for first in range(0, draws, together):
            signs = [_signs(center, names, seed, draw) for draw in range(first, min(first + together, draws))]
            found = hessian.forms(signs)
            del signs  # before the next ones are drawn
            forms += [[sum(own[name] for name in block) for block in blocks.values()] for own in found]
    return HessianTrace(
        forms=torch.tensor(forms, dtype=torch.float64, device="cpu"),
        layers=tuple(blocks),
        settings=settings("hessian_trace", describe(risk), draws=draws, parameters=as_given(parameters), seed=seed)
        | {"selected": list(names)},
    )


def _signs(center: Weights, names: Sequence[str], seed: int, draw: int) -> Weights:
    return {
        name: torch.empty_like(center[name]).copy_(
            rng.rademacher(center[name].shape, seed, "signs", draw, place, device=center[name].device)
        )
        for place, name in enumerate(names)
    }


def _standard_error(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")
