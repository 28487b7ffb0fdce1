"""Derivatives that are refused."""

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp


def test_a_sparse_gradient_is_told() -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(7, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.embedding(self.table.weight, x, -1, False, True).mean(1))

    data = fp.LabelledData(torch.arange(60).view(20, 3) % 7, torch.arange(20) % 3)
    with pytest.raises(ValueError, match=r"Sparse has a sparse gradient, of shape \(7, 4\); expected dense ones"):
        fp.EmpiricalRisk(Sparse().eval(), data).gradient()
