"""Small experiments, and probes that fail or die, for the tests of sweeps."""

import os
import signal
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import flatprobe as fp


def base(**data: object) -> fp.Experiment:
    """A network of 8 units on a few digits, trained for 2 epochs."""
    return fp.Experiment(
        network={"name": "mlp", "widths": [8]},
        data={"name": "digits", "samples": 60, **data},
        stages=[{"name": "first", "epochs": 2, "learning_rate": 0.1}],
    )


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    """The table without times and places."""
    return table.drop(columns=["seconds", "training_seconds", "record", "failure"])


def linear(*, input_shape: tuple[int, ...], classes: int, seed: int, gain: float = 1.0) -> nn.Module:
    """A network of somebody else."""
    torch.manual_seed(seed)
    layer = nn.Linear(input_shape[0], classes)
    with torch.no_grad():
        layer.weight.mul_(gain)
    return layer


def stripes(*, split: str, width: int = 4) -> fp.LabelledData:
    """Data of somebody else: one-hot inputs."""
    repeats = 5 if split == "train" else 2
    return fp.LabelledData(torch.eye(width).repeat(repeats, 1), torch.arange(width).repeat(repeats))


def mean_output(model: nn.Module, data: fp.LabelledData, *, sign: float = 1.0) -> dict[str, float]:
    """A probe of somebody else."""
    assert isinstance(data.inputs, torch.Tensor)
    return {"mean": sign * float(model(data.inputs).mean())}


def distance(models: list[nn.Module], _data: fp.LabelledData) -> dict[str, float]:
    """A joint probe of somebody else."""
    first, second = (torch.cat([value.flatten() for value in model.parameters()]) for model in models)
    return {"distance": float((first - second).norm())}


def fail(_model: nn.Module, _data: fp.LabelledData) -> dict[str, float]:
    """A probe that raises."""
    msg = "the probe's own words"
    raise ArithmeticError(msg)


def fail_once(_model: nn.Module, _data: fp.LabelledData, *, flag: str) -> dict[str, float]:
    """A probe that raises at its first call."""
    if not Path(flag).exists():
        Path(flag).touch()
        msg = "at first"
        raise ArithmeticError(msg)
    return {"value": 1.0}


def words(_model: nn.Module, _data: fp.LabelledData) -> str:
    """A probe that returns what no record holds."""
    return "words"


def die_once(_model: nn.Module, _data: fp.LabelledData, *, flag: str) -> dict[str, float]:
    """A probe that kills its process at its first call."""
    if not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": 1.0}


def die(model: nn.Module, _data: fp.LabelledData, *, above: float) -> dict[str, float]:
    """A probe that kills its process for networks with large weights."""
    largest = max(float(value.abs().max()) for value in model.parameters())
    if largest > above:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"largest": largest}


def count(_model: nn.Module, _data: fp.LabelledData, *, folder: str) -> dict[str, float]:
    """A slow probe that leaves a file per call."""
    time.sleep(0.3)
    Path(folder, f"{os.getpid()}-{time.monotonic_ns()}").touch()
    return {"value": 1.0}


def give_layer(*, split: str) -> nn.Module:
    """A function that does not return data."""
    return nn.Linear(len(split), 2)


def leave(_model: nn.Module, _data: fp.LabelledData) -> dict[str, float]:
    """A probe that ends the program."""
    raise SystemExit(3)


def nothing(_model: nn.Module, _data: fp.LabelledData) -> dict[str, float]:
    """A probe that returns nothing."""
    return {}


def unprintable(_model: nn.Module, _data: fp.LabelledData) -> dict[str, float]:
    """A probe whose message has half a character."""
    msg = "\ud800"
    raise ValueError(msg)
