"""Paths on the command line -> networks, with what their loading changed and refused."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flatprobe.utils.references import call, resolve

if TYPE_CHECKING:
    from torch import nn


@Parameter(name="*")
@dataclass(frozen=True)
class NetworkOptions:
    """Options of the commands that load networks.

    Parameters
    ----------
    model: str
        The architecture of checkpoints that hold weights only, as package.module:name or path/to/file.py:name, a
        function or class that returns the network. Modules in the current folder are found.
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
    """The networks of these files and folders, in order; one that cannot be loaded becomes a refusal.

    Raises:
        ValueError: if `--model` or `--device` is wrong, two checkpoints have one name, or no checkpoint is there.
    """
    from flatprobe.models.checkpoints import load_checkpoint

    module = architecture(options)
    loaded: list[LoadedNetwork] = []
    for name, path in names_of(paths).items():
        try:
            network = load_checkpoint(path, module, device=options.device)
        except (ValueError, TypeError, OSError, ImportError) as error:
            loaded.append(LoadedNetwork(name, path, refusal=str(error)))
        else:
            loaded.append(LoadedNetwork(name, path, network))
    return loaded


def architecture(options: NetworkOptions) -> "nn.Module | None":
    """The network of `--model` and `--model-arg`, untrained.

    Raises:
        ValueError: if the reference does not lead to a torch.nn.Module.
    """
    from torch import nn

    arguments = arguments_of(options.model_arg)
    if options.model is None:
        if arguments:
            msg = f"--model-arg must come with --model, got {options.model_arg[0]!r} alone. Name the architecture too."
            raise ValueError(msg)
        return None
    found = resolve(options.model, "--model")
    made = found if isinstance(found, nn.Module) else call(options.model, "--model", arguments)
    if not isinstance(made, nn.Module):
        msg = (
            f"--model must name a function that returns a torch.nn.Module, got {options.model!r}, which returned a "
            f"{type(made).__name__}. Return the network itself."
        )
        raise ValueError(msg)
    return made


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


def names_of(runs: Sequence[Path]) -> dict[str, Path]:
    """A name per run: the folder's or file's name, with the parent folder's name in front where two are equal.

    Raises:
        ValueError: if two have the same name.
    """
    from flatprobe.utils.results import printable

    short = [printable(_name(path)) for path in runs]
    names: dict[str, Path] = {}
    for path, own in zip(runs, short, strict=True):
        name = own if short.count(own) == 1 else f"{printable(path.absolute().parent.name)}/{own}"
        if name in names:
            msg = (
                f"runs must have different names, got {names[name]} and {path}, which are both {name!r}. "
                "Give each run once, or rename one of the files or folders."
            )
            raise ValueError(msg)
        names[name] = path
    return names


def _name(path: Path) -> str:
    own = path.absolute()
    return own.name if path.is_dir() else own.stem
