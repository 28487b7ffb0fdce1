"""Objectives: closed forms on two samples."""

import math

import pytest
import torch

from flatprobe.training.objectives import objective

LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.5, 0.0, 0.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "cross_entropy",
            (math.log(math.exp(2) + 1 + math.exp(1)) - 2 + math.log(math.exp(0.5) + 2)) / 2,
        ),
        ("squared", ((1 + 0 + 1) + (0.25 + 1 + 0)) / 2),
        ("hinge", (0.0 + 1.5) / 2),
    ],
)
def test_closed_forms(name, expected):
    value = objective(name)(LOGITS, LABELS)
    assert value.shape == ()
    assert float(value) == pytest.approx(expected, abs=1e-12)


def test_unknown_objective():
    with pytest.raises(ValueError, match=r"'l1'.*cross_entropy"):
        objective("l1")
