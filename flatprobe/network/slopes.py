"""Autograd's derivatives held against differences of the function that they should be the derivatives of."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from flatprobe.data.inputs import Inputs, few_rows, map_tensors, tensors
from flatprobe.network.differentiable import check_dense, explained
from flatprobe.network.network import Network
from flatprobe.network.watching import Watched
from flatprobe.utils import rng
from flatprobe.utils.plain_functions import twice_differentiable

# The most weights of a network that is copied to float64 for it.
_PRECISE = 2**20
# Steps of the differences relative to the point, and the disagreement that is let pass. In float64 a step can be so
# small that no ReLU changes sides between the two ends. Larger ones are for networks that round to single precision on
# the way, or throughout; there second derivatives cannot be told from kinks.
_FINE = ((1e-8, 1e-5), (1e-6, 1e-5))
_COARSE = ((1e-4, 1e-2), (1e-3, 2e-2))
_SINGLE = ((1e-2, 5e-2), (1e-3, 5e-2))
# How far two differences may lie apart that count as one against autograd's derivative.
_CONSISTENT = 1e-3
Steps = tuple[tuple[float, float], ...]

Moved = Callable[[list[Tensor]], Tensor]


@dataclass(frozen=True)
class _Function:
    """The logits of a few samples as a function of what is moved, and the network and samples, for the messages."""

    logits: Moved
    network: Network
    few: Inputs
    center: list[Tensor]


@dataclass(frozen=True)
class _Slope:
    """Autograd's derivative along a direction, how large one there could be, and the rounding of a difference."""

    given: float
    size: float
    rounding: float

    def difference_from(self, difference: Callable[[float], float], steps: Steps, coarse: Steps | None) -> float | None:
        """The derivative by differences, where it is another one.

        Args:
            difference: step -> difference quotient.
            steps: whose quotients must agree with each other to count against autograd.
            coarse: what is tried where they do not, since the function rounds on the way or a kink lies between; None:
                nothing is known there.
        """
        found = []
        for step, tolerance in steps:
            found.append(difference(step))
            if self._agrees(found[-1], step, tolerance):
                return None
        if abs(found[0] - found[-1]) <= _CONSISTENT * max(map(abs, found)) or coarse == ():
            return found[-1]
        for step, tolerance in coarse or ():
            found.append(difference(step))
            if self._agrees(found[-1], step, tolerance):
                return None
        return None if coarse is None else found[-1]

    def _agrees(self, found: float, step: float, tolerance: float) -> bool:
        return abs(self.given - found) <= tolerance * max(self.size, abs(found)) + self.rounding / step


def check_weight_slopes(network: Network, inputs: Inputs, names: Sequence[str], *, twice: bool) -> None:
    """The derivatives of a few samples' logits in the weights are those of the function.

    At weights beside the network's own, where no unit lies on a kink by construction (biases of 0), along two random
    directions: a gradient that is cut, scaled or another function's differs along both. Up to 4 forward and 3 backward
    passes of 4 samples of the batch, in float64 for networks of up to a million weights that run in it.

    Args:
        network: checked.
        inputs: a batch, from `prepare`.
        names: the parameters that are differentiated by.
        twice: whether second derivatives are wanted too; in single precision they are formed, but not compared.

    Raises:
        ValueError: if a derivative is not the function's, with the parameters that no gradient arrives at, or does not
            exist, with the layer.
    """
    rows = few_rows(len(tensors(inputs)[0]))
    few = map_tensors(lambda part: part[rows.to(part.device)], inputs)
    precise = _precise(network, few)
    floating = [name for name in names if network.weights[name].is_floating_point()]

    def moved(values: list[Tensor]) -> Tensor:
        return precise(precise.prepare(few), dict(zip(floating, values, strict=True)))

    point = [_beside(precise.weights[name], place) for place, name in enumerate(floating)]
    center = [precise.weights[name] for name in floating]
    _check(_Function(moved, network, few, center), point, "weights", floating, twice=twice)
    precise.rest()


