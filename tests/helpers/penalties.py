"""What every penalty is asked: its value and its gradient against slow references, by networks and draws."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.training import ForwardPass
from flatprobe.utils.rng import generator
from tests.helpers.cases import batch, normalised_network
from tests.helpers.references import with_statistics

Penalty = Callable[[ForwardPass], Tensor]
OfSample = Callable[[nn.Module, Tensor, Tensor], Tensor]  # network, x, y -> the sample's term, differentiable
OfBatch = Callable[[nn.Module, Tensor, Tensor], float]  # network, inputs, labels -> P
SLOW = {"rtol": 1e-8, "atol": 1e-10}  # algebra in float64, in another order, over three derivatives


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


def passed_for(network: nn.Module, *, samples: int = 6, **options: object) -> ForwardPass:
    """Over the common batch: (samples, 2, 5, 5), three classes."""
    return ForwardPass(network, *batch(samples), updates=False, **{"key": (0,), **options})


def gradients_of(value: Tensor, network: nn.Module) -> dict[str, Tensor]:
    """By parameter; zeros where it has none."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True, allow_unused=True)
    return dict(zip(names, found, strict=True))


def value_and_gradients(network: nn.Module, value: Tensor) -> list[Tensor]:
    """The value, and its gradient in every parameter."""
    return [value.detach(), *gradients_of(value, network).values()]


def assert_close_to_reference(penalty: Penalty, name: str, of_sample: OfSample, **options: object) -> None:
    """Value and gradient are those that autograd finds of the mean over a loop over samples."""
    network = NETWORKS[name]()
    found = value_and_gradients(network, penalty(passed_for(network, **options)))
    slow = with_statistics(network, batch()[0])
    total = sum(of_sample(slow, x, y) for x, y in zip(*batch(), strict=True)) / len(batch()[0])
    assert_same(found, value_and_gradients(slow, total))


def assert_value_and_gradient(penalty: Penalty, reference: OfBatch, network: nn.Module) -> None:
    """The value is the reference's, and the gradient its differences', for a part of which is held constant."""
    value = penalty(passed_for(network))
    torch.testing.assert_close(float(value.detach()), reference(with_statistics(network, batch()[0]), *batch()), **SLOW)
    found = gradients_of(value, network)
    scale = 1 + abs(float(value.detach()))
    assert_differences(found, network, lambda moved: reference(with_statistics(moved, batch()[0]), *batch()), scale)


def assert_finite_differences(penalty: Penalty, name: str, **options: object) -> None:
    """The gradient is that of the penalty's own value."""
    network = NETWORKS[name]()
    value = penalty(passed_for(network, **options))
    scale = 1 + abs(float(value.detach()))
    found = gradients_of(value, network)
    assert_differences(found, network, lambda moved: float(penalty(passed_for(moved, **options)).detach()), scale)


def assert_differences(
    found: dict[str, Tensor], network: nn.Module, value: Callable[[nn.Module], float], scale: float = 1.0
) -> None:
    """In each parameter, along a random direction, the central difference's: 1e-6 is the differences' own error."""
    for index, (name, gradient) in enumerate(found.items()):
        direction = torch.randn(gradient.shape, generator=generator(index), dtype=torch.float64)
        sides = []
        for sign in (1, -1):
            moved = copy.deepcopy(network)
            with torch.no_grad():
                moved.get_parameter(name).add_(sign * 1e-5 * direction)
            sides.append(value(moved))
        slope, expected = float((gradient * direction).sum()), (sides[0] - sides[1]) / 2e-5
        assert slope == pytest.approx(expected, rel=1e-6, abs=1e-6 * scale), name


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-8) -> None:
    scale = max(float(value.abs().max()) for value in expected[1:])
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=0)
    for own, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(own, other, rtol=tolerance, atol=tolerance * scale)


