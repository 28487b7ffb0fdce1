"""Contents of Python objects, and the kinds that can be copied."""

import dis
import enum
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import torch

ATOMIC = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device, range, type)
_CONTAINERS = (list, set, dict, OrderedDict, defaultdict, deque)
# Objects that drive a training are shared: they are not part of the function, and hold data, logs and the network.
_DRIVERS = ("torch.optim", "lightning", "pytorch_lightning", "accelerate.accelerator", "logging", "threading")


class Attributes(MutableMapping[str, Any]):
    """Mapping view of slots, or of the cell of a closure."""

    def __init__(self, owner: Any, names: Sequence[str]) -> None:
        self.owner, self.names = owner, names

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self.owner, name)
        except (AttributeError, ValueError):  # The slot or cell is empty.
            raise KeyError(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self.owner, name, value)

    def __delitem__(self, name: str) -> None:
        delattr(self.owner, name)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def is_container(value: Any) -> bool:
    """True for a container of Python, or a subclass that stores entries alike."""
    kind = type(value)
    if kind in _CONTAINERS:
        return True
    own = dict if isinstance(value, dict) else list if isinstance(value, list) else None
    return own is not None and kind.__setitem__ is own.__setitem__ and "__new__" not in vars(kind)


def slots_of(value: Any) -> list[str]:
    """Names of the slots of an object."""
    names = [name for base in type(value).__mro__ for name in _as_tuple(vars(base).get("__slots__", ()))]
    return [name for name in names if name not in {"__dict__", "__weakref__"}]


def _as_tuple(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _writes_to_closure(function: types.FunctionType) -> bool:
    """True if the function assigns a `nonlocal` variable."""
    code = function.__code__
    own = {"STORE_DEREF", "DELETE_DEREF"}
    return bool(code.co_freevars) and any(
        step.opname in own and step.argval in code.co_freevars for step in dis.get_instructions(code)
    )


def held_by(value: Any) -> list[Any]:
    """Contents of the closure and defaults, or of the attributes of an object."""
    if isinstance(value, types.FunctionType):
        cells = [Attributes(cell, ["cell_contents"]) for cell in value.__closure__ or ()]
        held = [entry for cell in cells for entry in cell.values()]
        return [*held, value.__defaults__, *(value.__kwdefaults__ or {}).values()]
    return [*getattr(value, "__dict__", {}).values(), *Attributes(value, slots_of(value)).values()]


def is_fixed(value: Any) -> bool:
    """True for a function without memory, or an empty or frozen object."""
    if isinstance(value, types.FunctionType):
        return not _writes_to_closure(value)
    frozen = getattr(getattr(type(value), "__dataclass_params__", None), "frozen", False)
    return frozen or not held_by(value)


def globals_of(function: types.FunctionType) -> dict[str, Any]:
    """Values of the global names in a function and in its inner functions."""
    codes = [function.__code__]
    names: set[str] = set()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    space = function.__globals__
    return {name: space[name] for name in sorted(names) if name in space and not isinstance(space[name], ATOMIC)}


def is_plain(value: Any) -> bool:
    """True for an object of a Python class that consists of its attributes alone."""
    kind = type(value)
    if kind is types.SimpleNamespace:
        return True
    special = {name for base in kind.__mro__[:-1] for name in ("__new__", "__del__") if name in vars(base)}
    return (
        not special
        and not isinstance(value, type | types.ModuleType | enum.Enum | BaseException | types.FunctionType)
        and kind.__flags__ & (1 << 9) != 0  # The class is written in Python.
        and not kind.__module__.startswith(_DRIVERS)
    )
