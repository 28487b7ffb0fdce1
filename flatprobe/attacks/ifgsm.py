"""Iterated FGSM at the smallest budget that changes the class: a weak baseline."""

import torch

from flatprobe.attacks.fixed import pgd
from flatprobe.attacks.points import (
    Box,
    Draw,
    Forward,
    Labels,
    Perturbed,
    Points,
    adversarial,
    dual_length,
    lead,
    rough_distance,
    step_length,
    with_gradient,
)

STEPS = 10
_BUDGETS = 12  # tried one after the other


def ifgsm(
    forward: Forward, inputs: Points, labels: Labels, *, norm: str, box: Box, draw: Draw, steps: int = STEPS
) -> Perturbed:
    """Iterated FGSM at the smallest budget e that changes the class.

    The steps are argmax_{||v|| <= 1} v . grad l(x') in the ball of e.

    At the first budget the linearized lead is 0. The budget doubles until the class changes, and is then bisected.
    Cost: 12 budgets of `steps` + 2 forward and `steps` backward passes. The draws are not used.

    Source: O20 eqs 8.3 to 8.5, with the maximizer in 8.4 (docs, Definitions); Kurakin et al. 2017.
    """
    del draw  # this attack is deterministic
    logits, gradient = with_gradient(forward, inputs, labels)
    budget = step_length(-lead(logits, labels), dual_length(gradient, norm))
    low, high = torch.zeros_like(budget), torch.full_like(budget, torch.inf)
    found = Perturbed.none(inputs)
    for _ in range(_BUDGETS):
        points, _ = pgd(forward, inputs, labels, budget, norm=norm, box=box, steps=steps)
        with torch.no_grad():
            crossed = adversarial(forward(points), labels)
        found = found.closer(points, rough_distance(points, inputs, norm), crossed)
        low, high = torch.where(crossed, low, budget), torch.where(crossed, budget, high)
        budget = torch.where(high.isinf(), 2 * budget, (low + high) / 2)
    return found
