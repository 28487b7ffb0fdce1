"""Comparison of two numbers: by a tolerance, and by the spread over draws of one law."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

# Probability that two sets of draws of one law are taken for draws of two; an audit makes a few comparisons.
LEVEL = 1e-3


def stays(before: float, after: float, tolerance: float) -> bool:
    """True if |after - before| <= tolerance |before|, or both are nan.

    >>> stays(2.0, 2.01, 0.01), stays(2.0, 2.1, 0.01), stays(0.0, 0.0, 0.01), stays(0.0, 1e-9, 0.01)
    (True, False, True, False)
    """
    if math.isnan(before) or math.isnan(after):
        return math.isnan(before) and math.isnan(after)
    return before == after or abs(after - before) <= tolerance * abs(before)


def spread_of(before: Sequence[float], after: Sequence[float]) -> float:
    """Standard deviation over the draws (ddof 1), pooled over both sets; nan without draws or with a non-finite one.

    >>> spread_of([1.0, 3.0], [5.0, 5.0])
    1.0
    """
    if not before or not all(map(math.isfinite, [*before, *after])):
        return float("nan")
    return math.sqrt((stdev(before) ** 2 + stdev(after) ** 2) / 2)


def same_law(before: Sequence[float], after: Sequence[float]) -> bool:
    """True if two sets of k draws may be of one normal law: Student's t test with 2k - 2 degrees of freedom.

    |mean after - mean before| <= t spread sqrt(2 / k), where t is exceeded with probability `LEVEL`. False without
    draws or with a non-finite one, since the spread then explains no difference.

    >>> same_law([1.0, 3.0, 2.0], [2.0, 2.5, 4.0]), same_law([1.0, 1.1, 1.2], [2.0, 2.1, 2.2]), same_law([], [])
    (True, False, False)
    """
    from scipy import stats

    spread = spread_of(before, after)
    if math.isnan(spread):
        return False
    limit = float(stats.t.isf(LEVEL / 2, 2 * len(before) - 2)) * spread * math.sqrt(2 / len(before))
    return abs(mean(after) - mean(before)) <= limit
