"""The host's waits for the device within a loop over batches: at most those of the table."""

import pytest

from tests.helpers.waits import ROWS, count

# Waits per batch and evaluation. The goal is 0 for all but the attacks, and 1 for samples that leave the device.
PER_BATCH = {
    "risk": 0,
    "gradient": 0,
    "Hessian product": 0,
    "quadratic form": 0,
    "line": 0,
    "flatness radius": 0.25,
    "random slice": 0,
    "interpolation": 0,
    "recalibration": 0,
    "sharpness": 0,
    "gradient noise": 0,
    "margins": 0,
    "Jacobian norms": 1,
    "Jacobian norms, Lanczos": 4,
    "robustness": 0.25,
    "smoothing": 16,
    "FGSM": 4,
    "PGD, 5 steps": 4,
    "DDN, 5 steps": 13,
    "a step of training": 0,
}
# Waits per evaluation beside those of the batches: a loss and an error are two numbers. The goal is 1.
PER_EVALUATION = {"risk": 1, "gradient": 1, "Hessian product": 0, "quadratic form": 1, "line": 1}


@pytest.mark.parametrize("name", ROWS)
def test_the_host_waits_no_more_often_than_the_table_says(name: str) -> None:
    found = count(name)
    assert found.per_batch <= PER_BATCH[name], found
    assert found.alone <= PER_EVALUATION.get(name, float("inf")), found
