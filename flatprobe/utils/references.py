"""Objects named as `package.module:name` or `path/to/file.py:name`, and calls of them."""

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

_LISTED = 8


def resolve(reference: str, option: str) -> Any:
    """The object of `package.module:name` or `path/to/file.py:name`; its code is imported, so it runs.

    Modules in the current folder are found, as with `python -m`. A name may be dotted: `file.py:Class.method`.

    Args:
        reference: the module or file, a colon, and the name in it.
        option: name of the argument or option in errors, such as `"--model"`.

    Raises:
        ValueError: if the form is another one, the module cannot be imported, or it has no such name.

    >>> resolve("math:sqrt", "--loss")(9.0)
    3.0
    """
    place, _, name = reference.rpartition(":")
    if not place or not all(part.isidentifier() for part in name.split(".")):
        msg = (
            f"{option} must be package.module:name or path/to/file.py:name, got {reference!r}. "
            "The name is that of a function or class in that module or file."
        )
        raise ValueError(msg)
    found: Any = _imported(place, option)
    parts = name.split(".")
    for count, part in enumerate(parts):
        if not hasattr(found, part):
            owner = f"{place}:{'.'.join(parts[:count])}" if count else place
            msg = (
                f"{option} must name something in {place}, got {reference!r}, and {owner} has no {part}. "
                f"Its functions and classes: {_public(found)}."
            )
            raise ValueError(msg)
        found = getattr(found, part)
    return found


def call(reference: str, option: str, arguments: Mapping[str, object]) -> Any:
    """What the function or class of a reference returns for these keyword arguments.

    Args:
        reference: as in `resolve`.
        option: name of the argument or option in errors.
        arguments: keyword arguments.

    Raises:
        ValueError: if the reference names nothing callable, the arguments do not fit, or the call raises an error.
    """
    function = resolve(reference, option)
    if not callable(function):
        msg = (
            f"{option} must name a function or class, got {reference!r}, which is an object of type "
            f"{type(function).__name__}. Name a function that returns what is needed."
        )
        raise ValueError(msg)
    return invoke(function, reference, option, arguments)


def invoke(function: Any, reference: str, option: str, arguments: Mapping[str, object]) -> Any:
    """What a function returns for these keyword arguments.

    Args:
        function: a function or class.
        reference: its name in errors.
        option: name of the argument or option in errors.
        arguments: keyword arguments.

    Raises:
        ValueError: if the arguments do not fit, or the call raises an error.
    """
    _check_arguments(function, reference, option, arguments)
    try:
        return function(**arguments)
    except Exception as error:  # any error of the user's function
        given = f" for the arguments {', '.join(arguments)}" if arguments else ""
        msg = (
            f"{option} must name a function that works, got {reference!r}, which raised "
            f"{type(error).__name__}{given}: {error}. Correct the function or its arguments, or name another one."
        )
        raise ValueError(msg) from error


def _check_arguments(function: Any, reference: str, option: str, arguments: Mapping[str, object]) -> None:
    """Check keyword arguments against the signature of a function, without a call.

    Raises:
        ValueError: if one is unknown or missing.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin without a signature
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        given = f"the arguments {', '.join(arguments)}" if arguments else "no arguments"
        msg = (
            f"{option} must name a function that takes {given}, got {reference!r}, which is "
            f"{getattr(function, '__name__', reference)}{signature}: {error}. Give its arguments, or name another one."
        )
        raise ValueError(msg) from error


def _imported(place: str, option: str) -> ModuleType:
    """The module of that name, or in that file.

    Raises:
        ValueError: if the module does not exist, or its import fails.
    """
    file = Path(place).absolute() if place.endswith(".py") else None
    folder = str(Path.cwd() if file is None else file.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python -m` does
    try:
        return importlib.import_module(place) if file is None else _of_file(file)
    except Exception as error:  # any error of the user's file
        msg = (
            f"{option} must name a module that can be imported, got {place!r}, which raised {type(error).__name__}: "
            f"{error}. Give an installed module, one in the current folder, or the path of a .py file."
        )
        raise ValueError(msg) from error


def _of_file(file: Path) -> ModuleType:
    """The module in a file, which is run once."""
    for known in [*sys.modules.values()]:
        if getattr(known, "__file__", None) == str(file):
            return known
    name = file.stem if file.stem not in sys.modules else f"file_{file.parent.name}_{file.stem}"  # test.py: a test
    loader = SourceFileLoader(name, str(file))
    module = sys.modules[name] = module_from_spec(ModuleSpec(name, loader, origin=str(file)))
    module.__file__ = str(file)
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _public(owner: object) -> str:
    names: Sequence[str] = [
        name for name, value in vars(owner).items() if callable(value) and not name.startswith("_")
    ] if hasattr(owner, "__dict__") else []  # fmt: skip
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "") or "none"
