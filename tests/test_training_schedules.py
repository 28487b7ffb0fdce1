"""Schedules: closed forms and refusals."""

import pytest

from flatprobe.training.schedules import factors


def test_closed_forms():
    assert factors(None, 3) == [1.0, 1.0, 1.0]
    assert factors("constant", 2) == [1.0, 1.0]
    assert factors("cosine", 3) == pytest.approx([1.0, 0.75, 0.25], abs=1e-12)
    assert factors({"name": "step", "stages": [[1, 2], [0.5, 1], [0.1, 1]]}, 6) == [1, 1, 0.5, 0.1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("linear", "the schedule 'linear' is unknown; expected one of constant, step, cosine"),
        ({"stages": [[1, 2]]}, "is unknown"),
        ("step", "does not fit step"),
        ({"name": "step", "stages": []}, "does not fit step"),
        ({"name": "step", "stages": [0.1]}, "does not fit step"),
        ({"name": "cosine", "period": 3}, "does not fit cosine"),
        ({"name": "step", "stages": [[-1.0, 2]]}, "expected finite ones, at least 0"),
        ({"name": "step", "stages": [[float("nan"), 2]]}, "expected finite ones, at least 0"),
    ],
)
def test_refusals(schedule, message):
    with pytest.raises(ValueError, match=message):
        factors(schedule, 3)
