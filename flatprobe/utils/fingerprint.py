"""What a record says of a caller's own loss, penalty, transform or constraint: enough to tell another one from it."""

import ast
import enum
import functools
import hashlib
import inspect
import math
import textwrap
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flatprobe.utils.arguments import scalar
from flatprobe.utils.tensor_files import bytes_of

_DEEPEST = 4  # parts within parts that are looked into
# Immutable, and told apart by what Python prints of them.
_PRINTED = (bytes, complex, range, torch.dtype, torch.device, torch.Size)


def of_caller(part: object) -> dict[str, Any]:
    """Its name, a digest of its source, and what it carries: fields, attributes, closed-over values, default arguments.

    Lists, dictionaries and objects are there by their type alone, since a part may keep a log in them, unless a
    dataclass' fields or the arguments of a partial declare them. What a part inherits, and helpers that its source
    calls by a global name, are not followed.

    Args:
        part: a function, a `functools.partial` of one, or an object that is called.

    Returns:
        `name` (module and qualified name), `source` (16 hex digits of a SHA-256 over the code without comments and
        layout, over the bytecode of a lambda or where Python knows no source), `carries` (by name; left out where
        there is nothing).
    """
    return _described(part, ())


def _described(part: object, above: tuple[int, ...]) -> dict[str, Any]:
    code = _code(part)
    source, carries = None, {}
    with suppress(Exception):  # what cannot be looked into must not stop a training
        source = _digest(code)
    with suppress(Exception):
        declared, inside = _declares(part) or isinstance(part, functools.partial), (*above, id(part))
        carries = {str(name): _written(value, inside, declared=declared) for name, value in _carried(part).items()}
    return {
        "name": f"{getattr(code, '__module__', None)}.{code.__qualname__}",
        **({} if source is None else {"source": source}),
        **({"carries": carries} if carries else {}),
    }


def _code(part: object) -> Any:
    """The function or class that is run."""
    if isinstance(part, functools.partial):
        return _code(part.func)
    if isinstance(part, MethodType):
        return part.__func__
    return part if hasattr(part, "__qualname__") else type(part)


def _carried(part: Any) -> dict[str, Any]:
    """By name what the part holds beside its code."""
    if isinstance(part, functools.partial):
        arguments = {str(place): value for place, value in enumerate(part.args)} | part.keywords
        return {"func": part.func, **arguments}
    if isinstance(part, MethodType):
        own = {f"self.{name}": value for name, value in _carried(part.__self__).items()}
        return own | _carried(part.__func__)
    if isinstance(part, FunctionType):
        code, given = part.__code__, part.__defaults__ or ()
        places = code.co_varnames[: code.co_argcount]
        defaults = dict(zip(places[len(places) - len(given) :], given, strict=True)) | (part.__kwdefaults__ or {})
        cells = zip(code.co_freevars, part.__closure__ or (), strict=True)
        return defaults | {name: value for name, cell in cells for value in _inside(cell)}
    if _declares(part):
        return {entry.name: getattr(part, entry.name, None) for entry in fields(part) if entry.init}
    attributes = getattr(part, "__dict__", {})
    if isinstance(part, nn.Module):
        kept = {name: value for name, value in attributes.items() if name != "training" and not _holds_others(value)}
        return kept | part.state_dict()
    slots = [(own, name) for own in type(part).__mro__ for name in _listed(getattr(own, "__slots__", ()))]
    return {name: value for own, name in slots for value in _slot(part, own, name)} | attributes


def _holds_others(value: object) -> bool:
    """Whether it is one of a module's dictionaries of parameters, buffers, parts and hooks."""
    return isinstance(value, Mapping | set)


def _listed(slots: str | Iterable[str]) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)


def _slot(part: object, own: type, name: str) -> list[object]:
    """What a slot holds, whose name may be mangled; one that is not filled holds nothing."""
    mangled = f"_{own.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name
    return [getattr(part, mangled)] if mangled not in {"__dict__", "__weakref__"} and hasattr(part, mangled) else []


def _declares(part: Any) -> bool:
    """Whether it is a dataclass' object, whose fields are settings."""
    return is_dataclass(part) and not isinstance(part, type)


def _inside(cell: Any) -> list[object]:
    """What a closure's cell holds; one that is not filled yet holds nothing."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _digest(code: Any) -> str | None:
    own = code.__code__ if isinstance(code, FunctionType) else code  # not what a wrapper wraps
    try:
        if code.__name__ != "<lambda>":  # whose lines are a piece of a statement
            return _hex(ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(own)))).encode())
    except (OSError, TypeError, SyntaxError):
        pass
    return _hex(repr(_operations(own)).encode()) if isinstance(own, CodeType) else None


def _operations(code: CodeType) -> tuple[object, ...]:
    return code.co_code, [_constant(entry) for entry in code.co_consts], code.co_names, code.co_freevars


def _constant(entry: object) -> object:
    if isinstance(entry, frozenset):  # in an order that differs from process to process
        return sorted(map(repr, entry))
    return _operations(entry) if isinstance(entry, CodeType) else entry


def _written(value: object, above: tuple[int, ...], *, declared: bool) -> Any:
    """The value as JSON has it, or what stands for it: its type's name at the least."""
    with suppress(Exception):
        return _told(value, above, declared=declared)
    return type(value).__name__


def _told(value: object, above: tuple[int, ...], *, declared: bool) -> Any:
    value = scalar(value)
    if isinstance(value, enum.Enum):
        return str(value)
    if isinstance(value, _PRINTED) or (isinstance(value, float) and not math.isfinite(value)):
        return repr(value)  # JSON's NaN would differ from itself
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {_hex(bytes_of(value))}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"{value.dtype} {value.shape} {_hex(value.tobytes())}"
    if id(value) not in above and len(above) < _DEEPEST:
        inside = (*above, id(value))
        if isinstance(value, tuple) or (declared and isinstance(value, list)):
            return [_written(entry, inside, declared=declared) for entry in value]
        if declared and isinstance(value, Mapping):
            return {str(name): _written(entry, inside, declared=declared) for name, entry in value.items()}
        if isinstance(value, FunctionType | MethodType | functools.partial) or _declares(value):
            return _described(value, above)
    return type(value).__name__


def _hex(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
