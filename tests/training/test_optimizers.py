"""Optimizers: two steps against written-out algebra (closed form), state that comes back (property)."""

from typing import Any

import pytest
import torch
from torch import nn

from flatprobe.data import LabelledData
from flatprobe.models import mlp
from flatprobe.training import train
from flatprobe.training.optimizers import build_optimizer, optimizer_tensors, restore_optimizer
from flatprobe.utils.rng import generator

RATE, MOMENTUM, DECAY = 0.1, 0.7, 0.05
SGDL = {"name": "sgdl", "noise": 0.3}
PINNED = [0.0690069, 0.4046593, 0.4682132]


@pytest.fixture
def problem() -> tuple[nn.Sequential, LabelledData]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(6, 3, generator=generator, dtype=torch.float64)
    data = LabelledData(inputs, torch.tensor([0, 1, 2, 0, 1, 2]))
    return mlp((3,), widths=(), classes=3).double(), data


def squared_gradient(weight, bias, data):
    """d/dW and d/db of (1/n) sum_i ||W x_i + b - e_{y_i}||^2, by hand."""
    residual = data.inputs @ weight.T + bias - torch.eye(3, dtype=torch.float64)[data.labels]
    return 2 * residual.T @ data.inputs / len(data), 2 * residual.mean(0)


def trained(network, data, **settings):
    run = train(network, data, epochs=2, objective="squared", learning_rate=RATE, batch_size=6, **settings)
    return run.model.linear1.weight, run.model.linear1.bias


def test_sgd_two_steps_closed_form(problem: Any) -> None:
    network, data = problem
    values = [network.linear1.weight.detach().clone(), network.linear1.bias.detach().clone()]
    velocity = [torch.zeros_like(value) for value in values]
    for _ in range(2):
        gradients = squared_gradient(*values, data)
        velocity = [MOMENTUM * v + g + DECAY * w for v, g, w in zip(velocity, gradients, values, strict=True)]
        values = [w - RATE * v for w, v in zip(values, velocity, strict=True)]
    found = trained(network, data, momentum=MOMENTUM, weight_decay=DECAY)
    torch.testing.assert_close(list(found), values, rtol=1e-9, atol=1e-9)


