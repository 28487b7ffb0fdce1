"""The empirical risk: values, derivatives, losses and what is refused."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.network.weights import combine, norm, weights_of
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched
from tests.helpers.references import loss_and_error

DATA = cases.data_for((1, 8, 8))


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_slow_reference_loss_and_error_at_moved_weights(name: str) -> None:
    model = cases.NETWORKS[name]()
    weights = {key: value * 1.1 + 0.01 for key, value in weights_of(model).items()}
    risk = fp.EmpiricalRisk(model, DATA)(weights)
    loss, error = loss_and_error(model, weights, DATA)
    assert risk.loss == pytest.approx(loss, rel=1e-9)
    assert risk.error == error


def test_closed_form_losses() -> None:
    data = fp.LabelledData(torch.eye(3, dtype=torch.float64), torch.tensor([0, 1, 1]))
    model = cases.Affine(2 * torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    cross = math.log(math.exp(2) + 2)
    assert fp.EmpiricalRisk(model, data)().loss == pytest.approx((2 * (cross - 2) + cross) / 3, rel=1e-12)
    assert fp.EmpiricalRisk(model, data, loss="squared")().loss == pytest.approx((1 + 1 + 5) / 3, rel=1e-12)
    assert fp.EmpiricalRisk(model, data, loss="hinge")().loss == pytest.approx((0 + 0 + 3) / 3, rel=1e-12)
    assert fp.EmpiricalRisk(model, data)().error == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_slow_reference_gradient_and_hessian_product(name: str) -> None:
    model = cases.NETWORKS[name]()
    data = DATA.head(40)
    risk = fp.EmpiricalRisk(model, data, batch_size=16)
    gradient = risk.gradient()
    loss = F.cross_entropy(model(data.inputs.double()), data.labels)
    expected = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    direction = {key: torch.ones_like(value) for key, value in gradient.items()}
    product = torch.autograd.grad(sum(g.sum() for g in expected), list(model.parameters()))
    for key, grad, hv in zip(gradient, expected, product, strict=True):
        torch.testing.assert_close(gradient[key], grad.detach(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(risk.hvp(None, direction)[key], hv, rtol=1e-9, atol=1e-12)


def test_property_hessian_product_is_the_gradients_derivative_and_takes_partial_directions() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)).double().eval()
    risk = fp.EmpiricalRisk(model, DATA)
    u = {"1.weight": torch.ones_like(risk.center["1.weight"])}
    h = 1e-5
    plus, minus = (risk.gradient(combine([risk.center, u], [1.0, s])) for s in (h, -h))
    for name, value in risk.hvp(None, u).items():
        torch.testing.assert_close(value, (plus[name] - minus[name]) / (2 * h), rtol=1e-5, atol=1e-8)


def test_a_loss_that_is_affine_in_the_weights_has_no_curvature() -> None:
    model = cases.Affine(torch.zeros(2, 64, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    data = fp.LabelledData(torch.rand(4, 64), torch.zeros(4, dtype=torch.long), classes=2)
    risk = fp.EmpiricalRisk(model, data, loss="hinge")
    assert norm(risk.hvp(None, {"weight": torch.ones(2, 64, dtype=torch.float64)})) == 0


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_batch_size_invariant(name: str) -> None:
    model = cases.NETWORKS[name]()

    def values(data: fp.LabelledData, size: int) -> Tensor:
        risk = fp.EmpiricalRisk(model, data, batch_size=size)
        return torch.tensor([risk().loss, risk().error, norm(risk.gradient())], dtype=torch.float64)

    assert_batch_size_invariant(values, DATA)


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_model_untouched(name: str) -> None:
    model = cases.NETWORKS[name]()

    def probe() -> None:
        risk = fp.EmpiricalRisk(model, DATA)
        risk.hvp(None, risk.gradient())
        with torch.no_grad():
            for value in risk.center.values():  # the center is a snapshot: even writing to it does not reach the model
                value.zero_()

    assert_model_untouched(model, probe)


def test_unknown_losses_and_batch_sizes() -> None:
    with pytest.raises(ValueError, match=r"loss must be one of 'cross_entropy'.*, got 'mse'"):
        fp.EmpiricalRisk(cases.mlp(), DATA, loss="mse")
    with pytest.raises(ValueError, match="batch_size is 0; expected at least 1"):
        fp.EmpiricalRisk(cases.mlp(), DATA, batch_size=0)


def test_an_overflow_in_a_later_batch_is_named() -> None:
    model = cases.Affine(torch.full((2, 1), 1e308, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    data = fp.LabelledData(torch.tensor([[0.0], [1.0], [100.0]]), torch.zeros(3, dtype=torch.long), classes=2)
    risk = fp.EmpiricalRisk(model, data, batch_size=1)
    with pytest.raises(ValueError, match="logits of sample 2 are not finite"):
        risk()


def test_logits_that_are_not_finite_give_no_error_rate() -> None:
    model = cases.affine(10, 64)
    risk = fp.EmpiricalRisk(model, DATA)
    wild = risk({"weight": torch.full_like(model.weight, torch.nan)})
    assert math.isnan(wild.error)
    assert math.isnan(wild.loss)
    half = cases.Affine(torch.full((2, 64), 900.0), torch.zeros(2)).half()
    data = fp.LabelledData(torch.zeros(3, 64), torch.zeros(3, dtype=torch.long), classes=2)
    with pytest.raises(ValueError, match="logits of sample 0 are not finite"):
        fp.gaussian_robustness(half, data, gammas=[100.0], draws=1)


def test_names_that_the_network_lacks_are_refused() -> None:
    risk = fp.EmpiricalRisk(cases.mlp(), DATA)
    for call in (lambda w: risk(w), lambda w: risk.gradient(w), lambda w: risk.hvp(None, w)):
        with pytest.raises(ValueError, match=r"no parameter 'linear1\.wieght'; expected names among linear1\.weight"):
            call({"linear1.wieght": torch.zeros(24, 64)})


def test_sums_are_taken_in_double_precision() -> None:
    """10,000 equal single-precision losses: a float32 sum would be off by rounding."""
    model = cases.Affine(torch.zeros(3, 1), torch.zeros(3))
    data = fp.LabelledData(torch.zeros(10_001, 1), torch.zeros(10_001, dtype=torch.long), classes=3)
    single = float(torch.tensor(3.0).log())
    assert fp.EmpiricalRisk(model, data, batch_size=10_001)().loss == pytest.approx(single, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_slow_reference_half_precision_losses_are_those_of_the_half_precision_logits(dtype: torch.dtype) -> None:
    model, data = cases.mlp().to(dtype), DATA.head(20)
    with torch.no_grad():
        z = model(data.inputs.to(dtype)).double()
    expected = float(nn.functional.cross_entropy(z, data.labels))
    assert fp.EmpiricalRisk(model, data)().loss == pytest.approx(expected, rel=1e-6)  # float32 losses
    margins = fp.functional_margins(model, data).values
    own = z.gather(1, data.labels[:, None])[:, 0] - z.scatter(1, data.labels[:, None], -torch.inf).amax(1)
    assert torch.equal(margins, own)
