"""LabelledData: what it refuses, and what the messages say."""

import random
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

import flatprobe as fp
from tests.helpers.small_data import DATA, LABELS, Counted, labelled_items

X = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("inputs", "labels", "kind", "message"),
    [
        (X, LABELS + 0.5, ValueError, "classes must be left out unless the labels are class indices, got 3: these are"),
        (X, torch.ones(4, 3), ValueError, "classes must be left out"),
        (X, [0, 1, 2, 1], TypeError, "labels must be a real tensor or an array, .* got list. Use torch.as_tensor"),
        (X, None, TypeError, "labels must be a real tensor or an array, .* got NoneType"),
        (X, LABELS * 1j, TypeError, "labels must be a real tensor or an array, .* got torch.complex64"),
        (X, torch.tensor(1.0), ValueError, "labels must be one per sample, 4, got a single number"),
        (X, torch.ones(3, 2), ValueError, "labels must be one per sample, 4, got 3"),
        (X, LABELS[:3], ValueError, "labels must be one per sample, 4, got 3"),
        (X[:3], LABELS, ValueError, "labels must be one per sample, 3, got 4"),
        (X[:0], LABELS[:0], ValueError, r"the data are empty \(0 samples\)"),
        (X, torch.tensor([0, 1, -1, -2]), ValueError, "label of sample 2 is -1; expected 0 to 2, since classes is 3"),
        (X, torch.tensor([0, 5, 1, 7]), ValueError, "label of sample 1 is 5; expected 0 to 2, since classes is 3"),
        (X.log() * X, LABELS, ValueError, "inputs of sample 0 must be finite, got NaN or infinity"),
        (
            torch.tensor([0, 1, 2, torch.inf]),
            LABELS,
            ValueError,
            "inputs of sample 3 must be finite, got NaN or infinity",
        ),
        (X.tolist(), LABELS, TypeError, "inputs must be a tensor, or a dict or tuple of tensors, got list"),
        (np.array([None] * 4), LABELS, TypeError, "inputs must be a tensor, .*got ndarray. Convert it with torch.as_t"),
        ({}, LABELS, TypeError, "inputs must be a tensor, .*got dict"),
        ({"a": X, "b": 3}, LABELS, TypeError, r"inputs\['b'\] must be a tensor, .*got int"),
        ((X, X[:3]), LABELS, ValueError, r"inputs must have one row per sample each, got .*inputs\[0\].*4.*3"),
        (torch.tensor(1.0), LABELS, ValueError, "inputs must have a first dimension .*got a tensor without dimensions"),
    ],
)
def test_bad_inputs_and_labels_are_refused(inputs: Any, labels: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        fp.LabelledData(inputs, labels, classes=3)


def test_positions_in_errors_count_over_the_blocks_that_are_checked() -> None:
    inputs = torch.zeros(5000, 2)
    inputs[4500, 1] = torch.nan
    with pytest.raises(ValueError, match="inputs of sample 4500 must be finite, got NaN or infinity"):
        fp.LabelledData(inputs, torch.zeros(5000, dtype=torch.long))
    with pytest.raises(ValueError, match="label of sample 1 is -1; expected 0 or more"):
        fp.LabelledData(X, torch.tensor([0, -1, 0, 0]))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size must be at least 1.*, got 0"):
        DATA.batches(0)
    for count in (0, 131):
        with pytest.raises(ValueError, match=f"count must be 1 to 130, the number of samples, got {count}"):
            DATA.head(count)
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"fraction must be a number in \[0, 1\], got {fraction}"):
            DATA.with_random_labels(fraction)
    for position in (-1, 130):
        with pytest.raises(IndexError, match=f"position {position} is outside the data; expected 0 to 129"):
            DATA.gather(torch.tensor([3, position]))
    with pytest.raises(ValueError, match=r"classes must be at least 1.*, got 0"):
        fp.LabelledData(X, LABELS, classes=0)
    with pytest.raises(TypeError, match="source must hold strings, numbers, lists and dicts, as JSON does"):
        fp.LabelledData(X, LABELS, source={"folder": object()})


class Augmenting(Counted):
    """Adds noise to one item of the sixteen that are read twice, from the generator of its choice."""

    def __init__(self, draw: Any, at: int = 129) -> None:
        super().__init__()
        self.draw, self.at = draw, at

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        x, y = super().__getitem__(index)
        return (x + self.draw() if index == self.at else x), y


@pytest.mark.parametrize("draw", [lambda: torch.rand(()), np.random.rand, random.random])
def test_augmentation_is_refused(draw: Any) -> None:
    with pytest.raises(ValueError, match=r"item 129 of the Augmenting differs between two readings.*deterministic"):
        fp.LabelledData.from_dataset(Augmenting(draw))


class Reversed(BatchSampler):
    """Batches of its own over a sequential sampler."""

    def __iter__(self) -> Any:
        return reversed(list(super().__iter__()))


class Endless(IterableDataset[tuple[Tensor, int]]):
    """Iterable, and yet of a known length: torch gives it a __getitem__ that only raises."""

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Any:
        return iter(labelled_items())


def _rows(*changes: tuple[int, Any]) -> list[Any]:
    rows: list[Any] = list(labelled_items())
    for position, item in changes:
        rows[position] = item
    return rows


