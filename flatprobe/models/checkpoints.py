"""Loading of checkpoints as models in eval mode, and saving."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flatprobe.models import build, layer_count
from flatprobe.models.matching import match_names
from flatprobe.models.pretrained import load_pretrained
from flatprobe.network.class_names import set_class_names
from flatprobe.network.copies import copy_with_places
from flatprobe.network.modules import warn_of_unregistered
from flatprobe.network.trained_on import mark_training_data
from flatprobe.utils.devices import as_device
from flatprobe.utils.tensor_files import read_json, read_state, write_tensors

CONFIG = "config.json"
_HOW = "give the architecture as model= (--model package.module:factory on the command line)"
_LISTED = 5


def load_checkpoint(
    path: str | Path, model: object = None, *, which: str = "last", device: str | torch.device | None = None
) -> nn.Module:
    """The network of a checkpoint, in eval mode; no file that is read executes code.

    Args:
        path: one of these:

            - a safetensors file, or the `.index.json` of several;
            - a file of `torch.save` with a state_dict, itself or under a key such as `"state_dict"`, `"model"` or
              `"net"` (where an averaged copy is beside the network, the network is read);
            - a flatprobe run folder, or a folder with `model.safetensors` or its index;
            - a folder of transformers' `save_pretrained`, with an image or sequence classifier.

        model: the architecture. It is never changed: a copy receives the weights, in the model's dtype and on its
            device. None (default) rebuilds the network from the recipe in the config.json of the run folder or beside
            the file, in the checkpoint's dtype.
        which: for a run folder, `"last"` (default), the weights at the end of training, or `"best"`, the weights with
            the lowest validation loss, or training loss without validation.
        device: the device of the network, such as `"cuda"`. None (default) leaves it on the device of `model`, or else
            on the CPU, where files are read.

    Returns:
        A new module in eval mode, with its class names as `class_names` where the data of the run had them. A warning
        names unregistered parts of the model (layers in a plain list), which keep their weights.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if `model` is not a module.
        ImportError: for a transformers folder if transformers is not installed.

    It raises `ValueError` for a file that is damaged, holds no state_dict, holds code or belongs to another network,
    for an unknown architecture, and for a device that is not there.
    """
    path, place = Path(path), None if device is None else as_device(device)
    if model is not None and not isinstance(model, nn.Module):
        msg = f"model is {type(model).__name__}; expected a torch.nn.Module whose copy receives the weights"
        raise TypeError(msg)
    if not path.exists():
        msg = f"there is no checkpoint {path}; expected a .safetensors, .pt, .pth or .bin file, or a run folder"
        raise FileNotFoundError(msg)
    config = _config(path / CONFIG) if path.is_dir() else {}
    if "model_type" in config:
        network = load_pretrained(path, config)
        if model is not None:  # transformers reads the file, whose names are not always those of the module
            state, network = network.state_dict(), _copy(model)
            load_weights(network, state, str(path))
        return network.to(place).eval()
    file = _in_folder(path, which) if path.is_dir() else path
    state = read_state(file)
    network = _rebuild(file, state).to(_dtype(state)) if model is None else _copy(model)
    load_weights(network, state, str(file))
    data = _training_data(file)
    source = data.get("source")
    set_class_names(network, source.get("class_names") if isinstance(source, dict) else None)
    if isinstance(data.get("fingerprint"), str):
        mark_training_data(network, data["fingerprint"])
    return network.to(place).eval()


def _copy(model: nn.Module) -> nn.Module:
    copied = copy_with_places(model)
    warn_of_unregistered(
        type(model).__name__, copied.unregistered, "checkpoints do not hold them, and they stay as they are in model"
    )
    return copied.module


def save_checkpoint(module: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the module's parameters and buffers to a safetensors file, atomically.

    Args:
        module: any module; it is not changed. A tied weight is stored once under each of its names.
        path: the file; replaced if it exists.
        metadata: strings for the header of the file.
    """
    write_tensors(module.state_dict(), Path(path), metadata)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a state_dict into the network, after a check of names, shapes and kinds.

    Args:
        network: the network that receives the values.
        state: names and values, matched to the network by `flatprobe.models.matching`. A missing name takes the value
            of a name to which it is tied, since many writers drop duplicates.
        source: the state's name in an error.

    Raises:
        ValueError: if names, shapes or kinds differ.
    """
    network.load_state_dict(_check_state(network, state, source), strict=False)


def _check_state(network: nn.Module, state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The state under all names of the network.

    Raises:
        ValueError: if the state belongs to another network.
    """
    own = {name: value for name, value in network.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}
    found = match_names(state, own)
    tied = {id(value): found[name] for name, value in own.items() if name in found}
    found |= {name: tied[id(value)] for name, value in own.items() if name not in found and id(value) in tied}
    both = [(name, found[name], value) for name, value in own.items() if name in found]
    differences = {
        "missing": [name for name in own if name not in found],
        "unexpected": [name for name in found if name not in own],
        "of another shape": [
            f"{name} {tuple(there.shape)} instead of {tuple(value.shape)}"
            for name, there, value in both
            if there.shape != value.shape
        ],
        "of another kind of number": [
            f"{name} {there.dtype} instead of {value.dtype}"
            for name, there, value in both
            if _kind(there) != _kind(value) and not (value.is_complex() and there.is_floating_point())
        ],
    }
    differences["tied to another name here, and of other values"] = [
        name for name, there, value in both if not (tied[id(value)] is there or torch.equal(tied[id(value)], there))
    ]
    if any(differences.values()):
        told = "; ".join(f"{len(names)} {kind}: {_few(names)}" for kind, names in differences.items() if names)
        msg = (
            f"the checkpoint {source} is of another network than this {type(network).__name__}: {told}; "
            f"expected the same names, shapes and kinds of numbers: {_HOW} that it was saved from"
        )
        raise ValueError(msg)
    return found


