"""Nearest point of a half-space within a box, in l2 and linf."""

import torch
from torch import Tensor

from flatprobe.attacks.points import Box, step_length

# Newton's method on a concave, increasing, piecewise smooth function approaches its root from below. Each step passes
# at least one kink, in practice many, and the next linearization of the attack covers the remainder.
_NEWTON_STEPS = 4


def nearest_point(start: Tensor, normal: Tensor, gap: Tensor, norm: str, box: Box) -> Tensor:
    """argmin ||x' - x|| with w . (x' - x) >= c > 0 and x' in the box, per sample.

    The minimizer is x + t w in l2 and x + t sign(w) in linf, clipped to the box, with the smallest t >= 0 that meets
    the constraint; w . (x'(t) - x) is concave and increasing in t. Without a box, t is c / ||w||_2^2 in l2 and c /
    ||w||_1 in linf.

    Args:
        start: x, (samples, size).
        normal: w, (samples, size).
        gap: c, (samples,); where it is not positive, the result is x.
        norm: "l2" or "linf".
        box: (lower, upper), or None.

    Returns:
        (samples, size); where the box does not reach the half-space, the point of the box nearest to it.
    """
    direction = normal if norm == "l2" else normal.sign()
    slope = (normal * direction).sum(1)
    t = step_length(gap.clamp_min(0), slope)
    if box is None:
        return start + t[:, None] * direction
    low, high = box
    # Largest step of each coordinate within the box.
    room = (torch.where(direction > 0, high, low) - start) / direction
    room = torch.where(direction == 0, 0.0, room)
    gain = normal * direction
    for _ in range(_NEWTON_STEPS):
        reached = torch.minimum(room, t[:, None]).mul_(gain).sum(1)
        slope = torch.where(room > t[:, None], gain, 0.0).sum(1)
        t = t + step_length((gap - reached).clamp_min(0), slope)
    return torch.addcmul(start, t[:, None], direction).clamp_(low, high)
