"""Log-barrier attack."""

import torch
from torch import Tensor

from flatprobe.attacks.boundary_bisection import bisect_to_boundary
from flatprobe.attacks.halfspace import nearest_point
from flatprobe.attacks.points import (
    Box,
    Draw,
    Forward,
    Labels,
    Perturbed,
    Points,
    adversarial,
    clip,
    dual_length,
    dual_norm_maximizer,
    lead,
    per_sample,
    rough_distance,
    step_length,
    with_gradient,
)

STEPS = 60
_TRIES = 30  # largest number of noise levels, and of ascent steps
_QUIETEST, _LOUDER = 0.05, 1.4  # the first level, relative to the sample's largest entry, and the factor to the next
_LONGER = 1.5  # factor from an ascent step to the next; after the first, the linearized lead is 0
_FIRST, _LAST = 0.3, 1e-3  # the barrier's weight lambda, in units of the distance (linf) or its square (l2)
_MOVE = 0.3  # fraction of the way to the minimizer that a step goes


def log_barrier(
    forward: Forward, inputs: Points, labels: Labels, *, norm: str, box: Box, draw: Draw, steps: int = STEPS
) -> Perturbed:
    """Log-barrier attack: min ||d||_2^2 / 2 - lambda log(max_{j != y} z_j - z_y).

    In linf the first term is ||d||_inf. lambda decreases.

    The start is a misclassified point moved onto the boundary: the weakest Gaussian noise among increasing levels that
    changes the class, or the first such point of an ascent with increasing steps, whichever is closer. Each step
    linearizes the lead l at x + d and goes 0.3 of the way to the minimizer of that barrier problem. The minimizer is s
    g (linf: s sign g) with g the gradient of l, clipped to the box. A point that is no longer misclassified goes half
    the way back. Cost: 1 forward and 1 backward pass per step, and at most 30 of each for the start.

    Source: O20 eq. 8.1; Finlay, Pooladian and Oberman 2019, "The LogBarrier adversarial attack: making effective use of
    decision boundary information". Different here: the lead in logits in place of probabilities (no underflow), the
    step to the linearized minimizer in place of a gradient step of fixed size, lambda relative to the distance (no
    unit), and the start by ascent (from noise alone the attack ended further away).
    """
    best = _start(forward, inputs, labels, norm, box, draw)
    kept = current = best.points
    for step in range(steps):
        logits, gradient = with_gradient(forward, current, labels)
        crossed = adversarial(logits, labels)
        best = best.closer(current, rough_distance(current, inputs, norm), crossed)
        share = _FIRST * (_LAST / _FIRST) ** (step / max(steps - 1, 1))
        target = _minimize(inputs, current, lead(logits, labels), gradient, share, norm, box)
        moved = clip(torch.lerp(current, target, _MOVE), box)
        mask = per_sample(crossed, inputs)
        kept, current = torch.where(mask, current, kept), torch.where(mask, moved, (current + kept) / 2)
    with torch.no_grad():
        crossed = adversarial(forward(current), labels)
    return best.closer(current, rough_distance(current, inputs, norm), crossed)


def _minimize(
    inputs: Points, current: Points, height: Tensor, gradient: Points, share: float, norm: str, box: Box
) -> Points:
    """Minimizer d' of the barrier problem in the box, with the linearized lead.

    In R^d the minimizer is s g, at which the linearized lead is lambda / s. With lambda = share ||d||^2 and d along g,
    as at a solution, that lead is share g . d. The minimizer, also in a box, is then the point nearest to the sample at
    which the linearized lead has this value.
    """
    start, slope = inputs.flatten(1), gradient.flatten(1)
    along = (slope * (current.flatten(1) - start)).sum(1)
    gap = share * along.clamp_min(0) - (height - along)
    return nearest_point(start, slope, gap, norm, box).view_as(inputs)


def _start(forward: Forward, inputs: Points, labels: Labels, norm: str, box: Box, draw: Draw) -> Perturbed:
    """The closer of two boundary points, from noise and from ascent."""
    found = Perturbed.none(inputs)
    for first in (_in_noise(forward, inputs, labels, norm, box, draw), _uphill(forward, inputs, labels, norm, box)):
        own = bisect_to_boundary(forward, inputs, labels, first, norm=norm, box=box, passes=6)
        found = found.closer(own.points, own.distance, own.distance.isfinite())
    return found


def _in_noise(forward: Forward, inputs: Points, labels: Labels, norm: str, box: Box, draw: Draw) -> Perturbed:
    """Noise at the first level that changes the class, per sample."""
    unit = inputs.flatten(1).abs().amax(1)
    unit = per_sample(torch.where(unit > 0, unit, 1.0), inputs)
    found = Perturbed.none(inputs)
    for number in range(_TRIES):
        points = clip(inputs + _QUIETEST * _LOUDER**number * unit * draw(number), box)
        with torch.no_grad():
            crossed = adversarial(forward(points), labels) & found.distance.isinf()
        found = found.closer(points, rough_distance(points, inputs, norm), crossed)
        if bool(found.distance.isfinite().all()):
            break
    return found


def _uphill(forward: Forward, inputs: Points, labels: Labels, norm: str, box: Box) -> Perturbed:
    """The first point of an ascent of the lead that changes the class."""
    found, current, size = Perturbed.none(inputs), inputs, torch.zeros(len(inputs), dtype=torch.float32, device="cpu")
    for number in range(_TRIES):
        logits, gradient = with_gradient(forward, current, labels)
        crossed = adversarial(logits, labels) & found.distance.isinf()
        found = found.closer(current, rough_distance(current, inputs, norm), crossed)
        if bool(found.distance.isfinite().all()):
            break
        if number == 0:  # the linearized lead is 0 there
            size = step_length(-lead(logits, labels), dual_length(gradient, norm))
        current = clip(current + per_sample(size * _LONGER**number, inputs) * dual_norm_maximizer(gradient, norm), box)
    return found
