"""Batches that a risk keeps: the same numbers, one preparation of the data, and errors for inputs that were changed."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.network.network import Network
from flatprobe.risk import held
from tests.helpers.cases import affine


def inputs(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linspace(-1, 1, 7 * 40, dtype=dtype).sin().view(40, 7)


def labelled(given: Any) -> fp.LabelledData:
    return fp.LabelledData(given, torch.arange(40) % 5)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that networks have prepared."""
    sizes: list[int] = []
    plain = Network.prepare

    def prepare(self: Network, given: Any) -> Any:
        sizes.append(len(given))
        return plain(self, given)

    monkeypatch.setattr(Network, "prepare", prepare)
    return sizes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["copies", "views"])
def test_later_passes_prepare_nothing(dtype: torch.dtype, prepared: list[int]) -> None:
    risk = fp.EmpiricalRisk(affine().double(), labelled(inputs(dtype)), batch_size=16)
    first, gradient = risk(), risk.gradient()
    del prepared[:]
    again = risk.gradient()
    assert (risk(), prepared) == (first, [])
    assert all(torch.equal(again[name], value) for name, value in gradient.items())
    fresh = fp.EmpiricalRisk(affine().double(), labelled(inputs(dtype)), batch_size=16)
    assert fresh() == first
    assert all(torch.equal(fresh.gradient()[name], value) for name, value in gradient.items())


def test_views_are_kept_without_memory_and_copies_within_the_bound(
    prepared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = inputs()
    risk = fp.EmpiricalRisk(affine().double(), labelled(own), batch_size=16)
    monkeypatch.setattr(held, "DATA_BYTES", 40 * 7 * 8 - 1)
    for batch, _ in [*risk._batches(), *risk._batches()]:
        assert batch.untyped_storage().data_ptr() == own.untyped_storage().data_ptr()
    converted = fp.EmpiricalRisk(affine().double(), labelled(inputs(torch.float32)), batch_size=16)
    expected = converted()
    del prepared[:]
    assert converted() == expected
    assert prepared == [7, 16, 16, 8]  # a sample, to learn its size, and each batch again
    monkeypatch.setattr(held, "DATA_BYTES", 40 * 7 * 8)
    assert converted() == expected
    del prepared[:]
    assert converted() == expected
    assert prepared == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["copies", "views"])
def test_a_change_in_place_is_an_error_at_the_next_use(dtype: torch.dtype) -> None:
    given = inputs(dtype)
    risk = fp.EmpiricalRisk(affine().double(), labelled(given), batch_size=16)
    risk()
    given[3, 2] += 1
    for use in (risk, risk.gradient):
        with pytest.raises(RuntimeError, match="the inputs were changed in place"):
            use()


def test_a_copy_that_was_written_to_is_made_again() -> None:
    risk = fp.EmpiricalRisk(affine().double(), labelled(inputs(torch.float32)), batch_size=16)
    expected = risk()
    for batch, _ in risk._batches():
        batch.zero_()
    assert risk() == expected


def test_a_pass_that_ends_early_keeps_nothing_and_another_batch_size_starts_anew() -> None:
    risk = fp.EmpiricalRisk(affine().double(), labelled(inputs()), batch_size=16)
    assert len(next(risk._batches())[1]) == 16
    expected = risk()
    risk.batch_size = 7
    assert [len(labels) for _, labels in risk._batches()] == [7] * 5 + [5]
    assert risk().loss == pytest.approx(expected.loss, rel=1e-12)


def test_several_inputs_and_a_stream_are_kept_too(prepared: list[int]) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = affine().double()

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.layer(x * scale[:, None])

    both = {"x": inputs(torch.float32), "scale": torch.arange(40)}
    data = labelled(both)
    items = [({"x": both["x"][k], "scale": both["scale"][k]}, k % 5) for k in range(40)]
    risk, streamed = (
        fp.EmpiricalRisk(Sum().eval(), own, batch_size=16) for own in (data, fp.LabelledData.from_dataset(items))
    )
    expected = risk()
    assert streamed() == expected
    del prepared[:]
    assert (risk(), streamed(), prepared) == (expected, expected, [])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies ahead are made on a GPU alone")
def test_batches_that_are_copied_ahead_are_those_of_a_plain_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "DATA_BYTES", 0)
    data = labelled(inputs(torch.float32))
    risk = fp.EmpiricalRisk(affine().double().cuda(), data, batch_size=7)
    for _ in range(2):
        batches = [(batch.cpu(), labels.cpu()) for batch, labels in risk._batches()]
        assert torch.equal(torch.cat([batch for batch, _ in batches]), data.inputs.double())
        assert torch.equal(torch.cat([labels for _, labels in batches]), data.labels)
