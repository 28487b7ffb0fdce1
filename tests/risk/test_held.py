"""Data that a risk holds: the same numbers, one copy of the data, and errors for inputs that were changed."""

from contextlib import nullcontext
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


def risk_of(given: Any, size: int = 16) -> fp.EmpiricalRisk:
    return fp.EmpiricalRisk(affine().double(), labelled(given), batch_size=size)


def test_slow_reference_held_data_are_those_of_a_conversion_beforehand(prepared: list[int]) -> None:
    risk, reference = risk_of(inputs(torch.float32)), risk_of(inputs(torch.float32).double())
    expected, gradient = reference(), reference.gradient()
    for _ in range(2):
        assert risk() == expected
        assert all(torch.equal(risk.gradient()[name], value) for name, value in gradient.items())
        some = torch.tensor([39, 0, 0, 17])
        assert risk.loss_and_gradient(positions=some)[0] == reference.loss_and_gradient(positions=some)[0]
        del prepared[:]
    risk(), risk.gradient(), risk.loss_and_gradient(positions=some)
    assert prepared == []


def test_data_that_need_no_copy_stay_where_they_are() -> None:
    given = inputs()
    risk = risk_of(given)
    for batch, _ in [*risk.held.batches(16), *risk.held.batches(16)]:
        assert batch.untyped_storage().data_ptr() == given.untyped_storage().data_ptr()


def test_copies_are_held_up_to_the_bound_in_bytes(prepared: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    risk = risk_of(inputs(torch.float32))
    monkeypatch.setattr(held, "DATA_BYTES", 40 * 7 * 8 - 1)
    expected = risk()
    del prepared[:]
    assert risk() == expected
    assert prepared == [16, 16, 8]
    monkeypatch.setattr(held, "DATA_BYTES", 40 * 7 * 8)
    assert risk() == expected
    del prepared[:]
    assert risk() == expected
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
    risk = risk_of(inputs(torch.float32))
    expected = risk()
    for batch, _ in risk.held.batches(16):
        batch.zero_()
    assert risk() == expected


def test_any_batch_size_reads_the_same_copy(prepared: list[int]) -> None:
    risk = risk_of(inputs(torch.float32))
    risk()
    del prepared[:]
    assert [len(labels) for _, labels in risk.held.batches(7)] == [7] * 5 + [5]
    assert torch.equal(torch.cat([batch for batch, _ in risk.held.batches(7)]), inputs(torch.float32).double())
    assert prepared == []


def test_items_of_several_dtypes_are_not_held() -> None:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Embedding(300, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.layer(ids.long()).sum(1)

    items = [
        (torch.tensor([k, 255 if k < 20 else 256], dtype=torch.uint8 if k < 20 else torch.int64), 0) for k in range(40)
    ]
    data = fp.LabelledData.from_dataset(items).subset(torch.arange(40))
    given = torch.tensor([[k, 255 if k < 20 else 256] for k in range(40)])
    model = Embedded().eval()
    expected = fp.EmpiricalRisk(model, fp.LabelledData(given, torch.zeros(40, dtype=torch.long)), batch_size=10)()
    risk = fp.EmpiricalRisk(model, data, batch_size=10)
    assert risk() == risk() == expected


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


class Later:
    """A stand-in for torch's streams and events of a GPU."""

    def __init__(self, *_: Any) -> None:
        self.waited = 0

    def record_event(self) -> object:
        return object()

    def wait_event(self, _: object) -> None:
        self.waited += 1


def test_each_batch_is_copied_while_the_one_before_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    present, pinned = Later(), []
    monkeypatch.setattr(torch.cuda, "Stream", Later)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: present)
    monkeypatch.setattr(Tensor, "pin_memory", lambda part: pinned.append(len(part)) or part)
    monkeypatch.setattr(Tensor, "record_stream", lambda *_: None)
    data, network = labelled(inputs(torch.float32)), Network(affine().double())
    seen = []
    pairs = ((batch.inputs, batch.labels) for batch in data.batches(16))
    for number, pair in enumerate(held._copy_ahead(network, pairs)):
        assert len(pinned) == 2 * min(number + 2, 3)  # inputs and labels of the batches up to the next one
        assert present.waited == number + 1
        seen.append(pair)
    assert torch.equal(torch.cat([batch for batch, _ in seen]), data.inputs.double())
    assert torch.equal(torch.cat([labels for _, labels in seen]), data.labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies ahead are made on a GPU alone")
def test_batches_that_are_copied_ahead_are_those_of_a_plain_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "DATA_BYTES", 0)
    data = labelled(inputs(torch.float32))
    risk = fp.EmpiricalRisk(affine().double().cuda(), data, batch_size=7)
    for _ in range(2):
        batches = [(batch.cpu(), labels.cpu()) for batch, labels in risk.held.batches(7)]
        assert torch.equal(torch.cat([batch for batch, _ in batches]), data.inputs.double())
        assert torch.equal(torch.cat([labels for _, labels in batches]), data.labels)
