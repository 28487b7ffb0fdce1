"""The last step of every attack: onto the boundary, along the segment from the sample to its adversarial point."""

import torch
from torch import Tensor

from flatprobe.attacks.points import Box, Forward, Perturbed, Points, adversarial, boxed, distance, lead, per_sample

# Of the bracket, how far beyond the secant's root a trial is laid: where the lead is linear along the segment, which it
# is near the boundary of a piecewise linear network, each pair of passes leaves this fraction of the excess.
_BEYOND = 0.01


def closed(
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
    """The points pulled towards their inputs as far as they stay adversarial.

    On the segment x + t (x' - x), a bracket [a, b] keeps a correct end and an adversarial one. Trials alternate between
    slightly beyond the secant's root and the middle, so that the bracket at least halves with every two passes. Every
    point that is returned was itself passed through the network as it is rounded.

    Args:
        forward: inputs -> logits.
        inputs: x.
        labels: y.
        found: adversarial points x'.
        norm: in which the distance is reported.
        box: None, or what the points are kept in.
        passes: forward passes, beside two at the ends; 6 leave 1e-6 of the excess where the lead is linear, 1/8 at
            worst.
        below: the leads at x, where they are known.

    Returns:
        The closest points that were seen to be adversarial.
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
            trial = boxed(inputs + per_sample(t, inputs).to(inputs) * step, box)
            logits = forward(trial)
            height, crossed = lead(logits, labels).double(), adversarial(logits, labels) & known
            low, below = torch.where(crossed, low, t), torch.where(crossed, below, height)
            high, above = torch.where(crossed, t, high), torch.where(crossed, height, above)
            points = torch.where(per_sample(crossed, points), trial, points)
    return Perturbed(points, distance(points, inputs, norm).where(known, torch.inf))