def test_adam_two_steps_closed_form(problem: Any) -> None:
    network, data = problem
    values = [network.linear1.weight.detach().clone(), network.linear1.bias.detach().clone()]
    first, second = ([torch.zeros_like(value) for value in values] for _ in range(2))
    for t in (1, 2):
        gradients = [g + DECAY * w for g, w in zip(squared_gradient(*values, data), values, strict=True)]
        first = [MOMENTUM * m + (1 - MOMENTUM) * g for m, g in zip(first, gradients, strict=True)]
        second = [0.999 * v + 0.001 * g**2 for v, g in zip(second, gradients, strict=True)]
        values = [
            w - RATE * (m / (1 - MOMENTUM**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
            for w, m, v in zip(values, first, second, strict=True)
        ]
    found = trained(network, data, optimizer="adam", momentum=MOMENTUM, weight_decay=DECAY)
    torch.testing.assert_close(list(found), values, rtol=1e-9, atol=1e-9)


def test_nesterov_two_steps_closed_form(problem: Any) -> None:
    network, data = problem
    values = [network.linear1.weight.detach().clone(), network.linear1.bias.detach().clone()]
    velocity = [torch.zeros_like(value) for value in values]
    for _ in range(2):
        gradients = [g + DECAY * w for g, w in zip(squared_gradient(*values, data), values, strict=True)]
        velocity = [MOMENTUM * v + g for v, g in zip(velocity, gradients, strict=True)]
        values = [w - RATE * (g + MOMENTUM * v) for w, g, v in zip(values, gradients, velocity, strict=True)]
    found = trained(network, data, optimizer="nesterov", momentum=MOMENTUM, weight_decay=DECAY)
    torch.testing.assert_close(list(found), values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("decay", [None, 0.0, 0.7])
@pytest.mark.parametrize("momentum", [0.0, MOMENTUM])
def test_sgdl_two_steps_closed_form(problem: Any, decay: Any, momentum: Any) -> None:
    """T3 eq. 5 by hand: the gradient step, then gamma'_t W_t, neither in the velocity nor scaled by the schedule."""
    network, data = problem
    values = [network.linear1.weight.detach().clone(), network.linear1.bias.detach().clone()]
    velocity = [torch.zeros_like(value) for value in values]
    for t in range(2):
        gradients = squared_gradient(*values, data)
        velocity = [momentum * v + g for v, g in zip(velocity, gradients, strict=True)]
        drawn = [generator(3, "sgdl", t, i) for i in range(2)]
        noise = [torch.randn(v.shape, generator=g).double() for v, g in zip(values, drawn, strict=True)]
        scale = 0.2 / (1 + t) ** (0.5 if decay is None else decay)
        rate = RATE * (1, 0.25)[t]
        values = [w - rate * v + scale * W for w, v, W in zip(values, velocity, noise, strict=True)]
    optimizer = {"name": "sgdl", "noise": 0.2} | ({} if decay is None else {"decay": decay})
    schedule = {"name": "step", "stages": [(1, 1), (0.25, 1)]}
    found = trained(network, data, optimizer=optimizer, momentum=momentum, schedule=schedule, seed=3)
    torch.testing.assert_close(list(found), values, rtol=1e-9, atol=1e-9)


def test_property_sgdl_without_noise_is_sgd(problem: Any) -> None:
    plain = trained(*problem)
    silent = trained(*problem, optimizer={"name": "sgdl", "noise": 0.0})
    assert all(torch.equal(*pair) for pair in zip(plain, silent, strict=True))


def test_closed_form_sgdl_on_a_bowl_has_its_stationary_variance() -> None:
    """w <- (1 - r) w + s W on w^2 / 2 has the variance s^2 / (1 - (1 - r)^2): 40,000 weights, 3 standard errors."""
    weight = nn.Parameter(torch.zeros(40_000))
    optimizer = build_optimizer(SGDL | {"decay": 0.0}, [weight], learning_rate=0.5, momentum=0.0, seed=1)
    for _ in range(15):
        weight.grad = weight.detach().clone()
        optimizer.step()
    expected = SGDL["noise"] ** 2 / (1 - 0.25)
    assert float(weight.detach().var()) == pytest.approx(expected, rel=3 * (2 / 40_000) ** 0.5)
    assert abs(float(weight.detach().mean())) < 3 * (expected / 40_000) ** 0.5


def test_sgdl_pinned() -> None:
    """One step of pure noise, seed 7: a change of key or law would make finished runs unrepeatable."""
    weight = nn.Parameter(torch.zeros(3))
    optimizer = build_optimizer(SGDL, [weight], learning_rate=0.1, seed=7)
    weight.grad = torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.tensor(PINNED), rtol=1e-5, atol=0)


def test_property_frozen_parameters_stay(problem: Any) -> None:
    network, data = problem
    network.linear1.bias.requires_grad_(False)
    weight, bias = trained(network, data)
    assert torch.equal(bias, network.linear1.bias)
    assert not torch.equal(weight, network.linear1.weight)


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", SGDL], ids=str)
def test_property_restored_optimizer_goes_on_to_the_last_bit(name: str) -> None:
    def stepped(weight, optimizer, steps):
        for _ in range(steps):
            weight.grad = weight.detach().cos()
            optimizer.step()
        return weight

    start = torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    whole = nn.Parameter(start.clone())
    stepped(whole, build_optimizer(name, [whole], learning_rate=0.1), 5)
    half = nn.Parameter(start.clone())
    optimizer = build_optimizer(name, [half], learning_rate=0.1)
    stepped(half, optimizer, 3)
    stored = {key: value.clone().contiguous() for key, value in optimizer_tensors(optimizer).items()}
    again = build_optimizer(name, [half], learning_rate=0.1)
    restore_optimizer(again, {**stored, "network.weight": start})
    assert torch.equal(stepped(half, again, 2), whole)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"optimizer must be one of 'sgd', 'nesterov', 'adam', 'sgdl'.*, got 'lbfgs'"):
        build_optimizer("lbfgs", [nn.Parameter(torch.ones(1))], learning_rate=0.1)
    with pytest.raises(ValueError, match="no parameter of the network requires a gradient"):
        build_optimizer("sgd", [nn.Parameter(torch.ones(1), requires_grad=False)], learning_rate=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "sgdl"}, r"optimizer is 'sgdl'; expected .*'noise'.*, of which decay may be left out"),
        ({"optimizer": SGDL | {"noise": -0.1}}, r"noise of the optimizer .* is -0\.1; expected at least 0"),
        ({"optimizer": SGDL | {"decay": -1.0}}, r"decay of the optimizer .* is -1\.0; expected at least 0"),
        (
            {"optimizer": SGDL | {"noise": float("nan")}},
            "noise of the optimizer 'sgdl' must be a finite number, got nan",
        ),
        ({"optimizer": {"name": "adam", "noise": 0.1}}, "expected 'adam'"),
        (
            {"optimizer": "nesterov", "momentum": 0.0},
            "momentum is 0 with the optimizer 'nesterov'; expected a positive",
        ),
    ],
)
def test_unfit_settings(problem: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(*problem, epochs=1, **settings)


def test_property_sgdl_scalar_parameter_in_half_precision_keeps_its_count() -> None:
    """The step count has a scalar parameter's shape, and must not take its dtype: 257 is no bfloat16."""
    weight = nn.Parameter(torch.zeros((), dtype=torch.bfloat16))
    optimizer = build_optimizer(SGDL, [weight], learning_rate=0.1)
    restore_optimizer(optimizer, {"optimizer.0.step": torch.tensor(257)})
    assert int(optimizer_tensors(optimizer)["optimizer.0.step"]) == 257
