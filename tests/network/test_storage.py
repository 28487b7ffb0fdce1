"""Tensors that share memory, and empty, sparse and overlapping ones."""

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from tests.helpers import strange, strange_modules

DATA = strange.data(40)


@pytest.mark.parametrize("how", ["transposed parameter", "transposed data", "same data", "buffer"])
def test_different_tensors_in_one_memory_are_refused(how: str) -> None:
    first, second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
    model = nn.Sequential(first, nn.Tanh(), second, nn.Linear(6, 3)).double().eval()
    if how == "transposed parameter":
        second.weight = nn.Parameter(first.weight.T)
    elif how == "transposed data":
        second.weight.data = first.weight.data.T
    elif how == "same data":
        second.weight.data = first.weight.data
    else:
        second.register_buffer("kept", first.weight.data)
    for call in (fp.EmpiricalRisk, fp.functional_margins, lambda m, d: fp.train(m, d, epochs=1)):
        with pytest.raises(ValueError, match=r"'0.weight' and '2.(weight|kept)' of Sequential are different tensors"):
            call(model, strange.data())


def test_pieces_of_one_memory_that_do_not_overlap_are_taken() -> None:
    """As a flat vector of all weights, or two column blocks of one matrix."""
    layer = nn.Linear(6, 3).double()
    flat = torch.randn(24, dtype=torch.float64)
    layer.weight.data, layer.bias.data = flat[:18].view(3, 6), flat[18:21]
    assert fp.EmpiricalRisk(layer.eval(), strange.data())().loss > 0
    columns = torch.randn(6, 12, dtype=torch.float64)
    blocks = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)).double().eval()
    blocks[0].weight.data, blocks[1].weight.data = columns[:, ::2], columns[:, 1::2]
    assert fp.EmpiricalRisk(blocks, strange.data())().loss > 0


def test_empty_and_sparse_tensors() -> None:
    model = strange.built(strange_modules.Nested)
    expected = fp.EmpiricalRisk(model, DATA)().loss
    flat = torch.ones(10, dtype=torch.float64)
    for name, value in (("a", torch.empty(0)), ("b", torch.empty(0)), ("c", flat[:0]), ("d", flat[:0].view(0, 6))):
        model.register_buffer(name, value)

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = model

        def forward(self, x: Tensor) -> Tensor:
            return self.inside(x) + torch.empty(0).sum() + self.inside.a.sum()

    assert fp.EmpiricalRisk(Reads().eval(), DATA)().loss == expected
    model.register_buffer("adjacency", torch.eye(3).to_sparse())
    with pytest.raises(
        ValueError, match=r"holds 'adjacency' in the layout torch\.sparse_coo; .*adjacency\.to_dense\(\)"
    ):
        fp.EmpiricalRisk(model, DATA)
    model.register_buffer("adjacency", model.adjacency.to_dense())
    assert fp.EmpiricalRisk(model, DATA)().loss == expected


def test_of_three_tensors_in_one_memory_the_two_that_overlap_are_named() -> None:
    flat, model = torch.randn(20, dtype=torch.float64), strange.built(strange_modules.Nested)
    for name, value in (("first", flat[:4]), ("second", flat[4:10]), ("third", flat[8:])):
        model.register_buffer(name, value)
    with pytest.raises(ValueError, match="'second' and 'third' of Nested are different tensors in the same memory"):
        fp.EmpiricalRisk(model, DATA)
