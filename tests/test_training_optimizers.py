"""Optimizers: two steps against written-out algebra (closed form), state that comes back (property)."""

import pytest
import torch
from torch import nn

from flatprobe.data import LabelledData
from flatprobe.models import mlp
from flatprobe.training import train
from flatprobe.training.optimizers import make_optimizer, optimizer_tensors, restore_optimizer

RATE, MOMENTUM, DECAY = 0.1, 0.7, 0.05


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


def test_sgd_two_steps_closed_form(problem):
    network, data = problem
    values = [network.linear1.weight.detach().clone(), network.linear1.bias.detach().clone()]
    velocity = [torch.zeros_like(value) for value in values]
    for _ in range(2):
        gradients = squared_gradient(*values, data)
        velocity = [MOMENTUM * v + g + DECAY * w for v, g, w in zip(velocity, gradients, values, strict=True)]
        values = [w - RATE * v for w, v in zip(values, velocity, strict=True)]
    found = trained(network, data, momentum=MOMENTUM, weight_decay=DECAY)
    torch.testing.assert_close(list(found), values, rtol=1e-9, atol=1e-9)


def test_adam_two_steps_closed_form(problem):
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


def test_frozen_parameters_stay(problem):
    network, data = problem
    network.linear1.bias.requires_grad_(False)
    weight, bias = trained(network, data)
    assert torch.equal(bias, network.linear1.bias)
    assert not torch.equal(weight, network.linear1.weight)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_restored_optimizer_goes_on_to_the_last_bit(name):
    def stepped(weight, optimizer, steps):
        for _ in range(steps):
            weight.grad = weight.detach().cos()
            optimizer.step()
        return weight

    start = torch.linspace(-1, 1, 24).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    whole = nn.Parameter(start.clone())
    stepped(whole, make_optimizer(name, [whole], learning_rate=0.1), 5)
    half = nn.Parameter(start.clone())
    optimizer = make_optimizer(name, [half], learning_rate=0.1)
    stepped(half, optimizer, 3)
    stored = {key: value.clone().contiguous() for key, value in optimizer_tensors(optimizer).items()}
    again = make_optimizer(name, [half], learning_rate=0.1)
    restore_optimizer(again, {**stored, "network.weight": start})
    assert torch.equal(stepped(half, again, 2), whole)


def test_refusals():
    with pytest.raises(ValueError, match="optimizer is 'lbfgs'; expected one of 'sgd', 'adam'"):
        make_optimizer("lbfgs", [nn.Parameter(torch.ones(1))], learning_rate=0.1)
    with pytest.raises(ValueError, match="no parameter of the network requires a gradient"):
        make_optimizer("sgd", [nn.Parameter(torch.ones(1), requires_grad=False)], learning_rate=0.1)
