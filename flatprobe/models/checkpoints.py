"""Loading of checkpoints as models in eval mode, and saving."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flatprobe.models import build, layer_count
from flatprobe.models.architectures import CONFIG, architecture, config_of
from flatprobe.models.folders import WHOLE, weight_files
from flatprobe.models.pretrained import dtype_of, is_readable, load_pretrained
from flatprobe.models.weights import HOW, check_state, choose, load_weights
from flatprobe.network.class_names import set_class_names
from flatprobe.network.modules import check_finite
from flatprobe.network.trained_on import mark_training_data
from flatprobe.utils.contents import read_contents
from flatprobe.utils.devices import as_device
from flatprobe.utils.natural import listed
from flatprobe.utils.tensor_files import is_index, read_json, shards, write_tensors


class Checkpoint(NamedTuple):
    """A loaded checkpoint.

    Args:
        network: network in eval mode.
        said: sentences on what was found and changed.
        files: the files of weights.
    """

    network: nn.Module
    said: tuple[str, ...]
    files: tuple[Path, ...]


def load_checkpoint(
    path: str | Path,
    model: object = None,
    key: str | None = None,
    *,
    which: str = "last",
    device: str | torch.device | None = None,
) -> nn.Module:
    """The network of a checkpoint, in eval mode; no file that is read executes code.

    Args:
        path: one of these:

            - a safetensors file, or the `.index.json` of several files of weights;
            - a file of `torch.save` with a state_dict, itself or under a key such as `"state_dict"`, `"model"` or
              `"net"`, or a Lightning `.ckpt`; other objects in the file, such as an `argparse.Namespace`, are left out;
            - a flatprobe run folder, or a folder with `model.safetensors`, `pytorch_model.bin`, the index of several
              files, or one file of weights;
            - a folder of transformers' `save_pretrained`, with a classifier of images, sequences or tokens, or a causal
              language model;
            - a folder of `PyTorchModelHubMixin`, with its class as `model`.

        model: the architecture: a module, or a class or function that returns one, or the name of one of these, such as
            `"net.py:Net"` or `"package.module:build"`. A module is never changed: a copy
            receives the weights, in the module's dtype and on its device. A class of `PyTorchModelHubMixin` is called
            with the arguments in the folder's config.json, another one with those that it requires, as far as
            config.json has them. A required argument `path` is the path of the checkpoint, so that one function can
            serve several networks. None (default) rebuilds the network from the recipe in the config.json of the run
            folder or beside the file, in the checkpoint's dtype.
        key: the entry of the file that holds the weights, such as `"ema"` or `"model.state_dict"`, or a first part of
            the tensors' names, such as `"teacher"`. None (default) takes the one that fits the model, and the network
            before an averaged copy of it.
        which: for a run folder, `"last"` (default), the weights at the end of training, or `"best"`, the weights with
            the lowest validation loss, or training loss without validation.
        device: the device of the network, such as `"cuda"`. None (default) leaves it on the device of `model`, or else
            on the CPU, where files are read.

    Returns:
        A new module in eval mode. Its attribute `loaded` has a sentence for each thing that was found and changed: the
        key, prefixes that were removed from the names or added, tensors that were left out. Its `class_names` are those
        of the run's data, where these had them. A warning names unregistered parts of the model (layers in a plain
        list), which keep their weights.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if `model` is neither a module nor a class or function.
        ImportError: for a transformers folder if transformers is not installed.

    It raises `ValueError` for a file that is damaged, holds no state_dict, holds code, holds NaN or belongs to another
    network, for an unknown architecture, and for a device that is not there.
    """
    network, said, _ = read_checkpoint(path, model, key, which=which, device=device)
    if isinstance(getattr(network, "loaded", ()), tuple):
        network.loaded = said  # type: ignore[assignment]  # a module takes attributes of any kind
    return network


def read_checkpoint(
    path: str | Path,
    model: Any = None,
    key: str | None = None,
    *,
    which: str = "last",
    device: str | torch.device | None = None,
    option: str = "model",
    reference: str | None = None,
) -> Checkpoint:
    """The network of a checkpoint with what was found and changed; the arguments are those of `load_checkpoint`.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    path, place = Path(path), None if device is None else as_device(device)
    if not path.exists():
        msg = f"there is no checkpoint {path}; expected a .safetensors, .pt, .pth, .ckpt or .bin file, or a folder"
        raise FileNotFoundError(msg)
    blank, said = (None, []) if model is None else architecture(model, path, option, reference)
    config = _config(path / CONFIG) if path.is_dir() else {}
    if "model_type" in config and (blank is None or is_readable(config)):
        network = load_pretrained(path, config)
        if blank is not None:  # transformers reads the file, whose names are not always those of the module
            said += load_weights(blank, network.state_dict(), str(path))
        files = weight_files(path)
        files += [shard for file in files if is_index(file) for shard in shards(file)]
        return Checkpoint(_finished(blank or network, path, place), tuple(said), tuple(files))
    file = weights_of(path, which) if path.is_dir() else path
    contents = read_contents(file)
    if blank is None:
        state, words = choose(contents, key, file, None)
        network = _rebuild(file, state).to(dtype_of(state))
    else:
        network = blank
        state, words = choose(contents, key, file, network)
    said += words + load_weights(network, state, str(file))
    if contents.beside:
        objects = [f"{where} ({name})" for where, name in contents.beside.items()]
        said.append(f"objects beside the weights left out: {listed(objects)}")
    data = _training_data(file)
    source = data.get("source")
    set_class_names(network, source.get("class_names") if isinstance(source, dict) else None)
    if isinstance(data.get("fingerprint"), str):
        mark_training_data(network, data["fingerprint"])
    return Checkpoint(_finished(network, file, place), tuple(said), tuple(contents.files))


