"""Networks, probes and a slow comparison for the tests of `fp.compare` in other processes."""

import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

import flatprobe as fp


class Attention(nn.Module):
    """A small transformer, whose layers have no certificate."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(8, 10)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.embed(x.squeeze(1))).mean(1))


class Fatal(nn.Module):
    """A network that ends its process where it is a worker."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.home = nn.Linear(16, 10), os.getpid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if os.getpid() != self.home:
            os._exit(9)
        return self.layer(x.flatten(1))


def slow(model: nn.Module, data: fp.LabelledData, seed: int = 0) -> fp.Result:
    """Margins that take a second, with a mark per call beside the script."""
    Path(f"called-{time.time_ns()}-{seed}").touch()
    time.sleep(1.0)
    return fp.functional_margins(model, data)


def networks(count: int) -> dict[str, nn.Module]:
    """Networks by name."""
    return {f"net-{k}": fp.models.mlp((1, 4, 4), widths=(8,), seed=k).eval() for k in range(count)}


def data() -> fp.LabelledData:
    """Random samples."""
    generator = torch.Generator().manual_seed(0)
    return fp.LabelledData(torch.rand((30, 1, 4, 4), generator=generator), torch.arange(30) % 10)


if __name__ == "__main__":
    fp.compare(networks(6), data(), probes=slow, out=sys.argv[1])
