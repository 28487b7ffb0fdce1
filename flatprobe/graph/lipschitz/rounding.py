"""Bound on the distance between computed logits and exact arithmetic.

Let u be half the spacing of numbers at 1 (2^-53 in float64, 2^-24 in float32). The error of a sum of k products, in any
order, is at most gamma_k = k u / (1 - k u) times the sum of their moduli, plus k times the least normal number if
products underflow (Higham 2002, sections 2.1 and 3.1). For a layer W v + b at a value with error e, in l2 norms,

    e' <= ||W|| e + gamma (|| |W| || (a + e) + ||b||),   a >= ||v||,

and || |W| || is at most the root of the largest row sum times the largest column sum. Both a and e are bounded by
affine functions of the norm of the network's input, so that two pairs of numbers describe them.

Assumptions on torch: it sums the products themselves in some order (no Winograd transforms), activations are right to
16 units, and nothing overflows.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flatprobe.graph import Graph, Step

# Operations of a folded layer beside the sum of products: the bias, and those of BatchNorm.
EXTRA = 16

# The assumed error of an activation in units; libraries promise 1 to 4.
ACTIVATION = 16

# Relative rounding of the factors of a product, by the names of the reduced precisions of torch.
_KEPT = {"tf32": 2.0**-11, "bf16": 2.0**-8, "bf16x3": 2.0**-16, "bf16x2": 2.0**-12}


@dataclass(frozen=True)
class Affine:
    """Affine bound constant + slope * rho for every input of norm rho."""

    constant: float = 0.0
    slope: float = 0.0

    def __add__(self, other: "Affine") -> "Affine":
        return Affine(self.constant + other.constant, self.slope + other.slope)

    def times(self, factor: float) -> "Affine":
        """The bound times a factor."""
        return Affine(*(value * factor if value and factor else 0.0 for value in (self.constant, self.slope)))


@dataclass(frozen=True)
class Arithmetic:
    """Arithmetic of a network.

    Attributes:
        unit: u, half the spacing of numbers at 1.
        least: the least normal number.
        factors: kind of layer -> relative rounding of the factors of a product before the multiplication.
    """

    unit: float
    least: float
    factors: Mapping[str, float] = field(default_factory=dict)

    def gamma(self, terms: int) -> float:
        """Relative error of a sum of products; inf if it may reach the sum."""
        own = terms * self.unit
        return own / (1 - own) if own < 1 else math.inf

    def products(self, kind: str, terms: int) -> float:
        """Relative error of a sum of products in a layer with rounded factors."""
        return self.gamma(terms) + 2.1 * self.factors.get(kind, 0.0)


def arithmetic(dtype: torch.dtype, device: torch.device) -> Arithmetic:
    """Arithmetic of a precision on a device under the settings of torch."""
    known = torch.finfo(dtype)
    factors = {}
    if dtype == torch.float32:
        own = torch.backends.cudnn if device.type == "cuda" else torch.backends.mkldnn
        products = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
        for kind, setting in (("linear", products.matmul), ("convolution", own.conv)):
            settings = (setting.fp32_precision, own.fp32_precision, torch.backends.fp32_precision)  # type: ignore[attr-defined]
            factors[kind] = _KEPT.get(next((name for name in settings if name != "none"), "none"), 0.0)
    return Arithmetic(known.eps / 2, known.tiny, factors)


def rounding(graph: Graph, own: list[float], used: Arithmetic) -> Affine:
    """Bound on ||computed logits - exact logits|| at an input of norm rho.

    Args:
        graph: a folded graph.
        own: the `step_constants` of either kind; both are Lipschitz constants in the l2 norm.
        used: the arithmetic of the network.
    """
    values: list[Affine] = []
    errors: list[Affine] = []
    for step, constant in zip(graph.steps, own, strict=True):
        a = _total([values[source] for source in step.sources], step)
        e = _total([errors[source] for source in step.sources], step)
        if step.kind == "input":
            a, e = Affine(slope=1.0), Affine()
        else:
            own_error = _of(step, constant, used, graph.steps[step.sources[0]].shape)
            constant = min(constant, own_error.operator)
            seen = a + e
            e = e.times(constant) + (seen.times(own_error.widened) + Affine(own_error.offset)).times(own_error.relative)
            e = e + Affine(own_error.absolute)
            a = a.times(constant) + Affine(own_error.offset)
        values.append(a)
        errors.append(e)
    return errors[-1]


@dataclass(frozen=True)
class _Error:
    """Error terms of one step.

    Attributes:
        relative: the relative rounding.
        widened: || |operator| ||.
        offset: the norm of the added vector.
        absolute: an absolute error.
        operator: a bound of ||operator||, which may be smaller than the constant of the step.
    """

    relative: float
    widened: float
    offset: float = 0.0
    absolute: float = 0.0
    operator: float = math.inf


def _total(parts: list[Affine], step: Step) -> Affine:
    factors = step.options.get("factors", (1.0,) * len(parts))
    return sum((part.times(abs(f)) for part, f in zip(parts, factors, strict=True)), Affine())


def _of(step: Step, constant: float, used: Arithmetic, source: tuple[int, ...]) -> _Error:
    tensors, size = step.tensors, math.prod(step.shape)
    if step.kind in {"linear", "convolution"}:
        weight = tensors["weight"]
        terms = math.prod(weight.shape[1:]) + EXTRA
        offset = tensors.get("magnitude", tensors.get("bias"))
        added = 0.0 if offset is None else float(offset.norm()) * math.sqrt(size / len(weight))
        widened = _absolute(weight, step.options.get("groups", 1))
        return _Error(used.products(step.kind, terms), widened, added, terms * used.least * math.sqrt(size), widened)
    if step.kind == "affine":
        offset = torch.broadcast_to(tensors["magnitude"], step.shape)
        return _Error(used.gamma(EXTRA), constant, float(offset.norm()), EXTRA * used.least * math.sqrt(size))
    if step.kind in {"activation", "log_softmax"}:
        at_zero = float(step.call(torch.zeros(2, *step.shape, dtype=torch.float64, device="cpu"))[0].norm())
        absolute = jump_of(step) * math.sqrt(size)
        if step.kind == "activation":
            return _Error(used.gamma(ACTIVATION), max(constant, 1.0), at_zero, absolute)
        # z - max z - log sum exp(z - max z): at most |z| + |max z| and the logarithm of the number of classes.
        count = step.options["count"]
        return _Error(used.gamma(count + ACTIVATION), 2 * constant, at_zero + math.sqrt(size))
    if step.kind in {"average_pool", "adaptive_average_pool", "mean", "sum"}:
        # A window has all entries at most. The operator has no negative entries, so that |operator| = operator.
        count = count_of(step, source)
        return _Error(used.gamma(count + 2), constant, absolute=count * used.least * math.sqrt(size))
    return _Error(used.gamma(4) if step.kind == "add" else 0.0, constant)


def count_of(step: Step, source: tuple[int, ...]) -> int:
    """The most entries that one entry of an average or a sum takes."""
    return int(step.options.get("count", math.prod(step.options.get("kernel", source[1:]))))


def jump_of(step: Step) -> float:
    """Jump of an activation: softplus(x) is x above its threshold."""
    if step.options.get("name") != "softplus":
        return 0.0
    beta, threshold = float(step.options["beta"]), float(step.options["threshold"])
    return math.log1p(math.exp(-threshold)) / beta if threshold > -700 else math.inf


def _absolute(weight: Tensor, groups: int) -> float:
    """Bound on || |W| ||_2: root of the largest row sum times column sum."""
    rows = weight.flatten(1).norm(p=1, dim=1).max()  # The norms make no copy of the moduli.
    blocks = weight.view(groups, -1, *weight.shape[1:])
    columns = blocks.norm(p=1, dim=[1, *range(3, blocks.ndim)]).max()
    return float((rows * columns).sqrt()) * (1 + 1e-12)
