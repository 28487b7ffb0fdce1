"""The trace of the Hessian of the empirical risk at the trained weights, whole and layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float64
from torch import Tensor

from flatprobe.network.weights import Weights, as_given, layers, select
from flatprobe.risk.empirical import RiskFunction, describe
from flatprobe.risk.function import takes_risk
from flatprobe.risk.inactive import check_acts
from flatprobe.risk.protocols import hessian_forms
from flatprobe.utils import rng
from flatprobe.utils.arguments import at_least
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas

# Draws that share one forward pass and gradient, and the bytes that the signs of the further ones may take.
_SHARED, _BYTES = 10, 2**25


@dataclass(frozen=True, kw_only=True, repr=False)
class HessianTrace(Result):
    """Quadratic forms of the Hessian with random signs, whose mean is its trace.

    Attributes:
        forms: (draws, layers) v_b^T (H v)_b for each layer b; their sum over the layers is v^T H v.
        layers: the layers' names.
    """

    forms: Float64[Tensor, "draws layers"]
    layers: tuple[str, ...]

    @property
    def trace(self) -> float:
        """The mean over the draws of v^T H v."""
        return float(self.forms.sum(1).mean())

    @property
    def standard_error(self) -> float:
        """Of the trace, over the draws (ddof 1); nan for a single draw."""
        return _standard_error(self.forms.sum(1))

    @property
    def per_layer(self) -> dict[str, tuple[float, float]]:
        """Layer -> trace of its diagonal block and its standard error, from the same products."""
        columns = self.forms.unbind(1)
        return {
            layer: (float(column.mean()), _standard_error(column))
            for layer, column in zip(self.layers, columns, strict=True)
        }

    def summary(self) -> dict[str, float]:
        """The trace, its standard error, and the draws."""
        return {"trace": self.trace, "standard_error": self.standard_error, "draws": len(self.forms)}

    def to_frame(self) -> "pandas.DataFrame":
        """One row a draw and layer: draw, layer, form."""
        import pandas as pd

        draws, count = self.forms.shape
        columns = {
            "draw": [draw for draw in range(draws) for _ in range(count)],
            "layer": list(self.layers) * draws,
            "form": self.forms.flatten().numpy(),
        }
        return pd.DataFrame(columns)

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "HessianTrace":
        """The inverse of `to_frame`."""
        names = tuple(dict.fromkeys(frame["layer"]))
        forms = torch.from_numpy(frame["form"].to_numpy(copy=True)).view(-1, len(names))
        return cls(forms=forms, layers=names, settings=settings)


@takes_risk
def hessian_trace(
    risk: RiskFunction, *, draws: int = 100, parameters: str | Sequence[str] | Any = None, seed: int = 0
) -> HessianTrace:
    """tr H = E v^T H v over independent random signs v (Hutchinson), H the Hessian of I at the center, over all data.

    One Hessian product a draw; up to ten draws share each forward pass and gradient, so that a draw costs one to three
    gradients over the data. Every layer's trace comes from the same products, since E v_b^T (H v)_b = tr H_bb.

    Memory: about five copies of the weights for one draw; as many draws share a pass as add 32 MB to that.

    Args:
        risk: an `EmpiricalRisk`, or any callable with a `center` and a method `hvp(weights, direction)`.
        draws: how many sign vectors; 100 is our choice, as in PyHessian (Yao et al. 2020).
        parameters: None for all, `"last"`, or names or patterns: the trace over the selection.
        seed: draw k is a function of (seed, k).

    Returns:
        `HessianTrace`: its `trace`, `standard_error` and `per_layer`.

    Raises:
        ValueError: for no draws, a selection that matches nothing, or a product that is not finite (the parameter is
            named).
        TypeError: for a risk without `hvp`.

    Source: Hutchinson 1990; the variance is 2 (||H||_F^2 - sum_i H_ii^2) a draw, the least among laws of
        independent entries.
    """
    at_least(1, draws=draws)
    center = risk.center
    names = select(center, parameters)
    check_acts(risk, names)
    blocks = layers(names)
    size = sum(center[name].numel() * center[name].element_size() for name in names)
    together = min(_SHARED, 1 + _BYTES // size)
    forms = []
    for first in range(0, draws, together):
        signs = [_signs(center, names, seed, draw) for draw in range(first, min(first + together, draws))]
        found = hessian_forms(risk, signs, names)
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
        name: torch.empty_like(center[name]).copy_(rng.rademacher(center[name].shape, seed, "signs", draw, place))
        for place, name in enumerate(names)
    }


def _standard_error(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else float("nan")
