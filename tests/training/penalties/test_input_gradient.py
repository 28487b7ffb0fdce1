"""Penalties on the loss' input gradient: slow references, closed forms, places without a gradient."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.training import ForwardPass, train
from flatprobe.training.forward import Mixture
from flatprobe.training.penalties import (
    PENALTIES,
    DoubleBackpropagation,
    GradientDualNorm,
    TikhonovDifferences,
)
from flatprobe.training.registry import build, describe
from flatprobe.utils.rng import generator
from tests.helpers.cases import batch
from tests.helpers.penalties import NETWORKS, assert_adds_up, assert_value_and_gradient, gradients_of, passed_for
from tests.helpers.references import with_statistics
from tests.helpers.small_data import clusters


def gradient_at(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    variable = x[None].clone().requires_grad_()
    (found,) = torch.autograd.grad(F.cross_entropy(network(variable), y[None]), variable)
    return found[0]


def mean_over_samples(of_gradient):
    """Slow reference: autograd, sample by sample."""

    def reference(network, inputs, labels):
        values = [of_gradient(gradient_at(network, x, y)) for x, y in zip(inputs, labels, strict=True)]
        return float(sum(values)) / len(values)

    return reference


OF_GRADIENT = {
    "double": (DoubleBackpropagation(), lambda g: g.square().sum()),
    "l2": (GradientDualNorm("l2"), lambda g: g.square().sum().sqrt()),
    "linf": (GradientDualNorm("linf"), lambda g: g.abs().sum()),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("penalty", OF_GRADIENT)
def test_closed_form_norms_of_the_gradient(name: str, penalty: Any) -> None:
    own, of_gradient = OF_GRADIENT[penalty]
    assert_value_and_gradient(own, mean_over_samples(of_gradient), NETWORKS[name]())


@pytest.mark.parametrize("name", NETWORKS)
def test_tikhonov_differences(name: str) -> None:
    """Slow reference, the directions held as they are at the unmoved weights."""
    network, step = NETWORKS[name](), 0.1
    frozen = with_statistics(network, batch()[0])
    directions = [F.normalize(gradient_at(frozen, x, y).flatten(), dim=0) for x, y in zip(*batch(), strict=True)]

    def reference(moved, inputs, labels):
        total = 0.0
        for x, y, v in zip(inputs, labels, directions, strict=True):
            pair = torch.stack([x, x + step * v.view_as(x)])
            low, high = F.cross_entropy(moved(pair), y.expand(2), reduction="none").tolist()
            total += ((high - low) / step) ** 2
        return total / len(inputs)

    assert_value_and_gradient(TikhonovDifferences(step), reference, network)


def test_tikhonov_differences_tend_to_double_backpropagation() -> None:
    """Property: the difference of the two is of the order of h."""
    passed = passed_for(NETWORKS["batch_norm"]())
    exact = DoubleBackpropagation()(passed).item()
    gaps = [abs(TikhonovDifferences(step)(passed).item() - exact) / exact for step in (1e-3, 1e-4, 1e-5)]
    assert gaps[0] < 1e-2
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.1)
    assert gaps[2] == pytest.approx(gaps[0] / 100, rel=0.1)


def test_property_the_gradient_pass_leaves_the_shared_graph() -> None:
    assert_adds_up(TikhonovDifferences(0.1), DoubleBackpropagation(), GradientDualNorm("linf"))


EVERY = [DoubleBackpropagation(), GradientDualNorm("l2"), GradientDualNorm("linf"), TikhonovDifferences(0.1)]


@pytest.mark.parametrize("penalty", EVERY, ids=str)
def test_where_the_gradient_is_zero_so_is_the_penalty(penalty: Any) -> None:
    """Closed form: hinge losses that are met; no NaN in value or gradient."""
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(50), nn.Linear(50, 3)).double().train()
    with torch.no_grad():
        network[2].bias.copy_(torch.tensor([100.0, 0.0, -100.0]))
    passed = ForwardPass(network, batch()[0], torch.zeros(6, dtype=torch.int64), loss="hinge")
    value = penalty(passed)
    assert value.item() == 0
    assert all(bool((found == 0).all()) for found in gradients_of(value, network).values())


@pytest.mark.parametrize("penalty", EVERY, ids=str)
def test_closed_form_where_the_network_is_certain_nothing_overflows(penalty: Any) -> None:
    """In float32 the loss' gradient is about 1e-27 here, and the sum of its squares 0."""
    network = nn.Linear(4, 2)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.0, 1.0, 1.0, 1.0]]))
        network.bias.copy_(torch.tensor([0.0, 61.0]))
    value = penalty(ForwardPass(network, torch.ones(3, 4), torch.ones(3, dtype=torch.int64)))
    assert 0 <= value.item() < 1e-20
    assert all(bool((found.abs() < 1e-6).all()) for found in gradients_of(value, network).values())


