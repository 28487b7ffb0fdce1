"""Poggio et al. (2017), Fig. 6: SGD beside SGD with Langevin noise of constant power (SGDL)."""

from dataclasses import replace

import numpy as np
import pandas as pd

from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, within
from analyses.study import Study
from analyses.theory3_2017.all_convolutional import JPEG, OPEN, QUICK, QUICK_NETWORK, Family, histories, per_seed
from analyses.theory3_2017.figure1 import PAPER

NOISES = (3e-4, 1e-3)  # standard deviation per weight and step, in the weights' units; not stated
FACTOR = 2.0  # between the final training losses of similar curves; our choice
PRESETS = {
    "quick": Family(epochs={150: 15}, channels=(8,), seeds=(0, 1), network=QUICK_NETWORK, **QUICK),
    "cpu": Family(epochs={500: 80}, seeds=(0, 1, 2, 3, 4)),
    "paper": Family(epochs={50000: 100}, **PAPER),
}


def noisy(family: Family, noise: float) -> Family:
    """The same networks, trained by SGDL."""
    return replace(family, training={"optimizer": {"name": "sgdl", "noise": noise, "decay": 0}})


def table(family: Family, study: Study) -> pd.DataFrame:
    """One row per network and epoch."""
    return histories(study, family, *(noisy(family, noise) for noise in NOISES))


def rules(frame: pd.DataFrame) -> list[Outcome]:
    """Similar final losses, and a lower test error with noise, paired over the seeds."""
    final = frame.drop_duplicates(["noise", "seed"])
    losses, tests = (
        {noise: per_seed(final, name, noise=noise) for noise in (0.0, *NOISES)} for name in ("train_loss", "test_error")
    )
    found = []
    for noise in NOISES:
        found += [
            within(
                f"similar curves: final training losses within a factor of {FACTOR:g}, noise {noise:g}",
                np.log(losses[noise] / losses[0.0]),
                (-np.log(FACTOR), np.log(FACTOR)),
                unit="log ratio",
                beside=noise != NOISES[0],
            ),
            difference(
                f"the test error is lower with noise {noise:g} than with none",
                tests[0.0] - tests[noise],
                beside=noise != NOISES[0],
            ),
        ]
    return found


REPRODUCTION = Reproduction(
    id="T3-F6",
    source="Poggio et al. (2017), Fig. 6",
    claim="SGD with added Gaussian noise of constant power behaves as SGD does; its validation error is lower.",
    presets=PRESETS,
    table=table,
    rules=rules,
    differs=(
        f"{OPEN} The noise power is not stated: two are shown, and the weaker one is judged. n = 500, 80 epochs, 5 "
        f"draws; momentum 0.9, which eq. 5 does not have. The error is that on the 10,000 test samples. {JPEG}"
    ),
    cost="5 min",
)
