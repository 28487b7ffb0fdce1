"""Untrained networks from what the caller gives as architecture: a module, a class, or a function."""

import functools
import inspect
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from flatprobe.network.copies import copy_with_places
from flatprobe.network.modules import check_shapes, warn_of_unregistered
from flatprobe.utils.references import invoke, resolve
from flatprobe.utils.rng import keep_global_states
from flatprobe.utils.tensor_files import read_json

CONFIG = "config.json"


def architecture(
    model: Any, path: Path | None, option: str = "model", reference: str | None = None
) -> tuple[nn.Module, list[str]]:
    """A network for the weights of a checkpoint, and what was said about it.

    Args:
        model: a module, of which a copy is returned, or a class or function that returns one, or the name of one of
            these, as in `resolve`. A `functools.partial` gives arguments. The arguments that a class of
            `PyTorchModelHubMixin` takes, and those that any other function requires, are read from the config.json in
            the folder. A required argument `path` is the path of the checkpoint.
        path: file or folder of the checkpoint; None without one.
        option: name of the argument or option in errors.
        reference: name of the model in errors; None for its module and name.

    Raises:
        TypeError: if the model is neither a module nor callable.
        ValueError: if the function fails, misses an argument, or returns something else.
    """
    if isinstance(model, str):
        model, reference = resolve(model, option), model
    if isinstance(model, nn.Module):
        copied = copy_with_places(model)
        warn_of_unregistered(
            type(model).__name__,
            copied.unregistered,
            "checkpoints do not hold them, and they stay as they are in model",
        )
        return copied.module, []
    if not callable(model):
        msg = (
            f"{option} is {type(model).__name__}; expected a torch.nn.Module whose copy receives the weights, or a "
            "class or function that returns one"
        )
        raise TypeError(msg)
    function: Any = model.func if isinstance(model, functools.partial) else model
    given = model.keywords if isinstance(model, functools.partial) else {}
    own = getattr(function, "__qualname__", type(function).__name__)
    name = reference or f"{getattr(function, '__module__', '')}:{own}"
    folder = path if path is None or path.is_dir() else path.parent
    config = {} if folder is None else config_of(folder)
    if path is not None and "path" in required(function) and "path" not in given:
        given = {**given, "path": path}
    with keep_global_states():
        if hasattr(function, "_hub_mixin_config") and config:
            arguments = {"pretrained_model_name_or_path": str(folder), "local_files_only": True, **given}
            network, filled = invoke(function.from_pretrained, name, option, arguments), sorted(config)
        else:
            read = {key: config[key] for key in required(function) if key in config and key not in given}
            network, filled = invoke(function, name, option, {**given, **read}), sorted(read)
    if not isinstance(network, nn.Module):
        msg = (
            f"{option} must be a function or class that returns a torch.nn.Module, got {name}, which returned a "
            f"{type(network).__name__}. Return the network itself."
        )
        raise ValueError(msg)
    check_shapes(network)
    return network, [f"{', '.join(filled)} read from {CONFIG}"] if filled else []


def config_of(folder: Path) -> dict[str, Any]:
    """The folder's config.json; empty without one, or with one of another form, which is another program's."""
    with suppress(ValueError):
        return read_json(folder / CONFIG, "correct it") if (folder / CONFIG).is_file() else {}
    return {}


def needs_config(model: Any) -> bool:
    """True if arguments of a function or class are read from a folder's config.json."""
    if isinstance(model, nn.Module):
        return False
    function: Any = model.func if isinstance(model, functools.partial) else model
    given = model.keywords if isinstance(model, functools.partial) else {}
    return hasattr(function, "_hub_mixin_config") or not {*required(function)} <= {*given}


def required(function: Any) -> list[str]:
    """Names of the parameters without a default."""
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(function).parameters
    except (ValueError, TypeError):  # a builtin without a signature
        return []
    variadic = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    return [
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind not in variadic
    ]
