"""Fast adaptive boundary attack (FAB)."""

import torch
from torch import Tensor

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
    lead,
    length,
    nearest_class,
    rough_distance,
    with_gradient,
)

STEPS = 30
_CANDIDATES = 3  # classes among which the first step chooses
_TOWARDS = 0.1  # alpha_max of the paper: the largest weight of the point nearest to the sample
# The second step goes all the way to the point nearest to the sample; the paper's does not.
_ALL_THE_WAY = 1
_BEYOND = 1.05  # eta: length of a step, which ends beyond the linearized boundary
_BACK = 0.9  # beta: from an adversarial point, the next step starts at this fraction of the way from the sample


def fab(
    forward: Forward, inputs: Points, labels: Labels, *, norm: str, box: Box, draw: Draw, steps: int = STEPS
) -> Perturbed:
    """FAB: x' <- (1 - a) (x' + eta d') + a (x + eta d).

    d' and d are the smallest steps from x' and x onto the linearized boundary.

    The first step chooses, of the 3 classes with the next largest logits, the class with the nearest linearized
    boundary; later steps follow the leading class. The weight is a = min(||d'|| / (||d'|| + ||d||), 0.1), but 1 at the
    second step. Cost: 1 forward and 1 backward pass per step, 3 backward passes at the first. There are no random
    restarts, since `ddn` makes better use of further passes. The draws are not used.

    Source: Croce and Hein 2020, "Minimally distorted adversarial examples with a fast adaptive boundary attack",
    with the constants of the paper except for the second step.
    """
    del draw  # this attack is deterministic
    return walk(forward, inputs, labels, norm, box, steps)[0]


def walk(forward: Forward, inputs: Points, labels: Labels, norm: str, box: Box, steps: int) -> tuple[Perturbed, Points]:
    """The closest adversarial points of `fab`, and its last points."""
    start = inputs.flatten(1)
    current, best = start, Perturbed.none(start)

    def flat(points: Tensor) -> Tensor:
        return forward(points.view_as(inputs))

    for step in range(steps):
        if step == 0:
            _, height, gradient = nearest_class(flat, current, labels, norm, _CANDIDATES)
            base = current
        else:
            logits, gradient = with_gradient(flat, current, labels)
            height, crossed = lead(logits, labels), adversarial(logits, labels)
            best = best.closer(current, rough_distance(current, start, norm), crossed)
            base = torch.where(crossed[:, None], start + _BACK * (current - start), current)
        from_base = _onto(base, current, height, gradient, norm, box)
        from_start = _onto(start, current, height, gradient, norm, box) if step else from_base
        near, far = length(from_base, norm), length(from_start, norm)
        weight = (near / (near + far).clamp_min(torch.finfo(near.dtype).tiny)).clamp_max(_TOWARDS)[:, None]
        if step == _ALL_THE_WAY:
            weight = torch.ones_like(weight)
        current = torch.lerp(base + _BEYOND * from_base, start + _BEYOND * from_start, weight)
        current = clip(current, box)
    with torch.no_grad():
        crossed = adversarial(flat(current), labels)
    best = best.closer(current, rough_distance(current, start, norm), crossed)
    return Perturbed(best.points.view_as(inputs), best.distance), current.view_as(inputs)


def _onto(point: Tensor, at: Tensor, height: Tensor, gradient: Tensor, norm: str, box: Box) -> Tensor:
    """Smallest step from a point onto the linearized boundary, from either side."""
    gap = -(height + (gradient * (point - at)).sum(1))
    side = torch.where(gap < 0, -1.0, 1.0).to(gap)
    return nearest_point(point, gradient * side[:, None], gap.abs(), norm, box) - point
