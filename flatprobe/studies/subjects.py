"""Networks and data of experiments, built from their JSON descriptions."""

import importlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from inspect import signature
from typing import Any

import torch
from torch import nn

from flatprobe.data import LabelledData
from flatprobe.data.load import load_data
from flatprobe.models import NETWORKS, Normalised, scaled, unit_rows
from flatprobe.utils.arguments import is_number, is_whole, one_of
from flatprobe.utils.rng import permutation

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_CHANGES = ("unit_rows", "scale", "mean", "std")  # of a network, after it is built
_DRAWN = ("samples", "draw", "pool", "validation", "random_labels")
_LOADED = ("crop", "image_column", "label_column")
DRAWS = ("uniform", "balanced", "first")


def is_function(name: str) -> bool:
    """True for the form `package.module:function`."""
    return _FUNCTION.fullmatch(name) is not None


def resolve(name: str) -> Callable[..., Any]:
    """The function of `package.module:function`.

    Raises:
        ValueError: if it cannot be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        msg = (
            f"{name!r} must be package.module:function that every process can import, got {error}. Install the "
            "package, or add its folder to PYTHONPATH"
        )
        raise ValueError(msg) from error
    if not callable(found):
        msg = f"{name!r} must be a function, got a {type(found).__name__}"
        raise ValueError(msg)
    function: Callable[..., Any] = found
    return function


def name_of(given: str | Callable[..., Any]) -> str:
    """`package.module:function` of a function; a name as it is.

    Raises:
        ValueError: for a function that cannot be imported by a name, such as a lambda.
    """
    if isinstance(given, str):
        return given
    name = f"{getattr(given, '__module__', None)}:{getattr(given, '__qualname__', None)}"
    if not is_function(name) or name.startswith("__main__:") or resolve(name) is not given:
        msg = (
            f"the function {name} must be importable as package.module:function, since other processes call it. Define "
            "it at the top of a module other than the script itself"
        )
        raise ValueError(msg)
    return name


def check_network(network: Mapping[str, Any]) -> None:
    """Check the entries of `Experiment.network`.

    Raises:
        ValueError: for an unknown name or argument.
    """
    name = _named("network", network)
    if is_function(name):
        return
    one_of("the network's name", name, NETWORKS)
    known = {*signature(NETWORKS[name]).parameters} - {"input_shape", "classes", "seed"}
    _known(f"network {name!r}", network, {"name", *known, *_CHANGES})
    if network.get("unit_rows", True) in (False, None, []):
        msg = f"unit_rows must be True or a list of layers, or left out, got {network['unit_rows']!r}"
        raise ValueError(msg)
    if ("mean" in network) != ("std" in network):
        msg = "network must have both mean and std, or neither"
        raise ValueError(msg)


def check_data(data: Mapping[str, Any]) -> None:
    """Check the entries of `Experiment.data`.

    Raises:
        ValueError: for an unknown entry, or an unsuitable number of samples.
    """
    name = _named("data", data)
    if not is_function(name):
        _known(f"data {name!r}", data, {"name", *_DRAWN, *_LOADED})
    one_of("draw", data.get("draw", DRAWS[0]), DRAWS)
    for entry in ("samples", "pool", "validation"):
        value = data.get(entry)
        if value is not None and not (is_whole(value) and value > 0):
            msg = f"{entry} must be a whole number above 0, or left out, got {value!r}"
            raise ValueError(msg)
    fraction = data.get("random_labels", 0)
    if not is_number(fraction) or not 0 <= fraction <= 1:
        msg = f"random_labels must be a fraction between 0 and 1, got {fraction!r}"
        raise ValueError(msg)
    if data.get("validation") is not None and data.get("pool") is None:
        msg = "data with validation must have a pool, since the validation samples follow it. Give pool"
        raise ValueError(msg)


def _named(kind: str, described: object) -> str:
    name = described.get("name") if isinstance(described, Mapping) else None
    if not isinstance(name, str):
        msg = f"{kind} must be a dictionary with a name, got {described!r}"
        raise ValueError(msg)
    return name


def _known(kind: str, described: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(described.keys() - known)
    if unknown:
        msg = f"{kind} must have entries among {', '.join(sorted(known))}, got {', '.join(unknown)}"
        raise ValueError(msg)


def build_network(network: Mapping[str, Any], input_shape: Sequence[int], classes: int, seed: int) -> nn.Module:
    """The network of a description with its initial weights.

    The order of the changes: unit rows, scale, normalization of the inputs.
    """
    name = network["name"]
    arguments = {key: value for key, value in network.items() if key not in {"name", *_CHANGES}}
    builder = resolve(name) if is_function(name) else NETWORKS[name]
    model: nn.Module = builder(input_shape=tuple(input_shape), classes=classes, seed=seed, **arguments)
    rows = network.get("unit_rows")
    if rows:
        model = unit_rows(model, layers=None if rows is True else rows)
    if "scale" in network:
        model = scaled(model, network["scale"])
    if "mean" in network:
        model = Normalised(model, network["mean"], network["std"])
    return model


def data_of(data: Mapping[str, Any], on: str, seed: int) -> LabelledData:
    """The training samples of a description, its validation samples, or another split as it is.

    Only the pool and the validation samples after it are read.

    Raises:
        ValueError: for more samples than there are.
    """
    pool: int | None = data.get("pool")
    held_out = data.get("validation") or 0
    if on != "train" and not (on == "validation" and held_out):
        return _split(_loading(data), on)
    whole = _split(_loading(data), "train", None if pool is None else pool + held_out)
    if pool is not None:
        _at_most("pool + validation" if held_out else "pool", pool + held_out, len(whole))
        if on == "validation":
            return whole.subset(torch.arange(pool, pool + held_out, device="cpu"), held_out=[pool, pool + held_out])
        whole = whole.head(pool)
    part = _drawn(whole, data, seed)
    fraction = data.get("random_labels") or 0
    return part.with_random_labels(fraction, seed=seed) if fraction else part


def _drawn(whole: LabelledData, data: Mapping[str, Any], seed: int) -> LabelledData:
    """The drawn training samples; those of a smaller number are among those of a larger one.

    Raises:
        ValueError: for more samples than there are, or a number that the classes do not divide.
    """
    samples, draw = data.get("samples"), data.get("draw", DRAWS[0])
    if samples is None:
        return whole
    _at_most("samples", samples, len(whole))
    if draw == "first":
        return whole.head(samples)
    if draw == "balanced":
        if samples % whole.classes:
            msg = f"samples must be a multiple of the {whole.classes} classes for draw='balanced', got {samples}"
            raise ValueError(msg)
        return whole.balanced(samples // whole.classes, seed=seed)
    return whole.subset(
        permutation(len(whole), seed, "training set")[:samples], drawn={"from": len(whole), "seed": seed}
    )


def _at_most(name: str, count: int, available: int) -> None:
    if count > available:
        msg = f"{name} must be at most the {available} samples that there are, got {count}"
        raise ValueError(msg)


def _loading(data: Mapping[str, Any]) -> str:
    """The part of a description that loading depends on, as JSON."""
    return json.dumps({name: value for name, value in data.items() if name not in _DRAWN}, sort_keys=True)


@lru_cache(maxsize=4)  # a worker reads the same set for many experiments
def _split(loading: str, split: str, first: int | None = None) -> LabelledData:
    arguments = json.loads(loading)
    name = arguments.pop("name")
    read = resolve(name) if is_function(name) else partial(load_data, name, limit=first)
    found: object = read(split=split, **arguments)
    if not isinstance(found, LabelledData):
        msg = f"{name} must return LabelledData, got a {type(found).__name__}"
        raise TypeError(msg)
    return found
