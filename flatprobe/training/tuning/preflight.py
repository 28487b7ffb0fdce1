"""What would end a tuning late: looked for before its first training."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from inspect import signature
from typing import Any

import torch
from torch import nn

from flatprobe.data import LabelledData
from flatprobe.functional.user_loss import Loss
from flatprobe.network.class_names import set_class_names
from flatprobe.network.copies import structural_copy
from flatprobe.risk.empirical import EmpiricalRisk
from flatprobe.training.loop import train
from flatprobe.training.settings import Settings, made_constraints, made_penalties, made_transforms

_MADE = {"penalties": made_penalties, "transforms": made_transforms, "constraints": made_constraints}


def check_arguments(
    vary: Callable[[float], Mapping[str, Any]], strengths: Iterable[float], others: Mapping[str, Any]
) -> None:
    """`train` takes the arguments of every strength.

    Raises:
        ValueError: for an argument that it does not have. Unsuitable values are too, as in `train`.
    """
    defaults = {name: entry.default for name, entry in signature(train).parameters.items()}
    for strength in strengths:
        asked = {**others, **vary(strength)}
        if unknown := sorted(asked.keys() - defaults.keys()):
            msg = f"at strength {strength} train is given {', '.join(unknown)}; expected arguments that it has"
            raise ValueError(msg)
        values = {field.name: (defaults | asked)[field.name] for field in fields(Settings)}
        Settings(**values | {name: make(values[name]) for name, make in _MADE.items()})


def made_network(network: object, seed: int) -> nn.Module:
    """The network of this seed.

    Raises:
        TypeError: for what is no network, nor a function that returns one.
    """
    if isinstance(network, nn.Module):
        return network
    expected = "an nn.Module, or a function seed -> nn.Module: lambda seed: fp.models.mlp(..., seed=seed)"
    if isinstance(network, type) or not callable(network):
        msg = f"the network is {network!r}; expected {expected}"
        raise TypeError(msg)
    made = network(seed)
    if not isinstance(made, nn.Module):
        msg = f"the function network({seed}) returned a {type(made).__name__}; expected {expected}"
        raise TypeError(msg)
    return made


def check_test(network: nn.Module, data: LabelledData, test: LabelledData, objective: Loss) -> None:
    """The network takes test samples of this shape and has outputs for all their classes.

    The samples' values are not looked at: the classes are compared with the outputs on a training sample, and where the
    shapes differ, ones take the test samples' place. The shapes of dicts and tuples are left to the end.

    Raises:
        ValueError: where it does not.
    """
    model = structural_copy(network).eval()
    set_class_names(model, data.source.get("class_names"))
    first = next(data.batches(1)).inputs
    one = LabelledData(
        first,
        torch.zeros(1, dtype=torch.int64, device="cpu"),
        classes=max(test.classes, data.classes),
        source=test.source,
    )
    try:
        placed = EmpiricalRisk(model, one, objective).network
    except ValueError as error:
        msg = f"the network does not suit the test data: {error}"
        raise ValueError(msg) from error
    if not isinstance(first, torch.Tensor):
        return
    if test.input_shape == data.input_shape:
        return
    try:
        with torch.no_grad():
            placed(placed.prepare(first.new_ones(1, *test.input_shape)))
    except (RuntimeError, ValueError) as error:
        msg = (
            f"the test data have samples of shape {test.input_shape}, and those to train on {data.input_shape}; "
            f"expected a shape that the network takes ({error})"
        )
        raise ValueError(msg) from error
