"""Batches of a data set as a network takes them, kept on its device within a bound."""

from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor

from flatprobe.data import LabelledData
from flatprobe.data.inputs import Inputs, map_tensors, tensors
from flatprobe.network.network import Network
from flatprobe.utils.memory import DATA_BYTES

Pair = tuple[Inputs, Tensor]


class HeldBatches:
    """Inputs and labels on the device and in the dtype of a network.

    The batches of a pass are kept for later passes, if the copies of all samples fit into `DATA_BYTES`. Batches that
    are views of the data's own memory, as on a CPU, take none.

    Args:
        network: takes the batches.
        data: inputs and labels; in-place changes stay an error.
    """

    def __init__(self, network: Network, data: LabelledData) -> None:
        self.network, self._data = network, data
        self._held: tuple[int, list[Pair], list[int]] | None = None  # The batch size, the batches, their versions.

    def all(self, batch_size: int) -> Iterator[Pair]:
        """Batches of all samples in order.

        Raises:
            RuntimeError: if the inputs of the data were changed in place.
        """
        if self._held is not None:
            size, pairs, versions = self._held
            self._data.store.check_unchanged()
            if size == batch_size and versions == _versions(pairs):  # A network may have written to a copy.
                yield from pairs
                return
            del pairs
            self._held = None  # Frees the batches before new ones are made.
        kept: list[Pair] | None = [] if self._fits() else None
        for pair in self._place((batch.inputs, batch.labels) for batch in self._data.batches(batch_size)):
            if kept is not None:
                kept.append(pair)
            yield pair
        if kept is not None:
            self._held = batch_size, kept, _versions(kept)

    def at(self, positions: Tensor, batch_size: int) -> Iterator[Pair]:
        """Batches of the samples at these positions."""
        return self._place(map(self._data.gather, torch.split(positions, batch_size)))

    def _fits(self) -> bool:
        """True if the batches can be kept: the copies of all samples fit, and torch counts changes in place."""
        given = self._data.store.first
        pairs = zip(tensors(given), tensors(self.network.prepare(given)), strict=True)
        copied = sum(part.nbytes for before, part in pairs if part is not before or not self._data.store.resident)
        return copied * len(self._data) <= DATA_BYTES and not torch.is_inference_mode_enabled()

    def _place(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The batches on the device of the network; on a GPU, the next one is copied ahead."""
        pairs = iter(pairs)
        first = next(pairs)
        pairs = chain([first], pairs)
        if self.network.device.type == "cuda" and not any(part.is_cuda for part in tensors(first[0])):
            return _copy_ahead(self.network, pairs)
        return ((self.network.prepare(inputs), self.network.placed(labels)) for inputs, labels in pairs)


def _copy_ahead(network: Network, pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Batches on a GPU, copied from pinned memory one batch ahead, in a stream of their own."""
    device, ahead = network.device, None
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def place(part: Tensor) -> Tensor:
        part = part.to(network.dtype) if part.is_floating_point() else part
        return part.pin_memory().to(device, non_blocking=True)

    def wait(pair: Pair, copied: torch.cuda.Event) -> Pair:
        present = torch.cuda.current_stream(device)
        present.wait_event(copied)
        for part in (*tensors(pair[0]), pair[1]):
            part.record_stream(present)  # The allocator may not reuse the memory while this stream reads it.
        return pair

    for inputs, labels in pairs:
        with torch.cuda.stream(copying):
            following = (map_tensors(place, inputs), place(labels)), copying.record_event()
        if ahead is not None:
            yield wait(*ahead)
        ahead = following
    if ahead is not None:
        yield wait(*ahead)


def _versions(pairs: Iterable[Pair]) -> list[int]:
    """Counts of in-place changes of the inputs, by torch."""
    return [part._version for inputs, _ in pairs for part in tensors(inputs)]  # noqa: SLF001 (torch's counter)
