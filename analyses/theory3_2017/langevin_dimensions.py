"""Poggio et al. (2017), Figs. 7 and 9: Langevin chains on two minima of one depth, by the number of dimensions."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import pandas as pd
import torch
from torch import Tensor

from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, exact
from analyses.theory3_2017.langevin_potentials import (
    Chains,
    Potential,
    deviation,
    extrapolated,
    lengths_table,
    right_masses,
)

BARRIER = 2.0  # of U between the minima, in units of T: at most about 3, or the chains do not cross it


def two_boxes(first: Tensor) -> Tensor:
    """Flat on [-1.5, -0.5] and on [0.5, 2.5], with a barrier between and walls outside."""
    between = BARRIER * (1 + torch.cos(2 * torch.pi * first)) / 2 * (first.abs() < 0.5)
    outside = (first - 2.5).clamp_min(0) ** 2 + (-1.5 - first).clamp_min(0) ** 2
    return between + 50.0 / 2 * outside


def double_well(first: Tensor) -> Tensor:
    """A quartic with minima at -2 and 2."""
    return BARRIER * (first**2 / 4 - 1) ** 2


# Fig. 7: the right flat region has twice the size of the left one in each dimension.
WIDE = Potential(two_boxes, 0.5, 1.0, 50.0, 0.5, ((-1.4, -0.6), (0.6, 2.4)), (-2.0, 3.0))
# Figs. 8 to 10: the left minimum, at w_1 = -2, is a point; the right one, at w_1 = 2, is flat in w_2, ..., w_d.
DEGENERATE = Potential(double_well, 0.0, 1.0, 20.0, 1.0, ((-2.5, -1.5), (1.5, 2.5)), (-4.0, 4.0))
AGREES = "the share at w_1 > 0, extrapolated to rate 0, is Boltzmann's within 4 standard errors for each d"
WIDER = "the share of the wider minimum grows with d"
CONCENTRATES = "the share of the degenerate minimum grows with d"
CAPTION = "as the caption of Fig. 9 ends: the density at w_1 = 2, the degenerate minimum, falls as d grows"


def rules(frame: pd.DataFrame, grows: str, at: float | None = None) -> Sequence[Outcome]:
    """The chains against Boltzmann's law, and the growth with d."""
    masses = right_masses(frame, ["dimensions", "rate"])
    limits = extrapolated(masses)
    dimensions = sorted(frame["dimensions"].unique())
    found = [deviation(limits[d], masses[d, 0.0, 0])[0] for d in dimensions]
    fine = masses.xs(min(rate for rate in frame["rate"].unique() if rate > 0), level="rate")
    steps = [fine[d].to_numpy() - fine[before].to_numpy() for before, d in pairwise(dimensions)]
    smallest = min(steps, key=lambda step: step.mean())
    outcomes = [
        exact(AGREES, max(found), tolerance=4.0, problems=len(found), unit="standard errors"),
        difference(f"{grows} (its smallest step)", smallest),
    ]
    if at is not None:
        outcomes.append(caption(frame, at))
    return outcomes


def caption(frame: pd.DataFrame, at: float) -> Outcome:
    """The fall of the density around the degenerate minimum, from the fewest to the most dimensions."""
    near = frame[(frame["rate"] == frame.loc[frame["rate"] > 0, "rate"].min()) & ((frame["w1"] - at).abs() < 0.5)]
    density = near.groupby(["dimensions", "group"])["share"].sum()
    first, last = (density[d].to_numpy() for d in (frame["dimensions"].min(), frame["dimensions"].max()))
    return difference(CAPTION, first - last, beside=True, unit="share within 0.5 of w_1 = 2")


DIFFERS = (
    "The source states neither potential, temperature, step size, steps nor domain. Ours has walls that are quadratic, "
    "so that the marginal density is a one-dimensional quadrature for every d; barrier / T = 2. Half of the chains "
    "start near each minimum. Chains run at two rates, and the share is extrapolated linearly to rate 0."
)

REPRODUCTIONS = (
    Reproduction(
        id="T3-F7",
        source="Poggio et al. (2017), Fig. 7",
        claim="Of two minima of one depth, the one whose flat region is a factor 2 larger in each dimension is "
        "selected with high probability, higher in more dimensions, as Boltzmann's density says.",
        presets={
            "quick": Chains(dimensions=(1, 3), rates=(0.01, 0.005), chains=400, groups=10, burn_in=6, time=9, bins=20),
            "cpu": Chains(
                dimensions=(1, 2, 3, 4, 5), rates=(0.005, 0.0025), chains=2000, groups=20, burn_in=15, time=30
            ),
        },
        table=lambda settings, _study: lengths_table(settings, WIDE),
        rules=partial(rules, grows=WIDER),
        published=[{"hard walls": 2**d / (1 + 2**d), "dimensions": d, "printed": False} for d in range(1, 6)],
        differs=DIFFERS + " Soft walls (kappa = 50) add 0.35 to each width, so that the shares lie below those of hard "
        "walls, 2^d / (1 + 2^d).",
        at_scale=("cpu",),
        cost="2 min",
    ),
    Reproduction(
        id="T3-F9",
        source="Poggio et al. (2017), Fig. 9",
        claim="Langevin gradient descent prefers degenerate minima to non-degenerate ones of the same depth, and "
        "concentrates around them as the number of dimensions grows.",
        presets={
            "quick": Chains(dimensions=(2, 3), rates=(0.04, 0.02), chains=400, groups=10, burn_in=30, time=36, bins=20),
            "cpu": Chains(dimensions=(2, 3, 4, 5), rates=(0.02, 0.01), chains=2000, groups=20, burn_in=50, time=80),
        },
        table=lambda settings, _study: lengths_table(settings, DEGENERATE),
        rules=partial(rules, grows=CONCENTRATES, at=2.0),
        reasons={
            CAPTION: "The caption contradicts itself: it says first that the distribution concentrates around the "
            "degenerate minimum as d grows, and ends with the density there falling. Boltzmann's density by quadrature "
            "and the chains agree with the first half. The density falls at the other minimum, w_1 = -2, so the "
            "likeliest reason is that the last sentence names the wrong minimum."
        },
        differs=DIFFERS,
        at_scale=("cpu",),
        cost="1 min",
    ),
)
