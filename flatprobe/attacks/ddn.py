"""Decoupled direction and norm attack (DDN), started with a few steps of FAB."""

import math

import torch

from flatprobe.attacks.boundary_bisection import bisect_to_boundary
from flatprobe.attacks.fab import walk
from flatprobe.attacks.points import (
    Box,
    Draw,
    Forward,
    Labels,
    Perturbed,
    Points,
    adversarial,
    clip,
    dual_norm_maximizer,
    length,
    log_odds,
    per_sample,
    rough_distance,
    with_gradient,
)

STEPS = 50
WARM = 5
_FIRST_STEP, _LAST_STEP = 0.7, 0.01  # of the distance at the start, cosine between them
_FIRST_CHANGE, _LAST_CHANGE = 0.05, 0.005  # of the norm per step, cosine between them


def ddn(
    forward: Forward, inputs: Points, labels: Labels, *, norm: str, box: Box, draw: Draw, steps: int = STEPS
) -> Perturbed:
    """DDN: d <- d + a v, rescaled to the length e.

    e shrinks where x + d is adversarial, and grows elsewhere.

    v is the dual-norm maximizer of the gradient of the loss. The first steps are FAB's, moved onto the boundary; they
    give the direction, the class and e, so that no step is spent on the scale. Then a and the relative change of e
    decrease over the remaining steps, a from 0.7 of that e. In linf the point is clipped to the ball of radius e in
    place of being rescaled. Cost: 1 forward and 1 backward pass per step. The draws are not used.

    Source: Rony et al. 2019, "Decoupling direction and norm for efficient gradient-based L2 adversarial attacks and
    defenses"; the start and the schedule of e are ours.
    """
    del draw  # this attack is deterministic
    best, current = walk(forward, inputs, labels, norm, box, min(WARM, steps))
    best = bisect_to_boundary(forward, inputs, labels, best, norm=norm, box=box, passes=4)
    reached = rough_distance(current, inputs, norm)
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
        best = best.closer(current, rough_distance(current, inputs, norm), crossed)
        factor = torch.where(crossed, radius.new_tensor(1 - change), radius.new_tensor(1 + change))
        radius = torch.minimum(radius * factor, best.distance.to(radius))
        offset = current - inputs + per_sample(size * first, inputs) * dual_norm_maximizer(gradient, norm)
        current = clip(inputs + _of_length(offset, radius, norm), box)
    with torch.no_grad():
        crossed = adversarial(forward(current), labels)
    return best.closer(current, rough_distance(current, inputs, norm), crossed)


def _of_length(offset: Points, radius: torch.Tensor, norm: str) -> Points:
    bound = per_sample(radius, offset)
    if norm == "linf":
        return offset.clamp(-bound, bound)
    return offset * (bound / per_sample(length(offset, norm), offset).clamp_min(torch.finfo(offset.dtype).tiny))
