"""Storage of samples: tensors in memory, or a map-style data set."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from flatprobe.data.inputs import Inputs, map_tensors
from flatprobe.data.items import Item, Items, collate
from flatprobe.data.kept import Kept, check_versions, versions_of
from flatprobe.data.validation import Positions, as_dict, as_list, check_finite, leave_inference_mode, parts_of, rows
from flatprobe.utils.memory import DATA_BYTES
from flatprobe.utils.rng import keep_global_states

# Items of a streamed data set that are read twice to check that they repeat, and that its fingerprint covers.
SAMPLED = 16


class Memory:
    """Inputs in memory, not copied, and watched for in-place changes.

    Args:
        inputs: a tensor, or a dict or tuple of tensors, whose first dimension counts the samples.

    Raises:
        TypeError: for anything else.
        ValueError: if lengths differ, or values are not finite.
    """

    place = "in memory"
    fingerprint_of = "all samples"
    resident = True  # Batches are views of memory that the data hold anyway.

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
        self._versions = versions_of(self._inputs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._versions = versions_of(self._inputs)  # an unpickled tensor counts its changes anew

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
        self.check_unchanged()
        return self._inputs

    def check_unchanged(self) -> None:
        """Check that the inputs were not changed in place.

        Raises:
            RuntimeError: if they were.
        """
        check_versions(self._inputs, self._versions)

    def read(self, positions: Positions) -> tuple[Inputs, None]:
        """The inputs at these positions: views for a range, copies for a tensor."""
        return map_tensors(lambda part: rows(part, positions), self.all()), None

    def read_all(self, spans: Sequence[range]) -> Iterator[tuple[Inputs, None]]:
        """The inputs of each span."""
        return map(self.read, spans)

    def fingerprint_pairs(self) -> tuple[Inputs, None]:
        """The inputs that the fingerprint covers: all."""
        return self.all(), None


class Stream:
    """Items (input, label) of a map-style data set, kept as far as `Kept` has room, else read at every use.

    Args:
        items: the data set.
        kept: the items that are kept, shared by all parts of the data set.
        places: positions of the samples in the data set; None for all.

    Raises:
        ValueError: if there are no positions.
    """

    place = "streamed"

    def __init__(self, items: Items, kept: Kept | None = None, places: Positions | None = None) -> None:
        self._items, self.first = items, items.first
        self._kept = Kept(items.first, len(items), DATA_BYTES) if kept is None else kept
        self._places: Positions = range(len(items)) if places is None else places
        if len(self._places) == 0:
            msg = "the data are empty (0 samples); expected at least one"
            raise ValueError(msg)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def fingerprint_of(self) -> str:
        """The samples that the fingerprint covers, in words."""
        return f"labels and {len(_spread(len(self)))} samples"

    @property
    def resident(self) -> bool:
        """True if batches become views of kept items."""
        return isinstance(self._places, range) and self._places.stop <= self._kept.room

    def all(self) -> Inputs:
        """All inputs, which a stream does not have.

        Raises:
            RuntimeError: always.
        """
        msg = "the inputs are streamed and not available as a whole. Read them with batches(...) or gather(...)"
        raise RuntimeError(msg)

    def check_unchanged(self) -> None:
        """Check that the kept items were not changed in place.

        Raises:
            RuntimeError: if they were.
        """
        self._kept.check_unchanged()

    def head(self, count: int) -> "Stream":
        """The first items."""
        return Stream(self._items, self._kept, self._places[:count])

    def subset(self, positions: Tensor) -> "Stream":
        """The items at these positions."""
        return Stream(self._items, self._kept, self._at(positions))

    def read(self, positions: Positions) -> tuple[Inputs, Tensor]:
        """Inputs and labels at these positions: views of kept items for a range."""
        places = self._at(positions)
        with keep_global_states():
            decoded = [(place, self._items[place]) for place in self._kept.missing(places)]
        return self._join(places, decoded)

    def read_all(self, spans: Sequence[range]) -> Iterator[tuple[Inputs, Tensor]]:
        """Inputs and labels of each span, in order; the workers, if any, read from the second one on.

        Many callers take the first batch alone, for which no worker is started.
        """
        yield from map(self.read, spans[:1])
        parts = [self._at(span) for span in spans[1:]]
        missing = [place for part in parts for place in self._kept.missing(part)]
        if not self._items.workers or not missing:
            yield from map(self.read, spans[1:])
            return
        ahead = self._items.ahead(missing)
        for places in parts:
            own = self._kept.missing(places)
            decoded: dict[int, Item] = {}
            while own and own[-1] not in decoded:  # Items that another pass has kept meanwhile are passed over.
                decoded.update([next(ahead)])
            yield self._join(places, [(place, decoded[place]) for place in own])

    def fingerprint_pairs(self) -> tuple[Inputs, Tensor]:
        """The inputs and labels that the fingerprint covers: a few samples spread over the data."""
        return self.read(torch.tensor(_spread(len(self)), device="cpu"))

    def assert_repeatable(self, labels: Tensor | None) -> None:
        """Check that a few items are the same in two readings, and have the given labels.

        Args:
            labels: all labels, or None.

        Raises:
            ValueError: if an item or a label differs.
        """
        for position in _spread(len(self)):
            with keep_global_states():  # for both readings: states restored between them would hide augmentation
                (inputs, label), (again, label_again) = (
                    self._items.stack([position], [self._items[position]]) for _ in range(2)
                )
            pairs = zip(parts_of(inputs).values(), parts_of(again).values(), strict=True)
            if not (_same(label, label_again) and all(torch.equal(one, two) for one, two in pairs)):
                msg = (
                    f"item {position} of the {self._items.kind} differs between two readings; expected the "
                    "same sample at every pass. Give it a deterministic transform (no augmentation)"
                )
                raise ValueError(msg)
            if labels is not None and not _same(torch.as_tensor(labels[position], device="cpu"), label[0]):
                msg = (
                    f"labels[{position}] is {_shown(labels[position])}, but item {position} of the "
                    f"{self._items.kind} has label {_shown(label[0])}; expected the labels of the items. "
                    "with_random_labels(...) randomizes them"
                )
                raise ValueError(msg)

    def _at(self, positions: Positions) -> Positions:
        """Places in the data set of positions in this stream."""
        if isinstance(positions, range) and isinstance(self._places, range):
            return self._places[positions.start : positions.stop]
        if isinstance(self._places, range):
            return torch.arange(len(self), device="cpu")[positions] + self._places.start
        return rows(self._places, positions)

    def _join(self, places: Positions, decoded: Sequence[tuple[int, Item]]) -> tuple[Inputs, Tensor]:
        """Inputs and labels at these places, of which some are decoded and the others kept."""
        numbers, items = [place for place, _ in decoded], [item for _, item in decoded]
        if decoded:
            inputs, labels = self._items.stack(numbers, items)
            self._kept.put(numbers, inputs, [label for _, label in items])
            if len(decoded) == len(places) and len(self._kept.missing(places)) == len(places):
                return inputs, labels
        if not self._kept.missing(places):
            return self._kept.read(places)
        fresh = dict(decoded)
        pairs = [fresh[place] if place in fresh else self._kept.item(place) for place in as_list(places)]
        return collate([inputs for inputs, _ in pairs]), collate([label for _, label in pairs])


def _spread(count: int) -> list[int]:
    """Up to 16 positions from the first to the last."""
    chosen = min(count, SAMPLED)
    return [k * (count - 1) // max(chosen - 1, 1) for k in range(chosen)]


def _same(first: Tensor, second: Tensor) -> bool:
    """True for equal values, whatever their dtype; what is not finite is refused elsewhere."""
    return first.shape == second.shape and torch.allclose(first.double(), second.double(), 0.0, 0.0, equal_nan=True)


def _shown(label: Any) -> str:
    return str(torch.as_tensor(label, device="cpu").tolist())
