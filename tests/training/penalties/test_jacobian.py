"""Jacobian penalties: slow references with BatchNorm, unbiasedness, certain networks, ties, estimates from below."""

import copy
import json
from typing import Any

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.data import LabelledData
from flatprobe.training import ForwardPass
from flatprobe.training.penalties import (
    PENALTIES,
    DoubleBackpropagation,
    HessianScaled,
    JacobianFrobenius,
    JacobianSpectral,
)
from flatprobe.training.registry import build, describe
from tests.helpers import cases
from tests.helpers.cases import batch
from tests.helpers.penalties import (
    NETWORKS,
    assert_adds_up,
    assert_close_to_reference,
    assert_finite_differences,
    assert_same,
    assert_sound_when_certain,
    assert_trains,
    assert_unbiased,
    passed_for,
    value_and_gradients,
)
from tests.helpers.references import differentiable_jacobian

OUTPUTS = ("logits", "softmax")
APART = 5  # samples whose two largest singular values are 20 % apart or more; with 6 there are some within 1 %


def jacobian_of(outputs, network, x):
    z, rows = differentiable_jacobian(network, x)
    p = z.softmax(0)
    return rows if outputs == "logits" else (torch.diag(p) - torch.outer(p, p)) @ rows


def frobenius(outputs):
    return lambda network, x, _: jacobian_of(outputs, network, x).square().sum()


def spectral(outputs):
    return lambda network, x, _: torch.linalg.matrix_norm(jacobian_of(outputs, network, x), 2).square()


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_frobenius_slow_reference(name: str, outputs: str) -> None:
    assert_close_to_reference(JacobianFrobenius(outputs=outputs), name, frobenius(outputs))


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_spectral_slow_reference(name: str, outputs: str) -> None:
    """The reference differentiates through the singular value decomposition."""
    assert_close_to_reference(JacobianSpectral(outputs=outputs), name, spectral(outputs))


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("penalty", [JacobianFrobenius, JacobianSpectral])
def test_slow_reference_finite_differences(penalty: Any, outputs: str) -> None:
    assert_finite_differences(penalty(outputs=outputs), "batch_norm", samples=APART)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_slow_reference_sampled_frobenius_is_unbiased(outputs: str) -> None:
    assert_unbiased(JacobianFrobenius(projections=1, outputs=outputs), JacobianFrobenius(outputs=outputs))


def test_slow_reference_projections_are_averaged_and_independent() -> None:
    assert_unbiased(JacobianFrobenius(projections=3), JacobianFrobenius(), passes=60, samples=400)
    passed = passed_for(NETWORKS["mlp"]())
    one, two = (float(JacobianFrobenius(projections)(passed).detach()) for projections in (1, 2))
    assert one != pytest.approx(two)


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("norm", ["frobenius", "spectral"])
def test_the_probe_measures_the_same(norm: str, outputs: str) -> None:
    """Property: in eval mode the penalty is the mean square of the probe's norms."""
    network, data = cases.residual(), cases.data_for((1, 8, 8), samples=6)
    norms = fp.jacobian_norms(network, LabelledData(data.inputs.double(), data.labels), norm=norm, outputs=outputs)
    penalty = PENALTIES[f"jacobian_{norm}"](outputs=outputs)
    value = penalty(ForwardPass(network, data.inputs.double(), data.labels))
    assert float(value.detach()) == pytest.approx(float(norms.values.square().mean()), rel=1e-9)


@pytest.mark.parametrize("penalty", [JacobianFrobenius, JacobianSpectral])
def test_certain_networks(penalty: Any) -> None:
    """Closed form: dp/dx = p_0 p_1 (w_0 - w_1) in one row, its negative in the other: of rank one."""
    assert_sound_when_certain(penalty(outputs="softmax"), lambda spread, apart: 2 * spread**2 * apart)


def test_certain_networks_sampled() -> None:
    """Closed form: with signs v, ||J^T v||^2 is 4 (p_0 p_1)^2 ||w_0 - w_1||^2 or 0; the same signs in either type."""
    x = torch.tensor([[0.1, 0.2, -0.3]])
    draws = ForwardPass(nn.Linear(3, 2), x, torch.tensor([0]), key=(0,)).signs((2, 2), "jacobian_frobenius", 0)
    factor = (draws[:, 0] - draws[:, 1]).square().double()
    penalty = JacobianFrobenius(projections=1, outputs="softmax")
    assert_sound_when_certain(penalty, lambda spread, apart: factor * spread**2 * apart)


