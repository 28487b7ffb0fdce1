"""Extreme eigenvalues of the Hessian of the empirical risk at the trained weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from flatprobe.network.weights import as_given, layers, select
from flatprobe.risk.empirical import RiskFunction, describe
from flatprobe.risk.function import takes_risk
from flatprobe.risk.inactive import check_acts
from flatprobe.risk.protocols import hessian_products
from flatprobe.utils import rng
from flatprobe.utils.arguments import Checked, Number, Selection, Whole, at_least, one_of, positive
from flatprobe.utils.lanczos import ENDS, Values, Vector, Vectors, extreme_pairs
from flatprobe.utils.results import Result, settings

# The Krylov space, at least. Networks' largest eigenvalues stand apart, so that a small one finds the first with the
# fewest products; each vector of it is as long as the weights.
_KRYLOV = 12
# Restarts before a search gives up; each takes up to a Krylov space of products.
_RESTARTS = 100


@dataclass(frozen=True, kw_only=True, repr=False)
class HessianEigenvalues(Result):
    """Eigenvalues of the Hessian, or of each layer's own block of it, from the wanted end inwards.

    Attributes:
        eigenvalues: (values,) in units of the loss per squared unit of weight.
        residuals: (values,) ||H v - lambda v|| for the unit vector v found: an eigenvalue of H lies within it.
        layers: of each value, the layer whose block it belongs to; "all" for the whole selection.
        products: Hessian products spent.
    """

    _columns: ClassVar = {"layer": "layers", "eigenvalue": "eigenvalues", "residual": "residuals"}

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


@takes_risk
def hessian_eigenvalues(
    risk: RiskFunction,
    *,
    count: Whole = 1,
    which: Checked[Literal["largest", "smallest", "magnitude"]] = "largest",
    parameters: Selection = None,
    per_layer: bool = False,
    tolerance: Number = 1e-3,
    seed: int = 0,
) -> HessianEigenvalues:
    """lambda_1 >= lambda_2 >= ..., eigenvalues of H = (d^2 / dw^2) I(w) over the whole data set, at the risk's center.

    Lanczos with thick restarts (`flatprobe.utils.lanczos`) over exact Hessian products, each two to four gradients over
    the
    data: about 15 products for the first eigenvalue (`make bench`), as many for each further one, and many more where
    the next ones are near, as at the lower end. Every eigenvalue counts as often as it occurs: what has converged is
    set aside, and a new random start orthogonal to it finds the equal or skipped ones. A selection with no more weights
    than twice the Krylov space (12, or 2 count + 1) has its block formed whole.

    Proven: an eigenvalue of H lies within each residual, and the k-th value found is at most the k-th largest
    eigenvalue (Courant-Fischer; at least the k-th smallest for `"smallest"`), both up to rounding. That none was missed
    is not: a random start misses one with a probability that falls with every product. The error of an eigenvalue that
    stands apart from the next is of the order of its residual *squared* over the gap. In single precision a product is
    good to about 1e-7 of ||H||.

    Memory: the Krylov space, `count` vectors, and what a product takes (about seven copies of the weights).

    Where ReLUs are active the Hessian is that of the piecewise smooth function: kinks have no second derivative.

    Args:
        risk: an `EmpiricalRisk`, or any callable with a `center` and a method `hvp(weights, direction)`.
        count: how many eigenvalues (of each layer).
        which: `"largest"` (default: algebraically, the sharpness), `"smallest"` (negative where w is no minimum), or
            `"magnitude"`.
        parameters: None for all, `"last"`, or names or patterns: the block of H over the selection.
        per_layer: whether each layer's own diagonal block is taken apart, the others held fixed.
        tolerance: of the residual, relative to the eigenvalue, or to a tenth of the largest in magnitude where the
            eigenvalue is smaller than that, as the smallest ones are at a minimum; 1e-3 (our choice) leaves an error of
            the order of 1e-6 where the next eigenvalue is half as large.
        seed: of the start vectors.

    Returns:
        `HessianEigenvalues`.

    Raises:
        ValueError: if the arguments are out of range, the selection matches nothing or has fewer weights than `count`,
            a product is not finite (the parameter is named), or the tolerance is not met.
        TypeError: for a risk without `hvp`.

    Source: SPEC section 2; Wu and Simon 2000, "Thick-restart Lanczos method for large symmetric eigenvalue problems".
    """
    at_least(1, count=count)
    positive(tolerance=tolerance)
    one_of("which", which, ENDS)
    names = select(risk.center, parameters)
    check_acts(risk, names)
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
        eigenvalues=torch.cat(values),
        residuals=torch.cat(residuals),
        layers=tuple(labels),
        products=products,
        settings=settings("hessian_eigenvalues", describe(risk), **arguments)
        | {"selected": list(names), "products": products},
    )


class _Block:
    """The Hessian's block over some names as a product of flat vectors on the CPU, counted."""

    def __init__(self, risk: RiskFunction, names: Sequence[str]) -> None:
        self.risk, self.names, self.center = risk, names, risk.center
        self.sizes = [self.center[name].numel() for name in names]
        self.size, self.products = sum(self.sizes), 0
        double = any(self.center[name].dtype == torch.float64 for name in names)
        self.dtype = torch.float64 if double else torch.float32

    def __call__(self, vector: Vector) -> Vector:
        self.products += 1
        parts = torch.split(vector, self.sizes)
        direction = {}
        for name, part in zip(self.names, parts, strict=True):
            even = part.clone() if part.storage_offset() % 2 else part  # which weights viewed as complex numbers want
            direction[name] = even.view(self.center[name].shape).to(self.center[name])
        (product,) = hessian_products(self.risk, self.center, [direction], self.names)
        result = torch.empty_like(vector)
        for name, own in zip(self.names, torch.split(result, self.sizes), strict=True):
            own.copy_(product[name].flatten())
        return result


