"""Image and label columns of a table, and the labels as integers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

# Names of label columns on the hub, the likeliest first.
LABEL_NAMES = ("label", "labels", "class", "fine_label")
_EXPECTED = (
    "class labels, integers, words or booleans: table.cast_column(name, datasets.Value('int64')) converts whole numbers"
)


def image_column_of(rows: Any, name: str | None) -> str:
    """Name of the image column.

    Args:
        rows: a table of the `datasets` library.
        name: the column; None finds the only column of image type.

    Returns:
        Its name.

    Raises:
        ValueError: if the column is unknown, holds no images, or is not unique.
    """
    found = image_columns(rows)
    if name is None:
        return _only(found, "image_column", "holds images", rows)
    _known(name, "image_column", rows)
    if name not in [*found, *image_columns(rows, encoded=True)]:
        msg = f"image_column {name!r} has the type {rows.features[name]}; expected images ({_columns(rows)})"
        raise ValueError(msg)
    return name


def image_columns(rows: Any, *, encoded: bool = False) -> list[str]:
    """The columns of image type, or else (or, with `encoded`, only) the columns of file contents."""
    from datasets import Image

    files = [column for column, kind in rows.features.items() if _is_encoded(kind)]
    found = [column for column, kind in rows.features.items() if isinstance(kind, Image)]
    return files if encoded else found or files


def label_column_of(rows: Any, name: str | None) -> str:
    """Name of the label column.

    Args:
        rows: a table of the `datasets` library.
        name: the column; None finds the only column of class-label type, else a column with a usual name.

    Returns:
        Its name.

    Raises:
        ValueError: if the column is unknown, holds neither integers nor strings, or is not unique.
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
    """Labels of a split as integers.

    Strings are numbered in alphabetical order over all splits, so that training and test data agree.

    Args:
        splits: split -> table.
        split: the split.
        column: the label column.

    Returns:
        Labels (samples,), the number of classes where the data set declares it, and the class names where it has any.

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
        numbers, names = numbered(values, words - {None})
        return _whole(numbers), len(names), names
    return _whole(values), None, None


def numbered(words: Iterable[str], known: Iterable[str]) -> tuple[list[int], list[str]]:
    """The place of each word in the alphabetical order of the known words, and that order.

    >>> numbered(["bee", "ant"], ["bee", "cow", "ant"])
    ([1, 0], ['ant', 'bee', 'cow'])
    """
    names = sorted({*known})
    places = {word: number for number, word in enumerate(names)}
    return [places[word] for word in words], names


def _whole(values: Sequence[int]) -> Int64[Tensor, " samples"]:
    return torch.tensor(values, dtype=torch.int64, device="cpu")


def _shared_names(splits: Mapping[str, Any], split: str, column: str) -> list[str]:
    """Class names of a column in one order for all splits.

    Raises:
        ValueError: if the names differ between the splits, and no split has all of them.
    """
    kinds = {name: rows.features.get(column) for name, rows in splits.items()}
    named: dict[str, list[str]] = {name: list(kind.names) for name, kind in kinds.items() if hasattr(kind, "names")}
    whole = {class_name for names in named.values() for class_name in names}
    if all(names == named[split] for names in named.values()):
        return named[split]
    for names in (named.get("train", []), *named.values()):
        if whole == {*names}:
            return names
    listed = "; ".join(f"{name}: {', '.join(names[:5])}, ... ({len(names)})" for name, names in named.items())
    msg = (
        f"the classes of {column!r} differ between the splits, and none has all of them ({listed}); expected one list: "
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
    """True for a column of file contents, in which other libraries store images."""
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
