"""What a record says of a caller's own penalty, transform or constraint: enough to tell another one from it."""

import ast
import functools
import hashlib
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor, nn

from flatprobe.checks import scalar
from flatprobe.files import bits


def of_caller(part: object) -> dict[str, Any]:
    """Its name, a digest of its source, and what it carries: fields, attributes, closed-over values, default arguments.

    Lists, dictionaries and objects are there by their type alone, since a part may keep a log in them, unless a
    dataclass declares them as its fields. Helpers that the source calls by a global name are not followed.

    Args:
        part: a function, a `functools.partial` of one, or an object that is called.

    Returns:
        `name` (module and qualified name), `source` (16 hex digits of a SHA-256 over the code without comments and
        layout; left out where Python knows no source, as of a line typed at a prompt), `carries` (by name; left out
        where there is nothing).
    """
    return _described(part, ())


def _described(part: object, above: tuple[int, ...]) -> dict[str, Any]:
    code = _code(part)
    source = _digest(code)
    declared = _declares(part)
    carries = {name: _written(value, (*above, id(part)), declared=declared) for name, value in _carried(part).items()}
    return {
        "name": f"{code.__module__}.{code.__qualname__}",
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
        return _carried(part.func) | arguments
    if isinstance(part, MethodType):
        return _carried(part.__self__) | _carried(part.__func__)
    if isinstance(part, FunctionType):
        defaults = {
            name: entry.default
            for name, entry in inspect.signature(part).parameters.items()
            if entry.default is not entry.empty
        }
        cells = zip(part.__code__.co_freevars, part.__closure__ or (), strict=True)
        return defaults | {name: value for name, cell in cells for value in _inside(cell)}
    if isinstance(part, nn.Module):
        return dict(part.state_dict())
    if _declares(part):
        return {entry.name: getattr(part, entry.name) for entry in fields(part) if entry.init}
    return dict(getattr(part, "__dict__", {}))


def _declares(part: Any) -> bool:
    """Whether it is a dataclass' object, whose fields are settings."""
    return is_dataclass(part) and not isinstance(part, type)


def _inside(cell: Any) -> list[object]:
    """What a closure's cell holds; one that is not filled yet holds nothing."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _digest(code: Callable[..., Any]) -> str | None:
    try:
        text = textwrap.dedent(inspect.getsource(code))
    except (OSError, TypeError):
        return None
    try:
        text = ast.unparse(ast.parse(text))
    except SyntaxError:  # a lambda's line is a piece of a call
        text = text.strip()
    return _hex(text.encode())


def _written(value: object, above: tuple[int, ...], *, declared: bool) -> Any:
    value = scalar(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # as JSON's, NaN would differ from itself
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple) or (declared and isinstance(value, list)):
        return [_written(entry, above, declared=declared) for entry in value]
    if declared and isinstance(value, Mapping):
        return {str(name): _written(entry, above, declared=declared) for name, entry in value.items()}
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {_hex(bits(value))}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {_hex(value.tobytes())}"
    followed = isinstance(value, FunctionType | MethodType | functools.partial) or _declares(value)
    if followed and id(value) not in above:  # a function may close over itself
        return _described(value, above)
    return type(value).__name__


def _hex(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
