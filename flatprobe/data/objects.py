"""Labelled data of objects in memory: arrays, data sets, loaders, and dictionaries of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from flatprobe.data.arrays import as_inputs, as_sample, as_targets
from flatprobe.data.items import unwrap
from flatprobe.data.labelled import LabelledData
from flatprobe.data.preparation import Preparation
from flatprobe.data.tabular import TOKENS
from flatprobe.data.targets import are_classes
from flatprobe.data.validation import warn_of_missed_classes

# Names of the inputs and of the targets in a dictionary, a scikit-learn Bunch or an .npz file, in any case.
_INPUTS = ("x", "inputs", "images", "data", "features")
_TARGETS = ("y", "labels", "targets", "target", "label")


def of_object(value: Any, split: str, limit: int | None, prepare: Preparation) -> LabelledData:
    """Labelled data of an object in memory.

    Args:
        value: LabelledData, a pair (inputs, targets), a TensorDataset, a map-style data set, a DataLoader, or a
            dictionary of these by split.
        split: the split of a dictionary.
        limit: number of samples, from the first on; None takes all.
        prepare: size, crop and number of channels of images.

    Returns:
        The data, whose `source` records the changes.

    Raises:
        TypeError: for another object.
        ValueError: for a split or limit that there is not.
    """
    value = pick(value, split)
    note = {"split": split, "limit": limit}
    if isinstance(value, TensorDataset) and len(value.tensors) >= 2:
        tensors = value.tensors
        value = (tensors[0] if len(tensors) == 2 else tensors[:-1], tensors[-1])
    if isinstance(value, tuple):
        value = _of_pair(value[0], value[1], note)
    if isinstance(value, LabelledData):
        if limit is not None and value.store.place != "streamed" and value.classes is not None:
            warn_of_missed_classes(value.labels, limit, stacklevel=4)
        return prepared(value if limit in {None, len(value)} else value.head(limit or 0), prepare)
    if isinstance(value, DataLoader) or (hasattr(value, "__getitem__") and hasattr(value, "__len__")):
        return _of_items(value, limit, prepare, note)
    msg = (
        f"the data are a {type(value).__name__}; expected a name, a folder, LabelledData, a pair (inputs, targets) of "
        "tensors or arrays, a map-style data set, a DataLoader that does not shuffle, a table of `datasets`, or a "
        "dictionary of these by split"
    )
    raise TypeError(msg)


def pick(value: Any, split: str) -> Any:
    """The part of a split, where a value has parts, and (inputs, targets) of a dictionary with usual names.

    Raises:
        TypeError: for a tuple or dictionary of another form.
        ValueError: for a split that there is not.
    """
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(part, tuple) for part in value):
        value = {"train": value[0], "test": value[1]}  # as keras.datasets returns them
    if isinstance(value, tuple) and len(value) != 2:
        msg = f"the data must be a pair (inputs, targets), got a tuple of {len(value)}. Return the two arrays"
        raise TypeError(msg)
    if not isinstance(value, Mapping) or split in value:
        return value[split] if isinstance(value, Mapping) else value
    found = _by_names(value, split)
    if found is None:
        keys = ", ".join(map(repr, value)) or "nothing"
        msg = (
            f"the data must have the split {split!r}, or inputs and targets under usual names such as 'x' and 'y', got "
            f"a dictionary with {keys}. Name the split, or return (inputs, targets)"
        )
        raise ValueError(msg)
    return found


def has_split(value: Any, split: str) -> bool:
    """True if an object has the split."""
    if isinstance(value, tuple):
        return split in {"train", "test"} and len(value) == 2 and all(isinstance(part, tuple) for part in value)
    suffixed = isinstance(value, Mapping) and _by_names(value, split, suffix=True) is not None
    return isinstance(value, Mapping) and (split in value or suffixed)


def _by_names(value: Mapping[str, Any], split: str, *, suffix: bool = False) -> tuple[Any, Any] | None:
    """Inputs and targets of a dictionary: `x_train`, `train_x`, or, unless there are suffixes, `x`."""
    keys = {str(key).lower(): key for key in value}
    forms = [f"{{}}_{split}", f"{split}_{{}}"] if suffix else [f"{{}}_{split}", f"{split}_{{}}", "{}"]
    for form in forms:
        pair = [
            next((keys[form.format(name)] for name in names if form.format(name) in keys), None)
            for names in (_INPUTS, _TARGETS)
        ]
        if None not in pair:
            return value[pair[0]], value[pair[1]]  # type: ignore[index] # neither is None
    return None


def prepared(data: LabelledData, prepare: Preparation) -> LabelledData:
    """The data with changed images.

    Raises:
        ValueError: for streamed data, or inputs of several tensors.
    """
    if not prepare:
        return data
    if data.store.place == "streamed" or not isinstance(data.inputs, Tensor):
        changes = ", ".join(prepare.describe())
        msg = f"{changes} must be given for one tensor in memory, got {data}. Change the inputs yourself"
        raise ValueError(msg)
    source = {**data.source, **prepare.describe()}
    return LabelledData(prepare(data.inputs, "each input"), data.labels, classes=data.classes, source=source)


def _of_pair(inputs: Any, targets: Any, note: Mapping[str, object]) -> LabelledData:
    if isinstance(inputs, Mapping):
        parts: Any = {str(name): as_inputs(part, f"inputs[{name!r}]") for name, part in inputs.items()}
    elif isinstance(inputs, tuple):
        parts = tuple(as_inputs(part, f"inputs[{index}]") for index, part in enumerate(inputs))
    else:
        parts = as_inputs(inputs, "inputs")
    own, names = as_targets(targets, "targets")
    return LabelledData(parts, own, classes=len(names) if names else None, source=_with_names(note, names))


def _with_names(note: Mapping[str, object], names: list[str] | None) -> dict[str, object]:
    return {**note, "class_names": names} if names else {**note}


def _of_items(value: Any, limit: int | None, prepare: Preparation, note: Mapping[str, object]) -> LabelledData:
    names, dataset = _class_names(value), unwrap(value) if isinstance(value, DataLoader) else value
    if limit is not None and limit > len(dataset):
        msg = f"limit must be at most {len(dataset)}, the number of samples, got {limit}"
        raise ValueError(msg)
    if limit is not None and (labels := _labels_of(dataset)) is not None:
        warn_of_missed_classes(labels, limit, stacklevel=5)
    items = Prepared(dataset, len(dataset) if limit is None else limit, prepare)
    source = _with_names({**note, **prepare.describe()}, names)
    return LabelledData.from_dataset(items, classes=len(names) if names else None, source=source)


def _class_names(dataset: Any) -> list[str] | None:
    """The `classes` of a data set such as those of torchvision, if it has any."""
    while isinstance(dataset, DataLoader | Subset):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", None)
    return [*names] if isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names) else None


def _labels_of(dataset: Any) -> Tensor | None:
    """The class indices that a data set holds as `targets`, as those of torchvision do; None where it has none."""
    found = getattr(dataset, "targets", None)
    if not isinstance(found, Tensor | list | np.ndarray) or len(found) != len(dataset) or isinstance(found[0], str):
        return None
    labels = torch.as_tensor(found)
    return labels if are_classes(labels) else None


def _pair_of(item: Any) -> Any:
    """Input and target of an item that is a dictionary with usual names; any other item unchanged."""
    target = next((name for name in _TARGETS if name in item), None) if isinstance(item, Mapping) else None
    if target is None:
        return item
    others = {name: value for name, value in item.items() if name != target}
    tokens = {name: others[name] for name in TOKENS if name in others}
    if "input_ids" not in tokens and len(others) != 1:
        return item
    return tokens if "input_ids" in tokens else next(iter(others.values())), item[target]


class Prepared(Dataset[tuple[Any, Any]]):
    """The first items of a map-style data set, with images in [0, 1] of the prepared size.

    Args:
        dataset: the data set.
        count: number of items.
        prepare: size, crop and number of channels of images.
    """

    def __init__(self, dataset: Any, count: int, prepare: Preparation) -> None:
        self.prepared_from, self._count, self._prepare = dataset, count, prepare

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        item = _pair_of(self.prepared_from[index])
        if not isinstance(item, tuple | list) or len(item) != 2:
            return item  # refused by its reader
        name = f"the input of item {index}"
        own = as_sample(item[0], name)
        own = as_inputs(own[None], name)[0] if isinstance(own, Tensor) else own
        return self._prepare(own, name) if self._prepare else own, item[1]
