"""load_data: a name, and what is wanted of it, to LabelledData."""

import os

import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import TensorDataset

from flatprobe.checks import at_least, one_of
from flatprobe.data import LabelledData
from flatprobe.loading.columns import image_column_of, label_column_of, labels_of
from flatprobe.loading.pictures import Pictures, cropped, encoding_of
from flatprobe.loading.sources import one_split, splits_of
from flatprobe.rng import permutation

_DIGITS_TRAIN = 1500  # of 1,797; our choice: scikit-learn bundles no split


def load_data(
    name: str | os.PathLike[str],
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
    (RGB); 8 bits are divided by 255, 16 bits by 65,535; transparency is dropped. About 5 s for MNIST's 60,000.

    Args:
        name: `"digits"`: scikit-learn's bundled 8x8 digits, divided by 16, in a fixed random split of 1,500 and 297
            (our choice). Or a folder: parquet files in the Hugging Face layout, a folder of pictures a class, or what
            `datasets.save_to_disk` wrote. Or a name on the Hugging Face hub; `"ylecun/mnist"` and `"uoft-cs/cifar10"`
            are read from `mnist` and `cifar10` below the folder that the environment variable FLATPROBE_DATASETS names,
            where it has them.
        split: which part of the data set.
        limit: the first so many samples; None (default) takes all.
        crop: side of a central square to cut out, in pixels (T3's CIFAR-10 is 28); where the rest is odd, its larger
            half is below and right. None (default) leaves the pictures whole.
        image_column: which column holds the pictures; None finds the one whose type says so.
        label_column: which column holds the labels; None finds the one whose type or name says so. Words are numbered
            in alphabetical order over all splits.
        stream: whether pictures are decoded when they are needed rather than now; the numbers are the same.

    Returns:
        The data; `source` records what was read: name, folder or hub, split, limit, crop, class names, and `encoding`:
        "exact", or "jpeg" where the first picture's pixels went through a lossy codec.

    Raises:
        FileNotFoundError: if there is no such data set, with where it was looked for.
        ValueError: for a split, column, limit or crop that the data set does not have, or pictures of several shapes.

    >>> load_data("digits", split="test")
    LabelledData(297 samples of (1, 8, 8), 10 classes, in memory, digits, test)
    """
    at_least(1, limit=limit, crop=crop)
    if str(name) == "digits":
        for argument, column in (("image_column", image_column), ("label_column", label_column)):
            if column is not None:
                msg = f"{argument} is {column!r}, but the bundled digits have no columns; leave it out"
                raise ValueError(msg)
        return _digits(split, limit, crop, stream=stream)
    splits, origin = splits_of(name)
    rows = one_split(splits, split, str(name))
    images = image_column_of(rows, image_column)
    column = label_column_of(rows, label_column)
    labels, classes, names = labels_of(splits, split, column)
    count = _count(limit, len(rows))
    pictures = Pictures(rows.select(range(count)), images, labels[:count], crop)
    source = {
        "name": str(name),
        **origin,
        "split": split,
        "limit": limit,
        "crop": crop,
        "image_column": images,
        "label_column": column,
        "encoding": encoding_of(pictures.stored(0), 0),
        "class_names": names,
        "datasets_fingerprint": rows._fingerprint,  # noqa: SLF001 (the library has no public name for it)
    }
    if stream:
        return LabelledData.from_dataset(pictures, labels=labels[:count], classes=classes, source=source)
    return LabelledData(pictures.decoded(), labels[:count], classes=classes, source=source)


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
