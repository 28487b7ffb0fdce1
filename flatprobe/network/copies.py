"""Copies of user modules that share nothing that a pass changes."""

import copy
import types
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _WrappedHook

from flatprobe.network import objects
from flatprobe.network.modules import check_shapes, remove_wrappers, unwrap
from flatprobe.network.storage import check_storage, storage_of

# The most plain Python objects that a copy looks into; further ones are shared, such as those of a data set.
_MOST_OBJECTS = 20_000
_MOST_BYTES = 2**26  # Larger arrays belong to data sets, and are shared.

# What most attributes of a module are, for which the copy is a single look.
_CONSTANT = {type(None), bool, int, float, str}
_EMPTY = {dict, OrderedDict, set}
_KEYS = (nn.Module, Tensor, weakref.ref)  # Keys that refer to what is copied.

# A reference to a tensor: the container and the key.
Place = tuple[Any, Any]


@dataclass(frozen=True)
class Copied:
    """A copy of a module, and the places that refer to its parameters and buffers.

    Attributes:
        module: the copy.
        places: name, from `named_parameters` or `named_buffers` -> every place that refers to this tensor. A tensor has
            several places if its layer has two names, if two layers share it, or if a list holds it beside the layers.
        unregistered: tensors that require gradients and that the module holds without registering them (a plain list of
            layers).
        holders: dictionaries, sequences, arrays and unnamed tensors that a pass may change: originals and copies.
    """

    module: nn.Module
    places: dict[str, list[Place]]
    unregistered: tuple[Tensor, ...]
    holders: list[tuple[Any, Any]]


def structural_copy(module: nn.Module) -> nn.Module:
    """Copy of a network that shares no tensor, module or container with it.

    Differences from `copy.deepcopy`:

    - tensors with a graph are copied without it, and gradients are not copied;
    - functions and bound methods (a replaced `forward`, hooks) refer to the copy instead of the network;
    - wrappers of `torch.compile` and data parallelism are removed, from parts too;
    - objects that cannot be copied are shared.

    Args:
        module: any module; never changed.

    Returns:
        The copy, in the same mode, on the same device, with the same `requires_grad` flags.

    Raises:
        TypeError: for a scripted or exported module.
        ValueError: if two different parameters, or a parameter and a buffer, share memory; the message names both.
        ValueError: for a lazy layer without a shape.

    >>> layer = nn.Linear(2, 2)
    >>> copied = structural_copy(nn.Sequential(layer, nn.ReLU(), layer))
    >>> copied[0] is copied[2], copied[0] is layer
    (True, False)
    """
    return copy_with_places(module).module


def copy_with_places(module: nn.Module) -> Copied:
    """`structural_copy`, with the places that refer to the tensors of the copy."""
    module = unwrap(module)
    check_shapes(module)
    check_storage(module)
    with torch.inference_mode(mode=False), torch.no_grad():
        copier = _Copier(module)
        copied = copier.module(module)
    named = [*copied.named_parameters(), *copied.named_buffers()]
    places: dict[int, list[Place]] = {id(value): [] for _, value in named}
    unregistered = {}
    for container, key, value in copier.places:
        if id(value) in places:
            places[id(value)].append((container, key))
        elif value.is_leaf and value.requires_grad:
            unregistered[id(value)] = value
    found = {name: places[id(value)] for name, value in named}
    return Copied(copied, found, tuple(unregistered.values()), copier.holders)


