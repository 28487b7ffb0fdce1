"""What every penalty is asked: its value and its gradient against slow references, by networks and draws."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.rng import generator
from flatprobe.training import ForwardPass
from tests.cases import smooth
from tests.references import with_statistics
from tests.test_passes import batch, normalised_network

Penalty = Callable[[ForwardPass], Tensor]
OfSample = Callable[[nn.Module, Tensor, Tensor], Tensor]


def convolutional() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = [nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(27, 3)]
        return nn.Sequential(*layers).double().train()


def _images() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 1, 4, 4, generator=generator(0, "images"), dtype=torch.float64), torch.arange(5) % 4


CASES = {
    "mlp": (lambda: smooth().train(), _images),
    "cnn": (convolutional, lambda: batch(4)),
    "batch_norm": (normalised_network, lambda: batch(5)),
}


def value_and_gradients(network: nn.Module, value: Tensor) -> list[Tensor]:
    """The value, and its gradient in every parameter, zeros where it does not depend on one."""
    weights = list(network.parameters())
    found = torch.autograd.grad(value, weights, allow_unused=True)
    return [value.detach(), *(torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True))]


def assert_close_to_reference(penalty: Penalty, case: str, of_sample: OfSample, **options: object) -> None:
    """Value and gradient are those of the mean over a loop over samples: algebra in float64, over three derivatives."""
    make, data = CASES[case]
    network, (inputs, labels) = make(), data()
    found = value_and_gradients(network, penalty(ForwardPass(network, inputs, labels, updates=False, **options)))
    slow = with_statistics(network, inputs)
    total = sum(of_sample(slow, x, y) for x, y in zip(inputs, labels, strict=True)) / len(inputs)
    assert_same(found, value_and_gradients(slow, total))


def assert_same(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-8) -> None:
    scale = max(float(value.abs().max()) for value in expected[1:])
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=0)
    for own, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(own, other, rtol=tolerance, atol=tolerance * scale)


def assert_finite_differences(penalty: Penalty, case: str, **options: object) -> None:
    """The gradient along a random direction is the central difference's: 1e-6 is the differences' own error."""
    make, data = CASES[case]
    network, (inputs, labels) = make(), data()

    def value() -> Tensor:
        return penalty(ForwardPass(network, inputs, labels, updates=False, key=(0,), **options))

    gradients = value_and_gradients(network, value())[1:]
    directions = [torch.randn(w.shape, generator=generator(k), dtype=w.dtype) for k, w in enumerate(gradients)]
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    sides = []
    for step in (1e-5, -1e-5):
        _move(network, directions, step)
        sides.append(value().detach())
        _move(network, directions, -step)
    torch.testing.assert_close(slope, (sides[0] - sides[1]) / 2e-5, rtol=1e-6, atol=1e-6)


def _move(network: nn.Module, directions: list[Tensor], step: float) -> None:
    with torch.no_grad():
        for w, d in zip(network.parameters(), directions, strict=True):
            w.add_(step * d)


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


def assert_adds_up(first: Penalty, second: Penalty) -> None:
    """Two penalties in one pass are their sum, in value and gradient, with BatchNorm."""
    network, (inputs, labels) = normalised_network(), batch(4)

    def passed() -> ForwardPass:
        return ForwardPass(network, inputs, labels, key=(0,), updates=False)

    shared = passed()
    together = value_and_gradients(network, first(shared) + second(shared))
    apart = [value_and_gradients(network, penalty(passed())) for penalty in (first, second)]
    assert_same(together, [one + other for one, other in zip(*apart, strict=True)])


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
