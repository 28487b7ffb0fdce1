"""The host's waits for the device within a loop over batches: at most those of the table."""

import pytest

from tests.helpers.waits import ROWS, count

# Waits per batch and evaluation; a fraction is a check at the first of several evaluations. The goal is 0.
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
    "Jacobian norms": 0,
    "Jacobian norms, Lanczos": 3,
    "robustness": 0.25,
    "smoothing": 2,
    "FGSM": 2,
    "PGD, 5 steps": 2,
    "DDN, 5 steps": 3,
    "a step of training": 0,
}
# Waits per evaluation beside those of its batches: one, for the loss and the error together.
PER_EVALUATION = {"risk": 1, "gradient": 1, "Hessian product": 0, "quadratic form": 1, "line": 1}


@pytest.mark.parametrize("name", ROWS)
def test_the_host_waits_no_more_often_than_the_table_says(name: str) -> None:
    found = count(name)
    assert found.per_batch <= PER_BATCH[name], found
    assert found.alone <= PER_EVALUATION.get(name, float("inf")), found
