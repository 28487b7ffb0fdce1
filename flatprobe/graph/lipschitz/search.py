"""Search for the largest argument at which a falling function is positive, for many samples at once."""

from collections.abc import Callable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

Values = Float64[Tensor, " samples"]
Function = Callable[[Tensor], Tensor]

_STEPS = 30  # at most; most samples need 3 to 6
_CLOSE = 5e-10  # The search for a sample ends at this fraction of its value at 0.
_CUT = 4.0  # the lowest value that the search takes, relative to that at 0


def largest_positive(
    subset: Callable[[Int64[Tensor, " own"]], Function], start: Values, first: Values
) -> Float64[Tensor, " samples"]:
    """The largest t found with f(t) > 0, for falling functions f of one variable.

    The root is enclosed by doubling, and approached by regula falsi with Illinois weights: the value at an end halves
    where the other end moves twice in a row. A sample ends where f(t) is close to 0; only the others are evaluated.

    Args:
        subset: positions of samples -> the function of their t.
        start: f(0).
        first: a t that is small against the root, for the slope at 0.

    Returns:
        t at which f was evaluated, or 0 where f(0) is not positive.
    """
    found = torch.zeros_like(start)
    own = (start > 0).nonzero().flatten()
    function, start, first = subset(own), start[own], first[own]
    fall = start - function(first)
    trial = torch.where(fall > 0, first * start / fall, torch.inf).clamp_max(first * 1e20)
    low, high, at_low, at_high = torch.zeros_like(start), torch.full_like(start, torch.inf), start, -start
    left, held = start, None  # the value at `low`; True where `low` has moved last
    for _ in range(_STEPS):
        now = function(trial)
        moved = now > 0
        again = torch.zeros_like(moved) if held is None else moved == held
        # What lies far below 0 is cut, since it says little about the place of the root.
        at_high = torch.where(moved, torch.where(again, at_high / 2, at_high), torch.maximum(now, -_CUT * start))
        at_low = torch.where(moved, now, torch.where(again, at_low / 2, at_low))
        low, high, left, held = low.where(~moved, trial), high.where(moved, trial), left.where(~moved, now), moved
        found[own] = low
        open_ = left > _CLOSE * start
        count = int(open_.sum())
        if not count:
            break
        if 2 * count < len(own):
            parts = (own, start, low, high, at_low, at_high, left, held)
            own, start, low, high, at_low, at_high, left, held = (part[open_] for part in parts)
            function = subset(own)
        inner = low + at_low / (at_low - at_high) * (1 - 1e-10) * (high - low)
        trial = torch.where(high.isfinite(), inner, 2 * low)
    return found
