"""How far logits computed in float64 may lie from those of exact arithmetic.

With u = 2^-53 a sum of k products, in whatever order, is off by at most gamma_k = k u / (1 - k u) times the sum of
their moduli (Higham 2002, section 3.1). For a layer W v + b computed at a value that is itself off by e, in l2 norms,

    e' <= ||W|| e + gamma (|| |W| || (a + e) + ||b||),   a >= ||v||,

and || |W| || is at most the root of the largest row sum times the largest column sum. Both a and e grow by at most
linearly with the norm of the network's input, so that two pairs of numbers describe them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flatprobe.graph import Graph, Step

_UNIT = 2.0**-53

# Operations beside the sum of products in a layer with what is folded into it: adding the bias, and BatchNorm's own.
_EXTRA = 16

# An activation's value is taken to be right to this many units: libraries promise 1 to 4.
_ACTIVATION = 16

# |phi(0)| where it is not 0.
_AT_ZERO = {"sigmoid": 0.5}


@dataclass(frozen=True)
class Affine:
    """constant + slope * rho, a bound for every input of norm rho."""

    constant: float = 0.0
    slope: float = 0.0

    def __add__(self, other: "Affine") -> "Affine":
        return Affine(self.constant + other.constant, self.slope + other.slope)

    def times(self, factor: float) -> "Affine":
        """The bound multiplied."""
        return Affine(self.constant * factor, self.slope * factor)


def rounding(graph: Graph, own: list[float]) -> Affine:
    """A bound on ||computed logits - exact logits|| at an input of norm rho.

    Args:
        graph: folded.
        own: the `step_constants` (of either kind: both are Lipschitz constants in the l2 norm).

    Returns:
        The bound as a function of rho.
    """
    values: list[Affine] = []
    errors: list[Affine] = []
    for step, constant in zip(graph.steps, own, strict=True):
        a = _total([values[source] for source in step.sources], step)
        e = _total([errors[source] for source in step.sources], step)
        if step.kind == "input":
            a, e = Affine(slope=1.0), Affine()
        else:
            relative, widened, offset = _of(step, constant)
            seen = a + e
            e = e.times(constant) + (seen.times(widened) + Affine(offset)).times(relative)
            a = a.times(constant) + Affine(offset)
        values.append(a)
        errors.append(e)
    return errors[-1]


def _total(parts: list[Affine], step: Step) -> Affine:
    factors = step.options.get("factors", (1.0,) * len(parts))
    return sum((part.times(abs(f)) for part, f in zip(parts, factors, strict=True)), Affine())


def _of(step: Step, constant: float) -> tuple[float, float, float]:
    """(relative rounding, || |operator| ||, norm of what is added) of one step."""
    tensors, size = step.tensors, math.prod(step.shape)
    if step.kind in {"linear", "convolution"}:
        weight = tensors["weight"].abs()
        terms = math.prod(weight.shape[1:])
        offset = tensors.get("magnitude", tensors.get("bias"))
        added = 0.0 if offset is None else float(offset.norm()) * math.sqrt(size / len(weight))
        return _gamma(terms + _EXTRA), _absolute(weight, step.options.get("groups", 1)), added
    if step.kind == "affine":
        return _gamma(_EXTRA), constant, float(_expanded(tensors["magnitude"], step).norm())
    if step.kind == "activation":
        offset_at_zero = _AT_ZERO.get(step.options["name"], 0.0) * math.sqrt(size)
        return _gamma(_ACTIVATION), max(constant, 1.0), offset_at_zero
    if step.kind in {"average_pool", "adaptive_average_pool", "mean"}:
        # Entries averaged: at most all; the operator has no negative entries, so that |operator| is itself.
        return _gamma(step.options.get("count", math.prod(step.options.get("kernel", (2**20,)))) + 2), constant, 0.0
    return (_gamma(4), constant, 0.0) if step.kind == "add" else (0.0, constant, 0.0)


def _absolute(weight: Tensor, groups: int) -> float:
    """A bound on || |W| ||_2: the root of the largest row sum times the largest column sum, of the whole operator."""
    rows = weight.flatten(1).sum(1).max()
    by_input = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(2).sum(2)
    return float((rows * by_input.max()).sqrt()) * (1 + 1e-12)


def _expanded(value: Tensor, step: Step) -> Tensor:
    return torch.broadcast_to(value, step.shape)


def _gamma(terms: int) -> float:
    return terms * _UNIT / (1 - terms * _UNIT)