def test_direction_has_unit_length_where_squares_underflow() -> None:
    """Closed form: l = 1e-25 (z_1 - z_0) + ..., by scaled weights; v keeps length 1, so the points stay h away."""
    network = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        network.weight.copy_(1e-25 * torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    passed = ForwardPass(network, torch.ones(1, 2), torch.tensor([0]), loss="maximum")
    seen: list[torch.Tensor] = []
    original = passed.losses_at
    passed.losses_at = lambda points: seen.append(points) or original(points)  # type: ignore[method-assign]
    TikhonovDifferences(0.5)(passed)
    torch.testing.assert_close(seen[0], torch.tensor([[1.3, 1.4]]))


@pytest.mark.parametrize("penalty", EVERY, ids=str)
def test_mixtures_of_labels(penalty: Any) -> None:
    """Closed form: logits are the inputs, so l(x) = logsumexp(x) - t . x with the mixed target t."""
    x = torch.tensor([[1.0, 2.0, 0.0]], dtype=torch.float64)
    mixture = Mixture(((torch.tensor([0.25]), torch.tensor([0])), (torch.tensor([0.75]), torch.tensor([2]))))
    target = torch.tensor([0.25, 0.0, 0.75], dtype=torch.float64)
    gradient = x[0].softmax(0) - target
    if isinstance(penalty, TikhonovDifferences):
        moved = x[0] + 0.1 * gradient / gradient.norm()
        expected = ((moved.logsumexp(0) - target @ moved - x[0].logsumexp(0) + target @ x[0]) / 0.1).square()
    else:
        expected = {
            DoubleBackpropagation(): gradient.square().sum(),
            GradientDualNorm("l2"): gradient.norm(),
            GradientDualNorm("linf"): gradient.abs().sum(),
        }[penalty]
    assert penalty(ForwardPass(nn.Identity(), x, mixture)).item() == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("penalty", EVERY, ids=str)
def test_property_round_trip_through_json(penalty: Any) -> None:
    assert build("penalty", describe(penalty, PENALTIES), PENALTIES) == penalty


def test_property_training_with_them() -> None:
    asked = [
        (0.1, "double_backpropagation"),
        (0.1, {"name": "gradient_dual_norm", "norm": "linf"}),
        (0.1, {"name": "tikhonov_differences", "step": 0.01}),
    ]
    run = train(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), clusters(), epochs=2, penalties=asked)
    for name in ("double_backpropagation", "gradient_dual_norm", "tikhonov_differences"):
        assert all(math.isfinite(row[name]) and row[name] > 0 for row in run.history)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"norm must be one of 'l2', 'linf'.*, got 'l1'"):
        GradientDualNorm("l1")
    with pytest.raises(ValueError, match=r"step must be a positive finite number.*, got 0"):
        TikhonovDifferences(0)
    passed = ForwardPass(nn.Identity(), torch.ones(1, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"step of TikhonovDifferences is 1e-05 .*float32; .*sqrt\(eps\) = 0\.00035"):
        TikhonovDifferences(1e-5)(passed)
    assert TikhonovDifferences(1e-5)(passed_for(NETWORKS["mlp"]())).isfinite()


def test_slow_reference_differences_keep_their_direction_in_single_precision() -> None:
    """Against float64, on a network so certain that the loss' own gradient loses an entry."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad():
        network[2].weight.mul_(200)
    inputs, labels = torch.randn(8, 4, generator=generator(0)), torch.arange(8) % 3
    single = TikhonovDifferences(0.5)(fp.ForwardPass(network, inputs, labels))
    double = TikhonovDifferences(0.5)(fp.ForwardPass(copy.deepcopy(network).double(), inputs.double(), labels))
    assert float(single.detach()) == pytest.approx(float(double.detach()), rel=1e-3)
