"""A copy of a caller's module whose parameters and buffers are exchanged from one pass to the next."""

import copy
import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flatprobe.copies import copied_with_places
from flatprobe.inputs import channels_last, default_layout
from flatprobe.weights import Weights

_MISSING = object()


class Slots:
    """f at explicit weights: a copy that shares nothing with the caller's module, and the places of its tensors.

    In contrast to `torch.func.functional_call`, each tensor is put into every place that refers to it (a layer under
    two names, a list of parameters beside the layers), and it stays there until the next pass: what is computed again
    in a backward pass (`torch.utils.checkpoint`) is computed at the weights of its forward pass.

    Args:
        module: copied here, without its backward hooks, which change derivatives and not the function.

    Attributes:
        module: the copy, at the weights of its last pass.
        state: its own parameters and buffers by name, without gradients; a snapshot of the caller's.
        written: the names whose tensors a pass writes to, which every pass gets fresh copies of; all, until it is seen.
        unregistered: the copies of what requires gradients and has no name.
        lock: held while a pass runs, so that two threads may share a network.
    """

    def __init__(self, module: nn.Module) -> None:
        copied = copied_with_places(module)
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
        self._layers = [vars(layer) for layer in self.module.modules()]
        self._kept: list[tuple[int, str, Any]] = []

    def copied(self, dtype: torch.dtype | None = None) -> "Slots":
        """Slots of a copy of the copy at its own weights, floating ones in another precision where one is given."""
        with self.lock, torch.inference_mode(mode=False):
            self.place(fresh=False)
            result = Slots(self.module)
        result.written, result._kept = self.written, list(self._kept)
        for name, value in result.state.items():
            if dtype is not None and value.is_floating_point():
                result.state[name] = _constant(value, value.to(dtype))
        return result

    def lay_out(self, *, last: bool) -> None:
        """The weights of convolutions in channels-last layout, or in torch's default one."""
        with torch.inference_mode(mode=False):  # else backward passes could not keep them
            for name in self.parameters:
                value = self.state[name]
                self.state[name] = _constant(value, channels_last(value) if last else default_layout(value))

    def place(self, weights: Mapping[str, Tensor] | None = None, *, fresh: bool = True) -> None:
        """Put these tensors into the copy, in place of its own, and its attributes back to what they were.

        Args:
            weights: by name; the copy's own for those that are left out.
            fresh: whether those that a pass writes to are copied for it.
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
        for layer, key, value in self._kept:
            if value is _MISSING:
                self._layers[layer].pop(key, None)
            else:
                self._layers[layer][key] = _shallow(value)

    def now(self, name: str) -> Tensor:
        """The tensor that the copy holds now under a name: what a pass has put there, or written to."""
        tensor: Tensor = _entry(*self._places[name][0])
        return tensor

    def replaced(self, name: str, value: Tensor) -> bool:
        """Whether a pass that this tensor was given to has put another one into its place."""
        return any(_entry(container, key) is not value for container, key in self._places[name])

    def attributes(self) -> list[dict[str, Any]]:
        """What the modules hold now, for `keep`."""
        return [{key: _shallow(value) for key, value in own.items()} for own in self._layers]

    def keep(self, before: list[dict[str, Any]]) -> None:
        """From now on, every pass begins with those attributes as they were before that a pass has changed since.

        A network that computes something of its weights once and keeps it would be another function at other weights.
        """
        places = [place for found in self._places.values() for place in found]
        containers = {id(container) for container, _ in places}
        exchanged = {(id(container), key) for container, key in places}
        for layer, (own, earlier) in enumerate(zip(self._layers, before, strict=True)):
            for key in own.keys() | earlier.keys():
                now, value = own.get(key, _MISSING), earlier.get(key, _MISSING)
                if id(now) not in containers and (id(own), key) not in exchanged and not _same(now, value):
                    self._kept.append((layer, key, value))


def _constant(value: Tensor, data: Tensor | None = None) -> Tensor:
    """The tensor, or other data in its place, without gradients; a parameter stays one, as tracers want it."""
    constant = (value if data is None else data).detach()
    return nn.Parameter(constant, requires_grad=False) if isinstance(value, nn.Parameter) else constant


def _entry(container: Any, key: Any) -> Any:
    return container.cell.cell_contents if key is None else container[key]


def _shallow(value: Any) -> Any:
    return copy.copy(value) if isinstance(value, list | dict | set) else value


def _same(now: Any, before: Any) -> bool:
    if isinstance(now, list | dict | set) and type(now) is type(before) and (now or before):
        entries, earlier = (list(part.items()) if isinstance(part, dict) else list(part) for part in (now, before))
        return len(entries) == len(earlier) and all(map(_identical, entries, earlier))
    return now is before or (type(now) is type(before) and isinstance(now, list | dict | set) and not now)


def _identical(now: Any, before: Any) -> bool:
    if isinstance(now, tuple) and isinstance(before, tuple):
        return len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))
    return now is before
