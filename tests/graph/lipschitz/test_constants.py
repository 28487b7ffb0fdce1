"""Operations with a known constant: never exceeded by any pair of points, and attained by some Jacobian."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatprobe.graph import fold, trace
from flatprobe.graph.lipschitz import propagate, step_constants
from flatprobe.graph.path_norm import path_norm

SHAPE = (4, 2, 3)
ORDER = torch.tensor([2, 0, 3, 1])


class Own(nn.Module):
    """A function of the values before a flattening."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("order", ORDER)
        self.slope = nn.Parameter(torch.tensor([0.5, -3.0, 1.0, 2.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).flatten(1)


# Function, constant.
OPERATIONS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "clamp from below": (lambda x: x.clamp(min=0), 1),
    "clamp_min": (lambda x: x.clamp_min(-0.5), 1),
    "clamp_max": (lambda x: 2 * x.clamp_max(0.5), 2),
    "clamp on both sides": (lambda x: x.clamp(-1, 1), 1),
    "clip by tensors": (lambda x: x.clip(-torch.ones(3), torch.ones(4, 1, 1)), 1),
    "maximum with a number": (lambda x: torch.maximum(x, torch.tensor(0.1)), 1),
    "minimum with a vector": (lambda x: torch.minimum(torch.arange(3.0), x), 1),
    "abs": (torch.abs, 1),
    "negation": (lambda x: -3 * x, 3),
    "one less x": (lambda x: 1 - x, 1),
    "x less one, halved": (lambda x: (x - 1) / 2, 0.5),
    "subtracted twice": (lambda x: torch.rsub(x, 1.0, alpha=2), 2),
    "softplus": (F.softplus, 1),
    "softplus, steep": (lambda x: F.softplus(x, 3.0, 5.0), 1),
    "hardsigmoid": (F.hardsigmoid, 1 / 6),
    "logsigmoid": (F.logsigmoid, 1),
    "softshrink": (F.softshrink, 1),
    "tanhshrink": (F.tanhshrink, 2),
    "threshold that is continuous": (lambda x: F.threshold(x, 0.3, 0.3), 1),
    "rrelu at inference": (lambda x: F.rrelu(x, 1.0, 2.0), 1.5),
    "erf": (torch.erf, 2 / math.sqrt(math.pi)),
    "atan": (torch.atan, 1),
    "sin": (torch.sin, 1),
    "cos": (torch.cos, 1),
    "asinh": (torch.asinh, 1),
    "chunk": (lambda x: x.chunk(2, 1)[1], 1),
    "chunks swapped": (lambda x: torch.cat(x.relu().chunk(2, 1)[::-1], 1), 1),
    "split": (lambda x: x.split([1, 3], 1)[1], 1),
    "tensor_split": (lambda x: x.tensor_split(3, 1)[0], 1),
    "unbind": (lambda x: x.unbind(1)[3], 1),
    "pieces joined twice": (lambda x: torch.cat([x[:, :2], x[:, 1:]], 1), math.sqrt(2)),
    "chunks scaled apart": (lambda x: torch.cat([2 * x[:, :2], x[:, 2:].relu()], 1), math.hypot(2, 1)),
    "channel shuffle": (nn.ChannelShuffle(2), 1),
    "pixel shuffle": (nn.PixelShuffle(2), 1),
    "pixel unshuffle": (lambda x: F.pixel_unshuffle(x[..., :2], 2), 1),
    "permutation": (lambda x: x[:, ORDER.tolist()], 1),
    "index_select": (lambda x: x.index_select(1, torch.tensor([0, 2, 2, 2])), math.sqrt(3)),
    "flip": (lambda x: x.flip(1, 3), 1),
    "roll": (lambda x: x.roll((1, 2), (1, 3)), 1),
    "rot90": (lambda x: x.rot90(1, (2, 3)), 1),
    "moveaxis": (lambda x: x.moveaxis(1, 3).swapaxes(1, 2), 1),
    "pad": (lambda x: F.pad(x, (1, 0, 2, 1)), 1),
    "unflatten": (lambda x: x.flatten(1).unflatten(1, (3, 8)), 1),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), math.sqrt(2)),
    "expand": (lambda x: x[:, :, None].expand(-1, -1, 5, -1, -1), math.sqrt(5)),
    "nearest upsampling": (lambda x: F.interpolate(x, scale_factor=2), 2),
    "a mask that fills zeros": (lambda x: x.masked_fill(torch.tensor([True, False, False]), 0.0), 1),
    "sum over two dimensions": (lambda x: x.sum((2, 3)), math.sqrt(6)),
    "sum over channels, kept": (lambda x: x.sum(1, keepdim=True), 2),
    "mean over two dimensions": (lambda x: x.mean((2, 3)), 1 / math.sqrt(6)),
    "largest over a dimension": (lambda x: x.max(2).values, 1),
    "amax over two dimensions": (lambda x: x.amax((2, 3)), 1),
    "least over a dimension": (lambda x: x.amin(1, keepdim=True), 1),
    "maxout": (lambda x: torch.maximum(x[:, :2], 2 * x[:, 2:]), math.hypot(1, 2)),
    "stack": (lambda x: torch.stack([x, 2 * x], 1), math.hypot(1, 2)),
    "stack at the end": (lambda x: torch.stack([x, x], -1), math.sqrt(2)),
    "hstack": (lambda x: torch.hstack([x, 2 * x]), math.hypot(1, 2)),
    "branches added": (lambda x: x + x.relu() - 0.5 * x, 2.5),
    "adaptive averages": (lambda x: F.adaptive_avg_pool2d(x, (1, 3)), 1 / math.sqrt(2)),
    "adaptive maxima": (lambda x: F.adaptive_max_pool2d(x, 1), 1),
    "log-softmax": (lambda x: F.log_softmax(x.flatten(1), 1), math.sqrt(24)),
    "dropout at inference": (lambda x: F.dropout2d(F.alpha_dropout(x, training=False), training=False), 1),
    "feature alpha dropout": (lambda x: F.feature_alpha_dropout(x, training=False), 1),
}
# Where branches or a limit keep every Jacobian below the constant, how much of it is reached.
BELOW = {"tanhshrink": 0.49, "chunks scaled apart": 0.89, "branches added": 0.599, "maxout": 0.89}


