"""Checked derivatives of a risk in weight space, for any risk that has them."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from flatprobe.network.weights import Weights
from flatprobe.risk.derivatives import precise_dot
from flatprobe.risk.empirical import EmpiricalRisk, RiskFunction
from flatprobe.risk.function import risk_at


@runtime_checkable
class Sloped(RiskFunction, Protocol):
    """A risk with a gradient: `EmpiricalRisk`, or a quadratic bowl."""

    def gradient(self, weights: Mapping[str, Tensor], /) -> Weights:
        """Gradient grad I(w)."""


@runtime_checkable
class Curved(RiskFunction, Protocol):
    """A risk with a Hessian: `EmpiricalRisk`, or a quadratic bowl."""

    def hvp(self, weights: Mapping[str, Tensor], direction: Mapping[str, Tensor], /) -> Weights:
        """Hessian product H(w) v; a name that v lacks counts as zero."""


def loss_and_gradient(risk: RiskFunction, weights: Weights, names: Sequence[str]) -> tuple[float, Weights]:
    """Loss I(w) and its gradient over the names.

    Cost: 1 forward and backward pass over the data of an `EmpiricalRisk`, or 2 calls of another risk.

    Raises:
        TypeError: for a risk without a gradient.
        ValueError: if the loss is finite and the gradient is not, naming the parameter.
    """
    if isinstance(risk, EmpiricalRisk):
        loss, gradient = risk.loss_and_gradient(weights, names)
    elif isinstance(risk, Sloped):
        loss, gradient = risk_at(risk, weights).loss, _restrict(risk.gradient(weights), names)
    else:
        msg = (
            f"the risk {type(risk).__name__} has no gradient; expected an EmpiricalRisk, or a method gradient(weights)"
        )
        raise TypeError(msg)
    if math.isfinite(loss):  # Otherwise the caller reports the loss.
        _check_finite(gradient, "gradient")
    return loss, gradient


class Hessian:
    """Block of the Hessian of a risk at its center; a context, which frees the graphs that products share.

    Args:
        risk: an `EmpiricalRisk`, or a risk with a method `hvp`.
        names: the parameters of the block.

    Raises:
        TypeError: for a risk without a Hessian product.
    """

    def __init__(self, risk: RiskFunction, names: Sequence[str]) -> None:
        if not isinstance(risk, EmpiricalRisk | Curved):
            msg = (
                f"the risk {type(risk).__name__} has no Hessian product; expected an EmpiricalRisk, or a method "
                "hvp(weights, direction)"
            )
            raise TypeError(msg)
        self.risk, self.names, self.center = risk, names, risk.center
        self._block = risk.hessian(names) if isinstance(risk, EmpiricalRisk) else None

    def __enter__(self) -> "Hessian":
        return self

    def __exit__(self, *_: object) -> None:
        if self._block is not None:
            self._block.free()

    def products(self, directions: Sequence[Weights]) -> list[Weights]:
        """Products H v over the names.

        Raises:
            ValueError: if a product is not finite, naming the parameter.
        """
        if self._block is not None:
            products = self._block.products(directions, self.center)
        else:
            assert isinstance(self.risk, Curved)
            products = [_restrict(self.risk.hvp(self.center, direction), self.names) for direction in directions]
        for product in products:
            _check_finite(product, "Hessian product")
        return products

    def forms(self, directions: Sequence[Weights]) -> list[dict[str, float]]:
        """Quadratic forms (v, H v) per parameter and direction."""
        if self._block is not None:
            forms = self._block.forms(directions)
            if all(math.isfinite(value) for own in forms for value in own.values()):
                return forms
        products = self.products(directions)  # Their error names the parameter.
        return [
            {name: float(precise_dot(v[name], product[name])) for name in self.names}
            for v, product in zip(directions, products, strict=True)
        ]


def _restrict(vector: Weights, names: Sequence[str]) -> Weights:
    return {name: vector[name] for name in names}


def _check_finite(vector: Mapping[str, Tensor], what: str) -> None:
    if bool(torch.stack([value.sum() for value in vector.values()]).isfinite().all()):
        return  # A sum is not finite if a term is not; it costs a fifth of the entries' check.
    for name, value in vector.items():
        bad = ~torch.isfinite(value)
        if bool(bad.any()):
            msg = (
                f"the {what} has {int(bad.sum())} NaN or infinite values among the {value.numel()} of {name!r}; "
                "expected finite derivatives: look for a norm or a root at 0 or an overflow in that layer, or probe in "
                "float64"
            )
            raise ValueError(msg)
