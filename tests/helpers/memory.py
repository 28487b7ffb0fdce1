"""How much memory tensors take while a function runs, counted tensor by tensor: the same on every machine."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Live(TorchDispatchMode):
    """Counts the bytes of the storages that operations return and that are still held."""

    def __init__(self) -> None:
        super().__init__()
        self.held: set[int] = set()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._hold(leaf.untyped_storage(), given)
        return result

    def _hold(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        key = storage._cdata
        if key in self.held or key in given:
            return
        size = storage.nbytes()
        self.held.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.held.discard(key)
        self.now -= size


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that tensors made by the work take at once, temporary ones inside an operation left out."""
    with _Live() as live:
        work()
    return live.peak
