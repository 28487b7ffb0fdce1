"""Fingerprints of user-defined losses, penalties, transforms and constraints, for the record of a run."""

import ast
import enum
import functools
import hashlib
import inspect
import math
import sys
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flatprobe.utils.arguments import scalar
from flatprobe.utils.tensor_files import bytes_of

_DEEPEST = 4  # levels of parts within parts
# Immutable types whose printed form is their value.
_PRINTED = (bytes, complex, range, enum.Enum, torch.dtype, torch.device, torch.Size)


def fingerprint(part: object, _above: tuple[int, ...] = ()) -> dict[str, Any]:
    """The name of a user-defined part, a digest of its source, and the values that it carries.

    The values are the fields of a dataclass, the arguments of a `functools.partial`, default arguments, closed-over
    variables and attributes. Lists, dictionaries and objects appear by their type alone, since a part may keep a log in
    them, unless the fields or the partial declare them. Inherited code, global variables and `__slots__` are not
    followed.

    Args:
        part: a function, a `functools.partial`, a method, or a callable object.

    Returns:
        `name` (module and qualified name); `source`, 16 hex digits of a SHA-256 over the code without comments and
        layout, where Python finds the source; `carries`, the values by name, where there are any.
    """
    code: Any = part
    while isinstance(code, functools.partial | MethodType):
        code = code.func if isinstance(code, functools.partial) else code.__func__
    code = code if isinstance(getattr(code, "__qualname__", None), str) else type(code)
    found: dict[str, Any] = {"name": f"{getattr(code, '__module__', None)}.{code.__qualname__}"}
    with suppress(Exception):  # An object that cannot be inspected must not stop a training.
        found["source"] = _hash(_source(code).encode())
    with suppress(Exception):
        values, declared = _carried(part), is_dataclass(part) or isinstance(part, functools.partial)
        found["carries"] = {str(name): _written(own, (*_above, id(part)), declared) for name, own in values.items()}
    return {name: value for name, value in found.items() if value}


def source_of(code: Any) -> str | None:
    """The digest of the code of a function or class; None where Python does not find it."""
    with suppress(Exception):
        return f"{code.__qualname__} {_hash(_source(code).encode())}"
    return None


def surroundings(part: object) -> dict[str, object] | None:
    """The files and the global values that a function's result may depend on.

    Functions and classes of files in the function's folder are followed. Of other modules that they name, the files
    alone are. Values are written as in `fingerprint`, lists and dictionaries with what they hold, modules with their
    weights; other objects appear by their type.

    Args:
        part: a function, a `functools.partial`, a method, or a callable object.

    Returns:
        `files`, the digests of the files, and `values`, the digest of the values. None where the function has no file,
        as in a notebook, or no code in Python.
    """
    first = _function(part)
    home = None if first is None else _file(first.__code__.co_filename)
    if first is None or home is None:
        return None
    files, values, seen = {home}, dict[str, Any](), set[int]()
    left = [first]
    while left:
        own = left.pop()
        if id(own) in seen:
            continue
        seen.add(id(own))
        for name, value in _named(own, home.parent):
            file = _home(value)
            files |= {home if file is None else file}
            if isinstance(value, FunctionType | type):
                inside = [value] if isinstance(value, FunctionType) else vars(value).values()
                own_code = file is not None and file.is_relative_to(home.parent)
                left += [each for each in inside if own_code and isinstance(each, FunctionType)]
            elif not isinstance(value, ModuleType):
                place = f"{Path(own.__code__.co_filename).name}:{name}"
                is_network = isinstance(value, nn.Module)
                values[place] = fingerprint(value) if is_network else _written(value, (), declared=True)
    return {"files": sorted(_hash(file.read_bytes()) for file in files), "values": _hash(repr(values).encode())}


def _function(part: Any) -> FunctionType | None:
    """The function behind a partial, a method or a callable object."""
    while isinstance(part, functools.partial | MethodType):
        part = part.func if isinstance(part, functools.partial) else part.__func__
    if not isinstance(part, FunctionType | type):
        part = type(part).forward if isinstance(part, nn.Module) else vars(type(part)).get("__call__")
    return part if isinstance(part, FunctionType) else None


