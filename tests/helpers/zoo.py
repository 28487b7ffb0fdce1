"""Checkpoints of one network in the formats of other programs, written into a folder."""

import argparse
import collections
import json
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class Net(nn.Module):
    """A small convolutional network with BatchNorm, of another program."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(36 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))


class HubNet(Net, PyTorchModelHubMixin):
    """The same with the mixin of the Hugging Face hub; its width has no default."""

    def __init__(self, width: int) -> None:
        super().__init__(width)


class Settings(dict):
    """A dictionary with attributes, as training programs keep their settings."""

    __getattr__ = dict.get


def network(seed: int = 0, width: int = 4) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Net(width)
        net(torch.rand(5, 1, 8, 8))
    return net.eval()


def prefixed(prefix: str, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in (state or network().state_dict()).items()}


def averaged() -> dict[str, Tensor]:
    return network(seed=1).state_dict()


def lightning() -> dict[str, Any]:
    """As lightning writes it, for a module with the network as `model` and a weighted loss as `criterion`."""
    state = {**prefixed("model."), "criterion.weight": torch.ones(10), "val_acc.correct": torch.tensor(3)}
    return {
        "epoch": 3, "global_step": 90, "pytorch-lightning_version": "2.4.0", "state_dict": state,
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}],
        "hyper_parameters": argparse.Namespace(lr=0.1, out=pathlib.Path("runs")),
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.9)}},
    }  # fmt: skip


SAVED: dict[str, Callable[[], Any]] = {  # files of torch.save, by their names
    "bare.pt": lambda: network().state_dict(),
    "nested.pth": lambda: {"state_dict": network().state_dict(), "epoch": 3},
    "model_key.pt": lambda: {"model": network().state_dict(), "optimizer": {"state": {}, "param_groups": []}},
    "two_keys.pt": lambda: {"model": {"state_dict": network().state_dict()}, "best_acc": np.float64(0.9)},
    "net_and_ema.pt": lambda: {"net": network().state_dict(), "ema": averaged()},
    "namespace.pt": lambda: {
        "model_state_dict": network().state_dict(),
        "args": argparse.Namespace(lr=0.1, data=pathlib.Path("data")),
        "settings": Settings(lr=0.1, widths=[1, 2]),
    },
    "ddp.pt": lambda: prefixed("module."),
    "compiled.pt": lambda: prefixed("_orig_mod."),
    "model_prefix.pt": lambda: prefixed("model."),
    "network_prefix.pt": lambda: prefixed("network."),
    "averaged.pt": lambda: AveragedModel(network()).state_dict(),
    "lightning.ckpt": lightning,
    "old.pth.tar": lambda: {"epoch": 3, "arch": "net", "state_dict": prefixed("module.")},
    "list.pt": lambda: [network().state_dict(), {"lr": 0.1}],
}


def shards(folder: Path, ending: str) -> None:
    """The weights in two files with an index."""
    state = network().state_dict()
    first, second = dict([*state.items()][:3]), dict([*state.items()][3:])
    stem = {"safetensors": "model", "bin": "pytorch_model"}[ending]
    save = safetensors.torch.save_file if ending == "safetensors" else torch.save
    places = {}
    for k, part in enumerate((first, second), 1):
        name = f"{stem}-0000{k}-of-00002.{ending}"
        save(part, folder / name)
        places |= dict.fromkeys(part, name)
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def write(folder: Path) -> None:
    """All formats; the network is `tests.helpers.zoo:Net` throughout."""
    for name, content in SAVED.items():
        torch.save(content(), folder / name)
    torch.save(network().state_dict(), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(network().state_dict(), folder / "plain.safetensors")
    for name in ("hub", "sharded", "sharded_bin", "other_config", "timm"):
        (folder / name).mkdir()
    HubNet(width=4).save_pretrained(folder / "hub")
    safetensors.torch.save_file(network().state_dict(), folder / "hub" / "model.safetensors")
    shards(folder / "sharded", "safetensors")
    shards(folder / "sharded_bin", "bin")
    torch.save(network().state_dict(), folder / "other_config" / "weights.pth")
    (folder / "other_config" / "config.json").write_text('{"lr": 0.1, "width": 7}')
    timm = {"architecture": "net", "pretrained_cfg": {"mean": [0.13], "std": [0.31], "input_size": [1, 8, 8]}}
    (folder / "timm" / "config.json").write_text(json.dumps(timm))
    safetensors.torch.save_file(network().state_dict(), folder / "timm" / "model.safetensors")


def ordered(state: dict[str, Tensor]) -> collections.OrderedDict[str, Tensor]:
    return collections.OrderedDict(state)
