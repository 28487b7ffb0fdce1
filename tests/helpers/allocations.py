"""Bytes that torch's operations allocate, counted by what they return: the same on every machine."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Within it, `largest` tensor and `peak` of all that live at a time, bytes; what lived before counts once seen."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.peak = self._now = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if type(value) in {Tensor, torch.nn.Parameter}:
                self._count(value.untyped_storage())
        return found

    def _count(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._live:
            return
        self._live[key] = storage.nbytes()
        weakref.finalize(storage, self._gone, key)
        self._now += storage.nbytes()
        self.largest = max(self.largest, storage.nbytes())
        self.peak = max(self.peak, self._now)

    def _gone(self, key: int) -> None:
        self._now -= self._live.pop(key, 0)
