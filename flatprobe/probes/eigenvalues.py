"""Extreme eigenvalues of the Hessian of the empirical risk at the trained weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from flatprobe import rng
from flatprobe.checks import at_least, one_of, positive
from flatprobe.curvature import hessian_products
from flatprobe.results import Result, settings
from flatprobe.risk import RiskFunction, describe
from flatprobe.risk_function import takes_risk
from flatprobe.weights import as_given, layers, select

if TYPE_CHECKING:
    import pandas

# ARPACK's name for each end of the spectrum.
ENDS: dict[str, Literal["LA", "SA", "LM"]] = {"largest": "LA", "smallest": "SA", "magnitude": "LM"}
# The Krylov space that ARPACK works in, at least. Networks' largest eigenvalues stand apart, so that a smaller space
# than scipy's 20 finds the first one with fewer products.
_KRYLOV = 12
# Restarts before ARPACK gives up; each takes up to a Krylov space of products.
_RESTARTS = 100

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True, repr=False)
class HessianEigenvalues(Result):
    """Eigenvalues of the Hessian, or of each layer's own block of it, from the wanted end inwards.

    Attributes:
        eigenvalues: (values,) in units of the loss per squared unit of weight.
        residuals: (values,) ||H v - lambda v|| for the unit vector v found: an eigenvalue of H lies within it.
        layers: of each value, the layer whose block it belongs to; "all" for the whole selection.
        products: Hessian products spent.
    """

    eigenvalues: Float64[Tensor, " values"]
    residuals: Float64[Tensor, " values"]
    layers: tuple[str, ...]
    products: int

    def summary(self) -> dict[str, float]:
        """The first eigenvalue (the most extreme over the layers), its residual, and what it cost."""
        ends = {"largest": self.eigenvalues, "smallest": -self.eigenvalues, "magnitude": self.eigenvalues.abs()}
        first = int(ends[self.settings["arguments"]["which"]].argmax())
        return {
            "eigenvalue": float(self.eigenvalues[first]),
            "residual": float(self.residuals[first]),
            "products": self.products,
        }

    def to_frame(self) -> "pandas.DataFrame":
        """One row an eigenvalue: layer, eigenvalue, residual."""
        import pandas as pd

        columns = {"layer": self.layers, "eigenvalue": self.eigenvalues.numpy(), "residual": self.residuals.numpy()}
        return pd.DataFrame(columns)

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "HessianEigenvalues":
        """The inverse of `to_frame`."""
        return cls(
            eigenvalues=torch.from_numpy(frame["eigenvalue"].to_numpy(copy=True)),
            residuals=torch.from_numpy(frame["residual"].to_numpy(copy=True)),
            layers=tuple(frame["layer"]),
            products=settings["products"],
            settings=settings,
        )


@takes_risk
def hessian_eigenvalues(
    risk: RiskFunction,
    *,
    count: int = 1,
    which: str = "largest",
    parameters: str | Sequence[str] | Any = None,
    per_layer: bool = False,
    tolerance: float = 1e-3,
    seed: int = 0,
) -> HessianEigenvalues:
    """lambda_1 >= lambda_2 >= ..., eigenvalues of H = (d^2 / dw^2) I(w) over the whole data set, at the risk's center.

    `scipy.sparse.linalg.eigsh` (implicitly restarted Lanczos) over exact Hessian products, each two to four gradients
    over the data: about 15 products for the first eigenvalue (`make bench`), many more where the next ones are near, as
    at the lower end. A selection with no more weights than the Krylov space (12, or 2 count + 1) has its block formed
    whole. The error of an eigenvalue that stands apart from the next is of the order of its residual *squared* over the
    gap. In single precision a product is good to about 1e-7 of ||H||.

    Where ReLUs are active the Hessian is that of the piecewise smooth function: kinks have no second derivative.

    Args:
        risk: an `EmpiricalRisk`, or any callable with a `center` and a method `hvp(weights, direction)`.
        count: how many eigenvalues (of each layer).
        which: `"largest"` (default: algebraically, the sharpness), `"smallest"` (negative where w is no minimum), or
            `"magnitude"`.
        parameters: None for all, `"last"`, or names or patterns: the block of H over the selection.
        per_layer: whether each layer's own diagonal block is taken apart, the others held fixed.
        tolerance: at which ARPACK stops: estimated residual over eigenvalue; 1e-3 (our choice) leaves an error of the
            order of 1e-6 where the next eigenvalue is half as large.
        seed: of the start vector.

    Returns:
        `HessianEigenvalues`.

    Raises:
        ValueError: if the arguments are out of range, the selection matches nothing or has fewer weights than `count`,
            a product is not finite (the parameter is named), or the tolerance is not met.
        TypeError: for a risk without `hvp`.

    Source: SPEC section 2; ARPACK: Lehoucq, Sorensen, Yang 1998.
    """
    at_least(1, count=count)
    positive(tolerance=tolerance)
    one_of("which", which, ENDS)
    names = select(risk.center, parameters)
    blocks = layers(names) if per_layer else {"all": names}
    values, residuals, labels, products = [], [], [], 0
    for label, own in blocks.items():
        block = _Block(risk, own)
        if block.size < count:
            msg = (
                f"{count} eigenvalues were asked for and {label!r} has {block.size} weights; expected a count of at "
                "most that"
            )
            raise ValueError(msg)
        found, errors = _extreme(block, count, which, tolerance, rng.generator(seed, "eigenvalues", label))
        values.append(found)
        residuals.append(errors)
        labels += [label] * count
        products += block.products
    arguments = {
        "count": count, "which": which, "parameters": as_given(parameters), "per_layer": per_layer,
        "tolerance": tolerance, "seed": seed,
    }  # fmt: skip
    return HessianEigenvalues(
        eigenvalues=torch.from_numpy(np.concatenate(values)),
        residuals=torch.from_numpy(np.concatenate(residuals)),
        layers=tuple(labels),
        products=products,
        settings=settings("hessian_eigenvalues", describe(risk), **arguments)
        | {"selected": list(names), "products": products},
    )


class _Block:
    """The Hessian's block over some names as a product of flat float64 vectors, counted."""

    def __init__(self, risk: RiskFunction, names: Sequence[str]) -> None:
        self.risk, self.names, self.center = risk, names, risk.center
        self.sizes = [self.center[name].numel() for name in names]
        self.size, self.products = sum(self.sizes), 0
        self.zero = True  # as far as is known

    def __call__(self, vector: Array) -> Array:
        self.products += 1
        parts = torch.from_numpy(np.array(vector, dtype=np.float64).ravel())  # a copy: ARPACK writes to its own
        direction = {
            name: torch.empty_like(self.center[name]).copy_(part.view(self.center[name].shape))
            for name, part in zip(self.names, torch.split(parts, self.sizes), strict=True)
        }
        (product,) = hessian_products(self.risk, self.center, [direction], self.names)
        result = np.concatenate([product[name].double().cpu().flatten().numpy() for name in self.names])
        self.zero = self.zero and not result.any()
        return result


