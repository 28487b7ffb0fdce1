"""The fields of a result as the columns of one table, and back."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas

# Column -> name of the field or property that it holds; "" for a column that counts the entries of an axis from 0. A
# column such as "lower:" holds a dictionary, one column per key: "lower:spectral".
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
    arrays: dict[str, Array | None] = {}
    for column, name in columns.items():
        value: Any = getattr(result, name) if name else None
        parts = {column + key: part for key, part in value.items()} if column.endswith(":") else {column: value}
        arrays |= {own: None if part is None else _array(kind, name, part) for own, part in parts.items()}
    shapes = [values.shape for values in arrays.values() if values is not None]
    shape = max(shapes, key=len, default=(0,))[: 2 if axes else 1]
    table = {}
    for column, held in arrays.items():
        axis = axes.get(column)
        values = np.arange(shape[axis or 0]) if held is None else held
        expected = shape if axis is None else (shape[axis],)
        if values.shape != expected:
            msg = (
                f"{column} of {kind} must have shape {expected}, one entry per row, got {values.shape}. Put single "
                "values into settings, or define to_frame and from_frame"
            )
            raise ValueError(msg)
        table[column] = np.broadcast_to(values[:, None] if axis == 0 else values, shape).ravel()
    return pd.DataFrame({column: _words_as_list(values) for column, values in table.items()})


def from_table(frame: "pandas.DataFrame", columns: Columns, axes: Axes) -> dict[str, Any]:
    """Field values by name, the inverse of `to_table`."""
    shape: tuple[int, ...] = (-1,)
    if axes:
        (counting,) = (column for column, name in columns.items() if not name)
        count = int(frame[counting].max()) + 1
        shape = (count, -1) if axes[counting] == 0 else (-1, count)

    def read(column: str) -> Tensor | tuple[str, ...]:
        values = frame[column].to_numpy().reshape(shape)
        if column in axes:
            values = values[:, 0] if axes[column] == 0 else values[0]
        return tuple(values) if values.dtype == object else torch.from_numpy(values.copy())

    return {
        name: {key.removeprefix(column): read(key) for key in map(str, frame) if key.startswith(column)}
        if column.endswith(":")
        else read(column)
        for column, name in columns.items()
        if name
    }


def _array(kind: str, name: str, value: object) -> Array:
    if isinstance(value, Tensor) and value.ndim:
        values: Array = value.detach().cpu().numpy()
        return values
    if isinstance(value, tuple | list) and all(isinstance(entry, str) for entry in value):
        return np.array(value, dtype=object)
    msg = (
        f"{name} of {kind} must be a column, a tensor of one axis or a tuple of words, got {type(value).__name__}. Put "
        "the same value into settings under that name, or define to_frame and from_frame"
    )
    raise TypeError(msg)


def _words_as_list(values: Array) -> Any:
    """Words as a list, which every version of pandas types by itself."""
    return values.tolist() if values.dtype == object else values
