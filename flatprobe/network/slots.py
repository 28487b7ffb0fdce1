"""Copy of a user module whose tensors are exchanged between passes."""

import copy
import operator
import threading
from collections import deque
from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flatprobe.data.inputs import channels_last, default_layout
from flatprobe.network.copies import copy_with_places
from flatprobe.network.objects import Attributes
from flatprobe.network.weights import Weights

_MISSING = object()


class Slots:
    """Copy of a user module, and the places of its parameters and buffers.

    Two differences from `torch.func.functional_call`:

    - each tensor is put into every place that refers to it: a layer under two names, a list beside the layers;
    - it stays there until the next pass, so that a recomputation in a backward pass (`torch.utils.checkpoint`) runs at
      the weights of its forward pass.

    Args:
        module: the user module. Its backward hooks are not copied, since they would change derivatives.

    Attributes:
        module: the copy, at the weights of its last pass.
        state: parameters and buffers by name, without gradients, copied from the user module at construction.
        written: names of the tensors that a pass writes to; every pass gets fresh copies of them. Before
            `inspect_network` has found them, all names.
        unregistered: copies of tensors that require gradients and are neither parameters nor buffers.
        lock: the lock that a pass holds, so that two threads may share a network.
    """

    def __init__(self, module: nn.Module) -> None:
        copied = copy_with_places(module)
        self.module = copied.module
        for layer in self.module.modules():
            layer._backward_hooks.clear()  # noqa: SLF001 - torch has no public way
            layer._backward_pre_hooks.clear()  # noqa: SLF001
        self._places = copied.places
        self.unregistered = copied.unregistered
        self.parameters = [name for name, _ in self.module.named_parameters()]
        named = [*self.module.named_parameters(), *self.module.named_buffers()]
        self.state: Weights = {name: _constant(value) for name, value in named}
        self.written = frozenset(self.state)
        self.lock = threading.RLock()
        self._now: dict[str, Tensor] = {}
        self._holders = copied.holders
        self._kept: list[tuple[Any, Any, Any]] = []

    def copy(self, dtype: torch.dtype | None = None) -> "Slots":
        """Slots of a second copy at the original weights."""
        with self.lock, torch.inference_mode(mode=False):
            self.place(fresh=False)
            result = Slots(self.module)
            result._kept = self._kept_by(result)
        result.written = self.written
        for name, value in result.state.items():
            if dtype is not None and value.is_floating_point():
                result.state[name] = _constant(value, value.to(dtype))
        return result

    def _kept_by(self, other: "Slots") -> list[tuple[Any, Any, Any]]:
        """The entries that a second copy resets before each pass."""
        twins = {_identity(original): holder for original, holder in other._holders}  # noqa: SLF001 - its own kind
        layers = dict(zip(self.module.modules(), other.module.modules(), strict=True))
        found = []
        for holder, key, _ in self._kept:
            twin = twins.get(_identity(holder))
            if isinstance(twin, MutableMapping):
                own = layers.get(key, key) if isinstance(key, nn.Module) else key
                found.append((twin, own, twin.get(own, _MISSING)))
            elif twin is not None:  # Otherwise a pass alone refers to the holder.
                found.append((twin, None, _snapshot(twin)))
        return found

    def lay_out(self, *, last: bool) -> None:
        """Store the weights in channels-last layout, or in the default layout of torch."""
        with torch.inference_mode(mode=False):  # Backward passes cannot save inference tensors.
            for name in self.parameters:
                value = self.state[name]
                self.state[name] = _constant(value, channels_last(value) if last else default_layout(value))

    def place(self, weights: Mapping[str, Tensor] | None = None, *, fresh: bool = True) -> None:
        """Put tensors into the copy, and reset its attributes.

        Args:
            weights: tensors by name; missing names get the tensors of `state`.
            fresh: True to copy the tensors that a pass writes to.
        """
        given = weights or {}
        for name, own in self.state.items():
            value = given.get(name, own)
            if fresh and name in self.written:
                value = value.clone()
            if self._now.get(name) is not value:
                self._now[name] = value
                for container, key in self._places[name]:
                    container[key] = value
        self._restore()

    @property
    def leaves_traces(self) -> bool:
        """True if a pass writes to a tensor or an attribute of the copy."""
        return bool(self.written or self._kept)

    def current(self, name: str) -> Tensor:
        """The tensor that the copy holds at present under a name."""
        container, key = self._places[name][0]
        tensor: Tensor = container[key]
        return tensor

    def was_replaced(self, name: str, value: Tensor) -> bool:
        """True if a pass with this tensor has put another tensor into one of its places."""
        return any(container[key] is not value for container, key in self._places[name])

    def attributes(self) -> list[Any]:
        """Snapshot of what the copy holds beside its named tensors, for `keep`."""
        return [_snapshot(holder) for _, holder in self._holders]

    def keep(self, before: list[Any]) -> None:
        """Reset every entry that a pass has changed, before each later pass.

        Otherwise a network that computes something from its weights once and stores it is another function at other
        weights.

        Args:
            before: the `attributes` before the pass.
        """
        places = [place for found in self._places.values() for place in found]
        containers = {id(container) for container, _ in places}
        exchanged = {(_identity(container), key) for container, key in places}
        for (_, own), earlier in zip(self._holders, before, strict=True):
            if isinstance(own, MutableMapping):
                for key in own.keys() | earlier.keys():
                    now, value = own.get(key, _MISSING), earlier.get(key, _MISSING)
                    if now is not value and (_identity(own), key) not in exchanged:
                        self._kept.append((own, key, value))
            elif id(own) not in containers and not _same(own, earlier):
                self._kept.append((own, None, earlier))

    def _restore(self) -> None:
        for holder, key, value in self._kept:
            if isinstance(holder, MutableMapping):
                if value is _MISSING:
                    holder.pop(key, None)
                else:
                    holder[key] = value
            elif isinstance(holder, set | deque):
                holder.clear()
                (holder.update if isinstance(holder, set) else holder.extend)(value)
            elif isinstance(holder, Tensor):
                holder.detach().copy_(value)
            else:  # The holder is a list, a NumPy array or a bytearray.
                holder[:] = value


def _identity(holder: Any) -> int:
    return id(holder.owner) if isinstance(holder, Attributes) else id(holder)


def _snapshot(holder: Any) -> Any:
    if isinstance(holder, MutableMapping):
        return dict(holder)
    return holder.detach().clone() if isinstance(holder, Tensor) else copy.copy(holder)


def _constant(value: Tensor, data: Tensor | None = None) -> Tensor:
    """A tensor without gradients, or other data in its place."""
    constant = (value if data is None else data).detach()
    return nn.Parameter(constant, requires_grad=False) if isinstance(value, nn.Parameter) else constant


def _same(now: Any, before: Any) -> bool:
    if isinstance(now, Tensor):
        return now.shape == before.shape and bool((now.detach() == before).all())
    if isinstance(now, np.ndarray | bytearray):
        return bytes(now) == bytes(before)
    return len(now) == len(before) and all(map(operator.is_, now, before))