class _Copier:
    """Copier of everything that the modules of a network hold."""

    def __init__(self, network: nn.Module) -> None:
        self.memo: dict[int, Any] = {}
        self.kept: list[Any] = []  # The originals live on, so that no other object gets their id.
        self.places: list[tuple[Any, Any, Tensor]] = []
        self.holders: list[tuple[Any, Any]] = []
        self._modules = {id(layer) for layer in network.modules()}
        state = [*network.parameters(), *network.buffers()]
        self._state, self._storages = {*map(id, state)}, {*map(storage_of, state)} - {None}
        self._left = _MOST_OBJECTS

    def _remember(self, original: Any, copied: Any) -> Any:
        self.memo[id(original)] = copied
        self.kept.append(original)
        return copied

    def value(self, value: Any) -> Any:
        """The copy of an object, or the object if it cannot or need not be copied."""
        if isinstance(value, objects.ATOMIC):
            return value
        if id(value) in self.memo:
            return self.memo[id(value)]
        if type(value) in _EMPTY and not value:  # Most containers of a module are empty.
            return self._held(value, type(value)())
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if objects.is_container(value):
            return self._container(value)
        if isinstance(value, np.ndarray | bytearray):
            size = value.nbytes if isinstance(value, np.ndarray) else len(value)
            return self._held(value, value.copy()) if size <= _MOST_BYTES else value
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, types.FunctionType):
            return self._function(value) if self._refers(value, set()) else value
        if isinstance(value, types.MethodType):
            owner = self.value(value.__self__)
            return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        return self._other(value)

    def module(self, layer: nn.Module) -> nn.Module:
        """The only copy of a module.

        Raises:
            TypeError: for a scripted module.
        """
        if id(layer) in self.memo:
            copied: nn.Module = self.memo[id(layer)]
            return copied
        inner = unwrap(layer)
        if inner is not layer:
            return self._remember(layer, self.module(inner))  # type: ignore[no-any-return]
        if isinstance(layer, torch.jit.ScriptModule):
            msg = (
                f"{type(layer).__name__} is a TorchScript module, whose weights cannot be exchanged; expected the "
                "nn.Module that it was made from: build that and load scripted.state_dict() into it"
            )
            raise TypeError(msg)
        copied = self._remember(layer, object.__new__(type(layer)))
        self._fill_object(copied, layer)
        remove_wrappers(copied)
        return copied

    def _tensor(self, value: Tensor) -> Tensor:
        if id(value) not in self._state and storage_of(value) in self._storages:
            return value  # A view of a parameter stays: its use at other weights is noticed, that of a copy is not.
        copied, differentiable = value.detach().clone(), value.is_leaf and value.requires_grad
        if isinstance(value, nn.Parameter) and type(copied) is type(value):  # A subclass of tensors, as of DTensor.
            copied = nn.Parameter(copied, differentiable)
        elif isinstance(value, nn.Parameter):
            copied = torch.Tensor._make_subclass(type(value), copied, differentiable)  # noqa: SLF001 - keeps the subclass
        elif differentiable:
            copied.requires_grad_()
        if id(value) not in self._state:
            self.holders.append((value, copied))
        tensor: Tensor = self._remember(value, copied)
        return tensor

    def _container(self, value: Any) -> Any:
        copied = self._held(value, copy.copy(value))
        if isinstance(value, dict):
            copied.clear()
            self._fill(copied, value)
        elif isinstance(value, set):
            copied.clear()
            copied.update(map(self.value, value))
        else:
            for index, entry in enumerate(value):
                copied[index] = found = self.value(entry)
                self._note(copied, index, found)
        return copied

    def _held(self, original: Any, copied: Any) -> Any:
        self.holders.append((original, copied))
        return self._remember(original, copied)

    def _fill(self, copied: Any, original: Mapping[Any, Any]) -> None:
        for key, entry in original.items():
            own = self.value(key) if type(key) is not str and isinstance(key, _KEYS) else key
            if type(entry) in _CONSTANT:
                copied[own] = entry
                continue
            copied[own] = found = self.value(entry)
            self._note(copied, own, found)

    def _fill_object(self, copied: Any, original: Any) -> None:
        """Fill in the attributes and slots of a new object."""
        if hasattr(original, "__dict__"):
            self.holders.append((vars(original), vars(copied)))
            self._fill(vars(copied), vars(original))
        if names := objects.slots_of(original):
            self._fill_attributes(copied, original, names)

    def _fill_attributes(self, copied: Any, original: Any, names: Sequence[str]) -> None:
        target, source = objects.Attributes(copied, names), objects.Attributes(original, names)
        self.holders.append((source, target))
        self._fill(target, source)

    def _note(self, container: Any, key: Any, value: Any) -> None:
        if isinstance(value, Tensor):
            self.places.append((container, key, value))

    def _tuple(self, value: Any) -> Any:
        entries = [self.value(entry) for entry in value]
        if all(entry is before for entry, before in zip(entries, value, strict=True)):
            return value
        # No other tensor can be put into a tuple; `inspect_network` notices a tensor that is used there.
        return self._remember(value, type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries))

    def _function(self, function: types.FunctionType) -> Any:
        """The function with copies in its closure, its defaults and its global names."""
        names = {name: self.value(found) for name, found in self._leading_in(function, set()).items()}
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        space = {**function.__globals__, **names} if names else function.__globals__
        copied = types.FunctionType(function.__code__, space, function.__name__, closure=cells or None)
        self._remember(function, copied)
        copied.__defaults__ = self.value(function.__defaults__)
        copied.__kwdefaults__ = self.value(function.__kwdefaults__)
        copied.__dict__.update(function.__dict__)
        for name, found in names.items():
            self._note(space, name, found)
        for cell, original in zip(cells, function.__closure__ or (), strict=True):
            self._fill_attributes(cell, original, ["cell_contents"])
        return copied

    def _refers(self, value: Any, seen: set[int]) -> bool:
        """True if an object refers, through what it holds, to something copied."""
        if isinstance(value, objects.ATOMIC) or id(value) in seen:
            return False
        seen.add(id(value))
        if isinstance(value, nn.Module | Tensor | np.ndarray) or objects.is_container(value):
            return True
        if isinstance(value, tuple):
            return any(self._refers(entry, seen) for entry in value)
        if isinstance(value, types.MethodType):
            return self._refers(value.__self__, seen)
        if isinstance(value, partial):
            return self._refers((value.func, value.args, tuple(value.keywords.values())), seen)
        if not (function := isinstance(value, types.FunctionType)) and not objects.is_plain(value):
            return False
        if (function and self._leading_in(value, seen)) or not objects.is_fixed(value):
            return True
        return any(self._refers(entry, seen) for entry in objects.held_by(value))

    def _leading_in(self, function: types.FunctionType, seen: set[int]) -> dict[str, Any]:
        """The global names of a function that lead to the network."""
        return {
            name: entry
            for name, entry in objects.globals_of(function).items()
            if id(getattr(entry, "__self__", entry)) in self._modules
            or id(entry) in self._state
            or (isinstance(entry, types.FunctionType) and self._refers(entry, seen))
        }

    def _other(self, value: Any) -> Any:
        if isinstance(value, partial):
            function, args, keywords = self.value((value.func, value.args, value.keywords))
            copied = self._remember(value, partial(function, *args, **keywords))
            for name, found in copied.keywords.items():
                self._note(copied.keywords, name, found)
            return copied
        if isinstance(value, weakref.ref):
            target = value()
            held = id(target) in self._modules or id(target) in self._state
            return self._remember(value, weakref.ref(self.value(target))) if held else value
        if isinstance(value, _WrappedHook):
            target = value.module() if value.with_module else None
            return self._remember(value, _WrappedHook(self.value(value.hook), self.value(target)))
        if self._left <= 0 or not objects.is_plain(value) or not self._refers(value, set()):
            return value  # Sharing keeps the identity of constants.
        self._left -= 1
        simple = isinstance(value, types.SimpleNamespace)
        copied = self._remember(value, types.SimpleNamespace() if simple else object.__new__(type(value)))
        self._fill_object(copied, value)
        return copied
