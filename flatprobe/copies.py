"""Copies of a caller's module that share nothing a pass changes: each module, tensor and container once."""

import enum
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _WrappedHook
from torch.nn.parameter import UninitializedParameter

from flatprobe.modules import unwrapped
from flatprobe.storage import check_storage, storage_of

# Plain Python objects that a copy looks into; what lies beyond is shared, as a data set behind a module should be.
_MOST_OBJECTS = 20_000
_ATOMIC = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device, range, type)
_CONTAINERS = (list, set, dict, OrderedDict, defaultdict, deque)
# What drives a training is shared: it is no part of the function, and holds the data, the logs and the network again.
_DRIVERS = ("torch.optim", "lightning", "pytorch_lightning", "accelerate.accelerator", "logging", "threading")

# Where a tensor of the network is referred to: the container and the key.
Place = tuple[Any, Any]


@dataclass(frozen=True)
class Copied:
    """A copy, and where it refers to its parameters and buffers.

    Attributes:
        module: the copy.
        places: name, as `named_parameters` and `named_buffers` give it -> every place that refers to this tensor. A
            layer that is registered under two names, a tensor that two layers share and a list of parameters beside the
            layers have several names or places for one tensor, and each tensor is here once.
        unregistered: what requires gradients in what the module holds without having registered it (a plain list of
            layers).
    """

    module: nn.Module
    places: dict[str, list[Place]]
    unregistered: tuple[Tensor, ...]


def structural_copy(module: nn.Module) -> nn.Module:
    """A copy of a network that runs as it does and shares no tensor, module or container with it.

    In contrast to `copy.deepcopy`: tensors that are held with their graph are copied without it; functions and bound
    methods that the modules hold (a replaced `forward`, hooks) refer to the copy where they refer to the network; what
    `torch.compile` or data parallelism made of the network, or of a part, is taken off; gradients are left behind; what
    cannot be copied is shared.

    Args:
        module: any module; it is not changed.

    Returns:
        The copy, in the same mode, on the same device, with the same flags `requires_grad`.

    Raises:
        TypeError: for a scripted or exported module.
        ValueError: if different parameters, or a parameter and a buffer, share memory; naming both.

    >>> layer = nn.Linear(2, 2)
    >>> copied = structural_copy(nn.Sequential(layer, nn.ReLU(), layer))
    >>> copied[0] is copied[2], copied[0] is layer
    (True, False)
    """
    return copied_with_places(module).module


def copied_with_places(module: nn.Module) -> Copied:
    """`structural_copy`, and where the copy refers to its tensors.

    Raises:
        ValueError: for a lazy layer that has not seen its inputs' shape; see `structural_copy` for others.
    """
    module = unwrapped(module)
    lazy = [name for name, value in module.named_parameters() if isinstance(value, UninitializedParameter)]
    if lazy:
        msg = f"the weight {lazy[0]!r} of a lazy layer has no shape yet; expected one batch passed before"
        raise ValueError(msg)
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
    return Copied(copied, {name: places[id(value)] for name, value in named}, tuple(unregistered.values()))


class _Cell:
    """A closure's cell, written to like a container."""

    def __init__(self, cell: Any) -> None:
        self.cell = cell

    def __setitem__(self, _key: None, value: Any) -> None:
        self.cell.cell_contents = value