def _kind(value: Tensor) -> str:
    """Kind of number: complex, floating or integer."""
    return "complex" if value.is_complex() else "floating" if value.is_floating_point() else "integer"


def _in_folder(folder: Path, which: str) -> Path:
    """The file of weights in a run folder or a folder of weights.

    Raises:
        FileNotFoundError: if the folder is neither.
        ValueError: if `which` is unknown.
    """
    if which not in {"last", "best"}:
        msg = f"which is {which!r}; expected 'last' or 'best'"
        raise ValueError(msg)
    names = [f"{which}.safetensors", "model.safetensors", "model.safetensors.index.json"]
    for name in names if which == "last" else names[:1]:
        if (folder / name).is_file():
            return folder / name
    msg = (
        f"the folder {folder} holds no {names[0]}; expected a flatprobe run folder (config.json, "
        "last.safetensors, best.safetensors), a folder with model.safetensors, or the checkpoint file itself with its "
        "architecture as model="
    )
    raise FileNotFoundError(msg)


def _rebuild(file: Path, state: Mapping[str, Tensor]) -> nn.Module:
    """The untrained network of the config.json beside the file.

    The network is built without weights first, since a recipe of a larger network could fill the memory.

    Raises:
        ValueError: if there is no recipe, or the recipe of another network.
    """
    network = _config(file.with_name(CONFIG)).get("network")
    recipe = network.get("recipe") if isinstance(network, dict) else None
    if not isinstance(recipe, dict):
        msg = (
            f"the architecture of the checkpoint {file} is not known: the file holds weights only, and no "
            f"{CONFIG} beside it holds the recipe of a flatprobe network; {_HOW}"
        )
        raise ValueError(msg)
    if (layers := layer_count(recipe)) > len(state):
        msg = f"the recipe beside {file} is of {layers} layers, and the file holds {len(state)} tensors; {_HOW}"
        raise ValueError(msg)
    with torch.device("meta"):
        _check_state(build(recipe), state, str(file))
    return build(recipe)


def _training_data(file: Path) -> dict[str, Any]:
    """The training data in the config.json beside the file; empty without one."""
    try:
        data = _config(file.with_name(CONFIG))["data"]
    except (KeyError, TypeError, ValueError):  # the config.json of another program, on which the weights do not depend
        return {}
    return data if isinstance(data, dict) else {}


def _config(file: Path) -> dict[str, Any]:
    """Content of a config.json; empty without the file."""
    return read_json(file, _HOW) if file.is_file() else {}


def _dtype(state: Mapping[str, Tensor]) -> torch.dtype:
    """The narrowest dtype that holds all floating tensors of the state exactly."""
    dtypes = [value.dtype for value in state.values() if value.is_floating_point()]
    return functools.reduce(torch.promote_types, dtypes) if dtypes else torch.get_default_dtype()


def _few(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
