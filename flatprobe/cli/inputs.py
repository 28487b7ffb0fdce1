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

from flatprobe.data import LabelledData
from flatprobe.data.load import load_data
from flatprobe.data.validation import warn_of_missed_classes
from flatprobe.network.class_names import class_names_of, find_misplaced
from flatprobe.utils.results import printable
from flatprobe.utils.tensor_files import read_json

_CONFIG = "config.json"


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


def data_of(run: Path, name: str | None, split: str | None, limit: int | None) -> LabelledData:
    """The named data, or the run's training data with its random labels; another split keeps its natural labels.

    Raises:
        ValueError: if neither is known.
    """
    if name is not None:
        return load_data(name, split or "train", limit=limit)
    config = (run if run.is_dir() else run.parent) / _CONFIG
    if not config.is_file():
        msg = f"--data must name the data of {run}, whose training data are unknown: there is no {_CONFIG}."
        raise ValueError(msg)
    described = read_json(config, "name the data with --data").get("data")
    source: Any = described.get("source") if isinstance(described, dict) else None
    if not isinstance(described, dict) or not isinstance(source, dict):
        msg = f"--data must name the data of {run}, whose training data {config} does not name."
        raise ValueError(msg)
    if not {"name", "split"} <= source.keys():
        msg = f"--data must name the data of {run}, which was trained on data without a name."
        raise ValueError(msg)
    columns: dict[str, Any] = {key: source.get(key) for key in ("crop", "image_column", "label_column")}
    if split not in {None, source["split"]}:
        return load_data(source["name"], str(split), limit=limit, **columns)
    # Streamed data's fingerprint covers some of the samples, so it compares with that of data streamed again.
    stream = described.get("fingerprint_of", "all samples") != "all samples"
    data = load_data(source["name"], source["split"], limit=source.get("limit"), stream=stream, **columns)
    if source.get("class_names") and data.source.get("class_names") != source["class_names"]:
        data = data.with_class_names(source["class_names"])
    for draw in source.get("random_labels", []):
        data = data.with_random_labels(draw["fraction"], draw["seed"])
    if data.fingerprint != described.get("fingerprint"):
        msg = (
            f"{source['name']} must be the training data of {run}, with the fingerprint "
            f"{described.get('fingerprint')}, got {data.fingerprint}. Name the data to measure on with --data."
        )
        raise ValueError(msg)
    if limit is None:
        return data
    warn_of_missed_classes(data.labels, limit)
    return data.head(limit)


def numbered_for(network: nn.Module, data: LabelledData) -> LabelledData:
    """The data with their classes in the network's order, where both name the same classes in different orders."""
    own, names = class_names_of(network), data.source.get("class_names")
    if own is None or names is None or not {*names} <= {*own[0]} or find_misplaced(names, own[0]) is None:
        return data
    print("the classes of the data are renumbered in the network's order, by their names", file=sys.stderr)
    return data.with_class_names(own[0])
