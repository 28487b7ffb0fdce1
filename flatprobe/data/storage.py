"""Storage of samples: tensors in memory, or a map-style data set."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, Subset, default_collate

from flatprobe.data.inputs import Inputs, map_tensors
from flatprobe.data.validation import Positions, as_dict, as_list, check_finite, leave_inference_mode, parts_of, rows
from flatprobe.utils.rng import keep_global_states

# Items of a streamed data set that are read twice to check that they repeat, and that its fingerprint covers.
SAMPLED = 16

Columns = tuple[str | Sequence[str], str]


class Memory:
    """Inputs in memory, not copied, and watched for in-place changes.

    Args:
        inputs: a tensor, or a dict or tuple of tensors, whose first dimension counts the samples.

    Raises:
        TypeError: for anything else.
        ValueError: if lengths differ, or values are not finite.
    """

    fingerprint_of = "all samples"

    def __init__(self, inputs: Any) -> None:
        inputs = as_dict(inputs)
        parts = parts_of(inputs)
        for name, part in parts.items():
            if part.ndim == 0:
                msg = f"{name} must have a first dimension that counts the samples, got a tensor without dimensions"
                raise ValueError(msg)
        lengths = {name: len(part) for name, part in parts.items()}
        if len(set(lengths.values())) > 1:
            msg = f"the inputs must have one row per sample each, got the lengths {lengths}"
            raise ValueError(msg)
        self._inputs: Inputs = map_tensors(lambda part: leave_inference_mode(part.detach()), inputs)
        self._count = next(iter(lengths.values()))
        if self._count == 0:
            msg = "the data are empty (0 samples); expected at least one"
            raise ValueError(msg)
        check_finite(self._inputs, range(self._count))
        self._versions = self._current_versions()

    def __len__(self) -> int:
        return self._count

    @property
    def first(self) -> Inputs:
        """The first sample, without the sample dimension."""
        return map_tensors(lambda part: part[0], self._inputs)

    def head(self, count: int) -> "Memory":
        """The first samples, as views."""
        return Memory(map_tensors(lambda part: part[:count], self.all()))

    def subset(self, positions: Tensor) -> "Memory":
        """The samples at these positions, as a copy."""
        return Memory(map_tensors(lambda part: rows(part, positions), self.all()))

    def all(self) -> Inputs:
        """All inputs.

        Raises:
            RuntimeError: if the inputs were changed in place.
        """
        if self._versions != self._current_versions():
            msg = (
                "the inputs were changed in place after the LabelledData was made of them. Make it of a clone (a "
                "network whose first layer works in place changes its inputs, too)"
            )
            raise RuntimeError(msg)
        return self._inputs

    def read(self, positions: Positions) -> tuple[Inputs, None]:
        """The inputs at these positions: views for a range, copies for a tensor."""
        return map_tensors(lambda part: rows(part, positions), self.all()), None

    def fingerprint_inputs(self) -> Inputs:
        """The inputs that the fingerprint covers: all."""
        return self.all()

    def _current_versions(self) -> list[int]:
        return [part._version for part in parts_of(self._inputs).values()]  # noqa: SLF001 (torch's in-place counter)


class Stream:
    """Items (input, label) of a map-style data set, read at every use.

    Args:
        dataset: a map-style data set, or a `DataLoader` that changes neither order nor items.
        count: number of items, from the first on; None for all.
        columns: for items that are dicts, the key or keys of the input, and the key of the label.

    Raises:
        TypeError: for data sets without positions.
        ValueError: for an empty data set, or a loader that shuffles or collates.
    """

    def __init__(self, dataset: Any, count: int | None = None, columns: Columns | None = None) -> None:
        self._columns = columns
        if isinstance(dataset, DataLoader):
            dataset = _unwrap(dataset)
        kind = type(dataset).__name__
        if isinstance(dataset, IterableDataset) or not (
            hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
        ):
            msg = (
                f"the data set must be map-style (with __len__ and __getitem__), so that every pass reads the same "
                f"samples in the same order, got {kind}, which has no positions. Store its items in a list"
            )
            raise TypeError(msg)
        _check_undecoded(dataset)
        self.dataset = dataset
        self._count = len(dataset) if count is None else count
        if self._count == 0:
            msg = f"the {kind} is empty (0 samples); expected at least one"
            raise ValueError(msg)
        with keep_global_states():
            self.first = self._item(0)[0]

    def __len__(self) -> int:
        return self._count

    @property
    def fingerprint_of(self) -> str:
        """The samples that the fingerprint covers, in words."""
        return f"labels and {len(_spread(self._count))} samples"

    def head(self, count: int) -> "Stream":
        """The first items."""
        return Stream(self.dataset, count, self._columns)

    def subset(self, positions: Tensor) -> "Stream":
        """The items at these positions."""
        return Stream(Subset(self.dataset, positions.tolist()), columns=self._columns)

    def read(self, positions: Positions) -> tuple[Inputs, Tensor]:
        """Inputs and labels at these positions."""
        with keep_global_states():
            return self._collate(as_list(positions))

    def fingerprint_inputs(self) -> Inputs:
        """The inputs that the fingerprint covers: a few samples spread over the data."""
        return self.read(torch.tensor(_spread(self._count), device="cpu"))[0]

    def assert_repeatable(self, labels: Tensor | None) -> None:
        """Check that a few items are the same in two readings, and have the given labels.

        Args:
            labels: all labels, or None.

        Raises:
            ValueError: if an item or a label differs.
        """
        for position in _spread(self._count):
            with keep_global_states():  # for both readings: states restored between them would hide augmentation
                (inputs, label), (again, label_again) = self._collate([position]), self._collate([position])
            pairs = zip(parts_of(inputs).values(), parts_of(again).values(), strict=True)
            if not (torch.equal(label, label_again) and all(torch.equal(one, two) for one, two in pairs)):
                msg = (
                    f"item {position} of the {type(self.dataset).__name__} differs between two readings; expected the "
                    "same sample at every pass. Give it a deterministic transform (no augmentation)"
                )
                raise ValueError(msg)
            if labels is not None and int(labels[position]) != int(label[0]):
                msg = (
                    f"labels[{position}] is {int(labels[position])}, but item {position} of the "
                    f"{type(self.dataset).__name__} has label {int(label[0])}; expected the labels of the items. "
                    "with_random_labels(...) randomizes them"
                )
                raise ValueError(msg)

    def _collate(self, positions: Sequence[int]) -> tuple[Inputs, Tensor]:
        pairs = [self._item(position) for position in positions]
        shapes = {name: tuple(part.shape) for name, part in parts_of(self.first).items()}
        for position, (inputs, _) in zip(positions, pairs, strict=True):
            own = {name: tuple(part.shape) for name, part in parts_of(inputs).items()}
            if own != shapes:
                msg = (
                    f"the input of item {position} must have the shape of item 0, {shapes}, got {own}. Pad or crop them"
                )
                raise ValueError(msg)
        with torch.device("cpu"):  # Python's integers become tensors, which would be on torch's default device
            inputs = default_collate([inputs for inputs, _ in pairs])
            labels = default_collate([label for _, label in pairs])
        inputs = tuple(inputs) if isinstance(inputs, list) else inputs
        check_finite(inputs, positions)
        return inputs, labels

    def _item(self, position: int) -> tuple[Inputs, Any]:
        item = self.dataset[position]
        if isinstance(item, Mapping):
            item = self._choose(item, position)
        if not (isinstance(item, tuple | list) and len(item) == 2):
            msg = (
                f"item {position} of the {type(self.dataset).__name__} is a {type(item).__name__}; expected a pair "
                "(input, label). Wrap the data set so that its items are pairs"
            )
            raise TypeError(msg)
        inputs = tuple(item[0]) if isinstance(item[0], list) else as_dict(item[0])
        parts_of(inputs, f"the input of item {position}")
        if item[1] is None:
            msg = f"item {position} of the {type(self.dataset).__name__} has no label; expected an integer"
            raise TypeError(msg)
        if not isinstance(item[1], int | float | Tensor) and not hasattr(item[1], "dtype"):
            msg = (
                f"the label of item {position} of the {type(self.dataset).__name__} is {item[1]!r}, a "
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
                f"item {position} of the {type(self.dataset).__name__} is a dict with {', '.join(map(repr, item))}; "
                "expected a pair (input, label). Name the keys by columns=(key or keys of the input, key of the label)"
            )
            raise TypeError(msg)
        return item[inputs] if isinstance(inputs, str) else {key: item[key] for key in wanted}, item[label]


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


def _unwrap(loader: "DataLoader[Any]") -> Any:
    """Data set of a loader that changes neither order nor items.

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


def _spread(count: int) -> list[int]:
    """Up to 16 positions from the first to the last."""
    chosen = min(count, SAMPLED)
    return [k * (count - 1) // max(chosen - 1, 1) for k in range(chosen)]
