"""The nearest point of a half-space within a box, in l2 and linf: the step of the attacks that linearise."""

import torch
from torch import Tensor

from flatprobe.attacks.points import Box, step_length

# Newton on a concave, increasing, piecewise smooth function rises to its root from below; each step passes at least one
# kink, in practice many, and what is left after these is made up by the next linearisation.
_NEWTON_STEPS = 4


def nearest(start: Tensor, normal: Tensor, gap: Tensor, norm: str, box: Box) -> Tensor:
    """argmin ||x' - x|| subject to w . (x' - x) >= c and x' in the box, c > 0, sample by sample.

    The minimiser is x + t w in l2 and x + t sign(w) in linf, clipped to the box, with the least t >= 0 that meets the
    constraint; w . (x'(t) - x) is concave and increasing in t. Without a box, t is c over the dual norm's power.

    Args:
        start: x, (samples, size).
        normal: w, (samples, size).
        gap: c, (samples,); where it is not positive, x itself is the answer.
        norm: "l2" or "linf".
        box: its two ends, or None.

    Returns:
        (samples, size); where the box does not reach the half-space, the point of it that comes nearest.
    """
    direction = normal if norm == "l2" else normal.sign()
    slope = (normal * direction).sum(1)
    t = step_length(gap.clamp_min(0), slope)
    if box is None:
        return start + t[:, None] * direction
    low, high = box
    # How far along its own direction each coordinate can go.
    room = (torch.where(direction > 0, high, low) - start) / direction
    room = torch.where(direction == 0, 0.0, room)
    gain = normal * direction
    for _ in range(_NEWTON_STEPS):
        reached = torch.minimum(room, t[:, None]).mul_(gain).sum(1)
        slope = torch.where(room > t[:, None], gain, 0.0).sum(1)
        t = t + step_length((gap - reached).clamp_min(0), slope)
    return torch.addcmul(start, t[:, None], direction).clamp_(low, high)
