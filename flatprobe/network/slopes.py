"""Comparison of the derivatives of autograd with finite differences."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from flatprobe.data.inputs import Inputs, few_rows, map_tensors, tensors
from flatprobe.network.differentiable import check_dense, explain_errors
from flatprobe.network.network import Network
from flatprobe.network.watching import Observation
from flatprobe.utils import rng
from flatprobe.utils.plain_functions import twice_differentiable

# The most weights of a network that is copied to float64 for the comparison.
_PRECISE = 2**20
# Steps of the differences relative to the point, and the tolerated relative error. In float64 a step can be so small
# that no ReLU changes its side. Larger steps are for networks that round to single precision inside or throughout; with
# these, second derivatives cannot be told from kinks.
_FINE = ((1e-8, 1e-5), (1e-6, 1e-5))
_COARSE = ((1e-4, 1e-2), (1e-3, 2e-2))
_SINGLE = ((1e-2, 5e-2), (1e-3, 5e-2))
# The largest relative distance of two differences that together outweigh the derivative of autograd.
_CONSISTENT = 1e-3
Steps = tuple[tuple[float, float], ...]

Moved = Callable[[list[Tensor]], Tensor]


@dataclass(frozen=True)
class _Function:
    """Logits of a few samples as a function of the tensors that move."""

    logits: Moved
    network: Network
    few: Inputs
    center: list[Tensor]


@dataclass(frozen=True)
class _Slope:
    """Directional derivative of autograd, its typical size, and its rounding."""

    given: float
    size: float
    rounding: float

    def difference_from(self, difference: Callable[[float], float], steps: Steps, coarse: Steps | None) -> float | None:
        """The derivative by differences if it contradicts autograd, else None.

        Args:
            difference: step -> difference quotient.
            steps: steps whose quotients must agree with each other to contradict autograd.
            coarse: steps for quotients that disagree, because the function rounds inside or has a kink; None for no
                decision.
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
    """Check of the derivatives in the weights against finite differences.

    The check runs beside the weights of the network, where no unit is at a kink by construction (biases of 0). It takes
    two random directions: a gradient that is cut, scaled or of another function differs along both.

    Cost: up to 4 forward and 3 backward passes of 4 samples, in float64 for networks of up to a million weights that
    run in float64.

    Args:
        network: the network to check.
        inputs: a batch, from `prepare`.
        names: the parameters of the derivatives.
        twice: True for second derivatives too; in single precision these are computed, but not compared.

    Raises:
        ValueError: if a derivative is not that of the function, naming the parameters without a gradient.
        ValueError: if a derivative does not exist, naming the layer.
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
    """Check of the derivative in the inputs against finite differences.

    As `check_weight_slopes`, for the inputs.

    Args:
        network: the network to check, a function of one floating tensor (`Network.holding`).
        inputs: this tensor of a batch.
        forward: True for Jacobian-vector products too, which take two backward passes.

    Raises:
        ValueError: if the derivative is not that of the function, or does not exist.
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
    """Check that two backward passes compute a Jacobian-vector product."""
    variable = inputs.clone().requires_grad_()
    with explain_errors(function.network, function.few, twice=True), torch.enable_grad(), twice_differentiable():
        logits = network(variable)
        if not logits.requires_grad:
            return  # The logits are constant, which `_check` has confirmed.
        cotangent = torch.zeros_like(logits).requires_grad_()
        (vjp,) = torch.autograd.grad(logits, variable, cotangent, create_graph=True)
        torch.autograd.grad(vjp, cotangent, torch.ones_like(vjp))


def _precise(network: Network, few: Inputs) -> Network:
    """The network, in float64 if it is small enough and runs in float64."""
    if network.dtype == torch.float64 or sum(value.numel() for value in network.weights.values()) > _PRECISE:
        return network
    try:
        precise = network.copy(dtype=torch.float64)
        with torch.no_grad():
            precise(precise.prepare(few))
    except (RuntimeError, TypeError):
        return network
    return precise


