"""Kernels where a bend or rounding decides: closed forms far from the usual logits."""

import math

import pytest
import torch
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.functional.losses import hinge, softmax_jacobian
from tests.helpers import cases

DATA = cases.data_for((1, 8, 8), samples=60)


def test_closed_form_the_hinge_is_zero_beyond_a_margin_of_one() -> None:
    logits = torch.tensor([[4.0, 0.0], [1.5, 0.0], [0.5, 0.0]], dtype=torch.float64, requires_grad=True)
    values = hinge(logits, torch.zeros(3, dtype=torch.long))
    assert values.tolist() == [0.0, 0.0, 0.5]
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert gradient.tolist() == [[0.0, 0.0], [0.0, 0.0], [-1.0, 1.0]]


def test_closed_form_the_softmaxs_jacobian_where_the_network_is_certain() -> None:
    """p (1 - p) = 1 / (2 + 2 cosh(z)) to all digits, where 1 - p is rounded to 0."""
    for lead in (1.0, 30.0, 60.0, 300.0):
        jacobian = softmax_jacobian(torch.tensor([[lead, 0.0]], dtype=torch.float64))[0]
        exact = 1 / (2 + 2 * math.cosh(lead))
        expected = torch.tensor([[exact, -exact], [-exact, exact]], dtype=torch.float64)
        torch.testing.assert_close(jacobian, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_slow_reference_losses_of_half_precision_logits_are_taken_in_single(dtype: torch.dtype) -> None:
    model = cases.mlp().to(dtype)
    with torch.no_grad():
        expected = F.cross_entropy(model(DATA.inputs.to(dtype)).double(), DATA.labels)
    assert fp.EmpiricalRisk(model, DATA, batch_size=60)().loss == pytest.approx(float(expected), rel=1e-6)


def test_property_a_radius_is_reported_up_to_a_tenth_of_rounding_only() -> None:
    """At 1000 neighbouring float32 numbers are 6.1e-5 apart: 100 weights are rounded by 1.8e-4 in all."""
    bowl = cases.Bowl({"w": torch.full((100,), 1000.0)})
    assert float(fp.flatness_radius(bowl, epsilon=8e-6, directions=1).radii[0]) == pytest.approx(4e-3, rel=0.02)
    with pytest.raises(ValueError, match="rounding"):
        fp.flatness_radius(bowl, epsilon=1.8e-7, directions=1)
