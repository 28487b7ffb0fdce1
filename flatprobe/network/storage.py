"""Memory shared by different tensors of a network."""

from collections import defaultdict

import torch
from torch import Tensor, nn


def storage_of(value: Tensor) -> int | None:
    """Address of the memory of a tensor; None for meta, sparse and empty tensors."""
    try:
        return value.untyped_storage().data_ptr() or None
    except (NotImplementedError, RuntimeError):
        return None


def check_storage(module: nn.Module) -> None:
    """Check that different parameters and buffers share no entry of memory.

    Raises:
        ValueError: for two tensors that share an entry, naming both.
    """
    found: defaultdict[int, list[tuple[str, Tensor]]] = defaultdict(list)
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        address = storage_of(value) if value.numel() else None
        if address is not None:
            found[address].append((name, value))
    for sharing in found.values():
        if len(sharing) > 1:
            _check_apart(sharing, type(module).__name__)


def _check_apart(sharing: list[tuple[str, Tensor]], network: str) -> None:
    """Check that tensors of one storage share no entry.

    Raises:
        ValueError: for two tensors that share an entry, naming both.
    """
    size = max(_end(value) for _, value in sharing)
    owners = torch.full((size,), -1, device="cpu")
    places = torch.arange(size, device="cpu")
    for index, (name, value) in enumerate(sharing):
        unit = value.element_size()
        entries = places.as_strided(
            value.shape, [unit * step for step in value.stride()], unit * value.storage_offset()
        )
        before = owners[entries]
        if bool((before >= 0).any()):
            other = sharing[int(before.max())][0]
            msg = (
                f"{other!r} and {name!r} of {network} are different tensors in the same memory, which moving or "
                "training them would separate; expected one parameter, used in both places: a.weight = b.weight, or "
                "F.linear(x, a.weight.T) for a transposed one"
            )
            raise ValueError(msg)
        owners[entries] = index


def _end(value: Tensor) -> int:
    """One more than the offset of the last entry in its storage, in bytes."""
    last = sum((size - 1) * step for size, step in zip(value.shape, value.stride(), strict=True))
    return int(value.element_size() * (value.storage_offset() + last)) + 1
