"""Tables of the `datasets` library without images, as arrays in memory."""

from collections.abc import Mapping
from typing import Any

import torch

from flatprobe.data.arrays import as_inputs
from flatprobe.data.columns import LABEL_NAMES, label_column_of, labels_of
from flatprobe.data.labelled import LabelledData
from flatprobe.data.validation import warn_of_missed_classes

# The inputs of a text classifier, as tokenizers of transformers name them.
TOKENS = ("input_ids", "attention_mask", "token_type_ids")


def number_columns(rows: Any, label: str | None) -> list[str]:
    """The columns of numbers, or of lists of them, beside the labels, as far as these are known."""
    usual = {label} if label else {*LABEL_NAMES}
    return [name for name, kind in rows.features.items() if name not in usual and _is_numeric(kind)]


def _is_numeric(kind: Any) -> bool:
    while hasattr(kind, "feature"):  # a list
        kind = kind.feature
    return str(getattr(kind, "dtype", "")).startswith(("int", "uint", "float", "bool")) and not hasattr(kind, "names")


def of_table(
    splits: Mapping[str, Any], split: str, label_column: str | None, count: int, source: Mapping[str, object]
) -> LabelledData:
    """Labelled data of a split without images: the tokens of a text, or the only other column.

    Args:
        splits: split -> table.
        split: the split.
        label_column: the label column; None finds it by its type or name.
        count: number of rows, from the first on.
        source: origin of the data.

    Returns:
        Inputs that are a dictionary with `input_ids` and, where the table has them, `attention_mask` and
        `token_type_ids`; or else one tensor.

    Raises:
        ValueError: if it is not clear which columns are inputs, or the rows have different lengths.
    """
    rows = splits[split]
    label = label_column_of(rows, label_column)
    labels, classes, names = labels_of(splits, split, label)
    others = number_columns(rows, label)
    tokens = [name for name in TOKENS if name in others]
    wanted = tokens if "input_ids" in tokens else others
    if len(wanted) != 1 and wanted is not tokens:
        msg = (
            f"the table has no images and several columns beside the labels {label!r}: {', '.join(map(repr, others))}; "
            "expected one, or those of a tokenizer: table.remove_columns([...]) of the others, or "
            "fp.LabelledData.from_dataset(table.with_format('torch'), columns=(inputs, label))"
        )
        raise ValueError(msg)
    if classes is not None:
        warn_of_missed_classes(labels, count, stacklevel=4)
    chosen = rows.select(range(count)).with_format("numpy")
    parts = {name: as_inputs(chosen[name][:], f"the column {name!r}") for name in wanted}
    inputs: dict[str, torch.Tensor] | torch.Tensor = parts if wanted is tokens else parts[wanted[0]]
    note = {**source, "label_column": label, "input_columns": wanted, "class_names": names}
    return LabelledData(inputs, labels[:count], classes=classes, source=note)
