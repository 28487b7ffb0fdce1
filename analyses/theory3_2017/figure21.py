"""Poggio et al. (2017), Fig. 21: ReLU beside a polynomial of degree 10."""

from dataclasses import replace

import pandas as pd

from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, within
from analyses.study import Study
from analyses.theory3_2017.all_convolutional import INTERVAL, QUICK, QUICK_NETWORK, Family, errors, per_seed, polynomial
from analyses.theory3_2017.figure1 import CUT_POLYNOMIAL, PAPER

SIMILAR = 0.05  # difference of errors; our choice
SIZES = (500, 1000)
PRESETS = {
    "quick": Family(epochs={150: 15}, channels=(8,), seeds=(0, 1), network=QUICK_NETWORK, **QUICK),
    "cpu": Family(epochs=dict.fromkeys(SIZES, 50)),
    "paper": Family(epochs=dict.fromkeys((5000, 50000), 100), **PAPER),
}


def table(family: Family, study: Study) -> pd.DataFrame:
    """One row per network: ReLU and the polynomial with BatchNorm, and the polynomial without it at the smallest n."""
    bounded = polynomial(family)
    network = {**family.network, "activation": "polynomial", "interval": INTERVAL}
    smallest = dict([min(family.epochs.items())])
    plain = replace(family, network=network, learning_rate=bounded.learning_rate, epochs=smallest)
    return errors(study, polynomial(family, "relu"), bounded, plain)


def rules(frame: pd.DataFrame) -> list[Outcome]:
    """Errors of the two networks with the same data, initial weights and order."""
    plain, found = frame[~frame["batch_norm"]], []
    for n, part in frame[frame["batch_norm"]].groupby("n"):
        for name in ("train", "test"):
            pairs = [per_seed(part, f"{name}_error", activation=kind) for kind in ("polynomial", "relu")]
            apart = (pairs[0] - pairs[1]).dropna()
            found += [
                within(f"{name} errors less than {SIMILAR} apart, n = {n:,}", apart, (-SIMILAR, SIMILAR)),
                difference(f"{name} error of the polynomial above that of ReLU, n = {n:,}", apart, beside=True),
            ]
    lost = plain["train_error"].isna()
    rule = "without BatchNorm the training of the polynomial network diverges"
    share = Outcome(rule=rule, holds=bool(lost.all()), effect=lost.mean(), seeds=len(lost), unit="share", beside=True)
    return [*found, share]


REPRODUCTION = Reproduction(
    id="T3-F21",
    source="Poggio et al. (2017), Fig. 21",
    claim="A network of polynomials of degree 10 that fit ReLU performs as the ReLU network, in training and testing.",
    presets=PRESETS,
    table=table,
    rules=rules,
    differs=f"{CUT_POLYNOMIAL} Here the ReLU network has BatchNorm and that learning rate, too.",
    cost="4 min",
)