def _beside(value: Tensor, place: int) -> Tensor:
    """A point at a hundredth of the size of the value from it, in a random direction."""
    size = _root_mean_square(value) or 0.1
    return _normal(value, "beside", place).mul_(1e-2 * size).add_(value.detach())


def _root_mean_square(value: Tensor) -> float:
    return float(value.detach().norm()) / math.sqrt(max(value.numel(), 1))


def _normal(value: Tensor, *key: str | int) -> Tensor:
    return rng.normal(value.shape, "slopes", *key, device=value.device).to(value)


def _check(function: _Function, point: list[Tensor], what: str, names: Sequence[str], *, twice: bool) -> None:
    with torch.inference_mode(mode=False):
        mismatch = _mismatch(function, point, 0, twice=twice)
        # A kink may be within a difference, so that one direction alone decides nothing.
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
        "functional_margins, gaussian_robustness) work without them"
    )
    raise ValueError(msg)


def _mismatch(
    function: _Function, point: list[Tensor], draw: int, *, twice: bool
) -> tuple[str, float, float, list[bool]] | None:
    """The first directional derivative that contradicts the differences."""
    with torch.no_grad(), Observation() as seen:
        logits = function.logits(point)
    if not bool(logits.isfinite().all()):
        return None  # The measurement reports such logits.
    exact = logits.dtype == torch.float64 and not seen.halves
    cotangent = _normal(logits, "cotangent", draw)
    scalar = partial(_along_cotangent, function.logits, cotangent)
    along = _directions(point, "along", draw)
    across = _directions(point, "across", draw) if twice and exact else along
    here = _derivatives(function, scalar, point, along, across, twice=twice and exact)
    eps = 20 * float(torch.finfo(logits.dtype).eps)
    value = float((logits * cotangent).sum())

    def first(step: float) -> float:
        ends, place = [], list(map(torch.empty_like, point))  # Both sides share one buffer, which saves a copy.
        with torch.no_grad():
            for sign in (1,) if exact else (1, -1):
                for start, u, end in zip(point, along, place, strict=True):
                    torch.add(start, u, alpha=sign * step, out=end)
                ends.append(float(scalar(place)))
        # Steps in float64 are so small that one side suffices.
        return (ends[0] - value) / step if exact else (ends[0] - ends[1]) / (2 * step)

    def second(step: float) -> float:
        side = _move(point, along, step)
        return (_derivatives(function, scalar, side, across, across, twice=False).slope - here.lateral) / step

    rounding = eps * float((logits * cotangent).abs().sum())
    # In half precision, differences only reveal a gradient that is missing altogether.
    slope = _Slope(here.slope, math.inf if seen.halves and here.size else here.size, rounding)
    if (found := slope.difference_from(first, _FINE if exact else _SINGLE, _COARSE if exact else ())) is not None:
        return "first", here.slope, found, here.cut
    if twice and not exact:  # Computed only, at weights that are in memory anyway.
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
    """Derivatives at a point: g . u, g . v, sizes, (H u) . v, missing gradients."""

    slope: float
    lateral: float
    size: float
    curvature: float
    spread: float
    cut: list[bool]


def _derivatives(
    function: _Function, scalar: Moved, point: list[Tensor], along: list[Tensor], across: list[Tensor], *, twice: bool
) -> _Derivatives:
    variables = [value.detach().requires_grad_() for value in point]
    with explain_errors(function.network, function.few, twice=twice), torch.enable_grad(), twice_differentiable():
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
    """The inner product; with a graph, in the form that saves no copy in the graph."""
    return (first * second).sum() if kept else torch.dot(first.flatten(), second.flatten())


def _move(point: list[Tensor], along: list[Tensor], step: float) -> list[Tensor]:
    return [torch.add(value.detach(), u, alpha=step) for value, u in zip(point, along, strict=True)]


def _size(gradient: Sequence[Tensor | None], along: list[Tensor]) -> float:
    """Standard deviation of the directional derivative over such random directions."""
    pairs = [(g, u) for g, u in zip(gradient, along, strict=False) if g is not None]
    return math.sqrt(sum((float(g.detach().norm()) * _root_mean_square(u)) ** 2 for g, u in pairs))