def _file(path: str | None) -> Path | None:
    return Path(path).resolve() if path and path.endswith(".py") and Path(path).is_file() else None


def _home(value: object) -> Path | None:
    """The file of a module, or of the module of anything else."""
    module = value if isinstance(value, ModuleType) else sys.modules.get(str(getattr(value, "__module__", "")))
    return _file(getattr(module, "__file__", None))


def _named(function: FunctionType, home: Path) -> list[tuple[str, Any]]:
    """The global values that the code names, those of modules in the folder too, and functions in its closure."""
    names, codes = set[str](), [function.__code__]
    while codes:
        code = codes.pop()
        names |= {*code.co_names}
        codes += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    found = [(name, function.__globals__[name]) for name in sorted(names) if name in function.__globals__]
    for module_name, module in list(found):
        file = _home(module) if isinstance(module, ModuleType) else None
        if file is not None and file.is_relative_to(home):
            found += [(f"{module_name}.{name}", vars(module)[name]) for name in sorted(names & vars(module).keys())]
    closed = []
    with suppress(ValueError):  # a cell that is still empty
        closed = [cell.cell_contents for cell in function.__closure__ or ()]
    return found + [("", value) for value in closed if isinstance(value, FunctionType)]


def _source(code: Any) -> str:
    """The code of a function or class; of a lambda, all lambdas that begin on its line."""
    own = code.__code__ if isinstance(code, FunctionType) else code  # not the function that a wrapper wraps
    if code.__name__ == "<lambda>":
        nodes = ast.walk(ast.parse("".join(inspect.findsource(own)[0])))
        return " ".join(ast.unparse(n) for n in nodes if isinstance(n, ast.Lambda) and n.lineno == own.co_firstlineno)
    text = textwrap.dedent(inspect.getsource(own))
    try:
        return ast.unparse(ast.parse(text))
    except SyntaxError:  # A comment at the margin keeps an inner function from being dedented.
        return text


def _carried(part: Any) -> dict[str, Any]:
    if isinstance(part, functools.partial):
        return {"func": part.func, **{str(place): value for place, value in enumerate(part.args)}, **part.keywords}
    if isinstance(part, MethodType):
        return {f"self.{name}": value for name, value in _carried(part.__self__).items()} | _carried(part.__func__)
    if isinstance(part, FunctionType):
        parameters = inspect.signature(part, follow_wrapped=False).parameters.values()
        defaults = {entry.name: entry.default for entry in parameters if entry.default is not entry.empty}
        return defaults | dict(inspect.getclosurevars(part).nonlocals)
    if is_dataclass(part):
        return {entry.name: getattr(part, entry.name, None) for entry in fields(part) if entry.init}
    if isinstance(part, nn.Module):  # whose own dictionaries and sets hold parameters, parts and hooks
        kept = {name: value for name, value in vars(part).items() if not isinstance(value, Mapping | set)}
        return {name: value for name, value in kept.items() if name != "training"} | part.state_dict()
    return dict(vars(part))


def _written(value: object, above: tuple[int, ...], declared: bool) -> Any:
    """The value as JSON has it, or its digest, or at least the name of its type."""
    with suppress(Exception):
        value = scalar(value)
        if isinstance(value, _PRINTED) or (isinstance(value, float) and not math.isfinite(value)):
            return str(value) if isinstance(value, enum.Enum) else repr(value)  # JSON's NaN would differ from itself
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Tensor | np.ndarray):
            return f"{value.dtype} {tuple(value.shape)} {_hash(bytes_of(torch.as_tensor(value)))}"
        if id(value) not in above and len(above) < _DEEPEST:
            inside = (*above, id(value))
            if isinstance(value, tuple) or (declared and isinstance(value, list)):
                return [_written(entry, inside, declared) for entry in value]
            if declared and isinstance(value, Mapping):
                return {str(name): _written(entry, inside, declared) for name, entry in value.items()}
            if isinstance(value, FunctionType | MethodType | functools.partial) or is_dataclass(value):
                return fingerprint(value, above)
    return type(value).__name__


def _hash(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
