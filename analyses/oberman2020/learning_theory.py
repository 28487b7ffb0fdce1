"""Concentration, Rademacher complexity and robustness bounds: section 6."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, exact
from analyses.sides import below, equal, side
from analyses.study import Study

TOSSES = (1, 10, 100, 1000, 10_000)  # m
BIASES = (0.0, 0.3, 0.9)  # mu, the mean of the coin of values +-1
CONFIDENCES = (0.5, 0.1, 0.01)  # delta


@dataclass(frozen=True)
class Coins:
    """Repetitions of the coin's experiment; 0 takes the binomial law alone."""

    repetitions: int


def coins(settings: Coins, study: Study) -> pd.DataFrame:  # noqa: ARG001 - nothing is trained
    """P(|S_m - mu| > eps) by the binomial law, and in repetitions, beside Hoeffding's delta."""
    rows, random = [], np.random.default_rng(0)
    for tosses in TOSSES:
        for mean in BIASES:
            law = stats.binom(tosses, (1 + mean) / 2)
            where = {"m": tosses, "mu": mean}
            rows.append(side("deviation", law.std() * 2 / tosses, math.sqrt((1 - mean**2) / tosses), **where))
            sampled = np.abs(2 * law.rvs(settings.repetitions, random_state=random) / tosses - 1 - mean)
            for delta in CONFIDENCES:
                epsilon = math.sqrt(2 * math.log(2 / delta) / tosses)
                heads = np.arange(tosses + 1)
                outside = np.abs(2 * heads / tosses - 1 - mean) > epsilon
                rows.append(side("law", law.pmf(heads)[outside].sum(), delta, delta=delta, **where))
                rows.append(side("repetitions", (sampled > epsilon).mean(), delta, delta=delta, **where))
                bound = fp.bounds.hoeffding(samples=tosses, empirical=0.0, delta=delta, maximum=2.0).value
                rows.append(side("package", bound, epsilon, delta=delta, **where))
    return pd.DataFrame(rows)


def coin_rules(frame: pd.DataFrame) -> list[Outcome]:
    """Coverage at least 1 - delta, and a deviation of 1 / sqrt(m)."""
    fair = frame[frame["mu"] == 0]
    return [
        below(frame, "law", "P(|S_m - mu| > sqrt(2 log(2 / delta) / m)) <= delta, by the binomial law"),
        below(frame, "repetitions", "The same in repeated experiments"),
        equal(frame, "package", "`fp.bounds.hoeffding` at a range of 2 is eq. 6.1", tolerance=1e-12),
        equal(fair, "deviation", "A fair coin deviates by 1 / sqrt(m), in standard deviations", tolerance=1e-9),
    ]


SIZES = (20, 40, 80, 160)  # m points in the unit square


@dataclass(frozen=True)
class Rectangles:
    """Cost of the Rademacher complexity of axis-aligned rectangles."""

    sizes: tuple[int, ...]
    draws: int  # of points and signs per size


def largest(points: np.ndarray, signs: np.ndarray) -> float:
    """sup over axis-aligned rectangles of the sum of the signs inside; 0 for an empty one.

    For each left end, the columns up to each right end are summed by height; the best interval of heights is a largest
    segment sum. Cost: m^3.
    """
    order, heights = np.argsort(points[:, 0]), np.argsort(np.argsort(points[:, 1]))
    signed = np.zeros((len(points), len(points)))  # (from left to right, from bottom to top)
    signed[np.arange(len(points)), heights[order]] = signs[order]
    best = 0.0
    for left in range(len(points)):
        sums = np.cumsum(np.cumsum(signed[left:], axis=0), axis=1)
        lowest = np.minimum.accumulate(np.minimum(np.pad(sums, ((0, 0), (1, 0)))[:, :-1], 0), axis=1)
        best = max(best, float((sums - lowest).max()))
    return best


