"""The log-barrier attack: from a misclassified point towards the sample, kept misclassified by a barrier."""

from collections.abc import Iterator

import torch
from torch import Tensor

from flatprobe.attacks.closing import closed
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
    with_gradient,
)

STEPS = 60
_DRAWS = 30  # noise levels, and lengths along the gradient, tried for a misclassified start
_QUIETEST, _LOUDER = 0.05, 1.4  # the first level, in units of the sample's largest entry, and the factor to the next
_LONGER = 1.5  # the same along the gradient, from where the linearised lead is 0
_FIRST, _LAST = 0.3, 1e-3  # the barrier's weight lambda, in units of the distance (linf) or its square (l2)
_MOVE = 0.3  # of the way to the minimiser that a step goes


def log_barrier(
    forward: Forward, inputs: Points, labels: Labels, *, norm: str, box: Box, draw: Draw, steps: int = STEPS
) -> Perturbed:
    """min ||d||_2^2 / 2 - lambda log(max_{j != y} z_j - z_y), lambda decreasing (linf: ||d||_inf in the first term).

    Starts at a misclassified point pulled onto the boundary: the quietest Gaussian noise of a row of levels that does
    it, or the shortest of a row of steps along the gradient, whichever ends closer. Each step linearises the lead l at
    x + d, takes the minimiser of the barrier problem then, which is s g (linf: s sign g) with g the gradient of l,
    clipped to the box, and goes 0.3 of the way there; a point that is no longer misclassified goes half the way back
    instead. One forward and one backward pass a step, beside at most 60 forward passes and two closings for the start.

    Source: O20 eq. 8.1; Finlay, Pooladian and Oberman 2019, "The LogBarrier adversarial attack: making effective use of
    decision boundary information". Ours: the lead in logits in place of probabilities (no underflow), the step to the
    linearised minimiser in place of a gradient step of fixed size, lambda relative to the distance (no unit), and the
    start along the gradient (noise alone ended at medians a quarter longer on MNIST networks).
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
    """The closer of two misclassified points, one in noise and one along the gradient, each pulled to the boundary."""
    unit = inputs.flatten(1).abs().amax(1)
    unit = per_sample(torch.where(unit > 0, unit, 1.0), inputs)
    noisy = (_QUIETEST * _LOUDER**number * unit * draw(number) for number in range(_DRAWS))
    logits, gradient = with_gradient(forward, inputs, labels)
    slope = dual_length(gradient, norm).clamp_min(torch.finfo(gradient.dtype).tiny)
    ray = per_sample(-lead(logits, labels) / slope, inputs) * steepest(gradient, norm)
    longer = (_LONGER**number * ray for number in range(1, _DRAWS))
    found = Perturbed.none(inputs)
    with torch.no_grad():
        for steps in (noisy, longer):
            first = _first(forward, inputs, labels, norm, box, steps)
            first = closed(forward, inputs, labels, first, norm=norm, box=box, passes=6)
            found = found.closer(first.points, first.distance, first.distance.isfinite())
    return found


def _first(forward: Forward, inputs: Points, labels: Labels, norm: str, box: Box, steps: Iterator[Tensor]) -> Perturbed:
    """The first of the steps that changes the class, sample by sample."""
    found = Perturbed.none(inputs)
    for step in steps:
        points = boxed(inputs + step, box)
        going = found.distance.isinf()
        found = found.closer(points, roughly(points, inputs, norm), adversarial(forward(points), labels) & going)
        if bool(found.distance.isfinite().all()):
            break
    return found
