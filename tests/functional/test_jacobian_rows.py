"""Products of Jacobian rows: the same bits in pieces, and the memory of one Jacobian."""

import pytest
import torch
from torch import nn

from flatprobe.functional import jacobian_rows
from flatprobe.functional.jacobian_norms import gram_spectral
from tests.helpers.memory import peak_bytes


@pytest.mark.parametrize("piece", [1, 8 * 4 * 5 * 2, 2**21])  # one, two and all samples at a time
def test_property_products_in_float64_do_not_depend_on_the_pieces(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobian_rows, "_PIECE", piece)
    rows = [torch.randn(7, 5) for _ in range(4)]
    matrix = jacobian_rows.stacked(iter(rows), 4, torch.empty(7, 5))
    assert torch.equal(matrix, torch.stack(rows, 1))
    whole = matrix.double()
    assert torch.equal(jacobian_rows.precise_gram(matrix), whole @ whole.mT)


def test_the_gram_matrix_takes_the_memory_of_one_jacobian_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jacobian_rows, "_PIECE", 2**12)  # as small beside these rows as it is beside large ones
    layer, inputs = nn.Linear(500, 20).requires_grad_(requires_grad=False), torch.randn(64, 500)
    size = 64 * 20 * 500 * 4
    # The Jacobian and, of the size of a row, the inputs, the cotangent's slope and its copy; 64 products of 20 x 20.
    assert peak_bytes(lambda: gram_spectral(layer, inputs)) < size * (1 + 2 / 20) + 3 * 64 * 20 * 20 * 8
