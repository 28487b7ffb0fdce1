"""Confidence limits of a binomial proportion, and of a mean."""

import math

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

Proportions = Float64[Tensor, " proportions"]


def wilson(p: Proportions, trials: int, level: float) -> tuple[Proportions, Proportions]:
    """Wilson's two-sided score interval, whose limits are exactly 0 at p = 0 and 1 at p = 1.

    Args:
        p: observed proportions.
        trials: number of trials of each proportion.
        level: confidence, in (0, 1).

    Returns:
        Lower and upper limits.

    Raises:
        ValueError: for a level outside (0, 1).
    """
    from scipy import stats

    check_level(level)
    z, n = float(stats.norm.ppf((1 + level) / 2)), trials
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)).sqrt()
    # At p = 0 and p = 1 the difference would leave a rounding error.
    return (middle - half).where(p > 0, 0.0), (middle + half).where(p < 1, 1.0)


def clopper_pearson(
    counts: Int64[Tensor, " proportions"], trials: int, level: float
) -> tuple[Proportions, Proportions]:
    """Clopper and Pearson's two-sided interval, whose coverage is at least the level.

    The interval covers the mean probability of trials with unequal probabilities too, whose number of successes has a
    smaller spread than a binomial of the same mean (Hoeffding 1956, "On the distribution of the number of successes in
    independent trials").

    Args:
        counts: numbers of successes.
        trials: number of independent trials.
        level: confidence, in (0, 1).

    Returns:
        Lower and upper limits.

    Raises:
        ValueError: for a level outside (0, 1).
    """
    check_level(level)
    alpha = (1 - level) / 2
    return clopper_pearson_lower(counts, trials, alpha), 1 - clopper_pearson_lower(trials - counts, trials, alpha)


def clopper_pearson_lower(counts: Int64[Tensor, " counts"], trials: int, alpha: float) -> Float64[Tensor, " counts"]:
    """The one-sided lower limit sup{ p : P(Bin(trials, p) >= count) <= alpha }, 0 for a count of 0.

    The limit exceeds the true probability with probability at most alpha. It is the alpha-quantile of
    Beta(count, trials - count + 1).

    >>> clopper_pearson_lower(torch.tensor([0, 10]), 10, 0.05).tolist()  # the second is 0.05^(1/10)
    [0.0, 0.7411344491069477]
    """
    from scipy import special

    k = counts.numpy()
    quantile = special.betaincinv(np.maximum(k, 1), trials - k + 1, alpha)
    return torch.from_numpy(np.where(k > 0, quantile, 0.0))


def mean_interval(values: Float64[Tensor, " draws"], level: float = 0.95) -> tuple[float, float]:
    """Student's interval mean +- t s / sqrt(n) for the mean of independent draws; NaN below two.

    >>> low, high = mean_interval(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    >>> round(low, 4), round(high, 4)  # t = 4.3027 with 2 degrees of freedom
    (-0.4841, 4.4841)
    """
    from scipy import stats

    check_level(level)
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    middle, half = float(values.mean()), float(stats.t.ppf((1 + level) / 2, n - 1)) * float(values.std()) / n**0.5
    return middle - half, middle + half


def check_level(level: float) -> None:
    """Check a confidence.

    Raises:
        ValueError: for a level outside (0, 1).
    """
    if not 0 < level < 1:
        msg = f"level must be a confidence in (0, 1), got {level}"
        raise ValueError(msg)
