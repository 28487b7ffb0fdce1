"""Names on the command line -> networks and data."""

import importlib
import inspect
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from flatprobe.cli.reading import data_of as data_of
from flatprobe.cli.samples import numbered_for as numbered_for
from flatprobe.utils.results import printable


def names_of(runs: Sequence[Path]) -> dict[str, Path]:
    """A name per run: the folder's or file's name, with the parent folder's name in front where two are equal.

    Raises:
        ValueError: if two have the same name.
    """
    short = [_name(path) for path in runs]
    names: dict[str, Path] = {}
    for path, own in zip(runs, short, strict=True):
        name = own if short.count(own) == 1 else f"{printable(path.absolute().parent.name)}/{own}"
        if name in names:
            msg = (
                f"runs must have different names, got {names[name]} and {path}, which are both {name!r}. "
                "Give each run once, or rename one of the files or folders."
            )
            raise ValueError(msg)
        names[name] = path
    return names


def _name(path: Path) -> str:
    own = path.absolute()
    return printable(own.name if path.is_dir() else own.stem)


def group_of(name: str) -> str:
    """The name without a number at its end: `natural-0` belongs to `natural`."""
    return re.sub(r"[-_ .]?\d+$", "", name) or name


def architecture(reference: str) -> nn.Module:
    """The module that `package.module:factory` or `file.py:factory` returns; the current folder is searched too.

    Raises:
        ValueError: if there is no such module or factory, if it fails, or if it returns something else.
    """
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        msg = (
            f"--model must be package.module:factory or file.py:factory, got {reference!r}. "
            "The factory is a function without arguments that returns the network."
        )
        raise ValueError(msg)
    module = _imported(place)
    factory = getattr(module, name, None)
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        found = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        what = f"has no {name}" if factory is None else f"has an object of type {type(factory).__name__} there"
        msg = (
            f"--model must name a function or class, got {reference!r}, and {place} {what}. "
            f"Its functions and classes: {_some(found)}."
        )
        raise ValueError(msg)
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        msg = (
            f"--model must name a function without arguments, got {reference!r}, which is "
            f"{name}{inspect.signature(factory)}. Write a function that calls it with its arguments, and name that one."
        )
        raise ValueError(msg) from error
    except ValueError:  # a builtin without a signature
        pass
    try:
        made = factory()
    except Exception as error:
        msg = (
            f"--model must name a function that returns a network, got {reference!r}, which raised "
            f"{type(error).__name__}: {error}. Correct the function, or name another one."
        )
        raise ValueError(msg) from error
    if not isinstance(made, nn.Module):
        msg = (
            f"--model must name a function that returns a torch.nn.Module, got {reference!r}, which returned a "
            f"{type(made).__name__}. Return the network itself."
        )
        raise ValueError(msg)
    return made


def _imported(place: str) -> Any:
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
            f"--model must name a module that can be imported, got {place!r}, which raised {type(error).__name__}: "
            f"{error}. Give an installed module, one in the current folder, or the path of a .py file."
        )
        raise ValueError(msg) from error


def _of_file(file: Path) -> ModuleType:
    name = file.stem if file.stem not in sys.modules else f"model_{file.stem}"  # a test.py is not Python's own
    loader = SourceFileLoader(name, str(file))
    module = sys.modules[name] = module_from_spec(ModuleSpec(name, loader, origin=str(file)))
    loader.exec_module(module)
    return module


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "none"