def _extreme(
    block: _Block, count: int, which: str, tolerance: float, generator: torch.Generator
) -> tuple[Array, Array]:
    """The eigenvalues at one end, from that end inwards, and their residuals."""
    krylov = max(2 * count + 1, _KRYLOV)
    if block.size <= krylov:
        values, vectors = _dense(block)
    else:
        start = torch.randn(block.size, generator=generator, dtype=torch.float64, device="cpu").numpy()
        values, vectors = _arpack(block, count, which, tolerance, start, krylov)
    order = {"largest": np.argsort(-values), "smallest": np.argsort(values), "magnitude": np.argsort(-np.abs(values))}
    chosen = order[which][:count]
    pairs = [(values[k], vectors[:, k]) for k in chosen]
    return values[chosen], np.array([np.linalg.norm(block(vector) - value * vector) for value, vector in pairs])


def _dense(block: _Block) -> tuple[Array, Array]:
    matrix = np.stack([block(column) for column in np.eye(block.size)], axis=1)
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return values, vectors


def _arpack(block: _Block, count: int, which: str, tolerance: float, start: Array, krylov: int) -> tuple[Array, Array]:
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

    operator = LinearOperator((block.size, block.size), matvec=block, dtype=np.float64)
    try:
        values, vectors = eigsh(
            operator, k=count, which=ENDS[which], tol=tolerance, v0=start, ncv=krylov, maxiter=_RESTARTS
        )
    except ArpackNoConvergence as error:
        msg = (
            f"{len(error.eigenvalues)} of {count} eigenvalues met the tolerance {tolerance:g} within {block.products} "
            "Hessian products; expected all: raise the tolerance, ask for fewer, or probe in float64"
        )
        raise ValueError(msg) from error
    except ArpackError:
        if not block.zero:
            raise
        # H v = 0 for a random v: the Hessian is zero, and ARPACK has nothing to start from.
        return np.zeros(count), np.zeros((block.size, count))
    return values, vectors
