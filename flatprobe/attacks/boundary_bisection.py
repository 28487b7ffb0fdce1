"""Boundary bisection between a sample and its adversarial point."""

import torch
from torch import Tensor

from flatprobe.attacks.points import Box, Forward, Perturbed, Points, adversarial, clip, distance, lead, per_sample

# Distance of a trial beyond the secant's root, relative to the bracket. Near the boundary of a piecewise linear network
# the lead is linear along the segment, and each pair of passes leaves this fraction of the excess.
_BEYOND = 0.01


def bisect_to_boundary(
    forward: Forward,
    inputs: Points,
    labels: Tensor,
    found: Perturbed,
    *,
    norm: str,
    box: Box,
    passes: int = 6,
    below: Tensor | None = None,
) -> Perturbed:
    """Adversarial points moved towards their inputs, up to the boundary.

    On the segment x + t (x' - x), a bracket [a, b] is correct at a and adversarial at b. Trials alternate between a
    point slightly beyond the secant's root and the middle, so that two passes at least halve the bracket. Every
    returned point was itself passed through the network as it is rounded.

    Args:
        forward: inputs -> logits.
        inputs: x.
        labels: y.
        found: adversarial points x'.
        norm: norm of the reported distance.
        box: (lower, upper) bounds of the points, or None.
        passes: forward passes, beside two at the ends of the segment; 6 leave 1e-6 of the excess if the lead is linear,
            and at most 1/8.
        below: leads at x, if known.

    Returns:
        The closest points that the network misclassified.
    """
    points, known = found.points, found.distance.isfinite()
    step = points - inputs
    with torch.no_grad():
        low = torch.zeros(len(inputs), dtype=torch.float64, device=inputs.device)
        high = torch.ones_like(low)
        below = (lead(forward(inputs), labels) if below is None else below).double()
        above = lead(forward(points), labels).double()
        for number in range(passes):
            root = (low - below * (high - low) / (above - below)).nan_to_num(0.0).clamp(low, high)
            t = (low + high) / 2 if number % 2 else root + _BEYOND * (high - root)
            trial = clip(inputs + per_sample(t, inputs).to(inputs) * step, box)
            logits = forward(trial)
            height, crossed = lead(logits, labels).double(), adversarial(logits, labels) & known
            low, below = torch.where(crossed, low, t), torch.where(crossed, below, height)
            high, above = torch.where(crossed, t, high), torch.where(crossed, height, above)
            points = torch.where(per_sample(crossed, points), trial, points)
    return Perturbed(points, distance(points, inputs, norm).where(known, torch.inf))
