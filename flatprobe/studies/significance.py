"""Whether one number differs from another: by more than a tolerance, and by more than other draws of the same law."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

# Chance that two sets of draws of one law are taken for draws of two: an audit makes a few such comparisons.
LEVEL = 1e-3


def stays(before: float, after: float, tolerance: float) -> bool:
    """Whether |after - before| <= tolerance |before|; two numbers that are both nan stay.

    >>> stays(2.0, 2.01, 0.01), stays(2.0, 2.1, 0.01), stays(0.0, 0.0, 0.01), stays(0.0, 1e-9, 0.01)
    (True, False, True, False)
    """
    if math.isnan(before) or math.isnan(after):
        return math.isnan(before) and math.isnan(after)
    return before == after or abs(after - before) <= tolerance * abs(before)


def spread_of(before: Sequence[float], after: Sequence[float]) -> float:
    """The standard deviation over the draws (ddof 1), pooled over both; nan without draws or where one is no number.

    >>> spread_of([1.0, 3.0], [5.0, 5.0])
    1.0
    """
    if not before or not all(map(math.isfinite, [*before, *after])):
        return float("nan")
    return math.sqrt((stdev(before) ** 2 + stdev(after) ** 2) / 2)


def same_law(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether two sets of k draws may be draws of one normal law: Student's t test with 2k - 2 degrees of freedom.

    |mean after - mean before| <= t spread sqrt(2 / k), t exceeded with probability `LEVEL`. False without draws, or
    where one is no number: then nothing explains a difference.

    >>> same_law([1.0, 3.0, 2.0], [2.0, 2.5, 4.0]), same_law([1.0, 1.1, 1.2], [2.0, 2.1, 2.2]), same_law([], [])
    (True, False, False)
    """
    from scipy import stats

    spread = spread_of(before, after)
    if math.isnan(spread):
        return False
    limit = float(stats.t.isf(LEVEL / 2, 2 * len(before) - 2)) * spread * math.sqrt(2 / len(before))
    return abs(mean(after) - mean(before)) <= limit
