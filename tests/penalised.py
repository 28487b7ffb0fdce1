"""What the tests of penalties share: small networks, and gradients by finite differences of a slow reference."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flatprobe.rng import generator
from flatprobe.training import ForwardPass
from tests.test_passes import batch, normalised_network, with_constants

Reference = Callable[[nn.Module, Tensor, Tensor], float]  # network of constants, inputs, labels -> P
SLOW = {"rtol": 1e-8, "atol": 1e-10}  # algebra in float64, in another order


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().double().train()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: _seeded(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(50, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    ),
    "cnn": lambda: _seeded(
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    ),
    "batch_norm": normalised_network,
}


def passed_for(network: nn.Module, **options: object) -> ForwardPass:
    """Over the common batch: six samples of (2, 5, 5), three classes."""
    return ForwardPass(network, *batch(), updates=False, **{"key": (0,), **options})


def gradients_of(value: Tensor, network: nn.Module) -> dict[str, Tensor]:
    """By parameter; zeros where it has none."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True, allow_unused=True)
    return dict(zip(names, found, strict=True))


def assert_value_and_gradient(penalty: Callable[[ForwardPass], Tensor], reference: Reference, network: nn.Module):
    """Against the reference, and its central differences in every parameter: 1e-6 is their own error."""
    value = penalty(passed_for(network))
    torch.testing.assert_close(float(value.detach()), reference(with_constants(network, batch()[0]), *batch()), **SLOW)
    for index, (name, gradient) in enumerate(gradients_of(value, network).items()):
        direction = torch.randn(gradient.shape, generator=generator(index), dtype=torch.float64)
        sides = []
        for sign in (1, -1):
            moved = copy.deepcopy(network)
            with torch.no_grad():
                moved.get_parameter(name).add_(sign * 1e-5 * direction)
            sides.append(reference(with_constants(moved, batch()[0]), *batch()))
        found, expected = float((gradient * direction).sum()), (sides[0] - sides[1]) / 2e-5
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6 * (1 + abs(float(value.detach())))), name
