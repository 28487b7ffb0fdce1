"""Loading of labelled images by name or folder."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import TensorDataset

from flatprobe.data import LabelledData
from flatprobe.data.columns import image_column_of, image_columns, label_column_of, labels_of
from flatprobe.data.files import FILES, read_file
from flatprobe.data.images import Images
from flatprobe.data.objects import has_split, of_object, prepared
from flatprobe.data.preparation import Preparation
from flatprobe.data.sources import is_table, one_split, splits_of
from flatprobe.data.storage import SAMPLED
from flatprobe.data.tabular import number_columns, of_table
from flatprobe.data.validation import warn_of_missed_classes
from flatprobe.utils.arguments import at_least, one_of
from flatprobe.utils.rng import permutation

_DIGITS_TRAIN = 1500  # of 1,797; our choice: scikit-learn bundles no split
_DIGITS_FILE = ("datasets", "data", "digits.csv.gz")  # In the package of scikit-learn.


def load_data(
    name: str | os.PathLike[str] | Any,
    split: str = "train",
    *,
    limit: int | None = None,
    crop: int | None = None,
    resize: int | tuple[int, int] | None = None,
    greyscale: bool = False,
    colour: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
    stream: bool = False,
) -> LabelledData:
    """Labelled data of a name, a folder, a file or an object; images as float32 in [0, 1].

    Images have the shape (n, channels, height, width).

    Grey images (with or without transparency) have 1 channel, all others 3 (RGB). 8 bits are divided by 255, 16 bits of
    grey by 65,535, and 16 bits of colour are read as 8. Transparency is dropped, and the orientation in a photograph's
    header is followed. Formats that need a program of their own (PostScript) are not decoded. MNIST's 60,000 images
    take about 5 s.

    Objects are taken as follows; `limit`, `resize`, `crop`, `greyscale` and `colour` apply to them too:

    - `LabelledData`, unchanged;
    - a pair (inputs, targets) of tensors or NumPy arrays, a `TensorDataset`, or a dictionary with such a pair under
      usual names ("x" and "y", "data" and "target"). uint8 of shape (n, height, width), (n, channels, height, width) or
      (n, height, width, channels) with 1 or 3 channels are images, divided by 255. NumPy's float64 becomes float32.
      Targets that are words are numbered in alphabetical order;
    - a map-style data set, or a `DataLoader` that neither shuffles nor collates in its own way, which are streamed;
    - a table of `datasets` with a column of images, with `input_ids`, or with one column beside the labels;
    - a dictionary of these by split, or ((x_train, y_train), (x_test, y_test)).

    A folder of images is `class/image` or `split/class/image`. The first level names the splits (train, training;
    validation, valid, val, dev; test, testing, eval, evaluation) where class folders are below; otherwise the whole
    folder is the split "train". Links are followed.

    Args:
        name: `"digits"`: scikit-learn's bundled 8x8 digits, divided by 16, in a fixed random split of 1,500 and 297
            (our choice). Or a folder, whose path is taken literally: parquet files in the Hugging Face layout, one
            folder of images per class, or the output of `datasets.save_to_disk`. Or a table of `datasets`, or a
            dictionary of such tables by split. Or a name on the Hugging Face hub; `"ylecun/mnist"` and
            `"uoft-cs/cifar10"` are read from `mnist` and `cifar10` below the folder that the environment variable
            FLATPROBE_DATASETS names, where they exist there. Or a file `.npz`, `.pt` or `.pth` of arrays under names
            such as `x` and `y`, or `x_train`, `y_train`, `x_test` and `y_test`. Or an object, as the next list says.
        split: split of the data set.
        limit: number of samples, from the first on; None (default) takes all. In a set sorted by class these are the
            first classes alone; a warning counts the missing classes.
        crop: side of a central square in pixels (28 for T3's CIFAR-10); an odd remainder is larger below and right.
            None (default) leaves the images whole. Images are resized first.
        resize: height and width of the images, or the side of a square, by bilinear interpolation with antialiasing
            (Pillow's `BILINEAR` without its rounding to 8 bits). None (default) leaves the size.
        greyscale: whether images of 3 channels become grey, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).
        colour: whether grey images get 3 equal channels.
        image_column: name of the image column; None finds it by its type.
        label_column: name of the label column; None finds it by its type or name. Strings are numbered in alphabetical
            order over all splits, False and True are 0 and 1. Where the splits list the same classes in several orders,
            one order is used for all.
        stream: whether images are decoded at every use rather than once; the numbers are the same.

    Returns:
        The data. Their `source` records name, folder or hub, split, limit, crop, class names and `encoding`: "exact",
        or the other formats among the images, such as "jpeg", which is lossy. A stream is judged by 16 images.

    Raises:
        FileNotFoundError: if there is no such data set.
        ImportError: for the digits, if scikit-learn is not installed.
        TypeError: if the name is another object.
        ValueError: for a split, column, limit or crop that the data set does not have, folders that do not give the
            classes, or images of several shapes or that cannot be decoded.

    >>> load_data("digits", split="test")
    LabelledData(297 samples of (1, 8, 8), 10 classes, in memory, digits, test)
    """
    at_least(1, limit=limit)
    prepare = Preparation(resize=resize, crop=crop, greyscale=greyscale, colour=colour)
    if isinstance(name, str) and name == "digits":
        for argument, column in (("image_column", image_column), ("label_column", label_column)):
            if column is not None:
                msg = f"{argument} must be None for the bundled digits, which have no columns, got {column!r}"
                raise ValueError(msg)
        return _digits(split, limit, prepare, stream=stream)
    if (file := _file_of(name)) is not None:
        data = of_object(read_file(file), split, limit, prepare)
        data.source.update(name=str(name))
        return data
    if not is_table(name):
        return of_object(name, split, limit, prepare)
    splits, origin = splits_of(name, split)
    rows = one_split(splits, split, str(origin.get("name", "the table")))
    count = _count(limit, len(rows))
    if image_column is None and not image_columns(rows) and number_columns(rows, label_column):
        note = {**origin, "split": split, "limit": limit}
        return prepared(of_table(splits, split, label_column, count, note), prepare)
    images = image_column_of(rows, image_column)
    column = label_column_of(rows, label_column)
    labels, classes, names = labels_of(splits, split, column)
    warn_of_missed_classes(labels, count, stacklevel=3)
    pictures = Images(rows.select(range(count)), images, labels[:count], prepare)
    source = {
        **origin,
        "split": split,
        "limit": limit,
        "crop": crop,
        "image_column": images,
        "label_column": column,
        "class_names": names,
        "datasets_fingerprint": rows._fingerprint,  # noqa: SLF001 (the library has no public name for it)
        **prepare.describe(),
    }
    if stream:
        data = LabelledData.from_dataset(pictures, labels=labels[:count], classes=classes, source=source)
        looked = f" (of {SAMPLED} pictures)" if count > SAMPLED else ""
    else:
        data = LabelledData(pictures.decode(), labels[:count], classes=classes, source=source)
        looked = ""
    data.source["encoding"] = f"{pictures.encoding}{looked}"
    return data


def splits_there(name: Any) -> tuple[str, ...]:
    """The splits of data that `load_data` takes, as far as they have names: train and test of the digits.

    Args:
        name: as `load_data` takes it.

    Returns:
        Their names; for objects, those among "train", "validation" and "test" that there are.
    """
    if isinstance(name, str) and name == "digits":
        return "train", "test"
    file = _file_of(name)
    if file is not None or not is_table(name):
        value = name if file is None else read_file(file)
        return tuple(split for split in ("train", "validation", "test") if has_split(value, split))
    return tuple(splits_of(name, "train")[0])


def _count(limit: int | None, available: int) -> int:
    """Number of samples to load.

    Raises:
        ValueError: if the split has fewer than the limit.
    """
    if limit is not None and limit > available:
        msg = f"limit must be at most {available}, the number of samples of the split, got {limit}"
        raise ValueError(msg)
    return available if limit is None else limit


def _file_of(name: Any) -> Path | None:
    """The file of arrays that a name is the path of."""
    if not isinstance(name, str | os.PathLike):
        return None
    path = Path(name).expanduser()
    return path if path.suffix.lower() in FILES and path.is_file() else None


def _digits(split: str, limit: int | None, prepare: Preparation, *, stream: bool) -> LabelledData:
    one_of("split", split, ("train", "test"))
    inputs, labels = _digits_tensors()
    order = permutation(len(labels), "digits", "split")
    chosen = order[:_DIGITS_TRAIN] if split == "train" else order[_DIGITS_TRAIN:]
    chosen = chosen[: _count(limit, len(chosen))]
    inputs, labels = prepare(inputs[chosen], "each digit").contiguous(), labels[chosen]
    source = {"name": "digits", "split": split, "limit": limit, "crop": prepare.crop, "encoding": "exact"}
    source |= prepare.describe()
    if stream:
        return LabelledData.from_dataset(TensorDataset(inputs, labels), labels=labels, classes=10, source=source)
    return LabelledData(inputs, labels, classes=10, source=source)


def _digits_tensors() -> tuple[Float32[Tensor, "samples 1 8 8"], Int64[Tensor, " samples"]]:
    """The digits in the file that scikit-learn ships, whose import would take as long as that of torch.

    Raises:
        ImportError: if scikit-learn is not installed, or has no such file.
    """
    package = find_spec("sklearn")
    folders = [] if package is None else package.submodule_search_locations or []
    file = next((file for folder in folders if (file := Path(folder, *_DIGITS_FILE)).is_file()), None)
    if file is None:
        found = "no package" if package is None else f"a package without {'/'.join(_DIGITS_FILE)}"
        msg = f'load_data("digits") must find scikit-learn, which ships them, got {found}. Run pip install scikit-learn'
        raise ImportError(msg)
    table = torch.from_numpy(np.loadtxt(file, dtype=np.float32, delimiter=","))  # 64 pixels of 0 to 16, and the label
    return table[:, :-1].reshape(-1, 1, 8, 8) / 16, table[:, -1].long()
