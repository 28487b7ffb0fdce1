"""A data set as a network takes it, held on its device within a bound."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from flatprobe.data import LabelledData
from flatprobe.data.batch import split
from flatprobe.data.inputs import Inputs, map_tensors, tensors
from flatprobe.data.kept import versions_of
from flatprobe.data.validation import rows
from flatprobe.network.network import Network
from flatprobe.utils.memory import DATA_BYTES

Pair = tuple[Inputs, Tensor]


class HeldData:
    """Inputs and labels on the device and in the dtype of a network.

    Data that must be copied, to a GPU or to another dtype, are copied once if they fit into `DATA_BYTES`. Larger data
    are copied at each pass. Data that the network takes as they are, as on a CPU, are not copied.

    Args:
        network: takes the batches.
        data: inputs and labels; in-place changes stay an error.
    """

    def __init__(self, network: Network, data: LabelledData) -> None:
        self.network, self._data = network, data
        self._held: tuple[Inputs, Tensor, list[int]] | None = None  # With counts of changes in place.

    def batches(self, batch_size: int) -> Iterator[Pair]:
        """Batches of all samples in order.

        Raises:
            RuntimeError: if the inputs of the data were changed in place.
        """
        held = self._whole() or self._copy(batch_size)
        if held is None:
            return self._place((batch.inputs, batch.labels) for batch in self._data.batches(batch_size))
        return self._parts(held, split(len(self._data), batch_size))

    def at(self, positions: Tensor, batch_size: int) -> Iterator[Pair]:
        """Batches of the samples at these positions."""
        parts = torch.split(positions, batch_size)
        held = self._whole()
        return self._place(map(self._data.gather, parts)) if held is None else self._parts(held, parts)

    def _parts(self, held: Pair, parts: Iterable[range | Tensor]) -> Iterator[Pair]:
        inputs, labels = held
        for part in parts:
            yield map_tensors(lambda whole, part=part: rows(whole, part), inputs), rows(labels, part)  # type: ignore[misc]

    def _whole(self) -> Pair | None:
        """The held data, unless a network has written to them."""
        if self._held is None:
            return None
        self._data.store.check_unchanged()
        inputs, labels, versions = self._held
        return (inputs, labels) if versions == versions_of(inputs) else None

    def _copy(self, batch_size: int) -> Pair | None:
        """The data as the network takes them, or None if they do not fit, or need no copy."""
        self._held = None  # Frees an earlier copy.
        if not 0 < self._copied * len(self._data) <= DATA_BYTES or torch.is_inference_mode_enabled():
            return None
        first = self.network.prepare(self._data.store.first)
        whole = map_tensors(lambda part: part.new_empty((len(self._data), *part.shape)), first)
        labels: list[Tensor] = []
        spans = split(len(self._data), batch_size)
        given = ((batch.inputs, batch.labels) for batch in self._data.batches(batch_size))
        for span, (inputs, own) in zip(spans, self._place(given), strict=True):
            for held, part in zip(tensors(whole), tensors(inputs), strict=True):
                if held.dtype != part.dtype:  # Items of a stream may have several.
                    return None
                held[span.start : span.stop] = part
            labels.append(own)
        self._held = whole, torch.cat(labels), versions_of(whole)
        return self._held[:2]

    @cached_property
    def _copied(self) -> int:
        """Bytes per sample that are copied for the network."""
        given, resident = self._data.store.first, self._data.store.resident
        pairs = zip(tensors(given), tensors(self.network.prepare(given)), strict=True)
        return sum(part.nbytes for before, part in pairs if part is not before or not resident)

    def _place(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The batches on the device of the network; on a GPU, the next one is copied ahead."""
        if self.network.device.type == "cuda" and not any(part.is_cuda for part in tensors(self._data.store.first)):
            return _copy_ahead(self.network, pairs)
        return ((self.network.prepare(inputs), _targets(self.network, labels)) for inputs, labels in pairs)


def _targets(network: Network, labels: Tensor) -> Tensor:
    """Labels as a loss takes them: floating ones in the precision of the outputs, which is single at least."""
    labels = labels.to(network.device, _precision(network) if labels.is_floating_point() else None)
    return labels.clone() if labels.is_inference() else labels


def _precision(network: Network) -> torch.dtype:
    return torch.promote_types(network.dtype, torch.float32)


def _copy_ahead(network: Network, pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Batches on a GPU, copied from pinned memory one batch ahead, in a stream of their own."""
    device, ahead = network.device, None
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def place(part: Tensor, dtype: torch.dtype = network.dtype) -> Tensor:
        part = part.to(dtype) if part.is_floating_point() else part
        return part.pin_memory().to(device, non_blocking=True)

    def wait(pair: Pair, copied: Any) -> Pair:
        present = torch.cuda.current_stream(device)
        present.wait_event(copied)
        for part in (*tensors(pair[0]), pair[1]):
            part.record_stream(present)  # The allocator may not reuse the memory while this stream reads it.
        return pair

    for inputs, labels in pairs:
        with torch.cuda.stream(copying):
            following = (map_tensors(place, inputs), place(labels, _precision(network))), copying.record_event()
        if ahead is not None:
            yield wait(*ahead)
        ahead = following
    if ahead is not None:
        yield wait(*ahead)