class _Copier:
    """Copies whatever the modules of a network hold; `places` lists where the copies refer to tensors."""

    def __init__(self, network: nn.Module) -> None:
        self.memo: dict[int, Any] = {}
        self.kept: list[Any] = []  # the originals: an id is one object's while it lives
        self.places: list[tuple[Any, Any, Tensor]] = []
        self._modules = {id(layer) for layer in network.modules()}
        self._state = {id(value) for value in (*network.parameters(), *network.buffers())}
        self._storages = {storage_of(value) for value in (*network.parameters(), *network.buffers())} - {None}
        self._left = _MOST_OBJECTS

    def _remember(self, original: Any, copied: Any) -> Any:
        self.memo[id(original)] = copied
        self.kept.append(original)
        return copied

    def value(self, value: Any) -> Any:
        """The copy of anything that a module holds; what has nothing to copy, or cannot be copied, itself."""
        if isinstance(value, _ATOMIC):
            return value
        if id(value) in self.memo:
            return self.memo[id(value)]
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if type(value) in _CONTAINERS:
            return self._container(value)
        if isinstance(value, tuple):
            return self._tuple(value)
        if isinstance(value, types.FunctionType):
            return self._function(value) if self._refers(value, set()) else value
        if isinstance(value, types.MethodType):
            owner = self.value(value.__self__)
            return value if owner is value.__self__ else types.MethodType(value.__func__, owner)
        return self._other(value)

    def module(self, layer: nn.Module) -> nn.Module:
        """The copy of a module, made once.

        Raises:
            TypeError: for a scripted module.
        """
        if id(layer) in self.memo:
            copied: nn.Module = self.memo[id(layer)]
            return copied
        inner = unwrapped(layer)
        if inner is not layer:
            return self._remember(layer, self.module(inner))  # type: ignore[no-any-return]
        if isinstance(layer, torch.jit.ScriptModule):
            msg = (
                f"{type(layer).__name__} is a TorchScript module, whose weights cannot be exchanged; expected the "
                "nn.Module that it was made from: build that and load scripted.state_dict() into it"
            )
            raise TypeError(msg)
        copied = self._remember(layer, object.__new__(type(layer)))
        self._fill(vars(copied), vars(layer))
        _taken_off(copied)
        return copied

    def _tensor(self, value: Tensor) -> Tensor:
        if id(value) not in self._state and storage_of(value) in self._storages:
            return value  # a view of a parameter: using it at other weights is noticed, a copy of it would not be
        copied, differentiable = value.detach().clone(), value.is_leaf and value.requires_grad
        if isinstance(value, nn.Parameter):
            copied = torch.Tensor._make_subclass(type(value), copied, differentiable)  # noqa: SLF001 - of its own kind
        elif differentiable:
            copied.requires_grad_()
        tensor: Tensor = self._remember(value, copied)
        return tensor

    def _container(self, value: Any) -> Any:
        empty = (
            defaultdict(value.default_factory) if isinstance(value, defaultdict)
            else deque(maxlen=value.maxlen) if isinstance(value, deque)
            else type(value)()
        )  # fmt: skip
        copied = self._remember(value, empty)
        if isinstance(value, dict):
            self._fill(copied, value)
        elif isinstance(value, set):
            copied.update(map(self.value, value))
        else:
            for index, entry in enumerate(value):
                copied.append(self.value(entry))
                self._note(copied, index, copied[index])
        return copied

    def _fill(self, copied: Any, original: Mapping[Any, Any]) -> None:
        for key, entry in original.items():
            copied[key] = found = self.value(entry)
            self._note(copied, key, found)

    def _note(self, container: Any, key: Any, value: Any) -> None:
        if isinstance(value, Tensor):
            self.places.append((container, key, value))

    def _tuple(self, value: Any) -> Any:
        entries = [self.value(entry) for entry in value]
        if all(entry is before for entry, before in zip(entries, value, strict=True)):
            return value
        return self._remember(
            value, type(value)(*entries) if hasattr(value, "_fields") else type(value)(entries)
        )  # a tensor in a tuple is no place that another one can be put into, which `inspected` sees

    def _function(self, function: types.FunctionType) -> Any:
        """The function with the copies in the place of what its closure, its defaults and its global names hold."""
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
            try:
                cell.cell_contents = self.value(original.cell_contents)
            except ValueError:  # a cell that is empty yet
                continue
            self._note(_Cell(cell), None, cell.cell_contents)
        return copied

    def _refers(self, value: Any, seen: set[int]) -> bool:
        """Whether a function, or what it holds, refers to something that has a copy of its own."""
        if isinstance(value, _ATOMIC) or id(value) in seen:
            return False
        seen.add(id(value))
        if isinstance(value, nn.Module | Tensor) or type(value) in _CONTAINERS:
            return True
        if isinstance(value, tuple):
            return any(self._refers(entry, seen) for entry in value)
        if isinstance(value, types.MethodType):
            return self._refers(value.__self__, seen)
        if isinstance(value, partial):
            return self._refers((value.func, value.args, tuple(value.keywords.values())), seen)
        if isinstance(value, types.FunctionType):
            held = [*_closure_of(value), value.__defaults__, *(value.__kwdefaults__ or {}).values()]
            return any(self._refers(entry, seen) for entry in held) or bool(self._leading_in(value, seen))
        return self._plain(value) and any(self._refers(entry, seen) for entry in vars(value).values())

    def _leading_in(self, function: types.FunctionType, seen: set[int]) -> dict[str, Any]:
        """Of a function's global names those that lead to the network: others are the program's, and shared."""
        return {
            name: entry
            for name, entry in _globals_of(function).items()
            if id(getattr(entry, "__self__", entry)) in self._modules
            or id(entry) in self._state
            or (isinstance(entry, types.FunctionType) and self._refers(entry, seen))
        }

    def _other(self, value: Any) -> Any:
        if isinstance(value, partial):
            parts = self.value((value.func, value.args, value.keywords))
            return self._remember(value, partial(parts[0], *parts[1], **parts[2]))
        if isinstance(value, weakref.ref):
            target = value()
            held = id(target) in self._modules or id(target) in self._state
            return self._remember(value, weakref.ref(self.value(target))) if held else value
        if isinstance(value, _WrappedHook):
            target = value.module() if value.with_module else None
            return self._remember(value, _WrappedHook(self.value(value.hook), self.value(target)))
        if self._left <= 0 or not self._plain(value) or not self._refers(value, set()):
            return value  # shared, which keeps the identity of constants
        self._left -= 1
        simple = isinstance(value, types.SimpleNamespace)
        copied = self._remember(value, types.SimpleNamespace() if simple else object.__new__(type(value)))
        self._fill(vars(copied), vars(value))
        return copied

    def _plain(self, value: Any) -> bool:
        """Whether it is an object of Python's own making whose attributes are all that it is."""
        kind = type(value)
        if kind is types.SimpleNamespace:
            return True
        special = {name for base in kind.__mro__[:-1] for name in ("__new__", "__del__") if name in vars(base)}
        return (
            hasattr(value, "__dict__")
            and not special
            and not isinstance(value, type | types.ModuleType | enum.Enum | BaseException | types.FunctionType)
            and kind.__flags__ & (1 << 9) != 0  # a class written in Python
            and not any(getattr(base, "__slots__", ()) for base in kind.__mro__)
            and not kind.__module__.startswith(_DRIVERS)
        )


def _closure_of(function: types.FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # a cell that is empty yet
            continue
    return found


def _globals_of(function: types.FunctionType) -> dict[str, Any]:
    """The global names in a function's code, and in the functions that it defines, with what they are now."""
    codes = [function.__code__]
    names: set[str] = set()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    space = function.__globals__
    return {name: space[name] for name in sorted(names) if name in space and not isinstance(space[name], _ATOMIC)}


def _taken_off(layer: nn.Module) -> None:
    """The layer runs as its class defines it, without what compilation and mixed precision put around it."""
    own = vars(layer)
    own.pop("_compiled_call_impl", None)  # of module.compile()
    if own.get("_compiler_ctx"):  # Lightning's, of a module that was compiled whole
        own["forward"] = own["_compiler_ctx"]["original_forward"]
    if "_original_forward" in own:  # accelerate's, in mixed precision
        own["forward"] = own.pop("_original_forward")
    inside = getattr(type(layer).forward, "_torchdynamo_orig_callable", None)
    if inside is not None and "forward" not in own:  # a method that was decorated with torch.compile
        own["forward"] = types.MethodType(inside, layer)
