"""DDN, the decoupled direction and norm attack, started where a few steps of FAB lead."""

import math

import torch

from flatprobe.attacks.boundary_bisection import closed
from flatprobe.attacks.fab import walk
from flatprobe.attacks.points import (
    Box,
    Draw,
    Forward,
    Labels,
    Perturbed,
    Points,
    adversarial,
    boxed,
    length,
    log_odds,
    per_sample,
    roughly,
    steepest,
    with_gradient,
)

STEPS = 50
WARM = 5
_FIRST_STEP, _LAST_STEP = 0.7, 0.01  # of the distance at the start, cosine between them
_FIRST_CHANGE, _LAST_CHANGE = 0.05, 0.005  # of the norm a step, cosine between them


def ddn(
    forward: Forward, inputs: Points, labels: Labels, *, norm: str, box: Box, draw: Draw, steps: int = STEPS
) -> Perturbed:
    """d <- d + a v, then rescaled to the length e; e shrinks where x + d is adversarial and grows where it is not.

    v is the steepest direction of the loss in the norm. The first steps are FAB's, pulled onto the boundary, which give
    the direction, the class and e, so that none are spent on finding the scale; a and the relative change of e then
    decrease over the rest, a from 0.7 of that e. One forward and one backward pass a step. In linf the point is clipped
    to the ball of radius e in place of being rescaled. The draws are not used.

    Source: Rony et al. 2019, "Decoupling direction and norm for efficient gradient-based L2 adversarial attacks and
    defenses"; the start and the schedule of e are ours.
    """
    del draw  # this attack is deterministic
    best, current = walk(forward, inputs, labels, norm, box, min(WARM, steps))
    best = closed(forward, inputs, labels, best, norm=norm, box=box, passes=4)
    reached = roughly(current, inputs, norm)
    radius = torch.where(best.distance.isfinite(), best.distance, reached).to(inputs)
    current = torch.where(per_sample(best.distance.isfinite(), inputs), best.points, current)
    first = radius
    rest = max(steps - WARM, 0)
    for step in range(rest):
        cosine = (1 + math.cos(math.pi * step / rest)) / 2
        size = _LAST_STEP + (_FIRST_STEP - _LAST_STEP) * cosine
        change = _LAST_CHANGE + (_FIRST_CHANGE - _LAST_CHANGE) * cosine
        logits, gradient = with_gradient(forward, current, labels, log_odds)
        crossed = adversarial(logits, labels)
        best = best.closer(current, roughly(current, inputs, norm), crossed)
        factor = torch.where(crossed, radius.new_tensor(1 - change), radius.new_tensor(1 + change))
        radius = torch.minimum(radius * factor, best.distance.to(radius))
        offset = current - inputs + per_sample(size * first, inputs) * steepest(gradient, norm)
        current = boxed(inputs + _of_length(offset, radius, norm), box)
    with torch.no_grad():
        crossed = adversarial(forward(current), labels)
    return best.closer(current, roughly(current, inputs, norm), crossed)


def _of_length(offset: Points, radius: torch.Tensor, norm: str) -> Points:
    bound = per_sample(radius, offset)
    if norm == "linf":
        return offset.clamp(-bound, bound)
    return offset * (bound / per_sample(length(offset, norm), offset).clamp_min(torch.finfo(offset.dtype).tiny))
