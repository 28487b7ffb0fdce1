"""The fields of a result as the columns of one table, and back."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas

# Column -> name of the field or property that it holds; "" for a column that counts the entries of an axis from 0.
Columns = Mapping[str, str]
# Of a table over the pairs of two axes: column -> the one axis, 0 or 1, that its values depend on.
Axes = Mapping[str, int]
Array = np.ndarray[Any, np.dtype[Any]]


def to_table(result: object, columns: Columns, axes: Axes) -> "pandas.DataFrame":
    """The table of a result: one row per entry of its axis, or per pair of entries of its two axes.

    Raises:
        TypeError: for a field that is neither a tensor nor a tuple of words.
        ValueError: for a field whose shape is not that of the table.
    """
    import pandas as pd

    kind = type(result).__name__
    arrays = {column: _array(kind, name, getattr(result, name)) for column, name in columns.items() if name}
    shape = max((values.shape for values in arrays.values()), key=len)[: 2 if axes else 1]
    table = {}
    for column, name in columns.items():
        axis = axes.get(column)
        values = arrays[column] if name else np.arange(shape[axis or 0])
        expected = shape if axis is None else (shape[axis],)
        if values.shape != expected:
            msg = (
                f"{name} of {kind} has shape {values.shape}; expected {expected}, one entry per row. Put single values "
                "into settings, or define to_frame and from_frame"
            )
            raise ValueError(msg)
        table[column] = np.broadcast_to(values[:, None] if axis == 0 else values, shape).ravel()
    return pd.DataFrame({column: _words_as_list(values) for column, values in table.items()})


def from_table(frame: "pandas.DataFrame", columns: Columns, axes: Axes) -> dict[str, Any]:
    """The inverse of `to_table`: what the columns hold, by the name of the field."""
    shape: tuple[int, ...] = (-1,)
    if axes:
        (counting,) = (column for column, name in columns.items() if not name)
        count = int(frame[counting].max()) + 1
        shape = (count, -1) if axes[counting] == 0 else (-1, count)
    found: dict[str, Any] = {}
    for column, name in columns.items():
        if name:
            values = frame[column].to_numpy().reshape(shape)
            if column in axes:
                values = values[:, 0] if axes[column] == 0 else values[0]
            found[name] = tuple(values) if values.dtype == object else torch.from_numpy(values.copy())
    return found


def _array(kind: str, name: str, value: object) -> Array:
    if isinstance(value, Tensor):
        values: Array = value.detach().cpu().numpy()
        return values
    if isinstance(value, tuple | list) and all(isinstance(entry, str) for entry in value):
        return np.array(value, dtype=object)
    msg = (
        f"{name} of {kind} is of type {type(value).__name__}; expected a column: a tensor of one axis, or a tuple of "
        "words. Put the same value into settings under that name, or define to_frame and from_frame"
    )
    raise TypeError(msg)


def _words_as_list(values: Array) -> Any:
    """Words as a list, which every version of pandas types by itself."""
    return values.tolist() if values.dtype == object else values
