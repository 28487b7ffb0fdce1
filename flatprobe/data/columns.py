"""Which columns of a table hold pictures and labels, and the labels as integers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

# Names by which data sets on the hub call their labels, the likeliest first.
LABEL_NAMES = ("label", "labels", "class", "fine_label")
_EXPECTED = (
    "class labels, integers, words or booleans: table.cast_column(name, datasets.Value('int64')) converts whole numbers"
)


def image_column_of(rows: Any, name: str | None) -> str:
    """The column of pictures.

    Args:
        rows: a table of the `datasets` library.
        name: which one; None finds the only one of image type.

    Returns:
        Its name.

    Raises:
        ValueError: if it is unknown, holds no pictures, or cannot be told.
    """
    from datasets import Image

    found = [column for column, kind in rows.features.items() if isinstance(kind, Image)]
    encoded = [column for column, kind in rows.features.items() if _is_encoded(kind)]
    if name is None:
        return _only(found or encoded, "image_column", "holds pictures", rows)
    _known(name, "image_column", rows)
    if name not in found + encoded:
        msg = f"image_column {name!r} has the type {rows.features[name]}; expected pictures ({_columns(rows)})"
        raise ValueError(msg)
    return name


def label_column_of(rows: Any, name: str | None) -> str:
    """The column of labels.

    Args:
        rows: a table of the `datasets` library.
        name: which one; None finds the only one of class-label type, else one of a usual name.

    Returns:
        Its name.

    Raises:
        ValueError: if it is unknown, holds neither integers nor words, or cannot be told.
    """
    from datasets import ClassLabel

    usable = [column for column, kind in rows.features.items() if _is_label(kind)]
    if name is not None:
        _known(name, "label_column", rows)
        if name not in usable:
            msg = f"label_column {name!r} has the type {rows.features[name]}; expected {_EXPECTED}"
            raise ValueError(msg)
        return name
    named = next((column for column in LABEL_NAMES if column in rows.features), None)
    if named is not None and not usable:
        msg = f"the column {named!r} has the type {rows.features[named]}; expected {_EXPECTED}"
        raise ValueError(msg)
    found = [column for column in usable if isinstance(rows.features[column], ClassLabel)]
    if len(found) != 1:
        found = [column for column in LABEL_NAMES if column in usable][:1]
    return _only(found, "label_column", "is known to hold labels", rows)


def labels_of(
    splits: Mapping[str, Any], split: str, column: str
) -> tuple[Int64[Tensor, " samples"], int | None, list[str] | None]:
    """The labels of a split as integers.

    Words are numbered in alphabetical order over all splits, so that training and test data agree.

    Args:
        splits: the data set's tables by split.
        split: which one.
        column: the column of labels.

    Returns:
        Labels (samples,), the number of classes where the data set declares it, and the classes' names where they
        have any.

    Raises:
        ValueError: if a label is missing.
    """
    from datasets import ClassLabel

    kind = splits[split].features[column]
    values = _values(splits[split], column)
    missing = next((row for row, value in enumerate(values) if value is None), None)
    if missing is not None:
        msg = f"{column!r} of row {missing} is missing; expected a label in every row of {split!r}"
        raise ValueError(msg)
    if isinstance(kind, ClassLabel):
        names = _shared_names(splits, split, column)
        numbers = [names.index(name) for name in kind.names]
        return _whole([numbers[value] if value >= 0 else value for value in values]), len(names), names
    if kind.dtype == "bool":
        return _whole([int(value) for value in values]), 2, ["False", "True"]
    if kind.dtype in {"string", "large_string"}:
        words = {word for rows in splits.values() if column in rows.features for word in _values(rows, column)}
        names = sorted(words - {None})
        places = {word: number for number, word in enumerate(names)}
        return _whole([places[word] for word in values]), len(names), names
    return _whole(values), None, None


def _whole(values: Sequence[int]) -> Int64[Tensor, " samples"]:
    return torch.tensor(values, dtype=torch.int64, device="cpu")


def _shared_names(splits: Mapping[str, Any], split: str, column: str) -> list[str]:
    """The classes of a column of class labels, in one order for all splits: that of the split that has them all.

    Raises:
        ValueError: if the splits' names differ, and none has all of them.
    """
    kinds = {name: rows.features.get(column) for name, rows in splits.items()}
    named: dict[str, list[str]] = {name: list(kind.names) for name, kind in kinds.items() if hasattr(kind, "names")}
    whole = {class_name for names in named.values() for class_name in names}
    if all(names == named[split] for names in named.values()):
        return named[split]
    for names in (named.get("train", []), *named.values()):
        if whole == {*names}:
            return names
    told = "; ".join(f"{name}: {', '.join(names[:5])}, ... ({len(names)})" for name, names in named.items())
    msg = (
        f"the classes of {column!r} differ between the splits, and none has all of them ({told}); expected one list: "
        "table.cast_column(name, datasets.ClassLabel(names=...)) of each"
    )
    raise ValueError(msg)


def _values(rows: Any, column: str) -> Any:
    return rows.with_format(None)[column][:]


def _is_label(kind: Any) -> bool:
    from datasets import ClassLabel, Value

    whole = isinstance(kind, Value) and kind.dtype.startswith(("int", "uint", "string", "large_string", "bool"))
    return whole or isinstance(kind, ClassLabel)


def _is_encoded(kind: Any) -> bool:
    """Whether it is the bytes of files, as other libraries than `datasets` write pictures."""
    kind = kind.get("bytes") if isinstance(kind, dict) else kind
    return getattr(kind, "dtype", None) in {"binary", "large_binary"}


def _known(name: str, argument: str, rows: Any) -> None:
    if name not in rows.features:
        msg = f"{argument} is {name!r}; expected one of the data set's columns ({_columns(rows)})"
        raise ValueError(msg)


def _only(found: Sequence[str], argument: str, what: str, rows: Any) -> str:
    if len(found) != 1:
        several = f"more than one column {what} ({', '.join(found)})" if found else f"no column {what}"
        msg = f"{several}; expected {argument}=... to name one of the data set's columns ({_columns(rows)})"
        raise ValueError(msg)
    return found[0]


def _columns(rows: Any) -> str:
    return ", ".join(map(repr, rows.features))