def searched(points: np.ndarray, signs: np.ndarray) -> float:
    """The same by trying every pair of sides through points; cost m^5."""
    best = 0.0
    for left, right in ((a, b) for a in points[:, 0] for b in points[:, 0] if a <= b):
        for bottom, top in ((a, b) for a in points[:, 1] for b in points[:, 1] if a <= b):
            inside = (points >= [left, bottom]).all(axis=1) & (points <= [right, top]).all(axis=1)
            best = max(best, float(signs[inside].sum()))
    return best


def rectangles(settings: Rectangles, study: Study) -> pd.DataFrame:  # noqa: ARG001
    """R_m by size, beside Massart's and Sauer's bound; the search on small sets; the memorizing class."""
    rows, random = [], np.random.default_rng(0)
    for size in settings.sizes:
        drawn = [(random.uniform(size=(size, 2)), random.choice([-1, 1], size)) for _ in range(settings.draws)]
        bound = math.sqrt(2 * 4 * math.log(math.e * size / 4) / size)  # rectangles have the VC dimension 4
        values = [largest(points, signs) / size for points, signs in drawn]
        rows += [side("draw", value, bound, m=size, draw=place) for place, value in enumerate(values)]
        rows.append(side("complexity", np.mean(values), bound, m=size))
    for _ in range(20):
        points, signs = random.uniform(size=(6, 2)), random.choice([-1, 1], 6)
        rows.append(side("search", largest(points, signs), searched(points, signs), m=6))
    for size in (100, 1000, 10_000):  # all f that are 0 on the sample and 1 elsewhere: gap 1, R_m = 1/2
        rest = math.sqrt(math.log(1 / 0.05) / (2 * size))
        rows += [side(f"{k} R_m", 1.0, k * 0.5 + rest, m=size) for k in (1, 2)]
    return pd.DataFrame(rows)


PRINTED_62 = "Printed eq. 6.2, with R_m once, bounds the gap of the class of all subsets (L = f, gap 1, R_m = 1/2)"


def rectangle_rules(frame: pd.DataFrame) -> list[Outcome]:
    """The complexity falls like m^(-1/2), within a bound that falls to 0."""
    found = frame[frame["statement"] == "complexity"]
    scaled = found["left"] * found["m"] ** 0.5
    draws = frame[frame["statement"] == "draw"].pivot_table(index="draw", columns="m", values="left")
    return [
        difference(f"R_m falls from m = {min(draws)} to {max(draws)}", draws[min(draws)] - draws[max(draws)]),
        exact(
            "R_m sqrt(m) is constant within 20 %",
            float((scaled / scaled.mean() - 1).abs().max()),
            tolerance=0.2,
            problems=len(scaled),
        ),
        below(frame, "complexity", "R_m <= sqrt(8 log(e m / 4) / m), which tends to 0"),
        equal(frame, "search", "The search over rectangles agrees with trying all of them, m = 6", tolerance=0),
        below(frame, "1 R_m", PRINTED_62, beside=True),
        below(frame, "2 R_m", "Corrected eq. 6.2, with 2 R_m for losses in [0, 1], bounds it", beside=True),
    ]


CELLS = 8  # of [0, 1], each with a label by majority vote
NOISE = 0.3  # fraction of flipped labels
DELTA = 0.05


@dataclass(frozen=True)
class Partitions:
    """Repetitions of a classifier that is robust by construction."""

    repetitions: int


