"""Items of a map-style data set, checked as they are read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    Subset,
    default_collate,
)

from flatprobe.data.arrays import as_sample
from flatprobe.data.inputs import Inputs, map_tensors
from flatprobe.data.validation import as_dict, check_finite, parts_of
from flatprobe.utils import rng
from flatprobe.utils.rng import keep_global_states

Columns = tuple[str | Sequence[str], str]
Item = tuple[Inputs, Any]


class Items:
    """Items (input, label) of a map-style data set.

    Args:
        dataset: a map-style data set, or a `DataLoader` that changes neither order nor items.
        columns: for items that are dicts, the key or keys of the input, and the key of the label.
        workers: processes that read ahead in `ahead`; 0 for none.

    Raises:
        TypeError: for data sets without positions.
        ValueError: for an empty data set, or a loader that shuffles or collates.
    """

    def __init__(self, dataset: Any, columns: Columns | None = None, workers: int = 0) -> None:
        self._columns, self.workers = columns, workers
        if isinstance(dataset, DataLoader):
            dataset = unwrap(dataset)
        self.kind = type(getattr(dataset, "prepared_from", dataset)).__name__
        if isinstance(dataset, IterableDataset) or not (
            hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        ):
            msg = (
                f"the data set must be map-style (with __len__ and __getitem__), so that every pass reads the same "
                f"samples in the same order, got {self.kind}, which has no positions. Store its items in a list"
            )
            raise TypeError(msg)
        _check_undecoded(dataset)
        self._dataset = dataset
        self._count = len(dataset)
        if self._count == 0:
            msg = f"the {self.kind} is empty (0 samples); expected at least one"
            raise ValueError(msg)
        with keep_global_states():
            self.first = self[0][0]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Item:
        return self._check(self._dataset[position], position)

    def ahead(self, positions: Sequence[int]) -> Iterator[tuple[int, Item]]:
        """Positions and items in order, read by the workers; checked in this process.

        The workers start as those of a `DataLoader` do on the platform, since data sets are written for that: a forked
        worker starts at once, a spawned one imports torch first and needs a data set that can be pickled.
        """
        loader = DataLoader(
            _Numbered(self._dataset),
            sampler=positions,
            batch_size=None,
            num_workers=self.workers,
            collate_fn=_unchanged,
            generator=rng.generator("workers"),
        )
        for position, item in loader:
            inputs, label = self._check(item, position)
            # A tensor of a worker occupies an open file until it is freed.
            yield position, (map_tensors(torch.clone, inputs), label.clone() if isinstance(label, Tensor) else label)

    def stack(self, positions: Sequence[int], items: Sequence[Item]) -> tuple[Inputs, Tensor]:
        """Inputs and labels of the items as batches.

        Raises:
            ValueError: if shapes differ, or an input is not finite.
        """
        shapes = {name: tuple(part.shape) for name, part in parts_of(self.first).items()}
        for position, (inputs, _) in zip(positions, items, strict=True):
            own = {name: tuple(part.shape) for name, part in parts_of(inputs).items()}
            if own != shapes:
                msg = (
                    f"the input of item {position} must have the shape of item 0, {shapes}, got {own}. Pad or crop them"
                )
                raise ValueError(msg)
        inputs = collate([inputs for inputs, _ in items])
        check_finite(inputs, positions)
        return inputs, collate([label for _, label in items])

    def _check(self, item: Any, position: int) -> Item:
        """The item as a pair.

        Raises:
            TypeError: if it is none, or has no integer label.
        """
        if isinstance(item, Mapping):
            item = self._choose(item, position)
        if not (isinstance(item, tuple | list) and len(item) == 2):
            msg = (
                f"item {position} of the {self.kind} is a {type(item).__name__}; expected a pair "
                "(input, label). Wrap the data set so that its items are pairs"
            )
            raise TypeError(msg)
        inputs = tuple(item[0]) if isinstance(item[0], list) else as_dict(item[0])
        inputs = as_sample(inputs, f"the input of item {position}")
        parts_of(inputs, f"the input of item {position}")
        if item[1] is None:
            msg = f"item {position} of the {self.kind} has no label; expected an integer"
            raise TypeError(msg)
        if not isinstance(item[1], int | float | Tensor) and not hasattr(item[1], "dtype"):
            msg = (
                f"the label of item {position} of the {self.kind} is {item[1]!r}, a "
                f"{type(item[1]).__name__}; expected an integer. Number the classes in the data set"
            )
            raise TypeError(msg)
        return inputs, item[1]

    def _choose(self, item: Mapping[str, Any], position: int) -> tuple[Any, Any]:
        """Input and label of an item that is a dict.

        Raises:
            TypeError: if the keys are not given, or the item lacks one of them.
        """
        inputs, label = self._columns or ((), "")
        wanted = [inputs] if isinstance(inputs, str) else [*inputs]
        if not wanted or not {*wanted, label} <= item.keys():
            msg = (
                f"item {position} of the {self.kind} is a dict with {', '.join(map(repr, item))}; "
                "expected a pair (input, label). Name the keys by columns=(key or keys of the input, key of the label) "
                "or give the data to fp.load_data, which knows the usual ones"
            )
            raise TypeError(msg)
        return item[inputs] if isinstance(inputs, str) else {key: item[key] for key in wanted}, item[label]


class _Numbered(Dataset[tuple[int, Any]]):
    """Positions with the items of a data set."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __getitem__(self, position: int) -> tuple[int, Any]:
        return position, self._dataset[position]


def _unchanged(item: Any) -> Any:
    return item


def collate(values: list[Any]) -> Any:
    """The values of several samples as batches, by torch's default."""
    with torch.device("cpu"):  # Python's integers become tensors, which would be on torch's default device.
        found = default_collate(values)
    return tuple(found) if isinstance(found, list) else found


def _check_undecoded(dataset: Any) -> None:
    """Refuse tables whose images `datasets` would decode, which can start a program.

    Raises:
        TypeError: for such a table, unless a user-defined function makes its items.
    """
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    kinds, own = getattr(dataset, "features", None), getattr(dataset, "format", None)
    if not isinstance(kinds, Mapping) or not isinstance(own, Mapping) or own.get("type") == "custom":
        return
    kinds = {name: kinds[name] for name in own.get("columns", ()) if name in kinds}
    pictures = [name for name, kind in kinds.items() if type(kind).__name__ == "Image" and kind.decode]
    if pictures:
        msg = (
            f"the column {pictures[0]!r} of the {type(dataset).__name__} holds encoded images; expected tensors. "
            "fp.load_data(dataset) decodes them, and dataset.remove_columns(...) leaves them out"
        )
        raise TypeError(msg)


def unwrap(loader: "DataLoader[Any]") -> Any:
    """The data set of a loader that changes neither order nor items.

    Raises:
        ValueError: for a loader that changes the order or the items.
    """
    batches = loader.batch_sampler
    sampler = loader.sampler if batches is None else getattr(batches, "sampler", None)
    if isinstance(loader.dataset, IterableDataset):
        return loader.dataset
    if type(sampler) is not SequentialSampler or type(batches) not in {BatchSampler, type(None)}:
        msg = (
            f"the DataLoader must keep the order of its data set, got {type(batches or sampler).__name__} over "
            f"{type(sampler).__name__}. Pass loader.dataset"
        )
        raise ValueError(msg)
    if batches is not None and loader.collate_fn is not default_collate:
        msg = (
            "the DataLoader must have torch's default collate_fn, got its own, which changes the items. Do its work in "
            "the data set, and pass that"
        )
        raise ValueError(msg)
    return loader.dataset
