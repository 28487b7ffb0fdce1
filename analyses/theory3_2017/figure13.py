"""Poggio et al. (2017), Figs 13 and 14: training curves over n of a small and of a larger network."""

from dataclasses import replace

import pandas as pd

from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, trend
from analyses.study import Study
from analyses.theory3_2017.all_convolutional import JPEG, OPEN, QUICK, QUICK_NETWORK, Family, histories, per_seed
from analyses.theory3_2017.figure1 import ALL, EPOCHS, ONCE, PAPER

PRESETS = {
    "quick": Family(epochs={50: 15, 150: 15}, channels=(8,), seeds=(0, 1), network=QUICK_NETWORK, **QUICK),
    "cpu": Family(epochs=EPOCHS, once=ONCE),
    "paper": Family(epochs=ALL, **PAPER),
}
BOTH = {
    "quick": replace(PRESETS["quick"], channels=(8, 16)),
    "cpu": Family(epochs={500: 80, 1000: 80}, channels=(16, 32)),  # k of the larger network: not stated
    "paper": replace(PRESETS["paper"], channels=(16, 64)),
}


def table(family: Family, study: Study) -> pd.DataFrame:
    """One row per network and epoch."""
    return histories(study, family)


def rules(frame: pd.DataFrame) -> list[Outcome]:
    """A gap that falls with n, and overfitting with little data."""
    final = frame.drop_duplicates(["k", "n", "seed"])
    final = final[final["k"] == final["k"].max()]
    last = frame[frame["k"] == final["k"].max()]
    smallest = last[last["n"] == last["n"].min()].groupby("seed")["validation_by_epoch"]
    return [
        trend("the generalization gap after training falls with n", final, "n", "gap", seed="seed", rising=False),
        trend("the test error after training falls with n", final, "n", "test_error", seed="seed", rising=False),
        difference(
            f"overfitting at n = {last['n'].min():,}: the validation error rises again after its smallest value",
            smallest.last() - smallest.min(),
            beside=True,
        ),
    ]


def larger_rules(frame: pd.DataFrame) -> list[Outcome]:
    """The rules of the larger network, and its gap beside that of the small one."""
    final = frame.drop_duplicates(["k", "n", "seed"])
    little, much = final["k"].min(), final["k"].max()
    found = []
    for n in sorted(final["n"].unique()):
        gaps = {k: per_seed(final, "gap", k=k, n=n) for k in (little, much)}
        margin = 2 * float(gaps[little].std(ddof=1))
        found.append(
            difference(
                f"the larger network's gap is at most the small one's and 2 standard deviations, n = {n:,}",
                gaps[little] - gaps[much],
                above=-margin,
            )
        )
    return [*rules(frame), *found]


SHOWN = "The curves show the error on 500 held-out samples, the gaps on 10,000."
REPRODUCTIONS = (
    Reproduction(
        id="T3-F13",
        source="Poggio et al. (2017), Fig. 13",
        claim="Training curves for n = 500 to 50,000: with little data there is overfitting and little generalization.",
        presets=PRESETS,
        table=table,
        rules=rules,
        differs=f"{OPEN} k = 16; n up to 10,000 instead of 50,000. 80 epochs up to n = 2,000, 25 at 10,000; 3 draws; "
        f"one draw at 5,000 with 40 epochs. {SHOWN} {JPEG}",
        cost="6 min, for the networks of T3-F1",
    ),
    Reproduction(
        id="T3-F14",
        source="Poggio et al. (2017), Fig. 14",
        claim="The same for a larger network, which generalizes no worse.",
        presets=BOTH,
        table=table,
        rules=larger_rules,
        differs=f"{OPEN} k = 16, and 32 for the larger network; n = 500 and 1,000; 80 epochs, 3 draws. {SHOWN} {JPEG}",
        cost="8 min",
    ),
)