GOOD = torch.zeros(1)


@pytest.mark.parametrize(
    ("dataset", "kind", "message"),
    [
        (Endless(), TypeError, "data set must be map-style .*, got Endless, which has no positions. Store .*list"),
        (DataLoader(Endless()), TypeError, "data set must be map-style .*, got Endless"),
        (iter(labelled_items()), TypeError, "data set must be map-style .*, got list_iterator"),
        ([], ValueError, r"the list is empty \(0 samples\)"),
        (DataLoader(Counted(), shuffle=True), ValueError, "must keep the order .*RandomSampler. Pass loader.dataset"),
        (DataLoader(Counted(), shuffle=True, batch_size=None), ValueError, "must keep the order .*RandomSampler"),
        (DataLoader(Counted(), batch_sampler=[[3, 1]]), ValueError, "must keep the order"),
        (
            DataLoader(Counted(), batch_sampler=Reversed(SequentialSampler(range(130)), 7, drop_last=False)),
            ValueError,
            r"must keep the order of its data set, got Reversed over SequentialSampler",
        ),
        (DataLoader(Counted(), collate_fn=list), ValueError, "must have torch's default collate_fn, got its own"),
        (
            _rows((0, {"image": GOOD, "label": 1})),
            TypeError,
            r"item 0 of the list is a dict with 'image', 'label'; expected a pair .*columns=\(key or keys",
        ),
        (
            _rows((1, (GOOD, "cat"))),
            TypeError,
            "label of item 1 of the list is 'cat', a str; expected an integer",
        ),
        (_rows((1, (GOOD, [1]))), TypeError, r"label of item 1 of the list is \[1\], a list; expected an integer"),
        (_rows((0, (GOOD, 1, 2))), TypeError, r"item 0 of the list is a tuple; expected a pair \(input, label\)"),
        (_rows((1, ("a word", 1))), TypeError, "the input of item 1 must be a tensor, .*got str"),
        (_rows((1, (GOOD, None))), TypeError, "item 1 of the list has no label"),
        (
            _rows((1, (torch.zeros(2), 1))),
            ValueError,
            r"input of item 1 must have the shape of item 0, .*, got \{'inputs': \(2,\)\}",
        ),
        (_rows((2, (GOOD / 0, 1))), ValueError, "inputs of sample 2 must be finite, got NaN or infinity"),
    ],
)
def test_bad_data_sets_are_refused(dataset: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        fp.LabelledData.from_dataset(dataset)


@pytest.mark.parametrize(
    ("label", "kind", "message"),
    [
        (-1, ValueError, "label of sample 2 is -1; expected 0 to 2"),
        (3, ValueError, "label of sample 2 is 3; expected 0 to 2"),
        (1.0, ValueError, "classes must be left out .* got 3: these are float64 of shape"),
        (torch.tensor([1]), ValueError, r"got 3: these are int64 of shape \(1, 1\): labels.long\(\).squeeze"),
    ],
)
def test_bad_labels_of_items_are_refused_when_they_are_read(label: Any, kind: type[Exception], message: str) -> None:
    data = fp.LabelledData.from_dataset(_rows((2, (GOOD, label))), classes=3)
    next(data.batches(2))
    with pytest.raises(kind, match=message):
        list(data.batches(1))
    with pytest.raises(kind, match=message):
        data.gather(torch.tensor([2]))


def test_labels_that_are_not_the_items_own_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels\[3\] is 0, but item 3 of the list has label 1.*with_random_labels"):
        fp.LabelledData.from_dataset(labelled_items(), labels=torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="labels must be one per sample, 4, got 3"):
        fp.LabelledData.from_dataset(labelled_items(), labels=LABELS[:3])


def test_columns_that_items_lack_are_refused() -> None:
    items = [{"x": GOOD, "y": 1}] * 3
    for columns in (("z", "y"), ("x", "label"), (["x", "z"], "y")):
        with pytest.raises(TypeError, match="item 0 of the list is a dict with 'x', 'y'; expected a pair"):
            fp.LabelledData.from_dataset(items, columns=columns)


def test_tables_of_encoded_pictures_are_refused_before_one_is_decoded() -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Value("int64"), "x": datasets.Value("float32")}
    )
    broken = {"bytes": b"%!PS-Adobe-3.0 EPSF-3.0", "path": None}
    table = datasets.Dataset.from_dict(
        {"image": [broken] * 3, "label": [0, 1, 1], "x": [0.0, 1.0, 2.0]}, features=features
    )
    for dataset in (table, table.with_format("torch"), torch.utils.data.Subset(table, [0, 1]), DataLoader(table)):
        with pytest.raises(TypeError, match=r"'image' of the Dataset holds encoded images; .*load_data\(dataset\)"):
            fp.LabelledData.from_dataset(dataset, columns=("x", "label"))
    rest = table.remove_columns("image").with_format("torch")
    for dataset in (rest, table.with_format("torch", columns=["x", "label"])):
        data = fp.LabelledData.from_dataset(dataset, columns=("x", "label"))
        assert next(data.batches(3)).inputs.tolist() == [0, 1, 2]
