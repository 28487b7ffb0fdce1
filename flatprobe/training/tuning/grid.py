"""Arguments of `tune`, checked before its first training: what varies, the grid, the seeds, the networks."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from flatprobe.data import LabelledData, check_data
from flatprobe.functional.user_loss import Loss
from flatprobe.network.class_names import set_class_names
from flatprobe.network.copies import structural_copy
from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.training.loop import train
from flatprobe.training.settings import Settings, as_list
from flatprobe.utils.arguments import is_number, is_whole, scalar

NUMBERS = ("weight_decay", "learning_rate", "momentum")
_FROM_TUNE = frozenset(("network", "data", "validation", "out", "seed"))
_PARTS = ("penalties", "transforms", "constraints")


def varying(setting: object, penalty: object, others: Mapping[str, Any]) -> Callable[[float], dict[str, Any]]:
    """The arguments of `train` that vary, as a function of the strength.

    Raises:
        ValueError: for two things to vary, or none; for a setting that is unknown, or fixed as well.
    """
    if (setting is None) == (penalty is None):
        msg = f"one of setting and penalty must be given, got setting={setting!r} and penalty={penalty!r}"
        raise ValueError(msg)
    if penalty is not None:
        rest = as_list("penalties", others.get("penalties", ()), "(strength, penalty)")
        return lambda strength: {"penalties": [*rest, *([(strength, penalty)] if strength else [])]}
    if callable(setting):
        return lambda strength: _returned(setting(strength), strength, others)
    if setting not in NUMBERS or setting in others:
        msg = (
            f"setting must name an argument that this call does not pass, one of {', '.join(NUMBERS)}, or be a "
            f"function from a strength to a mapping of arguments, got {setting!r}"
        )
        raise ValueError(msg)
    return lambda strength: {str(setting): strength}


def _returned(arguments: object, strength: float, others: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a function of the strength returned.

    Raises:
        ValueError: for no dictionary; for an argument that the call or `tune` gives as well.
    """
    if not isinstance(arguments, Mapping):
        msg = (
            f"setting({strength}) must be a dict of arguments of train, got a {type(arguments).__name__}. For a "
            "penalty, give penalty=..."
        )
        raise ValueError(msg)
    if twice := sorted(arguments.keys() & (others.keys() | _FROM_TUNE)):
        msg = f"setting({strength}) must leave out what the call or tune itself gives, got {', '.join(twice)}"
        raise ValueError(msg)
    return dict(arguments)


def unregularized(_strength: float) -> dict[str, Any]:
    """The setting of a method without a strength, whose grid is 0 alone."""
    return {}


def fixed(others: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that each training takes unchanged; iterators become lists, since several trainings read them.

    Raises:
        ValueError: if `seed` is among them.
    """
    if "seed" in others:
        msg = f"seed must be left out, got {others['seed']!r}. Give seeds=(...), one per repetition"
        raise ValueError(msg)
    iterators = {name: value for name, value in others.items() if name in _PARTS and hasattr(value, "__next__")}
    return {**others, **{name: list(value) for name, value in iterators.items()}}


def grid(strengths: Iterable[float] | Any, fewest: int = 2) -> list[float]:
    """The strengths from small to large.

    Raises:
        ValueError: for anything but `fewest` or more different numbers, finite and not negative.
    """
    values = _listed(strengths)
    good = all(is_number(value) and 0 <= value < math.inf for value in values)
    if not good or len({*values}) < max(fewest, len(values)):
        msg = (
            "strengths must be a list of at least two different numbers, finite and at least 0, such as (0, 0.1), got "
            f"{strengths!r}"
        )
        raise ValueError(msg)
    return sorted(map(float, values))


def distinct(seeds: Iterable[int] | Any) -> list[int]:
    """The seeds in the given order.

    Raises:
        ValueError: for anything but one or more different whole numbers.
    """
    values = [scalar(seed) for seed in _listed(seeds)]
    if not values or not all(map(is_whole, values)) or len({*values}) < len(values):
        msg = f"seeds must be a list of different whole numbers, such as (0, 1), got {seeds!r}"
        raise ValueError(msg)
    return values


def _listed(values: object) -> list[Any]:
    """The values as a list; [None] in place of anything that is no list."""
    several = isinstance(values, Iterable) and not isinstance(values, str) and getattr(values, "ndim", 1) != 0
    return list(values) if several else [None]  # type: ignore[call-overload] # several says that it is iterable


def check_arguments(
    vary: Callable[[float], Mapping[str, Any]], strengths: Iterable[float], others: Mapping[str, Any]
) -> None:
    """Check the arguments of `train` at every strength.

    Raises:
        ValueError: for an argument that `train` does not have, or that `Settings` refuses.
    """
    defaults = {name: entry.default for name, entry in signature(train).parameters.items()}
    for strength in strengths:
        arguments = {**others, **vary(strength)}
        if unknown := sorted(arguments.keys() - defaults.keys()):
            msg = f"at strength {strength} the arguments must be those of train, got {', '.join(unknown)}"
            raise ValueError(msg)
        Settings(**{field.name: (defaults | arguments)[field.name] for field in fields(Settings)})


def data_by_seed(data: object) -> Callable[[int], LabelledData]:
    """The function from a seed to its training data, called once per seed.

    Raises:
        TypeError: for anything but data or a function.
    """
    if not callable(data):
        given = check_data(data)
        return lambda _seed: given
    return cache(lambda seed: check_data(data(seed)))


def build_network(network: object, seed: int) -> nn.Module:
    """The network of one seed.

    Raises:
        TypeError: for anything but a network or a function that returns one.
    """
    expected = "an nn.Module, or a function seed -> nn.Module such as lambda seed: fp.models.mlp(..., seed=seed)"
    if isinstance(network, type) or not callable(network):  # modules are callable
        msg = f"network must be {expected}, got {network!r}"
        raise TypeError(msg)
    built = network if isinstance(network, nn.Module) else network(seed)
    if not isinstance(built, nn.Module):
        msg = f"network must be {expected}, got a function that returned a {type(built).__name__}"
        raise TypeError(msg)
    return built


def check_test(network: nn.Module, data: LabelledData, test: LabelledData, objective: Loss) -> None:
    """Check that the network takes the shape of the test samples and has outputs for their classes.

    The test set's values are not read: one training sample takes their place, or ones where the shapes differ.

    Raises:
        ValueError: where the network does not suit them.
    """
    model = structural_copy(network).eval()
    set_class_names(model, data.source.get("class_names"))
    sample, shapes = next(data.batches(1)).inputs, ""
    if isinstance(sample, Tensor) and test.input_shape != data.input_shape:
        sample = sample.new_ones(1, *test.input_shape)
        shapes = f" of shape {test.input_shape} for {data.input_shape} in training"
    classes, label = max(test.classes or 0, data.classes or 0), torch.zeros(1, dtype=torch.int64, device="cpu")
    try:
        EmpiricalRisk(model, LabelledData(sample, label, classes=classes, source=test.source), objective)
    except (RuntimeError, ValueError) as error:
        msg = f"test must be samples{shapes} that the network takes: {error}"
        raise ValueError(msg) from error