def test_ties_give_a_subgradient() -> None:
    """Closed form: at J = I every unit u is a top vector, and the gradient is 2 u u^T for one of them."""
    network = nn.Linear(3, 3, bias=False).double()
    nn.init.eye_(network.weight)
    passed = ForwardPass(network, torch.zeros(1, 3, dtype=torch.float64), torch.tensor([0]))
    value, gradient = value_and_gradients(network, JacobianSpectral()(passed))
    assert float(value) == pytest.approx(1, abs=1e-12)
    eigenvalues = torch.linalg.eigvalsh((gradient + gradient.mT) / 2)
    torch.testing.assert_close(gradient, gradient.mT, rtol=0, atol=1e-12)
    torch.testing.assert_close(eigenvalues, torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_property_power_iteration_is_an_estimate_from_below_that_arrives(outputs: str) -> None:
    network = NETWORKS["batch_norm"]()

    def found(iterations):
        passed = passed_for(network, samples=APART)
        return value_and_gradients(network, JacobianSpectral(iterations, outputs)(passed))

    exact = found(None)
    values = [float(found(iterations)[0]) for iterations in (1, 2, 4)]
    assert values == sorted(values)
    assert values[-1] <= float(exact[0])
    assert_same(found(400), exact)


def test_power_iteration_at_a_vanishing_jacobian() -> None:
    """Closed form: 0, and no NaN."""
    network = nn.Linear(2, 2)
    nn.init.zeros_(network.weight)
    passed = ForwardPass(network, torch.ones(2, 2), torch.tensor([0, 1]), key=(0,))
    for value in value_and_gradients(network, JacobianSpectral(2)(passed)):
        assert float(value.abs().max()) == 0


def test_property_what_is_not_finite_stays_so() -> None:
    network = nn.Linear(2, 2)
    nn.init.constant_(network.weight, torch.inf)
    passed = ForwardPass(network, torch.ones(2, 2), torch.tensor([0, 1]))
    assert JacobianSpectral()(passed).isnan()


class Lowered(nn.Module):
    """An MLP under bfloat16 autocast, with float32 logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.net(inputs).float()


@pytest.mark.parametrize(
    "penalty", [JacobianFrobenius(), JacobianFrobenius(outputs="softmax"), HessianScaled()], ids=str
)
@pytest.mark.parametrize("where", ["in the network", "around the penalty"])
def test_slow_reference_under_autocast(penalty: Any, where: str) -> None:
    """Value and gradient against float64: bfloat16 keeps 8 bits, so 5 %."""
    network = NETWORKS["mlp"]()
    expected = value_and_gradients(network, penalty(passed_for(network)))
    single, (inputs, labels) = copy.deepcopy(network).float(), batch()
    module = Lowered(single) if where == "in the network" else single
    passed = ForwardPass(module, inputs.float(), labels)
    assert passed.logits.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16, enabled=where == "around the penalty"):
        value = penalty(passed)
    found = value_and_gradients(single, value)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=0.05, atol=1e-4)
    assert float((found[1].double() - expected[1]).norm()) < 0.05 * float(expected[1].norm())


def test_property_penalties_add_up() -> None:
    assert_adds_up(JacobianFrobenius(projections=1), DoubleBackpropagation())
    assert_adds_up(JacobianSpectral(), JacobianFrobenius(outputs="softmax"))


@pytest.mark.parametrize(
    "penalty", [JacobianFrobenius(2, "softmax"), JacobianFrobenius(), JacobianSpectral(3), JacobianSpectral()], ids=str
)
def test_property_by_name(penalty: Any) -> None:
    asked = json.loads(json.dumps(describe(penalty, PENALTIES)))
    assert build("penalty", asked, PENALTIES) == penalty


def test_property_training() -> None:
    last = assert_trains((0.01, JacobianFrobenius(projections=1)), (0.1, JacobianSpectral()))
    assert 0 < last["jacobian_spectral"] < last["jacobian_frobenius"]


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"projections must be at least 1.*, got 0"):
        JacobianFrobenius(projections=0)
    with pytest.raises(ValueError, match=r"iterations must be at least 1.*, got 0"):
        JacobianSpectral(iterations=0)
    for penalty in (JacobianFrobenius, JacobianSpectral):
        with pytest.raises(ValueError, match=r"outputs must be one of 'logits', 'softmax'.*, got 'scores'"):
            penalty(outputs="scores")

        class Cut(nn.Module):
            def forward(self, x):
                return x.detach()

        with pytest.raises(ValueError, match=r"do not depend differentiably on the inputs"):
            penalty()(ForwardPass(Cut(), torch.ones(1, 2), torch.tensor([0])))
