"""Autograd's derivatives held against differences of the function that they should be the derivatives of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from flatprobe import rng
from flatprobe.differentiable import without_derivative
from flatprobe.inputs import Inputs, mapped
from flatprobe.network import Network
from flatprobe.plain_functions import twice_differentiable

# Samples that are looked at, and the most weights of a network that is copied to float64 for it.
_FEW = 8
_PRECISE = 2**22
# Steps of the differences relative to the point, and the disagreement that is let pass. In float64 a step can be so
# small that no ReLU changes sides between the two ends; larger ones are for networks that round in between, and alone
# left in single precision, where second derivatives cannot be told from kinks.
_FINE = ((1e-8, 1e-3), (1e-6, 1e-3))
_COARSE = ((1e-4, 1e-2), (1e-3, 2e-2))
_SINGLE = ((1e-2, 5e-2), (1e-3, 5e-2))

Moved = Callable[[list[Tensor]], Tensor]


@dataclass(frozen=True)
class _Function:
    """The logits of a few samples as a function of what is moved, and the network and samples, for the messages."""

    logits: Moved
    network: Network
    few: Inputs


@dataclass(frozen=True)
class _Slope:
    """A derivative along a direction: autograd's, the difference's, and how large a derivative there could be."""

    given: float
    difference: float
    size: float

    def agrees(self, tolerance: float, rounding: float) -> bool:
        return abs(self.given - self.difference) <= tolerance * max(self.size, abs(self.difference)) + rounding


def check_weight_slopes(network: Network, inputs: Inputs, names: Sequence[str], *, twice: bool) -> None:
    """The derivatives of a few samples' logits in the weights are those of the function.

    At weights beside the network's own, where no unit lies on a kink by construction (biases of 0), along two random
    directions: a gradient that is cut, scaled or another function's differs along both. Up to 5 forward and 2 backward
    passes of 8 samples, in float64 for networks of up to 4 million weights that run in it.

    Args:
        network: checked.
        inputs: a batch, from `prepare`.
        names: the parameters that are differentiated by.
        twice: whether second derivatives are wanted too; in single precision they are formed, but not compared.

    Raises:
        ValueError: if a derivative is not the function's, with the parameters that no gradient arrives at, or does not
            exist, with the layer.
    """
    few = mapped(lambda part: part[:_FEW], inputs)
    precise = _precise(network, few)
    floating = [name for name in names if network.weights[name].is_floating_point()]

    def moved(values: list[Tensor]) -> Tensor:
        return precise(precise.prepare(few), dict(zip(floating, values, strict=True)))

    point = [_beside(precise.weights[name], place) for place, name in enumerate(floating)]
    _check(_Function(moved, network, few), point, "weights", floating, twice=twice)


def check_input_slopes(network: Network, inputs: Tensor, *, forward: bool = False) -> None:
    """The derivative of a few samples' logits in the inputs is that of the function; as `check_weight_slopes`.

    Args:
        network: checked; takes the one floating tensor alone (`Network.holding`).
        inputs: that tensor of a batch.
        forward: whether products with the Jacobian from the right are wanted too, which two backward passes give.

    Raises:
        ValueError: if it is not, or does not exist.
    """
    few = inputs[:_FEW].detach()
    held = network.shortened(len(few))
    precise = _precise(held, few)

    def moved(values: list[Tensor]) -> Tensor:
        return precise(values[0])

    prepared = precise.prepare(few)
    assert isinstance(prepared, Tensor)
    function = _Function(moved, held, few)
    if forward:
        _check_products(function, precise, prepared)
    _check(function, [_beside(prepared, 0)], "inputs", ["inputs"], twice=False)


def _check_products(function: _Function, network: Network, inputs: Tensor) -> None:
    """Two backward passes give the Jacobian's products from the right.

    Raises:
        ValueError: if torch refuses the second.
    """
    variable = inputs.clone().requires_grad_()
    try:
        with torch.enable_grad(), twice_differentiable():
            logits = network(variable)
            along = torch.zeros_like(logits).requires_grad_()
            (pulled,) = torch.autograd.grad(logits, variable, along, create_graph=True)
            torch.autograd.grad(pulled, along, torch.ones_like(pulled))
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(without_derivative(function.network, function.few, error, twice=True)) from error


def _precise(network: Network, few: Inputs) -> Network:
    """The network in float64, where it is small enough and runs there."""
    if network.dtype == torch.float64 or sum(value.numel() for value in network.weights.values()) > _PRECISE:
        return network
    try:
        precise = network.copied(dtype=torch.float64)
        with torch.no_grad():
            precise(precise.prepare(few))
    except (RuntimeError, TypeError):
        return network
    return precise


def _beside(value: Tensor, place: int) -> Tensor:
    """A point beside the value, a hundredth of its size away in a random direction."""
    size = _root_mean_square(value) or 0.1
    return value.detach() + 1e-2 * size * _normal(value, "beside", place)


def _root_mean_square(value: Tensor) -> float:
    return float(value.detach().double().square().mean().sqrt()) if value.numel() else 0.0


def _normal(value: Tensor, *key: str | int) -> Tensor:
    return rng.normal(value.shape, "slopes", *key).to(value)


def _check(function: _Function, point: list[Tensor], what: str, names: Sequence[str], *, twice: bool) -> None:
    with torch.inference_mode(mode=False):
        failures = [_mismatch(function, point, draw, twice=twice) for draw in range(2)]
    if not all(failures):
        return
    order, slope, cut = next(failure for failure in failures if failure)
    lost = [name for name, missing in zip(names, cut, strict=True) if missing]
    where = f"; no gradient arrives at {', '.join(map(repr, lost[:5]))}" if lost and what == "weights" else ""
    msg = (
        f"the {order} derivative that autograd gives of {function.network.name} in its {what} is not that of "
        f"the function: {slope.given:.4g} along a random direction, where differences give {slope.difference:.4g}"
        f"{where}; expected layers that are differentiated as they are computed: look for torch.no_grad(), .detach(), "
        ".data or torch.utils.checkpoint(use_reentrant=True) in forward, straight-through estimators, hooks, or "
        "an autograd.Function of its own; probes without derivatives (flatness_radius, random_slice, "
        "functional_margins, gaussian_robustness) need none"
    )
    raise ValueError(msg)


def _mismatch(
    function: _Function, point: list[Tensor], draw: int, *, twice: bool
) -> tuple[str, _Slope, list[bool]] | None:
    """The first derivative along a random direction that is not the differences', its order, and what is cut off."""
    along = [_root_mean_square(value) * _normal(value, "along", draw, place) for place, value in enumerate(point)]
    across = [_root_mean_square(value) * _normal(value, "across", draw, place) for place, value in enumerate(point)]
    with torch.no_grad():
        logits = function.logits(point)
    if not bool(logits.isfinite().all()):
        return None  # reported by those who measure there
    cotangent = _normal(logits, "cotangent", draw)
    scalar = partial(_along_cotangent, function.logits, cotangent)
    gradient, product, cut = _derivatives(function, scalar, point, along, twice=twice)
    given, size = _dot(gradient, along), _size(gradient, along)
    steps, resolved = _steps(scalar, point, along)
    rounding = 20 * float(torch.finfo(logits.dtype).eps)
    level = float((logits * cotangent).abs().sum())
    found = None
    for step, tolerance in steps:
        with torch.no_grad():
            ends = [float(scalar(_moved(point, along, sign * step))) for sign in (1, -1)]
        found = _Slope(given, (ends[0] - ends[1]) / (2 * step), size)
        if found.agrees(tolerance, rounding * level / step):
            break
    else:
        assert found is not None
        return "first", found, cut
    if not twice or not resolved:
        return None
    for step, tolerance in steps:
        sides = [_derivatives(function, scalar, _moved(point, along, s * step), along, twice=False)[0] for s in (1, -1)]
        difference = (_dot(sides[0], across) - _dot(sides[1], across)) / (2 * step)
        found = _Slope(_dot(product, across), difference, _size(product, across))
        if found.agrees(tolerance, rounding * _size(gradient, across) / step):
            return None
    return "second", found, cut


