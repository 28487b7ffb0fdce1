"""Paths on the command line -> networks, with what their loading changed and refused."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flatprobe.utils.grouping import grouped
from flatprobe.utils.references import resolve

if TYPE_CHECKING:
    from torch import nn


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Options of the commands that load networks.

    Parameters
    ----------
    model: str
        The architecture of checkpoints that hold weights only, as package.module:name or path/to/file.py:name, a
        function or class that returns the network. Modules in the current folder are found. An argument named path
        is the checkpoint's path, for several architectures in one call.
    model_arg: list[str]
        An argument of --model, such as width=64. The value is JSON, or else text. Repeat the option for several.
    key: str
        The entry of a checkpoint that holds the weights, such as ema or model.state_dict, where several fit.
    output: str
        The entry of a network's output with the logits, where it returns several: a name, or an index.
    device: str
        Device of the networks, such as cuda or cuda:1. The default is the CPU.
    """

    model: str | None = None
    model_arg: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    key: str | None = None
    output: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class LoadedNetwork:
    """A checkpoint that was loaded, or the reason why it was not.

    Args:
        name: short name, different from the names of the others.
        path: file or folder of the checkpoint.
        network: network in eval mode, None if it was refused.
        refusal: reason of the refusal, None if there is none.
        said: sentences on what was found and changed to load it.
        normalisation: mean and std of the pixels, where the checkpoint's folder has them.
        size: height and width of the images, where the checkpoint's folder has them.
        checkpoint_hash: SHA-256 of the weights' files.
    """

    name: str
    path: Path
    network: "nn.Module | None" = None
    refusal: str | None = None
    said: tuple[str, ...] = ()
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    size: tuple[int, int] | None = None
    checkpoint_hash: str | None = None


def load_networks(paths: Sequence[Path], options: NetworkOptions) -> list[LoadedNetwork]:
    """The networks of these files and folders; one that cannot be loaded among several becomes a refusal.

    Folders are searched for checkpoints. The order is that of the paths, and natural within a folder, as in a list of
    files that a shell has sorted. `--model` and `--key` are for the checkpoints that do not know their architecture.

    Raises:
        ValueError: if `--model` or `--device` is wrong, a checkpoint is given twice, or none can be loaded.
    """
    from flatprobe.models.folders import find_checkpoints, names_of
    from flatprobe.utils.devices import as_device
    from flatprobe.utils.natural import natural

    if options.device is not None:
        as_device(options.device)
    if [*map(str, paths)] == sorted(map(str, paths)):
        paths = sorted(paths, key=natural)
    model = architecture(options)
    found = [checkpoint for path in paths for checkpoint in find_checkpoints(path)]
    loaded = [_load(name, path, model, options) for name, path in names_of(found).items()]
    if all(one.network is None for one in loaded):
        told = grouped([(one.name, str(one.refusal)) for one in loaded], "checkpoints")
        msg = "\n".join(told) if len(loaded) > 1 else str(loaded[0].refusal)
        raise ValueError(msg)
    return loaded


def _load(name: str, path: Path, model: object, options: NetworkOptions) -> LoadedNetwork:
    from flatprobe.models.checkpoints import knows_architecture, read_checkpoint
    from flatprobe.models.preprocessing import preprocessing
    from flatprobe.utils.atomic import digest_of

    try:
        asked = preprocessing(path if path.is_dir() else path.parent)
        known = knows_architecture(path)
        network, said, files = read_checkpoint(
            path,
            None if known else model,
            None if known else options.key,
            device=options.device,
            option="--model",
            reference=options.model,
        )
        return LoadedNetwork(name, path, network, None, said, asked.normalisation, asked.size, digest_of(files))
    except (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError) as error:
        return LoadedNetwork(name, path, refusal=str(error) or type(error).__name__)


def tell(loaded: Sequence[LoadedNetwork]) -> None:
    """Print on stderr, a line per sentence, what loading found and changed, and what was refused."""
    refused = [(one.name, f"not loaded: {one.refusal}") for one in loaded if one.refusal is not None]
    said = [(one.name, "; ".join(one.said)) for one in loaded if one.refusal is None and one.said]
    for line in grouped([*refused, *said], "checkpoints"):
        sys.stderr.write(f"{line}\n")


def architecture(options: NetworkOptions) -> Any:
    """The architecture of `--model` and `--model-arg`: a module, or a function if its arguments are not all known.

    Raises:
        ValueError: if the reference does not lead to a torch.nn.Module.
    """
    from flatprobe.models.architectures import architecture as build
    from flatprobe.models.architectures import needs_config

    arguments = arguments_of(options.model_arg)
    if options.model is None:
        if arguments:
            msg = f"--model-arg must come with --model, got {options.model_arg[0]!r} alone. Name the architecture too."
            raise ValueError(msg)
        return None
    found = resolve(options.model, "--model")
    if not callable(found):
        msg = (
            f"--model must name a function, a class or a module, got {options.model!r}, which is an object of type "
            f"{type(found).__name__}. Name a function that returns the network."
        )
        raise ValueError(msg)
    given = partial(found, **arguments) if arguments else found
    return given if needs_config(given) else build(given, None, "--model", options.model)[0]


def arguments_of(words: Sequence[str]) -> dict[str, Any]:
    """The arguments of `name=value` words, with JSON values, or else text.

    Raises:
        ValueError: if a word has no `=`, or a name comes twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or not name.isidentifier() or name in found:
            msg = f"--model-arg must be name=value with different names, got {word!r}. Write --model-arg width=64."
            raise ValueError(msg)
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text
    return found