def check_input_slopes(network: Network, inputs: Tensor, *, forward: bool = False) -> None:
    """The derivative of a few samples' logits in the inputs is that of the function; as `check_weight_slopes`.

    Args:
        network: checked; takes the one floating tensor alone (`Network.holding`).
        inputs: that tensor of a batch.
        forward: whether products with the Jacobian from the right are wanted too, which two backward passes give.

    Raises:
        ValueError: if it is not, or does not exist.
    """
    rows = few_rows(len(inputs))
    few, held = inputs.detach()[rows.to(inputs.device)], network.choosing(rows)
    precise = _precise(held, few)

    def moved(values: list[Tensor]) -> Tensor:
        return precise(values[0])

    prepared = precise.prepare(few)
    assert isinstance(prepared, Tensor)
    function = _Function(moved, held, few, [prepared])
    _check(function, [_beside(prepared, 0)], "inputs", ["inputs"], twice=False)
    if forward:
        _check_products(function, precise.choosing(few_rows(1)), prepared[:1])


def _check_products(function: _Function, network: Network, inputs: Tensor) -> None:
    """Two backward passes give the Jacobian's products from the right, or torch's refusal is told."""
    variable = inputs.clone().requires_grad_()
    with explained(function.network, function.few, twice=True), torch.enable_grad(), twice_differentiable():
        logits = network(variable)
        if not logits.requires_grad:
            return  # constant, as `_check` has found; who needs a gradient refuses it
        along = torch.zeros_like(logits).requires_grad_()
        (pulled,) = torch.autograd.grad(logits, variable, along, create_graph=True)
        torch.autograd.grad(pulled, along, torch.ones_like(pulled))


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
    return _normal(value, "beside", place).mul_(1e-2 * size).add_(value.detach())


def _root_mean_square(value: Tensor) -> float:
    return float(value.detach().norm()) / math.sqrt(max(value.numel(), 1))


def _normal(value: Tensor, *key: str | int) -> Tensor:
    return rng.normal(value.shape, "slopes", *key).to(value)


def _check(function: _Function, point: list[Tensor], what: str, names: Sequence[str], *, twice: bool) -> None:
    with torch.inference_mode(mode=False):
        mismatch = _mismatch(function, point, 0, twice=twice)
        # A kink may lie between the ends of a difference, so that one direction alone decides nothing.
        if mismatch is None or _mismatch(function, point, 1, twice=twice) is None:
            return
    order, given, difference, cut = mismatch
    lost = [name for name, missing in zip(names, cut, strict=True) if missing]
    where = f"; no gradient arrives at {', '.join(map(repr, lost[:5]))}" if lost and what == "weights" else ""
    msg = (
        f"the {order} derivative that autograd gives of {function.network.name} in its {what} is not that of "
        f"the function: {given:.4g} along a random direction, where differences give {difference:.4g}"
        f"{where}; expected layers that are differentiated as they are computed: look for torch.no_grad(), .detach(), "
        ".data or torch.utils.checkpoint(use_reentrant=True) in forward, straight-through estimators, hooks, or "
        "an autograd.Function of its own; probes without derivatives (flatness_radius, random_slice, "
        "functional_margins, gaussian_robustness) need none"
    )
    raise ValueError(msg)


