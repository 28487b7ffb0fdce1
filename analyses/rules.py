"""Rules: paired differences, ratios, trends over seeds, and exact statements."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from analyses.reproduction import Outcome

CONFIDENCE = 0.95


def student(values: Sequence[float] | pd.Series) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval of independent values; NaN bounds for fewer than two."""
    found = np.asarray(values, dtype=float)
    mean = float(found.mean())
    if len(found) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(found) - 1) * found.std(ddof=1) / len(found) ** 0.5)
    return mean, mean - half, mean + half


def decide(lower: float, upper: float, threshold: float = 0.0) -> bool | None:
    """True if the interval lies above the threshold, False if it lies below, None otherwise, and for one value."""
    if lower > threshold:
        return True
    return False if upper < threshold else None


def difference(
    rule: str,
    differences: Sequence[float] | pd.Series,
    *,
    above: float = 0.0,
    published: float | None = None,
    band: tuple[float, float] | None = None,
    unit: str = "",
    beside: bool = False,
) -> Outcome:
    """A claim that the mean of paired differences, one per seed, lies above a threshold, by Student's interval."""
    mean, lower, upper = student(differences)
    return Outcome(
        rule=rule,
        holds=decide(lower, upper, above),
        effect=mean,
        interval=(lower, upper),
        published=published,
        band=band,
        seeds=len(differences),
        unit=unit,
        beside=beside,
    )


def ratio(
    rule: str,
    numerators: Sequence[float] | pd.Series,
    denominators: Sequence[float] | pd.Series,
    *,
    above: float = 1.0,
    published: float | None = None,
    band: tuple[float, float] | None = None,
    beside: bool = False,
) -> Outcome:
    """A claim that a ratio of positive paired values, one pair per seed, lies above a threshold.

    The effect is the geometric mean: the exponential of the mean of the logs, as its interval is of Student's.
    """
    logs = np.log(np.asarray(numerators, dtype=float)) - np.log(np.asarray(denominators, dtype=float))
    mean, lower, upper = (math.exp(value) for value in student(logs))
    return Outcome(
        rule=rule,
        holds=decide(lower, upper, above),
        effect=mean,
        interval=(lower, upper),
        published=published,
        band=band,
        seeds=len(logs),
        unit="ratio",
        beside=beside,
    )


def within(
    rule: str,
    values: Sequence[float] | pd.Series,
    accepted: tuple[float, float],
    *,
    published: float | None = None,
    band: tuple[float, float] | None = None,
    unit: str = "",
    beside: bool = False,
) -> Outcome:
    """A claim that the mean of independent values, one per seed, lies within accepted bounds, by Student's interval."""
    mean, lower, upper = student(values)
    outside = upper < accepted[0] or lower > accepted[1]
    return Outcome(
        rule=rule,
        holds=True if accepted[0] <= lower and upper <= accepted[1] else False if outside else None,
        effect=mean,
        interval=(lower, upper),
        published=published,
        band=band,
        seeds=len(values),
        unit=unit,
        beside=beside,
    )


def trend(
    rule: str, frame: pd.DataFrame, x: str, y: str, *, seed: str, rising: bool = True, beside: bool = False
) -> Outcome:
    """A claim that y rises (or falls) with x: Spearman's correlation per seed, and Student's interval over the seeds.

    The interval of correlations that are all equal has no width. Perfect ones, 1 or -1 for each seed, then decide where
    chance alone would order all seeds so with a probability of at most 0.05: not for two x and four seeds or fewer.
    """
    sign = 1 if rising else -1
    found = [float(stats.spearmanr(part[x], part[y]).statistic) for _, part in frame.groupby(seed)]
    mean, lower, upper = student([sign * value for value in found])
    lower, upper = np.clip([lower, upper], -1, 1).tolist()
    chance = math.factorial(frame[x].nunique()) ** -len(found)
    return Outcome(
        rule=rule,
        holds=None if lower == upper and chance > 1 - CONFIDENCE else decide(lower, upper),
        effect=sign * mean,
        interval=(sign * lower, sign * upper) if rising else (sign * upper, sign * lower),
        seeds=len(found),
        unit="Spearman",
        beside=beside,
    )


def exact(
    rule: str,
    error: float,
    *,
    tolerance: float,
    problems: int = 1,
    published: float | None = None,
    unit: str = "",
    beside: bool = False,
) -> Outcome:
    """An identity or inequality that holds at every scale: its largest error is at most the tolerance."""
    return Outcome(
        rule=rule,
        holds=bool(error <= tolerance),
        effect=error,
        published=published,
        seeds=problems,
        exact=True,
        unit=unit,
        beside=beside,
    )
