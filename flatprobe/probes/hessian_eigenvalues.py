"""Extreme eigenvalues of the Hessian of the empirical risk at the trained weights."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from flatprobe.network.weights import as_given, layers, select
from flatprobe.risk.empirical import RiskFunction, describe
from flatprobe.risk.function import takes_risk
from flatprobe.risk.inactive import check_acts
from flatprobe.risk.protocols import Hessian
from flatprobe.utils import rng
from flatprobe.utils.arguments import Checked, Number, Selection, Whole, at_least, one_of, positive
from flatprobe.utils.lanczos import ENDS, Values, Vector, Vectors, extreme_pairs
from flatprobe.utils.results import Result, settings

# Least dimension of the Krylov space. The largest eigenvalues of networks are well separated, so a small space finds
# the first with the fewest products. Each of its vectors is as long as the weights.
_KRYLOV = 12
# Restarts before the search fails; each takes up to `space` products.
_RESTARTS = 100


@dataclass(frozen=True, kw_only=True, repr=False)
class HessianEigenvalues(Result):
    """Extreme eigenvalues of the Hessian, or of its block per layer, the most extreme first: one row per eigenvalue.

    Attributes:
        eigenvalues: (values,) in units of the loss per squared unit of weight.
        residuals: (values,) ||H v - lambda v|| for the unit vector v found: H has an eigenvalue within this distance.
        layers: per value, the layer whose block it belongs to; "all" for the whole selection.
        products: number of Hessian-vector products.
    """

    _columns: ClassVar = {"layer": "layers", "eigenvalue": "eigenvalues", "residual": "residuals"}

    eigenvalues: Float64[Tensor, " values"]
    residuals: Float64[Tensor, " values"]
    layers: tuple[str, ...]
    products: int

    def summary(self) -> dict[str, float]:
        """The most extreme eigenvalue over the layers, its residual, and the number of products."""
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

    Lanczos with thick restarts (`flatprobe.utils.lanczos`) over exact Hessian-vector products. Multiple eigenvalues are
    all found: converged vectors are deflated, and a new random start orthogonal to them finds equal or skipped ones. A
    selection with at most twice as many weights as the Krylov space (12, or 2 count + 1) has its block formed whole.

    Cost: about 15 products for the first eigenvalue (`make bench`), as many per further one, and many more where
    eigenvalues are close, as at the lower end. A product takes 2 to 4 gradients over the data, and about half of that
    for batches whose gradient is kept with its graph: those of the first gigabyte (`flatprobe.risk.hessian.KEPT`),
    unless a pass writes to the network. Memory: the Krylov space, `count` vectors, about 7 copies of the weights for a
    product, and the kept graphs.

    Proven, up to rounding:

    - H has an eigenvalue within each residual of the value found,
    - the k-th value is at most the k-th largest eigenvalue (Courant-Fischer), at least the k-th smallest for
      `"smallest"`.

    Not proven: that no eigenvalue was missed. A random start misses one with a probability that falls with every
    product. The error of a separated eigenvalue is of the order of its residual *squared* over the gap. In single
    precision a product is accurate to about 1e-7 of ||H||. With ReLUs, H is the Hessian of the piecewise smooth
    function: kinks have no second derivative.

    Args:
        risk: an `EmpiricalRisk`, or any callable with a `center` and a method `hvp(weights, direction)`.
        count: number of eigenvalues, per layer with `per_layer`.
        which: `"largest"` (default: algebraically, the sharpness), `"smallest"` (negative where w is no minimum), or
            `"magnitude"`.
        parameters: None for all, `"last"`, or names or patterns: the block of H over the selection.
        per_layer: True takes the diagonal block of each layer, the other layers being fixed.
        tolerance: largest residual, relative to the eigenvalue, or to a tenth of the largest in magnitude where the
            eigenvalue is smaller, as at the lower end of a minimum. 1e-3 (our choice) leaves an error of the order of
            1e-6 where the next eigenvalue is half as large.
        seed: of the start vectors.

    Returns:
        `HessianEigenvalues`.

    Raises:
        ValueError: for an argument out of range, a selection that matches nothing, or fewer weights than `count`.
        ValueError: if a product is not finite; the message names the parameter.
        ValueError: if the tolerance is not met.
        TypeError: for a risk without `hvp`.

    Source: Wu and Simon (2000), "Thick-restart Lanczos method for large symmetric eigenvalue problems".
    """
    at_least(1, count=count)
    positive(tolerance=tolerance)
    one_of("which", which, ENDS)
    names = select(risk.center, parameters)
    check_acts(risk, names)
    blocks = layers(names) if per_layer else {"all": names}
    values, residuals, labels, products = [], [], [], 0
    for label, own in blocks.items():
        size = sum(risk.center[name].numel() for name in own)
        if size < count:
            msg = (
                f"count must be at most the number of weights, {size} in {label!r}, got {count}. Lower count, or "
                "select more parameters"
            )
            raise ValueError(msg)
        with Hessian(risk, own) as hessian:
            block = _Block(hessian)
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
    """Products of a block of the Hessian with flat vectors on the device of the weights, and their number."""

    def __init__(self, hessian: Hessian) -> None:
        self._hessian = hessian
        self._weights = {name: hessian.center[name] for name in hessian.names}
        self._sizes = [value.numel() for value in self._weights.values()]
        self.size, self.products = sum(self._sizes), 0
        double = any(value.dtype == torch.float64 for value in self._weights.values())
        self.dtype = torch.float64 if double else torch.float32
        self.device = next(iter(self._weights.values())).device

    def __call__(self, vector: Vector) -> Vector:
        self.products += 1
        direction = {}
        for (name, value), part in zip(self._weights.items(), torch.split(vector, self._sizes), strict=True):
            even = part.clone() if part.storage_offset() % 2 else part  # complex weights need an even offset
            direction[name] = even.view(value.shape).to(value)
        (product,) = self._hessian.products([direction])
        result = torch.empty_like(vector)
        for name, own in zip(self._weights, torch.split(result, self._sizes), strict=True):
            own.copy_(product.pop(name).flatten())
        return result


