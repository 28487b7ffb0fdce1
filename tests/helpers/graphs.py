"""Networks to trace, and their graphs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatprobe.graph import Graph, trace
from tests.helpers.cases import NETWORKS, affine


class Foreign(nn.Module):
    """Functional calls, an activation in place, string padding, a strided slice, a pad, branches, a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding="same")
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4 * 49, 10)
        self.matrix = nn.Parameter(torch.rand(12, 12))

    def forward(self, x: Tensor) -> Tensor:
        before = self.norm(self.convolution(x))
        after = F.relu(before, inplace=True)
        halved = F.max_pool2d(after, 2, 2) + F.pad(before[:, :2, ::2, ::2], (0, 0, 0, 0, 1, 1))
        z = self.linear(F.dropout(halved, 0.5, self.training).view(x.size(0), -1))
        joined = torch.cat([F.gelu(z, approximate="tanh"), F.adaptive_max_pool2d(halved, 1)[:, :2, 0, 0]], 1)
        joined = joined @ self.matrix.T + 1 - self.matrix[0] / 2
        return joined + F.leaky_relu(joined * 2, 0.2) - F.silu(-joined)


def foreign() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Foreign().double()
        network(torch.rand(32, 1, 14, 14, dtype=torch.float64))
    return network.eval()


CASES = {
    **{name: (build, (1, 8, 8)) for name, build in NETWORKS.items()},
    "foreign": (foreign, (1, 14, 14)),
    "affine": (affine, (7,)),
}


def traced(name: str) -> tuple[nn.Module, Graph, Tensor]:
    build, shape = CASES[name]
    network = build()
    return network, trace(network, shape), torch.rand(2, *shape, dtype=torch.float64)
