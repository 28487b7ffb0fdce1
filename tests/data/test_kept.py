"""Streamed items that are kept: each is decoded once within the bound, and the batches stay those of data in memory."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import flatprobe as fp
from flatprobe.data import storage
from flatprobe.data.kept import Kept

COUNT = 50
INPUTS = torch.linspace(0, 1, COUNT * 6).view(COUNT, 2, 3)
LABELS = torch.arange(COUNT) % 4
EACH = 6 * 4


class Counted:
    """Items, and the positions at which they were read."""

    def __init__(self, *, wide: int | None = None) -> None:
        self.read: list[int] = []
        self.wide = wide

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        self.read.append(position)
        item = INPUTS[position]
        return item.double() if position == self.wide else item, int(LABELS[position])


def stream(items: Any = None, **options: Any) -> tuple[fp.LabelledData, list[int]]:
    items = Counted() if items is None else items
    data = fp.LabelledData.from_dataset(items, **options)
    del items.read[:]  # the items that the check of the repeatability reads twice
    return data, items.read


def assert_all_equal(data: fp.LabelledData, size: int, rows: Any = slice(None)) -> None:
    batches = list(data.batches(size))
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), INPUTS[rows])
    assert torch.equal(torch.cat([batch.labels for batch in batches]), LABELS[rows])


def test_each_item_is_decoded_once_over_passes_parts_and_labels() -> None:
    data, read = stream()
    assert_all_equal(data, 16)
    assert sorted(read) == list(range(COUNT))
    positions = torch.tensor([7, 3, 3, 49])
    for part, rows in [(data.head(20), slice(20)), (data.subset(positions), positions), (data, slice(None))]:
        assert_all_equal(part, 7, rows)
    assert torch.equal(data.gather(positions)[0], INPUTS[positions])
    assert torch.equal(data.with_random_labels(0.5).subset(positions).gather(torch.tensor([1]))[0], INPUTS[3:4])
    assert data.fingerprint == fp.LabelledData.from_dataset(Counted()).fingerprint
    assert len(read) == COUNT


def test_a_part_that_is_read_first_serves_the_whole() -> None:
    data, read = stream(labels=LABELS)
    assert_all_equal(data.head(20), 7, slice(20))
    assert_all_equal(data.subset(torch.tensor([30, -1])), 7, [30, 49])
    assert_all_equal(data, 16)
    assert sorted(read) == list(range(COUNT))


@pytest.mark.parametrize("size", [1, 7, 16, 64])
@pytest.mark.parametrize("room", [0, 20, COUNT - 1])
def test_property_items_beyond_the_bound_are_decoded_at_each_pass(
    room: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "DATA_BYTES", (room + 1) * EACH - 1)
    data, read = stream(labels=LABELS)
    assert_all_equal(data, size)
    assert sorted(read) == list(range(COUNT))
    del read[:]
    assert_all_equal(data, size)
    assert sorted(read) == list(range(room, COUNT))
    positions = torch.tensor([3, COUNT - 1, 3])
    assert torch.equal(data.gather(positions)[0], INPUTS[positions])


def test_the_bound_is_in_bytes_of_the_decoded_inputs() -> None:
    assert Kept(INPUTS[0], COUNT, most=10 * EACH + 5).room == 10
    assert Kept(INPUTS[0], COUNT, most=2**31).room == COUNT
    assert Kept((INPUTS[0], LABELS[0]), COUNT, most=10 * (EACH + 8)).room == 10


def test_an_item_of_another_dtype_is_not_kept_and_not_rounded() -> None:
    data, read = stream(Counted(wide=5), labels=LABELS)
    for _ in range(2):
        batches = list(data.batches(4))
        assert [batch.inputs.dtype for batch in batches[:3]] == [torch.float32, torch.float64, torch.float32]
    assert read.count(5) == 2
    assert torch.equal(data.gather(torch.tensor([4, 5]))[0], INPUTS[4:6].double())


def test_kept_items_are_views_whose_change_in_place_is_an_error() -> None:
    data, _ = stream()
    list(data.batches(16))
    batch = next(data.batches(16))
    assert batch.inputs._base is not None
    batch.inputs.zero_()
    with pytest.raises(RuntimeError, match="the inputs were changed in place"):
        next(data.batches(16))


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda data: pickle.loads(pickle.dumps(data))], ids=["copy", "pickle"]
)
def test_a_copy_and_a_pickle_keep_nothing(again: Any) -> None:
    data, _ = stream()
    list(data.batches(16))
    other = again(data)
    read = other.store._items._dataset.read
    del read[:]
    assert_all_equal(other, 16)
    assert len(read) == COUNT


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_decode_the_same_items(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "DATA_BYTES", 20 * EACH)
    state = torch.get_rng_state()
    data, read = stream(labels=LABELS, workers=workers)
    for part, rows in [(data, slice(None)), (data, slice(None)), (data.head(30), slice(30))]:
        assert_all_equal(part, 8, rows)
    assert torch.equal(state, torch.get_rng_state())
    assert sorted({*read}) == list(range(8))  # this process decodes the first batch alone
    assert len(read) == 8


def test_workers_wait_for_the_second_batch() -> None:
    data, read = stream(labels=LABELS, workers=1)
    assert len(next(data.batches(8)).labels) == 8
    assert len(read) == 8
    with pytest.raises(ValueError, match="workers must be at least 0, got -1"):
        fp.LabelledData.from_dataset(Counted(), workers=-1)


def test_an_item_that_a_worker_read_is_checked_like_the_others() -> None:
    class Late(Counted):
        def __getitem__(self, position: int) -> Any:
            item = super().__getitem__(position)
            return (item[0], "cat") if position == 11 else item

    data, _ = stream(Late(), labels=LABELS, workers=1)
    with pytest.raises(TypeError, match="the label of item 11 of the Late is 'cat'"):
        list(data.batches(8))
