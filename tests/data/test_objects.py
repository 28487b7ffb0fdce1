"""load_data of objects: what each kind becomes, splits, limits, and what is refused."""

import warnings
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_iris
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import flatprobe as fp
from flatprobe.data.load import splits_there
from tests.helpers.picture_folders import COLOUR, assert_same

PIXELS = np.stack(COLOUR)
X = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0])
EXPECTED = fp.LabelledData(X, Y)


class Items(Dataset[Any]):
    """A map-style data set of a function of the position."""

    def __init__(self, item: Callable[[int], Any]) -> None:
        self.item = item

    def __len__(self) -> int:
        return len(Y)

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


SAME: dict[str, Any] = {
    "LabelledData": EXPECTED,
    "tensors": (X, Y),
    "arrays": (PIXELS, Y.numpy()),
    "TensorDataset": TensorDataset(X, Y),
    "map-style": Items(lambda i: (X[i], int(Y[i]))),
    "map-style, images of Pillow": Items(lambda i: (Image.fromarray(COLOUR[i]), int(Y[i]))),
    "map-style, arrays": Items(lambda i: (COLOUR[i], int(Y[i]))),
    "map-style, 8-bit tensors": Items(lambda i: (torch.from_numpy(COLOUR[i]), Y[i])),
    "map-style, dictionaries": Items(lambda i: {"pixel_values": X[i], "labels": int(Y[i])}),
    "list of pairs": [(X[i], int(Y[i])) for i in range(len(Y))],
    "DataLoader": DataLoader(TensorDataset(X, Y), batch_size=2),
    "dictionary by split": {"train": (X, Y), "test": (X[:3], Y[:3])},
    "dictionary of a pair": {"Images": X, "label": Y},
    "as keras": ((PIXELS, Y.numpy()), (PIXELS[:3], Y.numpy()[:3])),
    "table": datasets.Dataset.from_dict({"image": [Image.fromarray(x) for x in COLOUR], "label": Y.tolist()}),
}


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_becomes_the_same_data(kind: str) -> None:
    data = fp.load_data(SAME[kind])
    assert_same(data, EXPECTED)
    part = fp.load_data(SAME[kind], limit=5, resize=(4, 3), crop=2, greyscale=True)
    assert_same(part, fp.load_data((X, Y), limit=5, resize=(4, 3), crop=2, greyscale=True))
    assert part.input_shape == (1, 2, 2)
    assert (part.source.get("resize"), part.source.get("crop")) == ([4, 3], 2)


@pytest.mark.parametrize("kind", [kind for kind in SAME if kind != "LabelledData"])
def test_a_limit_beyond_the_samples_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"(limit must be at most 7|count must be 1 to 7).*got 8"):
        fp.load_data(SAME[kind], limit=8)


def test_several_inputs_words_and_tables_of_numbers() -> None:
    several = fp.load_data(TensorDataset(X, X[:, 0], Y))
    assert isinstance(several.inputs, tuple)
    assert [part.shape for part in several.inputs] == [X.shape, X[:, 0].shape]
    named = fp.load_data(({"a": X.numpy(), "b": X}, np.array(["x", "z", "y", "x", "x", "x", "x"])))
    assert isinstance(named.inputs, dict)
    assert (named.labels.tolist()[:3], named.source["class_names"]) == ([0, 2, 1], ["x", "y", "z"])
    iris = load_iris()
    assert torch.allclose(_inputs(fp.load_data(iris)).double(), torch.from_numpy(iris.data), atol=1e-6)


def _inputs(data: fp.LabelledData) -> Tensor:
    assert isinstance(data.inputs, Tensor)
    return data.inputs


def test_class_names_of_a_data_set_are_kept_also_below_a_subset() -> None:
    own = Items(lambda i: (X[i], int(Y[i])))
    own.classes = ["a", "b", "c", "d"]  # type: ignore[attr-defined]
    for dataset in (own, Subset(own, range(5)), DataLoader(own)):
        data = fp.load_data(dataset)
        assert (data.classes, data.source["class_names"]) == (4, ["a", "b", "c", "d"])


def test_splits_of_dictionaries_and_pairs() -> None:
    for kind in ("dictionary by split", "as keras"):
        assert splits_there(SAME[kind]) == ("train", "test")
        assert len(fp.load_data(SAME[kind], split="test")) == 3
    arrays = {"x_train": X, "y_train": Y, "x_test": X[:2], "y_test": Y[:2]}
    assert splits_there(arrays) == ("train", "test")
    assert (len(fp.load_data(arrays)), len(fp.load_data(arrays, "test"))) == (7, 2)
    assert splits_there(SAME["tensors"]) == ()
    assert splits_there("digits") == ("train", "test")
    with pytest.raises(ValueError, match="must have the split 'valid', or inputs and targets under usual names"):
        fp.load_data(SAME["dictionary by split"], split="valid")


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ((X, Y, Y), TypeError, r"must be a pair \(inputs, targets\), got a tuple of 3"),
        (iter([1]), TypeError, "the data are a list_iterator; expected a name, a folder"),
        ({"a": X}, ValueError, "got a dictionary with 'a'. Name the split"),
        (DataLoader(TensorDataset(X, Y), shuffle=True), ValueError, "must keep the order of its data set"),
        (Items(lambda i: (X[i], "a")), TypeError, "the label of item 0 of the Items is 'a', a str"),
        (Items(lambda i: {"a": X[i], "b": X[i], "label": 1}), TypeError, "item 0 of the Items is a dict with 'a', 'b'"),
        (Items(lambda _: (torch.rand(2), 1)), ValueError, "item 0 of the Items differs between two readings"),
        ((X, Y[:3]), ValueError, "one per sample, 7, got 3"),
    ],
)
def test_what_is_refused(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fp.load_data(value)


def test_streams_are_not_prepared_afterwards() -> None:
    stream = fp.LabelledData.from_dataset(TensorDataset(X, Y))
    with pytest.raises(ValueError, match="resize must be given for one tensor in memory, got LabelledData"):
        fp.load_data(stream, resize=3)


class Sixty(Items):
    """Sixty items."""

    targets: list[int]

    def __len__(self) -> int:
        return 60


def test_a_limit_that_takes_one_class_of_sorted_data_is_warned_of() -> None:
    inputs, labels = torch.rand(60, 2), torch.arange(60) // 20
    images = Sixty(lambda i: (inputs[i], int(labels[i])))
    for value in ((inputs, labels), fp.LabelledData(inputs, labels), TensorDataset(inputs, labels)):
        with pytest.warns(UserWarning, match="the first 20 of the 60 samples hold 1 of the 3 classes"):
            fp.load_data(value, limit=20)
    images.targets = labels.tolist()  # as data sets of torchvision have them
    with pytest.warns(UserWarning, match="the first 20 of the 60 samples hold 1 of the 3 classes"):
        fp.load_data(images, limit=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fp.load_data((inputs, torch.arange(60) % 3), limit=20)
