"""Any checkpoint -> a model in eval mode."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from flatprobe.class_names import set_class_names
from flatprobe.copies import structural_copy
from flatprobe.files import read_state, write_tensors
from flatprobe.models import build
from flatprobe.ownership import mark
from flatprobe.rng import global_states_kept
from flatprobe.weights import unprefixed

CONFIG = "config.json"
_CLASSIFIERS = {
    "ForImageClassification": "AutoModelForImageClassification",
    "ForSequenceClassification": "AutoModelForSequenceClassification",
}
_LISTED = 5


def load_checkpoint(path: str | Path, model: object = None, *, which: str = "last") -> nn.Module:
    """The network of a checkpoint, in eval mode; no file that is read can execute code.

    Args:
        path: a safetensors file; a state_dict that `torch.save` wrote (.pt, .pth, .bin), also one level deep
            under `"state_dict"`, `"model_state_dict"` or `"model"`; a flatprobe run folder; or a folder that
            transformers' `save_pretrained` wrote, of an image or sequence classifier, where transformers is installed.
        model: the architecture. It is never changed: a copy receives the weights, in the model's dtype and on
            its device. None (default): the network is rebuilt from the recipe in the run folder's
            config.json, or in the one beside the file, in the checkpoint's dtype.
        which: of a run folder, `"last"` (default: what training ended with) or `"best"`, the weights with the
            lowest validation loss, or training loss where there was no validation.

    Returns:
        A new module in eval mode, with the names of its classes as `class_names` where a run's data had them.

    Raises:
        FileNotFoundError: if there is no such file.
        TypeError: if `model` is not a module.

        ImportError: for a transformers folder where transformers is not installed.

    A `ValueError` tells of a file that is damaged, holds no state_dict, holds code, or is one of another
    network, and of an architecture that is not known.
    """
    path = Path(path)
    if model is not None and not isinstance(model, nn.Module):
        msg = f"model is {type(model).__name__}; expected a torch.nn.Module whose copy receives the weights"
        raise TypeError(msg)
    if not path.exists():
        msg = f"there is no checkpoint {path}; expected a .safetensors, .pt, .pth or .bin file, or a run folder"
        raise FileNotFoundError(msg)
    if path.is_dir() and "model_type" in _config(path / CONFIG):
        network = _pretrained(path)
        if model is not None:  # through transformers too, since the file's names are not always the module's
            state, network = network.state_dict(), structural_copy(model)
            load_weights(network, state, str(path))
        return network.eval()
    file = _in_folder(path, which) if path.is_dir() else path
    state = read_state(file)
    network = _rebuilt(file).to(_dtype(state)) if model is None else structural_copy(model)
    load_weights(network, state, str(file))
    data = _trained_on(file)
    source = data.get("source")
    set_class_names(network, source.get("class_names") if isinstance(source, dict) else None)
    if isinstance(data.get("fingerprint"), str):
        mark(network, data["fingerprint"])
    return network.eval()


def save_checkpoint(module: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the module's parameters and buffers to a safetensors file, atomically.

    Args:
        module: any module; it is not changed. Tied weights are stored once under each of their names.
        path: the file; replaced if it exists.
        metadata: words for the file's header.
    """
    write_tensors(module.state_dict(), Path(path), metadata)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a state_dict into the network, in place, after comparing all names and shapes.

    Args:
        network: receives the values.
        state: names and values. A prefix that `nn.DataParallel` or `torch.compile` put before every name is
            removed; a name that is missing takes the value of a name that it is tied to, since many writers
            drop duplicates.
        source: what the error calls the state.

    Raises:
        ValueError: if names or shapes differ, with the first few of each kind.
    """
    own = network.state_dict(keep_vars=True)
    found = unprefixed(state, list(own))
    tied = {id(value): found[name] for name, value in own.items() if name in found}
    found |= {name: tied[id(value)] for name, value in own.items() if name not in found and id(value) in tied}
    differences = {
        "missing": [name for name in own if name not in found],
        "unexpected": [name for name in found if name not in own],
        "of another shape": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(value.shape)}"
            for name, value in own.items()
            if name in found and found[name].shape != value.shape
        ],
    }
    if any(differences.values()):
        told = "; ".join(f"{len(names)} {kind}: {_few(names)}" for kind, names in differences.items() if names)
        msg = (
            f"the checkpoint {source} is of another network than this {type(network).__name__}: {told}; "
            "expected the same names and shapes: give the architecture that it was saved from as model="
        )
        raise ValueError(msg)
    network.load_state_dict(found)


def _in_folder(folder: Path, which: str) -> Path:
    """The file of weights in a run folder.

    Raises:
        FileNotFoundError: if it is not one.
        ValueError: if `which` is unknown.
    """
    if which not in {"last", "best"}:
        msg = f"which is {which!r}; expected 'last' or 'best'"
        raise ValueError(msg)
    file = folder / f"{which}.safetensors"
    if not file.is_file():
        msg = (
            f"the folder {folder} holds no {file.name}; expected a flatprobe run folder (config.json, "
            "last.safetensors, best.safetensors), or the checkpoint file itself with its architecture as "
            "model="
        )
        raise FileNotFoundError(msg)
    return file


def _rebuilt(file: Path) -> nn.Module:
    """The untrained network of the config.json beside the file.

    Raises:
        ValueError: if there is no recipe there.
    """
    network = _config(file.with_name(CONFIG)).get("network")
    recipe = network.get("recipe") if isinstance(network, dict) else None
    if not isinstance(recipe, dict):
        msg = (
            f"the architecture of the checkpoint {file} is not known: the file holds weights only, and no "
            f"{CONFIG} beside it holds the recipe of a flatprobe network; give the architecture as model="
        )
        raise ValueError(msg)
    return build(recipe)


def _trained_on(file: Path) -> dict[str, Any]:
    """What the config.json beside the file says of the training data; nothing where there is none."""
    try:
        data = _config(file.with_name(CONFIG))["data"]
    except (KeyError, TypeError, ValueError):  # another program's, which the weights do not depend on
        return {}
    return data if isinstance(data, dict) else {}


def _config(file: Path) -> dict[str, Any]:
    """What a config.json holds; nothing where there is none.

    Raises:
        ValueError: if it is not JSON.
    """
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{file} is not valid JSON ({error}); give the architecture as model="
        raise ValueError(msg) from error
    return content if isinstance(content, dict) else {}


def _pretrained(folder: Path) -> nn.Module:
    """The classifier of a transformers folder, from its safetensors alone, in the checkpoint's dtype.

    Raises:
        ImportError: if transformers is not installed.
        ValueError: if it is no classifier, cannot be read, or lacks weights (which transformers would draw at random).
    """
    names = _config(folder / CONFIG).get("architectures") or ["network without an architecture"]
    kind = next((auto for ending, auto in _CLASSIFIERS.items() if names[0].endswith(ending)), None)
    if kind is None:
        msg = f"{folder} holds a {names[0]}; expected one of ...{', ...'.join(_CLASSIFIERS)}, which return logits"
        raise ValueError(msg)
    try:
        import transformers
    except ImportError as error:
        msg = f"{folder} was written by transformers, which is not installed: pip install transformers"
        raise ImportError(msg) from error
    with global_states_kept():
        try:
            network, told = getattr(transformers, kind).from_pretrained(
                folder,
                dtype="auto",
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
            msg = f"transformers cannot load {folder} ({error}); expected what save_pretrained wrote, with safetensors"
            raise ValueError(msg) from error
    if lacking := sorted(told["missing_keys"]):
        msg = (
            f"{folder} lacks {len(lacking)} weights of its {names[0]}: {_few(lacking)}; expected all of them: it may "
            "be the base of a network whose classifier was never trained"
        )
        raise ValueError(msg)
    classifier: nn.Module = network
    return classifier


def _dtype(state: Mapping[str, Tensor]) -> torch.dtype:
    """The narrowest floating dtype that holds all of the state's floating tensors exactly."""
    dtypes = [value.dtype for value in state.values() if value.is_floating_point()]
    return functools.reduce(torch.promote_types, dtypes) if dtypes else torch.get_default_dtype()


def _few(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