def knows_architecture(path: Path) -> bool:
    """True if the files say which network it is: a run of flatprobe with a recipe, or a folder of transformers."""
    config = config_of(path if path.is_dir() else path.parent)
    network = config.get("network")
    recipe = isinstance(network, dict) and isinstance(network.get("recipe"), dict)
    return recipe or (path.is_dir() and "model_type" in config and is_readable(config))


def _finished(network: nn.Module, file: Path, place: torch.device | None) -> nn.Module:
    """The network in eval mode on its device, with finite weights."""
    check_finite(dict(network.named_parameters()), f"the checkpoint {file}")
    return network.to(place).eval()


def save_checkpoint(module: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the module's parameters and buffers to a safetensors file, atomically.

    Args:
        module: any module; it is not changed. A tied weight is stored once under each of its names.
        path: the file; replaced if it exists.
        metadata: strings for the header of the file.
    """
    write_tensors(module.state_dict(), Path(path), metadata)


def weights_of(folder: Path, which: str = "last") -> Path:
    """The file of weights in a run folder or a folder of weights.

    Raises:
        FileNotFoundError: if the folder is neither.
        ValueError: if `which` is unknown.
    """
    if which not in {"last", "best"}:
        msg = f"which is {which!r}; expected 'last' or 'best'"
        raise ValueError(msg)
    names = [f"{which}.safetensors", *WHOLE]
    for name in names if which == "last" else names[:1]:
        if (folder / name).is_file():
            return folder / name
    files = weight_files(folder)
    if which == "last" and len(files) == 1:
        return files[0]
    what = f"{len(files)} files of weights, {listed([file.name for file in files])}" if files else f"no {names[0]}"
    msg = (
        f"the folder {folder} holds {what}; expected a flatprobe run folder (config.json, last.safetensors, "
        "best.safetensors), a folder with model.safetensors, or the checkpoint file itself with its architecture as "
        "model="
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
            f"{CONFIG} beside it holds the recipe of a flatprobe network; {HOW}{_hint(file)}"
        )
        raise ValueError(msg)
    if (layers := layer_count(recipe)) > len(state):
        msg = f"the recipe beside {file} is of {layers} layers, and the file holds {len(state)} tensors; {HOW}"
        raise ValueError(msg)
    with torch.device("meta"):
        check_state(build(recipe), state, str(file))
    return build(recipe)


def _hint(file: Path) -> str:
    """The architecture of a timm folder, as options."""
    config = _config(file.with_name(CONFIG))
    if not isinstance(config.get("architecture"), str) or "pretrained_cfg" not in config:
        return ""
    return f"; timm calls it: --model timm:create_model --model-arg model_name={config['architecture'][:100]}"


def _training_data(file: Path) -> dict[str, Any]:
    """The training data in the config.json beside the file; empty without one."""
    try:
        data = _config(file.with_name(CONFIG))["data"]
    except (KeyError, TypeError, ValueError):  # the config.json of another program, on which the weights do not depend
        return {}
    return data if isinstance(data, dict) else {}


def _config(file: Path) -> dict[str, Any]:
    """Content of a config.json; empty without the file."""
    return read_json(file, HOW) if file.is_file() else {}