def assert_unbiased(
    sampled: Penalty, exact: Penalty, *, passes: int = 100, samples: int = 600, **options: object
) -> None:
    """Value and gradient (along 10 directions) within 4 standard errors, each at most 1 % of the exact one's size.

    A batch that repeats a sample is as many independent draws, and passes with different keys are blocks of them.
    """
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x = torch.tensor([[0.3, -1.0, 0.5]], dtype=torch.float64)

    def along(penalty: Penalty, copies: int, key: int) -> Tensor:
        labels = torch.zeros(copies, dtype=torch.int64)
        passed = ForwardPass(network, x.expand(copies, -1), labels, key=(key,), **options)
        value, *gradients = value_and_gradients(network, penalty(passed))
        return torch.cat([value[None], torch.cat([g.flatten() for g in gradients])])

    expected = along(exact, 1, 0)
    blocks = torch.stack([along(sampled, samples, key) for key in range(passes)])
    directions = torch.randn(len(expected) - 1, 10, generator=generator(0, "directions"), dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    for truth, draws, size in (
        (expected[:1], blocks[:, :1], expected[0]),
        (expected[1:] @ directions, blocks[:, 1:] @ directions, expected[1:].norm()),
    ):
        errors = draws.std(0) / passes**0.5
        assert bool((errors <= 0.01 * size).all()), errors / size
        assert bool(((draws.mean(0) - truth).abs() <= 4 * errors).all()), (draws.mean(0) - truth) / errors


def assert_adds_up(*penalties: Penalty) -> None:
    """In one pass, in either order, the penalties and the loss are their sum, in value and gradient, with BatchNorm."""
    network = normalised_network()
    alone = [value_and_gradients(network, copy.deepcopy(own)(passed_for(network))) for own in penalties]
    alone.append(value_and_gradients(network, passed_for(network).loss))
    for order in (penalties, penalties[::-1]):
        passed = passed_for(network)
        together = value_and_gradients(network, passed.loss + sum(copy.deepcopy(own)(passed) for own in order))
        assert_same(together, [sum(terms) for terms in zip(*alone, strict=True)])


def assert_trains(*penalties: tuple[float, object]) -> dict[str, float]:
    """A short training with these penalties, which appear in its history; its last row."""
    data = fp.load_data("digits", split="train", limit=128)
    network = fp.models.mlp((1, 8, 8), widths=(8,))
    run = fp.train(network, data, epochs=2, learning_rate=0.01, batch_size=64, penalties=list(penalties))
    return run.history[-1]


class Pair(nn.Module):
    """Two classes whose logits differ by g = <w, x> + gap: everything about dp/dx is known in closed form."""

    def __init__(self, gap: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, -2.0, 0.5], [0.25, 1.0, -1.0]], dtype=dtype))
        self.bias = nn.Parameter(torch.tensor([gap, 0.0], dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)

    def spread(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """p_0 p_1 without cancellation, and ||w_0 - w_1||^2."""
        g = self(x)[:, 0] - self(x)[:, 1]
        both = nn.functional.logsigmoid(g) + nn.functional.logsigmoid(-g)
        return both.exp(), (self.weight[0] - self.weight[1]).square().sum()


def assert_sound_when_certain(penalty: Penalty, closed_form: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Float32 where the other class has probability exp(-20); at logits of 100 finite, and 0 but for underflow."""
    x = torch.tensor([[0.1, 0.2, -0.3], [0.0, 0.4, 0.1]])
    labels = torch.tensor([0, 1])
    for gap in (20.0, -20.0):
        network = Pair(gap, torch.float32)
        found = value_and_gradients(network, penalty(ForwardPass(network, x, labels, key=(0,))))
        exact = Pair(gap, torch.float64)
        spread, apart = exact.spread(x.double())
        expected = value_and_gradients(exact, closed_form(spread, apart).mean())
        # a rounding of logits of 20 is 1e-6, which the exponential and its square take over
        assert_same([value.double() for value in found], expected, tolerance=2e-5)
    network = Pair(100.0, torch.float32)
    for value in value_and_gradients(network, penalty(ForwardPass(network, x, labels, key=(0,)))):
        assert bool(value.isfinite().all())
        assert bool((value.abs() < 1e-37).all())
