"""N20's Hessian-scaled penalty: slow references for every loss, unbiasedness, certain networks, hsfob-db."""

import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flatprobe.functional.losses import LOSSES, hessian_root_product, per_sample_loss, softmax_jacobian, softmax_product
from flatprobe.training import ForwardPass
from flatprobe.training.penalties import (
    PENALTIES,
    DoubleBackpropagation,
    HessianScaled,
    JacobianFrobenius,
    hsfob_db,
    hsfob_db1,
    hsfob_db2,
)
from flatprobe.training.registry import build, describe
from flatprobe.utils.rng import generator
from tests.helpers.penalties import (
    NETWORKS,
    assert_adds_up,
    assert_close_to_reference,
    assert_finite_differences,
    assert_sound_when_certain,
    assert_trains,
    assert_unbiased,
)
from tests.helpers.references import differentiable_jacobian

SMOOTHED = {"name": "smoothed_maximum", "epsilon": 0.3}
CURVED = ["cross_entropy", "squared", "squared_signs", SMOOTHED]


def reference(loss, power=1):
    """Tr(J^T H J)^power with H by autograd's own second derivative of the loss."""

    def of_sample(network, x, y):
        z, rows = differentiable_jacobian(network, x)
        kernel = per_sample_loss(loss)
        hessian = torch.autograd.functional.hessian(lambda v: kernel(v[None], y[None])[0], z, create_graph=True)
        return (rows.mT @ hessian @ rows).trace() ** power

    return of_sample


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("loss", CURVED, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_slow_reference(name: str, loss: Any, power: int) -> None:
    assert_close_to_reference(HessianScaled(power=power), name, reference(loss, power), loss=loss)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("projections", [None, 2])
def test_slow_reference_finite_differences(projections: int | None, power: int) -> None:
    """Of the sampled form too, at fixed signs: L is differentiated through."""
    assert_finite_differences(HessianScaled(projections, power), "batch_norm")


@pytest.mark.parametrize("loss", ["cross_entropy", "squared", SMOOTHED], ids=str)
def test_slow_reference_sampled_form_is_unbiased(loss: Any) -> None:
    assert_unbiased(HessianScaled(projections=1), HessianScaled(), loss=loss)


@pytest.mark.parametrize("projections", [2, 3])
def test_slow_reference_the_sampled_square_is_unbiased(projections: int | None) -> None:
    assert_unbiased(HessianScaled(projections, power=2), HessianScaled(power=2), samples=1500)


def test_the_squares_mean_is_not_the_means_square() -> None:
    """Closed form: traces 6.25 and 0; the mean of the squares is 6.25^2 / 2 (N20 eq. 66 is one sample's loss)."""
    network = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    passed = ForwardPass(network, torch.tensor([[0.0, 0.0], [100.0, 0.0]]), torch.tensor([0, 0]))
    assert float(HessianScaled(power=2)(passed).detach()) == pytest.approx(6.25**2 / 2, rel=1e-6)


def test_kernels_closed_forms() -> None:
    """S u and L e against the matrices, and L L^T = H."""
    z = 3 * torch.randn(4, 5, generator=generator(0), dtype=torch.float64)
    p, eye = z.softmax(1), torch.eye(5, dtype=torch.float64)
    columns = torch.stack([hessian_root_product(z, unit.expand(4, 5)) for unit in eye], 2)
    root = torch.diag_embed(p.sqrt()) - p[:, :, None] * p.sqrt()[:, None, :]
    torch.testing.assert_close(columns, root, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(columns @ columns.mT, softmax_jacobian(z), rtol=1e-9, atol=1e-14)
    columns = torch.stack([softmax_product(z, unit.expand(4, 5)) for unit in eye], 2)
    torch.testing.assert_close(columns, softmax_jacobian(z), rtol=1e-9, atol=1e-14)


def test_certain_networks() -> None:
    """Closed form: Tr(J^T H J) = p_0 p_1 ||w_0 - w_1||^2."""
    assert_sound_when_certain(HessianScaled(), lambda spread, apart: spread * apart)


def test_certain_networks_sampled() -> None:
    """Closed form: L e = (sqrt(p_0 p_1)) (e_0 sqrt p_1 - e_1 sqrt p_0) (1, -1)."""
    x = torch.zeros(2, 3)
    signs = ForwardPass(nn.Linear(3, 2), x, torch.tensor([0, 1]), key=(0,)).signs((2, 2), "hessian_scaled", 0).double()

    def closed_form(spread, apart):
        # p_0 + p_1 = 1, so (e_0 sqrt p_1 - e_1 sqrt p_0)^2 = 1 - 2 e_0 e_1 sqrt(p_0 p_1)
        return spread * (1 - 2 * signs.prod(1) * spread.sqrt()) * apart

    assert_sound_when_certain(HessianScaled(projections=1), closed_form)


def test_closed_form_gradients_are_finite_where_a_probability_is_zero() -> None:
    """exp(-1000) is 0 in any type, where sqrt(p) has no derivative."""
    for dtype in (torch.float32, torch.float64):
        z = torch.tensor([[1000.0, 0.0, -5.0]], dtype=dtype, requires_grad=True)
        hessian_root_product(z, torch.tensor([[1.0, -1.0, 1.0]], dtype=dtype)).square().sum().backward()
        assert z.grad.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("projections", [None, 2])
def test_hsfob(projections: int | None) -> None:
    """The pairs of eqs 64 to 66, and their sum against slow references."""
    double = DoubleBackpropagation()
    plain, square = HessianScaled(projections), HessianScaled(projections, power=2)
    assert hsfob_db(0.1, 0.2, projections=projections) == [(0.1, plain), (0.2, double)]
    assert hsfob_db1(0.3, projections=projections) == [(0.3, plain), (0.3, double)]
    assert hsfob_db2(0.3, projections=projections) == [(0.3, square), (0.3, double)]


def test_hsfob_db2_slow_reference() -> None:
    def of_sample(network, x, y):
        variable = x[None].clone().requires_grad_()
        loss = F.cross_entropy(network(variable), y[None])
        (gradient,) = torch.autograd.grad(loss, variable, create_graph=True)
        return 0.3 * (reference("cross_entropy", 2)(network, x, y) + gradient.square().sum())

    def penalty(passed):
        return sum(strength * part(passed) for strength, part in hsfob_db2(0.3))

    assert_close_to_reference(penalty, "batch_norm", of_sample)


def test_property_penalties_add_up() -> None:
    assert_adds_up(HessianScaled(), JacobianFrobenius(projections=1))
    assert_adds_up(HessianScaled(2, power=2), DoubleBackpropagation())


def test_property_by_name_and_in_training() -> None:
    penalty = HessianScaled(3, power=2)
    assert build("penalty", json.loads(json.dumps(describe(penalty, PENALTIES))), PENALTIES) == penalty
    last = assert_trains(*hsfob_db1(0.1, projections=1))
    assert last["hessian_scaled"] > 0
    assert last["double_backpropagation"] > 0


@pytest.mark.parametrize("loss", ["maximum", "hinge"])
def test_losses_without_curvature_are_refused(loss: Any) -> None:
    passed = ForwardPass(nn.Linear(2, 2), torch.ones(1, 2), torch.tensor([0]), loss=loss)
    with pytest.raises(ValueError, match=f"the loss '{loss}' is piecewise linear in the logits.*cross_entropy"):
        HessianScaled()(passed)


def test_every_loss_has_its_hessian_or_is_refused() -> None:
    named = {loss if isinstance(loss, str) else loss["name"] for loss in CURVED}
    assert named | {"maximum", "hinge"} == set(LOSSES)


def test_refused_settings() -> None:
    with pytest.raises(ValueError, match=r"power must be one of 1, 2.*, got 3"):
        HessianScaled(power=3)
    with pytest.raises(ValueError, match=r"projections must be at least 1.*, got 0"):
        HessianScaled(projections=0)
    with pytest.raises(ValueError, match="projections is 1; expected at least 2 with power=2"):
        HessianScaled(1, power=2)
