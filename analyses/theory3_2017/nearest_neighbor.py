"""Poggio et al. (2017), introduction: the nearest neighbour has no training error and is yet consistent."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import exact, trend


def arrays(data: fp.LabelledData) -> tuple[np.ndarray, np.ndarray]:
    """Inputs as rows, and labels."""
    batches = list(data.batches(len(data)))
    return batches[0].inputs.flatten(1).numpy(), batches[0].labels.numpy()


def table(settings: dict) -> pd.DataFrame:
    """Training and test error of 1-NN for each number of samples and draw."""
    x, y = arrays(fp.load_data(settings["data"], split="train"))
    test_x, test_y = arrays(fp.load_data(settings["data"], split="test", limit=settings["test"]))
    rows = []
    for seed in range(settings["draws"]):
        order = np.random.default_rng(seed).permutation(len(x))
        for n in settings["samples"]:
            chosen = order[:n]
            nearest = KNeighborsClassifier(1, algorithm="brute").fit(x[chosen], y[chosen])
            part = chosen[: settings["test"]]
            rows.append(
                {
                    "seed": seed, "samples": n, "train_error": 1 - nearest.score(x[part], y[part]),
                    "test_error": 1 - nearest.score(test_x, test_y),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def rules(frame: pd.DataFrame) -> Sequence[Outcome]:
    """No training error at any n; a test error that falls, and that is the generalization gap."""
    return [
        exact("the training error is 0 at every n", float(frame["train_error"].max()), tolerance=0.0,
              problems=len(frame)),
        trend("the test error falls with n", frame, "samples", "test_error", seed="seed", rising=False),
    ]  # fmt: skip


REPRODUCTION = Reproduction(
    id="T3-1NN",
    source="Poggio et al. (2017), section 1",
    claim="1-NN has zero empirical error for all n, so that the empirical error does not approach the expected one, "
    "and yet its expected error falls: it is consistent.",
    presets={
        "quick": {"data": "digits", "samples": (100, 400, 1000), "test": 297, "draws": 3},
        "cpu": {"data": "ylecun/mnist", "samples": (500, 1000, 2000, 5000, 10_000, 20_000), "test": 2000, "draws": 3},
        "paper": {"data": "ylecun/mnist", "samples": (500, 2000, 8000, 32_000, 60_000), "test": 10_000, "draws": 3},
    },
    table=lambda settings, _study: table(settings),
    rules=rules,
    differs="The source runs no experiment. At most 2,000 training and test samples are classified at each n.",
    at_scale=("cpu", "paper"),
    cost="1 min",
)
