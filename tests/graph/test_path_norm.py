"""The path norm against an enumeration of all paths."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from flatprobe import models
from flatprobe.graph import trace
from flatprobe.graph.path_norm import path_norm
from tests.helpers.graphs import traced


def randomised(network: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for value in [*network.parameters(), *network.buffers()]:
            if value.is_floating_point():
                value.data.copy_(torch.rand_like(value) + 0.1)
    return network.double().eval()


def enumerated(layers: list[tuple[Tensor, Tensor | None]]) -> float:
    """All paths through layers of matrices, one by one: from each input, and from each bias, to each logit."""
    total = 0.0
    for start in range(len(layers) + 1):  # 0: from an input; l: from a bias of layer l
        later = layers[start:]
        sources = layers[0][0].shape[1] if start == 0 else layers[start - 1][0].shape[0]
        widths = [range(sources), *(range(len(weight)) for weight, _ in later)]
        for path in itertools.product(*widths):
            product = 1.0
            if start > 0:
                bias = layers[start - 1][1]
                product = 0.0 if bias is None else float(bias[path[0]])
            for (weight, _), (source, unit) in zip(later, itertools.pairwise(path), strict=True):
                product *= float(weight[unit, source])
            total += product**2
    return math.sqrt(total)


def dense(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """An affine layer's matrix and offset on flat inputs, column by column."""
    size = math.prod(shape)
    with torch.no_grad():
        offset = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten()
        columns = layer(torch.eye(size, dtype=torch.float64).view(size, *shape)).flatten(1) - offset
    return columns.T, offset


def test_slow_reference_every_path_of_an_mlp() -> None:
    network = randomised(models.mlp((3,), widths=(4, 3), classes=2))
    layers = [
        (layer.weight.detach(), layer.bias.detach()) for layer in network.modules() if isinstance(layer, nn.Linear)
    ]
    torch.testing.assert_close(path_norm(trace(network, (3,))), enumerated(layers), rtol=1e-12, atol=0)


def test_slow_reference_every_path_of_a_convolutional_network_with_batch_norm_and_average_pooling() -> None:
    parts = [nn.Conv2d(1, 2, 2, stride=1, padding=1), nn.BatchNorm2d(2), nn.AvgPool2d(2, 2, padding=1)]
    network = randomised(nn.Sequential(*parts, nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)))
    first = dense(nn.Sequential(*network[:2]), (1, 2, 2))
    pool = dense(network[2], (2, 3, 3))
    last = dense(network[5], (8,))
    expected = enumerated([first, (pool[0], None), last])
    torch.testing.assert_close(path_norm(trace(network, (1, 2, 2))), expected, rtol=1e-12, atol=0)


class Skip(nn.Module):
    """z = M (relu(A x + a) + B relu(A x + a) + b)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x).relu()
        return self.head(stem + self.block(stem))


def test_slow_reference_every_path_of_a_residual_network() -> None:
    network = randomised(Skip())
    A, B, M = (layer.requires_grad_(requires_grad=False) for layer in (network.stem, network.block, network.head))
    # The skip and the block are paths of their own: two networks that share the stem, the head's bias counted once.
    through = enumerated([(A.weight, A.bias), (B.weight, B.bias), (M.weight, M.bias)])
    past = enumerated([(A.weight, A.bias), (M.weight, None)])
    expected = math.sqrt(through**2 + past**2)
    torch.testing.assert_close(path_norm(trace(network, (3,))), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
        nn.MaxPool2d(2, 1, dilation=2),
        nn.MaxPool2d((3, 2), 2, padding=(1, 0), ceil_mode=True),
        nn.AvgPool2d((1, 3), (2, 1), padding=(0, 1)),
        nn.AdaptiveMaxPool2d(2),
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.AvgPool2d(2, 2, ceil_mode=True),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AdaptiveAvgPool2d((2, 3)),
    ],
    ids=repr,
)
def test_slow_reference_pooling_by_its_windows(pool: nn.Module) -> None:
    """Each entry of an output's window is a path, of weight 1 (max) or its own weight (average)."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), pool, nn.Flatten()).double().eval()
    nn.init.constant_(network[0].weight, 1.0)
    total = 0.0
    for place in range(25):
        one = torch.zeros(25, dtype=torch.float64)
        one[place] = 1.0
        weights = pool(one.view(1, 1, 5, 5))  # of a maximum, 1 where this entry is in the window
        total += float(weights.square().sum())
    found = path_norm(trace(network, (1, 5, 5)))
    torch.testing.assert_close(found, math.sqrt(total), rtol=1e-12, atol=0)


def test_closed_form_a_mean_over_the_map_and_branches_side_by_side() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x.mean((2, 3)), 3 * x.mean((2, 3)) - 1], 1)

    # One channel of 2 x 2: four paths of 1/4, four of 3/4, and the constant -1.
    expected = math.sqrt(4 / 16 + 9 * 4 / 16 + 1)
    torch.testing.assert_close(path_norm(trace(Branches().eval(), (1, 2, 2))), expected, rtol=1e-12, atol=0)


def test_property_rescaling_relu_units_leaves_the_path_norm() -> None:
    network = models.mlp((3,), widths=(4, 3), classes=2).double().eval()
    before = path_norm(trace(network, (3,)))
    first, second = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][:2]
    with torch.no_grad():
        first.weight.mul_(7.0)
        first.bias.mul_(7.0)
        second.weight.div_(7.0)
    torch.testing.assert_close(path_norm(trace(network, (3,))), before, rtol=1e-12, atol=0)


def test_pinned_the_path_norms_of_foreign_and_residual_networks_exist() -> None:
    for name in ("foreign", "residual", "normalised", "cnn"):
        assert 0 < path_norm(traced(name)[1]) < math.inf


def test_unknown_layers_are_named() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)).eval()
    message = r"path=False leaves out\) is not known for the operation aten.layer_norm.default in the layer '1'"
    with pytest.raises(ValueError, match=message):
        path_norm(trace(network, (3,)))
