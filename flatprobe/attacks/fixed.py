"""Attacks of a given budget: one step (FGSM), or several with projection (PGD), in l2 and linf."""

import torch
from torch import Tensor

from flatprobe.attacks.points import (
    Box,
    Forward,
    Labels,
    Points,
    Values,
    boxed,
    lead,
    length,
    log_odds,
    per_sample,
    steepest,
    with_gradient,
)

PGD_STEPS = 20
# Of the budget, so that 20 steps can cross the ball more than twice: Madry et al. 2018 use 2.5 budgets over all steps.
REACH = 2.5


def fgsm(forward: Forward, inputs: Points, labels: Labels, budget: Values, *, norm: str, box: Box) -> Points:
    """x + e argmax_{||v|| <= 1} v . grad l(x): the sign of the gradient in linf, the unit gradient in l2.

    One forward and one backward pass.

    Args:
        forward: inputs -> logits.
        inputs: x.
        labels: y.
        budget: e, one a sample.
        norm: "l2" or "linf".
        box: None, or what the points are clipped to.

    Returns:
        Points within the budget (and the box), adversarial or not.

    Source: O20 eqs 8.3 to 8.5, the maximiser in 8.4 (SPEC section 7); Goodfellow et al. 2015.
    """
    _, gradient = with_gradient(forward, inputs, labels, log_odds)
    return stepped(inputs, gradient, budget, norm=norm, box=box)


def stepped(inputs: Points, gradient: Points, budget: Values, *, norm: str, box: Box) -> Points:
    """The point of `fgsm`, given the gradient: whoever has it already needs no pass."""
    return boxed(inputs + per_sample(budget, inputs) * steepest(gradient, norm), box)


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
    """x' <- P(x' + a argmax_{||v|| <= 1} v . grad l(x')), P the projection onto the ball of the budget and the box.

    The step a is 2.5 budgets divided by the number of steps. One forward and one backward pass a step.

    Args:
        forward: inputs -> logits.
        inputs: x.
        labels: y.
        budget: e, one a sample.
        norm: "l2" or "linf".
        box: None, or what the points are clipped to.
        steps: of the ascent; 20 by convention.
        noise: standard normal, like the inputs, from which a uniformly random start in the cube (linf) or on the
            sphere (l2) of the budget is made; None starts at x.

    Returns:
        For each sample, the point of the walk with the largest lead of another class, and that lead.

    Source: Madry et al. 2018, "Towards deep learning models resistant to adversarial attacks".
    """
    current = inputs if noise is None else started(inputs, noise, budget, norm=norm, box=box)
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
        current = ascended(current, gradient, inputs, budget, norm=norm, box=box, steps=steps)
    return best, highest


def ascended(
    current: Points, gradient: Points, inputs: Points, budget: Values, *, norm: str, box: Box, steps: int
) -> Points:
    """One of the steps of `pgd` from the current points, given the gradient there."""
    size = per_sample(REACH / steps * budget, inputs)
    offset = current + size * steepest(gradient, norm) - inputs
    return boxed(inputs + projected(offset, budget, norm), box)


def projected(offset: Points, budget: Values, norm: str) -> Points:
    """The nearest offset in the ball of the budget."""
    bound = per_sample(budget, offset)
    if norm == "linf":
        return offset.clamp(-bound, bound)
    size = per_sample(length(offset, "l2"), offset).clamp_min(torch.finfo(offset.dtype).tiny)
    return offset * (bound / size).clamp_max(1)


def started(inputs: Points, noise: Tensor, budget: Values, *, norm: str, box: Box) -> Points:
    """x and a uniformly random point of the cube (linf) or of the sphere (l2), made of standard normal numbers."""
    unit = 2 * torch.special.ndtr(noise) - 1 if norm == "linf" else steepest(noise, "l2")
    return boxed(inputs + per_sample(budget, inputs) * unit, box)