def _extreme(
    block: _Block, count: int, which: str, tolerance: float, generator: torch.Generator
) -> tuple[Values, Values]:
    """The extreme eigenvalues, the most extreme first, and their residuals.

    Raises:
        ValueError: if an eigenvalue does not meet the tolerance within `_RESTARTS`.
    """
    space = max(2 * count + 1, _KRYLOV)
    if block.size <= 2 * space:
        vectors = _dense(block, which)[:count]
    else:

        def draw() -> Vector:
            return torch.randn(block.size, generator=generator, dtype=torch.float32, device="cpu").to(
                block.device, block.dtype
            )

        vectors, all_met = extreme_pairs(
            block, draw, count=count, which=which, tolerance=tolerance, space=space, budget=_RESTARTS * space
        )
        if not all_met:
            msg = (
                f"all {count} eigenvalues must meet the tolerance {tolerance:g}, got {len(vectors)} after "
                f"{block.products} Hessian products. Raise the tolerance, lower count, or probe in float64"
            )
            raise ValueError(msg)
    pairs = torch.tensor([_rayleigh(block, vector) for vector in vectors], dtype=torch.float64, device="cpu")
    values, residuals = pairs[ENDS[which](pairs[:, 0]).argsort(descending=True)].unbind(1)
    return values, residuals


def _rayleigh(block: _Block, vector: Vector) -> tuple[float, float]:
    """Rayleigh quotient and residual of one vector, by one product."""
    product, vector = block(vector), vector / torch.linalg.vector_norm(vector)
    value = float(torch.sum(vector * product, dtype=torch.float64))
    return value, float(torch.linalg.vector_norm(product - value * vector, dtype=torch.float64))


def _dense(block: _Block, which: str) -> Vectors:
    """All eigenvectors of the block, the most extreme first."""
    matrix = torch.stack(
        [block(column) for column in torch.eye(block.size, dtype=block.dtype, device=block.device)]
    ).double()
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    ordered: Vectors = vectors.mT[ENDS[which](values).argsort(descending=True)].to(block.dtype)
    return ordered