def constant_of(network: nn.Module, shape: tuple[int, ...] = SHAPE) -> float:
    graph = fold(trace(network.eval(), shape))
    return propagate(graph, step_constants(graph, "spectral"))[-1]


@pytest.mark.parametrize("name", OPERATIONS)
def test_property_no_pair_moves_faster_and_a_jacobian_attains_the_constant(name: str) -> None:
    function, expected = OPERATIONS[name]
    network = Own(function).double().eval()
    constant = constant_of(network)
    assert constant == pytest.approx(expected, rel=1e-9)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, *SHAPE, generator=generator, dtype=torch.float64)
    x *= 10.0 ** torch.linspace(-1, 1, 300, dtype=torch.float64).view(-1, 1, 1, 1)
    y = x + torch.randn(x.shape, generator=generator, dtype=torch.float64) * x.abs().amax((1, 2, 3), keepdim=True)
    with torch.no_grad():
        moved = (network(x) - network(y)).norm(dim=1)
    assert bool((moved <= constant * (x - y).flatten(1).norm(dim=1) * (1 + 1e-9) + 1e-12).all())
    if name == "log-softmax":
        x = 40 * torch.eye(24, dtype=torch.float64)[:1].view(1, *SHAPE)
    steepest = max(
        float(torch.linalg.matrix_norm(torch.autograd.functional.jacobian(network, point[None])[0].flatten(1), 2))
        for point in x[::10]
    )
    assert steepest <= constant * (1 + (1e-7 if name == "hardsigmoid" else 1e-9))  # torch has its 1/6 in float32
    assert steepest >= BELOW.get(name, 0.97) * constant


def test_property_prelu_by_its_steepest_channel() -> None:
    layer = nn.PReLU(4)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, -3.0, 1.0, 2.0]))
    assert constant_of(nn.Sequential(layer, nn.Flatten())) == pytest.approx(3, rel=1e-9)
    assert constant_of(nn.Sequential(nn.PReLU(), nn.Flatten())) == pytest.approx(1, rel=1e-9)


MIXED = {
    "flip of the samples": lambda x: x.flip(0),
    "roll of everything": lambda x: x.roll(1),
    "sum over the samples": lambda x: x + x.sum(0, keepdim=True),
    "sum over everything": lambda x: x + x.sum(),
    "samples taken for a dimension": lambda x: x[:, :2].transpose(0, 1),
    "one sample's rows": lambda x: x[:, :2].unbind(0)[0],
    "stack of samples": lambda x: torch.stack([x, x], 0)[0],
    "a bound that is another value": lambda x: x.clamp(x.mean((2, 3), keepdim=True), None),
    "an index that is a value": lambda x: x.gather(1, x.argmax(1, keepdim=True)),
    "a jump": lambda x: F.threshold(x, 0.3, 0.0),
    "hard shrinkage": F.hardshrink,
    "an inverted softplus": lambda x: F.softplus(x, -1.0),
    "a circular padding": lambda x: F.pad(x, (1, 1, 1, 1), "circular"),
    "a square": lambda x: x * x,
}


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_samples_or_has_no_constant_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"the Lipschitz constant is not known for the operation aten\."):
        constant_of(Own(MIXED[name]).double())


def test_slow_reference_the_steps_are_the_operations() -> None:
    inputs = torch.randn(2, *SHAPE, dtype=torch.float64)
    for name, (function, _) in OPERATIONS.items():
        network = Own(function).double().eval()
        torch.testing.assert_close(
            trace(network, SHAPE).run(inputs), network(inputs).detach(), rtol=0, atol=0, msg=name
        )


def test_closed_form_path_norms_of_sums_maxima_and_pieces() -> None:
    ones = {"sum over two dimensions": 24, "largest over a dimension": 24, "maxout": 2 * 6 * (1 + 4), "chunk": 12}
    for name, squared in ones.items():
        assert path_norm(trace(Own(OPERATIONS[name][0]).double().eval(), SHAPE)) == pytest.approx(math.sqrt(squared))