def _steps(scalar: Moved, point: list[Tensor], along: list[Tensor]) -> tuple[tuple[tuple[float, float], ...], bool]:
    """The steps to try, and whether the function is resolved finely enough for second differences."""
    if point[0].dtype != torch.float64:
        return _SINGLE, False
    with torch.no_grad():
        here, there = (float(scalar(_moved(point, along, step))) for step in (0.0, 1e-12))
    fine = 0 < abs(there - here) < 1e-9 * max(abs(here), 1e-300) or here == there == 0
    return (*_FINE, *_COARSE), fine


def _along_cotangent(logits: Moved, cotangent: Tensor, values: list[Tensor]) -> Tensor:
    return (logits(values) * cotangent).sum()


def _derivatives(
    function: _Function,
    scalar: Moved,
    point: list[Tensor],
    along: list[Tensor],
    *,
    twice: bool,
) -> tuple[list[Tensor], list[Tensor], list[bool]]:
    """The gradient, the Hessian's product with a direction, and which of the variables no gradient arrives at.

    Raises:
        ValueError: if torch has no such derivative, with the layer.
    """
    variables = [value.detach().clone().requires_grad_() for value in point]
    zeros = [torch.zeros_like(value) for value in point]
    try:
        with torch.enable_grad(), twice_differentiable():
            value = scalar(variables)
            if not value.requires_grad:
                return zeros, zeros, [True for _ in point]
            found = torch.autograd.grad(value, variables, create_graph=twice, allow_unused=True)
            cut = [part is None for part in found]
            gradient = [zero if lost else part for part, zero, lost in zip(found, zeros, cut, strict=True)]
            slope = sum((part * u).sum() for part, u in zip(gradient, along, strict=True))
            product: list[Tensor] = zeros
            if twice and isinstance(slope, Tensor) and slope.requires_grad:
                product = list(torch.autograd.grad(slope, variables, materialize_grads=True))
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(without_derivative(function.network, function.few, error, twice=twice)) from error
    return [part.detach() for part in gradient], product, cut


def _moved(point: list[Tensor], along: list[Tensor], step: float) -> list[Tensor]:
    return [value + step * u for value, u in zip(point, along, strict=True)]


def _dot(first: list[Tensor], second: list[Tensor]) -> float:
    return sum(float((a.double() * b.double()).sum()) for a, b in zip(first, second, strict=True))


def _size(gradient: list[Tensor], along: list[Tensor]) -> float:
    """The standard deviation of the derivative over directions like this one."""
    pairs = zip(gradient, along, strict=True)
    return math.sqrt(sum(float(g.double().square().sum()) * _root_mean_square(u) ** 2 for g, u in pairs))
