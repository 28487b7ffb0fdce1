"""Python's objects looked into: what they hold, and whether a copy of what they hold is a copy of them."""

import dis
import enum
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

import torch

ATOMIC = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device, range, type)
_CONTAINERS = (list, set, dict, OrderedDict, defaultdict, deque)
# What drives a training is shared: it is no part of the function, and holds the data, the logs and the network again.
_DRIVERS = ("torch.optim", "lightning", "pytorch_lightning", "accelerate.accelerator", "logging", "threading")


class Attributes(MutableMapping[str, Any]):
    """What an object holds without a dictionary (a closure's cell, slots), read and written like one."""

    def __init__(self, owner: Any, names: Sequence[str]) -> None:
        self.owner, self.names = owner, names

    def __getitem__(self, name: str) -> Any:
        try:
            return getattr(self.owner, name)
        except (AttributeError, ValueError):  # an empty slot, an empty cell
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
    """Whether it is one of Python's containers, or of a subclass that stores its entries as they do."""
    kind = type(value)
    if kind in _CONTAINERS:
        return True
    own = dict if isinstance(value, dict) else list if isinstance(value, list) else None
    return own is not None and kind.__setitem__ is own.__setitem__ and "__new__" not in vars(kind)


def slots_of(value: Any) -> list[str]:
    """The names of an object's slots."""
    names = [name for base in type(value).__mro__ for name in _as_tuple(vars(base).get("__slots__", ()))]
    return [name for name in names if name not in {"__dict__", "__weakref__"}]


def _as_tuple(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _writes_to_closure(function: types.FunctionType) -> bool:
    """Whether it has a `nonlocal` variable, and so remembers something from one call to the next."""
    code = function.__code__
    own = {"STORE_DEREF", "DELETE_DEREF"}
    return bool(code.co_freevars) and any(
        step.opname in own and step.argval in code.co_freevars for step in dis.get_instructions(code)
    )


def held_by(value: Any) -> list[Any]:
    """What a function holds in its closure and its defaults, or another object in its attributes."""
    if isinstance(value, types.FunctionType):
        cells = [Attributes(cell, ["cell_contents"]) for cell in value.__closure__ or ()]
        held = [entry for cell in cells for entry in cell.values()]
        return [*held, value.__defaults__, *(value.__kwdefaults__ or {}).values()]
    return [*getattr(value, "__dict__", {}).values(), *Attributes(value, slots_of(value)).values()]


def is_fixed(value: Any) -> bool:
    """Whether a function remembers nothing from one call to the next; an object holds nothing, or may not change."""
    if isinstance(value, types.FunctionType):
        return not _writes_to_closure(value)
    frozen = getattr(getattr(type(value), "__dataclass_params__", None), "frozen", False)
    return frozen or not held_by(value)


def globals_of(function: types.FunctionType) -> dict[str, Any]:
    """The global names in a function's code, and in the functions that it defines, with what they are now."""
    codes = [function.__code__]
    names: set[str] = set()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    space = function.__globals__
    return {name: space[name] for name in sorted(names) if name in space and not isinstance(space[name], ATOMIC)}


def is_plain(value: Any) -> bool:
    """Whether it is an object of Python's own making whose attributes are all that it is."""
    kind = type(value)
    if kind is types.SimpleNamespace:
        return True
    special = {name for base in kind.__mro__[:-1] for name in ("__new__", "__del__") if name in vars(base)}
    return (
        not special
        and not isinstance(value, type | types.ModuleType | enum.Enum | BaseException | types.FunctionType)
        and kind.__flags__ & (1 << 9) != 0  # a class written in Python
        and not kind.__module__.startswith(_DRIVERS)
    )