def _extreme(
    block: _Block, count: int, which: str, tolerance: float, generator: torch.Generator
) -> tuple[Values, Values]:
    """The eigenvalues at one end, from that end inwards, and their residuals.

    Raises:
        ValueError: where they do not meet the tolerance in time.
    """
    space = max(2 * count + 1, _KRYLOV)
    if block.size <= 2 * space:
        vectors = _dense(block, which)[:count]
    else:

        def draw() -> Vector:
            return torch.randn(block.size, generator=generator, dtype=torch.float32, device="cpu").to(block.dtype)

        vectors, all_met = extreme_pairs(
            block, draw, count=count, which=which, tolerance=tolerance, space=space, budget=_RESTARTS * space
        )
        if not all_met:
            msg = (
                f"{len(vectors)} of {count} eigenvalues met the tolerance {tolerance:g} within {block.products} "
                "Hessian products; expected all, and none beyond them: raise the tolerance, ask for fewer, or probe in "
                "float64"
            )
            raise ValueError(msg)
    pairs = torch.tensor([_measured(block, vector) for vector in vectors], dtype=torch.float64, device="cpu")
    values, residuals = pairs[ENDS[which](pairs[:, 0]).argsort(descending=True)].unbind(1)
    return values, residuals


def _measured(block: _Block, vector: Vector) -> tuple[float, float]:
    """Rayleigh's quotient and the residual of one vector, by a product of its own."""
    product, vector = block(vector), vector / torch.linalg.vector_norm(vector)
    value = float(torch.sum(vector * product, dtype=torch.float64))
    return value, float(torch.linalg.vector_norm(product - value * vector, dtype=torch.float64))


def _dense(block: _Block, which: str) -> Vectors:
    """All eigenvectors of the block, from the wanted end inwards."""
    matrix = torch.stack([block(column) for column in torch.eye(block.size, dtype=block.dtype, device="cpu")]).double()
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    ordered: Vectors = vectors.mT[ENDS[which](values).argsort(descending=True)].to(block.dtype)
    return ordered
