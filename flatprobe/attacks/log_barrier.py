"""The log-barrier attack: from a misclassified point towards the sample, kept misclassified by a barrier."""

import torch
from torch import Tensor

from flatprobe.attacks.boundary_bisection import closed
from flatprobe.attacks.halfspace import nearest
from flatprobe.attacks.points import (
    Box,
    Draw,
    Forward,
    Labels,
    Perturbed,
    Points,
    adversarial,
    boxed,
    dual_length,
    lead,
    per_sample,
    roughly,
    steepest,
    step_length,
    with_gradient,
)

STEPS = 60
_TRIES = 30  # noise levels, and steps uphill, at most
_QUIETEST, _LOUDER = 0.05, 1.4  # the first level, in units of the sample's largest entry, and the factor to the next
_LONGER = 1.5  # the same of the steps uphill, the first of which goes to where the linearised lead is 0
_FIRST, _LAST = 0.3, 1e-3  # the barrier's weight lambda, in units of the distance (linf) or its square (l2)
_MOVE = 0.3  # of the way to the minimiser that a step goes


def log_barrier(
    forward: Forward, inputs: Points, labels: Labels, *, norm: str, box: Box, draw: Draw, steps: int = STEPS
) -> Perturbed:
    """min ||d||_2^2 / 2 - lambda log(max_{j != y} z_j - z_y), lambda decreasing (linf: ||d||_inf in the first term).

    Starts at a misclassified point pulled onto the boundary: the quietest Gaussian noise of a row of levels that does
    it, or the first point of an ascent by ever longer steps, whichever ends closer. Each step linearises the lead l at
    x + d, takes the minimiser of the barrier problem then, which is s g (linf: s sign g) with g the gradient of l,
    clipped to the box, and goes 0.3 of the way there; a point that is no longer misclassified goes half the way back
    instead. One forward and one backward pass a step, beside the start: at most 30 of each.

    Source: O20 eq. 8.1; Finlay, Pooladian and Oberman 2019, "The LogBarrier adversarial attack: making effective use of
    decision boundary information". Ours: the lead in logits in place of probabilities (no underflow), the step to the
    linearised minimiser in place of a gradient step of fixed size, lambda relative to the distance (no unit), and the
    start uphill (from noise alone it ended further away).
    """
    best = _start(forward, inputs, labels, norm, box, draw)
    kept = current = best.points
    for step in range(steps):
        logits, gradient = with_gradient(forward, current, labels)
        crossed = adversarial(logits, labels)
        best = best.closer(current, roughly(current, inputs, norm), crossed)
        share = _FIRST * (_LAST / _FIRST) ** (step / max(steps - 1, 1))
        target = _minimiser(inputs, current, lead(logits, labels), gradient, share, norm, box)
        moved = boxed(torch.lerp(current, target, _MOVE), box)
        mask = per_sample(crossed, inputs)
        kept, current = torch.where(mask, current, kept), torch.where(mask, moved, (current + kept) / 2)
    with torch.no_grad():
        crossed = adversarial(forward(current), labels)
    return best.closer(current, roughly(current, inputs, norm), crossed)


def _minimiser(
    inputs: Points, current: Points, height: Tensor, gradient: Points, share: float, norm: str, box: Box
) -> Points:
    """The d' that minimises the barrier problem in the box, with the lead linearised: l + g . (d' - d).

    In R^d the minimiser is s g, where the linearised lead is lambda / s; with lambda = share ||d||^2 that is
    share g . d where d is along g, as it is at a solution. What is left, in a box too, is the nearest point to the
    sample at which the linearised lead is that much.
    """
    start, slope = inputs.flatten(1), gradient.flatten(1)
    along = (slope * (current.flatten(1) - start)).sum(1)
    gap = share * along.clamp_min(0) - (height - along)
    return nearest(start, slope, gap, norm, box).view_as(inputs)


def _start(forward: Forward, inputs: Points, labels: Labels, norm: str, box: Box, draw: Draw) -> Perturbed:
    """The closer of two misclassified points, one in noise and one uphill, each pulled to the boundary."""
    found = Perturbed.none(inputs)
    for first in (_in_noise(forward, inputs, labels, norm, box, draw), _uphill(forward, inputs, labels, norm, box)):
        own = closed(forward, inputs, labels, first, norm=norm, box=box, passes=6)
        found = found.closer(own.points, own.distance, own.distance.isfinite())
    return found


def _in_noise(forward: Forward, inputs: Points, labels: Labels, norm: str, box: Box, draw: Draw) -> Perturbed:
    """Noise at the first of the levels at which it changes the class, sample by sample."""
    unit = inputs.flatten(1).abs().amax(1)
    unit = per_sample(torch.where(unit > 0, unit, 1.0), inputs)
    found = Perturbed.none(inputs)
    for number in range(_TRIES):
        points = boxed(inputs + _QUIETEST * _LOUDER**number * unit * draw(number), box)
        with torch.no_grad():
            crossed = adversarial(forward(points), labels) & found.distance.isinf()
        found = found.closer(points, roughly(points, inputs, norm), crossed)
        if bool(found.distance.isfinite().all()):
            break
    return found


def _uphill(forward: Forward, inputs: Points, labels: Labels, norm: str, box: Box) -> Perturbed:
    """The first point of an ascent of the lead, by ever longer steps, that changes the class."""
    found, current, size = Perturbed.none(inputs), inputs, torch.zeros(len(inputs), dtype=torch.float32, device="cpu")
    for number in range(_TRIES):
        logits, gradient = with_gradient(forward, current, labels)
        crossed = adversarial(logits, labels) & found.distance.isinf()
        found = found.closer(current, roughly(current, inputs, norm), crossed)
        if bool(found.distance.isfinite().all()):
            break
        if number == 0:  # to where the linearised lead is 0
            size = step_length(-lead(logits, labels), dual_length(gradient, norm))
        current = boxed(current + per_sample(size * _LONGER**number, inputs) * steepest(gradient, norm), box)
    return found
