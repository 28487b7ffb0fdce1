"""Poggio et al. (2017), Fig. 15: generalization gap against the number of weights, a curve per n."""

import pandas as pd

from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference
from analyses.study import Study
from analyses.theory3_2017.all_convolutional import (
    HE,
    JPEG,
    MEAN,
    QUICK,
    QUICK_NETWORK,
    STD,
    Family,
    errors,
    per_seed,
)
from analyses.theory3_2017.figure1 import PAPER
from analyses.theory3_2017.figure3 import CHANNELS, among_fitted

EPOCHS = 30
NETWORK = {"name": "all_convolutional", "scale": HE, "mean": MEAN, "std": STD, "layers": 4}
PRESETS = {
    "quick": Family(epochs={50: 15, 150: 15}, channels=(2, 8), seeds=(0, 1), network=QUICK_NETWORK, **QUICK),
    "cpu": Family(epochs=dict.fromkeys((500, 1000), EPOCHS), channels=CHANNELS, network=NETWORK),
    "paper": Family(
        epochs=dict.fromkeys((500, 1000, 2000, 5000, 10000, 20000, 50000), EPOCHS),
        network=NETWORK, **(PAPER | {"channels": (4, 8, 16, 32, 64, 128, 256)}),
    ),
}  # fmt: skip


def table(family: Family, study: Study) -> pd.DataFrame:
    """One row per network."""
    return errors(study, family)


def rules(frame: pd.DataFrame) -> list[Outcome]:
    """Per n: the gap at the largest W against the gap at the smallest W >= n."""
    found = []
    for n, part in frame.groupby("n"):
        first, largest = part.loc[part["weights"] >= n, "weights"].min(), part["weights"].max()
        gaps = {weights: per_seed(part, "gap", weights=weights) for weights in (first, largest)}
        margin = 2 * float(gaps[first].std(ddof=1))
        found += [
            difference(
                f"n = {n:,}: the gap at W = {largest:,.0f} is at most that at W = "
                f"{first:,.0f} and 2 standard deviations",
                gaps[first] - gaps[largest],
                above=-margin,
            ),
            difference(
                f"the test error at W = {largest:,.0f} is below that at W = {first:,.0f}, n = {n:,}",
                per_seed(part, "test_error", weights=first) - per_seed(part, "test_error", weights=largest),
                beside=True,
            ),
            *among_fitted(part),
        ]
    return found


HURT = (
    "The gap rises by {rise} over 3 draws: after 30 epochs the network at W = {first} still has a training error of "
    "{train}, and a network that does not fit has no gap. The test error falls all the same (beside). Tested by the "
    "networks of T3-F3, which are trained for 80 epochs: among those without training error the gap falls with W."
)
REPRODUCTION = Reproduction(
    id="T3-F15",
    source="Poggio et al. (2017), Fig. 15",
    claim="The generalization gap of a four-layer convolutional network does not grow with its number of weights.",
    presets=PRESETS,
    table=table,
    rules=rules,
    reasons={
        "n = 500: the gap at W = 29,930 is at most that at W = 726 and 2 standard deviations": HURT.format(
            rise="0.60", first="726", train="0.72"
        ),
        "n = 1,000: the gap at W = 29,930 is at most that at W = 2,306 and 2 standard deviations": HURT.format(
            rise="0.46", first="2,306", train="0.53"
        ),
    },
    differs=(
        "Kernel, strides, widths, initial weights, learning rate and batch size are not stated. Here: four 3x3 "
        "convolutions of stride 2, k = 4 to 32, and a linear layer; 30 epochs as stated; SGD with momentum 0.9 and a "
        f"cosine schedule; n = 500 and 1,000 instead of 500 to 50,000; 3 draws. {JPEG}"
    ),
    cost="6 min",
)
