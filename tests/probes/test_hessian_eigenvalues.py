"""Hessian eigenvalues of real weights that forward reads as complex numbers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from tests.helpers import strange


class Spectral(nn.Module):
    """Weights read as complex numbers, which torch wants at an even place of their memory."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.weight = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.randn(6, 4, 2))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        turned = x.to(torch.cdouble) @ torch.view_as_complex(self.weight)
        return self.head(turned.abs()) + self.bias  # type: ignore[no-any-return]


def test_slow_reference_the_hessian_of_real_weights_that_are_viewed_as_complex() -> None:
    model = strange.seeded(lambda: Spectral().double())
    data = fp.LabelledData(torch.randn(12, 6, dtype=torch.float64), torch.arange(12) % 3)
    names = [name for name, _ in model.named_parameters()]
    center = [parameter.detach().clone() for parameter in model.parameters()]

    def loss(*values: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (data.inputs,))
        return F.cross_entropy(logits, data.labels)

    blocks = torch.autograd.functional.hessian(loss, tuple(center))
    rows = [
        torch.cat([block.reshape(a.numel(), -1) for block in row], 1) for a, row in zip(center, blocks, strict=True)
    ]
    largest = float(torch.linalg.eigvalsh(torch.cat(rows))[-1])
    assert float(fp.hessian_eigenvalues(fp.EmpiricalRisk(model, data)).eigenvalues[0]) == pytest.approx(
        largest, rel=1e-4
    )