def partitions(settings: Partitions, study: Study) -> pd.DataFrame:  # noqa: ARG001
    """Eq. 6.3 beside the package's form, and the gap of a majority vote in cells beside the bound."""
    rows, random = [], np.random.default_rng(0)
    for samples in (100, 1000, 10_000):
        for cells in (1, 10, 100):
            for delta in CONFIDENCES:
                root = math.sqrt((cells * math.log(2) + math.log(1 / delta)) / (2 * samples))
                arguments = {"samples": samples, "partitions": cells, "delta": delta, "empirical": 0.0, "prior": 1}
                bound = fp.bounds.robustness(**arguments, epsilon=0.1, maximum=3.0).value
                rows.append(side("formula", bound, 0.1 + 2 * 3 * root, n=samples, cells=cells))
    for samples in (20, 50, 200):
        # The loss is constant in each of the 2 K sets {cell} x {label}: epsilon = 0.
        bound = 2 * math.sqrt((2 * CELLS * math.log(2) + math.log(1 / DELTA)) / (2 * samples))
        gaps = [majority_gap(samples, random) for _ in range(settings.repetitions)]
        rows.append(side("coverage", np.mean(np.array(gaps) > bound), DELTA, n=samples))
        rows.append(side("largest gap", max(gaps), bound, n=samples))
    return pd.DataFrame(rows)


def majority_gap(samples: int, random: np.random.Generator) -> float:
    """Expected minus empirical error of the majority vote in cells, on labels that are 0 but for the noise."""
    cells, labels = random.integers(CELLS, size=samples), random.uniform(size=samples) < NOISE
    ones = np.bincount(cells[labels], minlength=CELLS)
    counts = np.bincount(cells, minlength=CELLS)
    votes = ones > counts / 2
    empirical = np.where(votes, counts - ones, ones).sum() / samples
    return float(np.where(votes, 1 - NOISE, NOISE).mean() - empirical)


def partition_rules(frame: pd.DataFrame) -> list[Outcome]:
    """The package's form is the printed one; the bound covers."""
    return [
        equal(frame, "formula", "`fp.bounds.robustness` is eq. 6.3", tolerance=1e-12),
        below(
            frame, "coverage", "The gap of a majority vote in cells exceeds the bound with frequency <= delta = 0.05"
        ),
        below(frame, "largest gap", "Its largest gap is below the bound", beside=True),
    ]


REPRODUCTIONS = (
    Reproduction(
        id="O20-6.1",
        source="Oberman (2020), section 6.1, eq. 6.1",
        claim="|S_m - mu| <= sqrt(2 log(2 / delta) / m) with probability 1 - delta, for m tosses of values +-1.",
        presets={"quick": Coins(1000), "cpu": Coins(10_000), "paper": Coins(10_000)},
        at_scale=("quick", "cpu", "paper"),
        table=coins,
        rules=coin_rules,
        cost="1 s",
    ),
    Reproduction(
        id="O20-Ex6.1",
        source="Oberman (2020), Example 6.1",
        claim="The Rademacher complexity of axis-aligned rectangles tends to 0 with the number of samples.",
        presets={
            "quick": Rectangles(sizes=SIZES[:3], draws=60),
            "cpu": Rectangles(sizes=SIZES, draws=300),
            "paper": Rectangles(sizes=SIZES, draws=300),
        },
        at_scale=("quick", "cpu", "paper"),
        table=rectangles,
        rules=rectangle_rules,
        reasons={
            PRINTED_62: "A classifier that is 1 everywhere but on the sample has a gap of 1 at every m, while R_m of "
            "all "
            "subsets is 1/2. For a loss class with values in [0, 1] the theorem has 2 R_m; the rule below tests it. "
            "The source's form is that for the 0-1 loss of classifiers with values +-1, whose R_m is twice that of "
            "the loss."
        },
        differs="The points are uniform in the unit square; the source names no law.",
        cost="30 s",
    ),
    Reproduction(
        id="O20-6.3",
        source="Oberman (2020), eq. 6.3",
        claim="The gap of a (K, epsilon)-robust algorithm is at most epsilon + 2 M sqrt((K ln 2 + ln(1 / delta)) / "
        "(2 m)) "
        "with probability 1 - delta.",
        presets={"quick": Partitions(500), "cpu": Partitions(10_000), "paper": Partitions(10_000)},
        at_scale=("quick", "cpu", "paper"),
        table=partitions,
        rules=partition_rules,
        differs="The source has no experiment. Ours is a majority vote in 8 cells of [0, 1] with 30 % of the labels "
        "flipped.",
        cost="2 s",
    ),
)