def _mismatch(
    function: _Function, point: list[Tensor], draw: int, *, twice: bool
) -> tuple[str, float, float, list[bool]] | None:
    """The first derivative along a random direction that is not the differences', its order, and what is cut off."""
    with torch.no_grad(), Watched() as seen:
        logits = function.logits(point)
    if not bool(logits.isfinite().all()):
        return None  # reported by those who measure there
    exact = logits.dtype == torch.float64 and not seen.halves
    cotangent = _normal(logits, "cotangent", draw)
    scalar = partial(_along_cotangent, function.logits, cotangent)
    along = _directions(point, "along", draw)
    across = _directions(point, "across", draw) if twice and exact else along
    here = _derivatives(function, scalar, point, along, across, twice=twice and exact)
    eps = 20 * float(torch.finfo(logits.dtype).eps)
    value = float((logits * cotangent).sum())

    def first(step: float) -> float:
        ends, place = [], list(map(torch.empty_like, point))  # both ends in one place, to hold one copy less
        with torch.no_grad():
            for sign in (1,) if exact else (1, -1):
                for start, u, end in zip(point, along, place, strict=True):
                    torch.add(start, u, alpha=sign * step, out=end)
                ends.append(float(scalar(place)))
        # In float64 steps are so small that one side is as good as two.
        return (ends[0] - value) / step if exact else (ends[0] - ends[1]) / (2 * step)

    def second(step: float) -> float:
        side = _moved(point, along, step)
        return (_derivatives(function, scalar, side, across, across, twice=False).slope - here.lateral) / step

    rounding = eps * float((logits * cotangent).abs().sum())
    # In half precision no difference shows a digit, but that of a function without any gradient.
    slope = _Slope(here.slope, math.inf if seen.halves and here.size else here.size, rounding)
    if (found := slope.difference_from(first, _FINE if exact else _SINGLE, _COARSE if exact else ())) is not None:
        return "first", here.slope, found, here.cut
    if twice and not exact:  # formed only, at weights that are held anyway
        _derivatives(function, scalar, function.center, along, along, twice=True)
    if not twice or not exact:
        return None
    slope = _Slope(here.curvature, here.spread, eps * here.size)
    found = slope.difference_from(second, _FINE, None)
    return None if found is None else ("second", here.curvature, found, here.cut)


def _directions(point: list[Tensor], name: str, draw: int) -> list[Tensor]:
    return [_normal(value, name, draw, place).mul_(_root_mean_square(value)) for place, value in enumerate(point)]


def _along_cotangent(logits: Moved, cotangent: Tensor, values: list[Tensor]) -> Tensor:
    return (logits(values) * cotangent).sum()


@dataclass(frozen=True)
class _Derivatives:
    """Autograd's at a point: g . u and its size, g . v, (H u) . v and its size, and where no gradient arrives."""

    slope: float
    lateral: float
    size: float
    curvature: float
    spread: float
    cut: list[bool]


def _derivatives(
    function: _Function,
    scalar: Moved,
    point: list[Tensor],
    along: list[Tensor],
    across: list[Tensor],
    *,
    twice: bool,
) -> _Derivatives:
    variables = [value.detach().requires_grad_() for value in point]
    with explained(function.network, function.few, twice=twice), torch.enable_grad(), twice_differentiable():
        value = scalar(variables)
        if not value.requires_grad:
            return _Derivatives(0.0, 0.0, 0.0, 0.0, 0.0, [True for _ in point])
        gradient = torch.autograd.grad(value, variables, create_graph=twice, allow_unused=True)
        check_dense(function.network, gradient)
        found: list[tuple[Tensor | None, Tensor]] = list(zip(gradient, along, strict=True))
        beside: list[tuple[Tensor | None, Tensor]] = list(zip(gradient, across if twice else (), strict=False))
        terms = [_dot(part, u, kept=twice) for part, u in found if part is not None]
        size, cut = _size(gradient, along), [part is None for part in gradient]
        lateral = sum(float(_dot(part.detach(), v, kept=False)) for part, v in beside if part is not None)
        curved = [term for term in terms if term.requires_grad]
        del gradient, found, beside
        product: Sequence[Tensor | None] = (
            torch.autograd.grad(curved, variables, allow_unused=True) if twice and curved else ()
        )
    curvature = sum(float((part * v).sum()) for part, v in zip(product, across, strict=False) if part is not None)
    slope = sum(float(term.detach()) for term in terms)
    return _Derivatives(slope, lateral, size, curvature, _size(product, across), cut)


def _dot(first: Tensor, second: Tensor, *, kept: bool) -> Tensor:
    """The inner product; with a graph that is kept, in the form of which a graph keeps no copy."""
    return (first * second).sum() if kept else torch.dot(first.flatten(), second.flatten())


def _moved(point: list[Tensor], along: list[Tensor], step: float) -> list[Tensor]:
    return [torch.add(value.detach(), u, alpha=step) for value, u in zip(point, along, strict=True)]


def _size(gradient: Sequence[Tensor | None], along: list[Tensor]) -> float:
    """The standard deviation of the derivative over directions like this one."""
    pairs = [(g, u) for g, u in zip(gradient, along, strict=False) if g is not None]
    return math.sqrt(sum((float(g.detach().norm()) * _root_mean_square(u)) ** 2 for g, u in pairs))
