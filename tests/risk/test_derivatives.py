"""Sums of gradients over batches, and inner products in float64 by pieces."""

import pytest
import torch
from torch import Tensor

from flatprobe.network import weights
from flatprobe.risk.derivatives import mean_of, precise_dot, precise_square, summed_gradient


def shared(factor: float) -> object:
    """A loss whose gradients in both weights are the same tensor in memory."""
    return lambda weights: factor * (weights["a"] + weights["b"]).sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factors", [[3.0], [3.0, 1.0], [3.0, 1.0, 0.5]])
def test_closed_form_sums_of_batches_whose_gradients_share_memory(dtype: torch.dtype, factors: list[float]) -> None:
    point = {name: torch.ones(4, dtype=dtype) for name in "ab"}
    value, total = summed_gradient([shared(factor) for factor in factors], point, ["a", "b"])
    assert float(value) == 8 * sum(factors)
    assert {own.dtype for own in total.values()} == {dtype if len(factors) == 1 else torch.float64}
    mean = mean_of(total, 2, point)
    assert all(torch.equal(own, torch.full((4,), sum(factors) / 2, dtype=dtype)) for own in mean.values())


def test_sums_of_many_small_terms_keep_the_digits_of_float64() -> None:
    losses = [lambda weights: (weights["a"] * 1.0).sum()] + 2 * [lambda weights: (weights["a"] * 2.0**-30).sum()]
    _, total = summed_gradient(losses, {"a": torch.zeros(2)}, ["a"])
    assert total["a"].tolist() == [1 + 2.0**-29] * 2


@pytest.mark.parametrize("piece", [1, 3, 100])
def test_closed_form_inner_products_by_pieces(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_PIECE", piece)
    a, b = (torch.randn(2, 5, 1) for _ in range(2))
    assert float(precise_dot(a, b)) == pytest.approx(float((a.double() * b.double()).sum()), rel=1e-12)
    assert float(precise_square(a)) == pytest.approx(float(a.double().square().sum()), rel=1e-12)
    large = torch.tensor([1.0, 2.0**-20, 0.0])
    assert float(precise_square(large)) == 1 + 2.0**-40
    assert float(precise_dot(large, large)) == 1 + 2.0**-40
    empty: Tensor = torch.empty(0)
    assert float(precise_dot(empty, empty)) == 0
