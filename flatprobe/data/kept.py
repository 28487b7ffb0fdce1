"""Decoded items of a streamed data set, kept within a bound."""

import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flatprobe.data.inputs import Inputs, map_tensors, tensors
from flatprobe.data.items import Item, collate
from flatprobe.data.validation import Positions, as_list, rows


class Kept:
    """The first items of a data set, each decoded once and kept in its dtype.

    The memory is reserved as a whole and occupied item by item. A copy or pickle of this object keeps nothing.

    Args:
        first: the first input, whose shapes and dtypes the kept items have; other items are not kept.
        count: number of items of the data set.
        most: bytes of the kept items.
    """

    def __init__(self, first: Inputs, count: int, most: int) -> None:
        self._given = first, count, most
        plain = all(type(part) is Tensor and part.layout == torch.strided for part in tensors(first))
        self.room = min(count, most // max(1, sum(part.nbytes for part in tensors(first)))) if plain else 0
        self._known = torch.zeros(self.room, dtype=torch.bool, device="cpu")
        self._labels: list[Any] = [None] * self.room
        self._lock = threading.Lock()
        with torch.inference_mode(mode=False):
            self._inputs = map_tensors(lambda part: part.new_empty((self.room, *part.shape)), first)
        self._versions = versions_of(self._inputs)

    def __reduce__(self) -> tuple[type["Kept"], tuple[Inputs, int, int]]:
        return Kept, self._given

    def check_unchanged(self) -> None:
        """Check that nobody has written to the kept items.

        Raises:
            RuntimeError: if the inputs were changed in place.
        """
        with self._lock:
            check_versions(self._inputs, self._versions)

    def missing(self, places: Positions) -> list[int]:
        """The places of items that are not kept, each once, in order."""
        if isinstance(places, range) and places.stop <= self.room and bool(self._known[_slice(places)].all()):
            return []
        return [place for place in dict.fromkeys(as_list(places)) if place >= self.room or not self._known[place]]

    def put(self, places: Sequence[int], inputs: Inputs, labels: Sequence[Any]) -> None:
        """Keep the items at these places as far as there is room.

        Args:
            places: distinct places.
            inputs: their inputs as a batch.
            labels: their labels, as the data set gives them.
        """
        dtypes = [part.dtype for part in tensors(inputs)]
        fits = [index for index, place in enumerate(places) if place < self.room]
        if not fits or dtypes != [part.dtype for part in tensors(self._inputs)]:
            return
        chosen, own = torch.tensor(fits, device="cpu"), torch.tensor([places[index] for index in fits], device="cpu")
        with self._lock, torch.inference_mode(mode=False), torch.no_grad():
            for part, new in zip(tensors(self._inputs), tensors(inputs), strict=True):
                part[own.to(part.device)] = new.detach()[chosen.to(new.device)].to(part.device)
            for index in fits:
                self._labels[places[index]] = labels[index]
            self._versions = versions_of(self._inputs)
            self._known[own] = True

    def read(self, places: Positions) -> tuple[Inputs, Tensor]:
        """Kept inputs and labels: views for a range, copies for a tensor.

        Raises:
            RuntimeError: if the inputs were changed in place.
        """
        self.check_unchanged()
        return map_tensors(lambda part: rows(part, places), self._inputs), collate(
            self._labels[_slice(places)] if isinstance(places, range) else [self._labels[k] for k in as_list(places)]
        )

    def item(self, place: int) -> Item:
        """The kept item at a place."""
        self.check_unchanged()
        return map_tensors(lambda part: part[place], self._inputs), self._labels[place]


def _slice(places: range) -> slice:
    return slice(places.start, places.stop)


def versions_of(inputs: Inputs) -> list[int]:
    """Counts of in-place changes, by torch."""
    return [part._version for part in tensors(inputs)]  # noqa: SLF001 (torch's counter)


def check_versions(inputs: Inputs, versions: list[int]) -> None:
    """Check that inputs were not changed in place.

    Raises:
        RuntimeError: if they were.
    """
    if versions != versions_of(inputs):
        msg = (
            "the inputs were changed in place after the LabelledData was made of them. Make it of a clone (a "
            "network whose first layer works in place changes its inputs, too)"
        )
        raise RuntimeError(msg)
