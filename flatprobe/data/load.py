"""load_data: a name, and what is wanted of it, to LabelledData."""

import os
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import TensorDataset

from flatprobe.data import LabelledData
from flatprobe.data.columns import image_column_of, label_column_of, labels_of
from flatprobe.data.images import Pictures, cropped
from flatprobe.data.sources import one_split, splits_of
from flatprobe.data.storage import SAMPLED
from flatprobe.data.validation import tell_missed_classes
from flatprobe.utils.arguments import at_least, one_of
from flatprobe.utils.rng import permutation

_DIGITS_TRAIN = 1500  # of 1,797; our choice: scikit-learn bundles no split


def load_data(
    name: str | os.PathLike[str] | Any,
    split: str = "train",
    *,
    limit: int | None = None,
    crop: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    stream: bool = False,
) -> LabelledData:
    """Labelled pictures as float32 in [0, 1], shape (n, channels, height, width), in the data set's own order.

    Pictures are decoded as they are stored: grey ones (with or without transparency) have 1 channel, all others 3
    (RGB); 8 bits are divided by 255, 16 bits of grey by 65,535, and 16 bits of colour are read as 8; transparency is
    dropped, and the orientation in a photograph's header is followed. No format is decoded that needs a program of its
    own (PostScript). About 5 s for MNIST's 60,000.

    In a folder of pictures, `class/picture` or `split/class/picture`, the names on the first level say the split
    (train, training; validation, valid, val, dev; test, testing, eval, evaluation) where class folders lie in them;
    otherwise all of it is the split "train". Links are followed.

    Args:
        name: `"digits"`: scikit-learn's bundled 8x8 digits, divided by 16, in a fixed random split of 1,500 and 297
            (our choice). Or a folder, whose path is taken literally: parquet files in the Hugging Face layout, a folder
            of pictures a class, or what `datasets.save_to_disk` wrote. Or a table of `datasets`, or a dictionary of
            such tables by split. Or a name on the Hugging Face hub; `"ylecun/mnist"` and `"uoft-cs/cifar10"`
            are read from `mnist` and `cifar10` below the folder that the environment variable FLATPROBE_DATASETS names,
            where it has them.
        split: which part of the data set.
        limit: the first so many samples; None (default) takes all. In a set that is sorted by class they are the first
            classes alone; a warning counts the classes that are missed.
        crop: side of a central square to cut out, in pixels (T3's CIFAR-10 is 28); where the rest is odd, its larger
            half is below and right. None (default) leaves the pictures whole.
        image_column: which column holds the pictures; None finds the one whose type says so.
        label_column: which column holds the labels; None finds the one whose type or name says so. Words are numbered
            in alphabetical order over all splits, False and True are 0 and 1. Where the splits list the same classes
            in several orders, one order is used for all.
        stream: whether pictures are decoded when they are needed rather than now; the numbers are the same.

    Returns:
        The data; `source` records what was read: name, folder or hub, split, limit, crop, class names, and `encoding`:
        "exact", or the other formats among the pictures ("jpeg", say, which is lossy); of a stream, among the 16 that
        were looked at.

    Raises:
        FileNotFoundError: if there is no such data set, with where it was looked for.
        TypeError: if it is another object.
        ValueError: for a split, column, limit or crop that the data set does not have, for folders that do not tell the
            classes, or pictures of several shapes or that cannot be decoded.

    >>> load_data("digits", split="test")
    LabelledData(297 samples of (1, 8, 8), 10 classes, in memory, digits, test)
    """
    at_least(1, limit=limit, crop=crop)
    if isinstance(name, str) and name == "digits":
        for argument, column in (("image_column", image_column), ("label_column", label_column)):
            if column is not None:
                msg = f"{argument} is {column!r}, but the bundled digits have no columns; leave it out"
                raise ValueError(msg)
        return _digits(split, limit, crop, stream=stream)
    splits, origin = splits_of(name, split)
    rows = one_split(splits, split, str(origin.get("name", "the table")))
    images = image_column_of(rows, image_column)
    column = label_column_of(rows, label_column)
    labels, classes, names = labels_of(splits, split, column)
    count = _count(limit, len(rows))
    tell_missed_classes(labels, count, stacklevel=3)
    pictures = Pictures(rows.select(range(count)), images, labels[:count], crop)
    source = {
        **origin,
        "split": split,
        "limit": limit,
        "crop": crop,
        "image_column": images,
        "label_column": column,
        "class_names": names,
        "datasets_fingerprint": rows._fingerprint,  # noqa: SLF001 (the library has no public name for it)
    }
    if stream:
        data = LabelledData.from_dataset(pictures, labels=labels[:count], classes=classes, source=source)
        looked = f" (of {SAMPLED} pictures)" if count > SAMPLED else ""
    else:
        data = LabelledData(pictures.decoded(), labels[:count], classes=classes, source=source)
        looked = ""
    data.source["encoding"] = f"{pictures.encoding}{looked}"
    return data


def _count(limit: int | None, available: int) -> int:
    """How many samples to take.

    Raises:
        ValueError: if there are fewer than asked for.
    """
    if limit is not None and limit > available:
        msg = f"limit is {limit}, and the split has {available} samples; expected at most that many"
        raise ValueError(msg)
    return available if limit is None else limit


def _digits(split: str, limit: int | None, crop: int | None, *, stream: bool) -> LabelledData:
    one_of("split", split, ("train", "test"))
    inputs, labels = _digits_tensors()
    order = permutation(len(labels), "digits", "split")
    chosen = order[:_DIGITS_TRAIN] if split == "train" else order[_DIGITS_TRAIN:]
    chosen = chosen[: _count(limit, len(chosen))]
    inputs, labels = cropped(inputs[chosen], crop, "each digit").contiguous(), labels[chosen]
    source = {"name": "digits", "split": split, "limit": limit, "crop": crop, "encoding": "exact"}
    if stream:
        return LabelledData.from_dataset(TensorDataset(inputs, labels), labels=labels, classes=10, source=source)
    return LabelledData(inputs, labels, classes=10, source=source)


def _digits_tensors() -> tuple[Float32[Tensor, "samples 1 8 8"], Int64[Tensor, " samples"]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return torch.from_numpy(bunch.images).float()[:, None] / 16, torch.from_numpy(bunch.target).long()
