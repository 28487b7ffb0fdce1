"""Attacks of a fixed budget in l2 and linf: FGSM and PGD."""

import torch
from torch import Tensor

from flatprobe.attacks.points import (
    Box,
    Forward,
    Labels,
    Points,
    Values,
    clip,
    dual_norm_maximizer,
    lead,
    length,
    log_odds,
    per_sample,
    with_gradient,
)

PGD_STEPS = 20
# Length of all steps together in budgets, as in Madry et al. (2018): enough to cross the ball once.
REACH = 2.5


def fgsm(forward: Forward, inputs: Points, labels: Labels, budget: Values, *, norm: str, box: Box) -> Points:
    """FGSM: x + e argmax_{||v|| <= 1} v . grad l(x).

    The step is the sign of the gradient in linf, the unit gradient in l2.

    Cost: 1 forward and 1 backward pass.

    Args:
        forward: inputs -> logits.
        inputs: x.
        labels: y.
        budget: e, one per sample.
        norm: "l2" or "linf".
        box: (lower, upper) bounds to which points are clipped, or None.

    Returns:
        Points within the budget (and the box), adversarial or not.

    Source: O20 eqs 8.3 to 8.5, with the maximizer in 8.4 (docs, Definitions); Goodfellow et al. 2015.
    """
    _, gradient = with_gradient(forward, inputs, labels, log_odds)
    return take_step(inputs, gradient, budget, norm=norm, box=box)


def take_step(inputs: Points, gradient: Points, budget: Values, *, norm: str, box: Box) -> Points:
    """The point of `fgsm` for a given gradient, without a pass."""
    return clip(inputs + per_sample(budget, inputs) * dual_norm_maximizer(gradient, norm), box)


def pgd(
    forward: Forward,
    inputs: Points,
    labels: Labels,
    budget: Values,
    *,
    norm: str,
    box: Box,
    steps: int = PGD_STEPS,
    noise: Tensor | None = None,
) -> tuple[Points, Tensor]:
    """PGD: x' <- P(x' + a argmax_{||v|| <= 1} v . grad l(x')).

    P is the projection onto the ball of the budget and the box.

    The step a is 2.5 budgets divided by the number of steps. Cost: 1 forward and 1 backward pass per step.

    Args:
        forward: inputs -> logits.
        inputs: x.
        labels: y.
        budget: e, one per sample.
        norm: "l2" or "linf".
        box: (lower, upper) bounds to which points are clipped, or None.
        steps: number of steps; 20 by convention.
        noise: standard normal, like the inputs, from which a uniformly random start is made, in the cube (linf) or on
            the sphere (l2) of the budget; None starts at x.

    Returns:
        Per sample, the point of the walk with the largest lead of another class, and that lead.

    Source: Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks".
    """
    current = inputs if noise is None else start_randomly(inputs, noise, budget, norm=norm, box=box)
    best, highest = current, torch.full_like(budget, -torch.inf)
    for step in range(steps + 1):
        if step == steps:
            with torch.no_grad():
                logits, gradient = forward(current), torch.zeros_like(current)
        else:
            logits, gradient = with_gradient(forward, current, labels, log_odds)
        height = lead(logits, labels)
        best = torch.where(per_sample(height > highest, best), current, best)
        highest = torch.maximum(height, highest)
        current = ascend(current, gradient, inputs, budget, norm=norm, box=box, steps=steps)
    return best, highest


def ascend(
    current: Points, gradient: Points, inputs: Points, budget: Values, *, norm: str, box: Box, steps: int
) -> Points:
    """One step of `pgd` from the current points, given the gradient there."""
    size = per_sample(REACH / steps * budget, inputs)
    offset = current + size * dual_norm_maximizer(gradient, norm) - inputs
    return clip(inputs + project(offset, budget, norm), box)


def project(offset: Points, budget: Values, norm: str) -> Points:
    """The nearest offset in the ball of the budget."""
    bound = per_sample(budget, offset)
    if norm == "linf":
        return offset.clamp(-bound, bound)
    size = per_sample(length(offset, "l2"), offset).clamp_min(torch.finfo(offset.dtype).tiny)
    return offset * (bound / size).clamp_max(1)


def start_randomly(inputs: Points, noise: Tensor, budget: Values, *, norm: str, box: Box) -> Points:
    """x plus a uniformly random point of the cube (linf) or the sphere (l2)."""
    unit = 2 * torch.special.ndtr(noise) - 1 if norm == "linf" else dual_norm_maximizer(noise, "l2")
    return clip(inputs + per_sample(budget, inputs) * unit, box)
