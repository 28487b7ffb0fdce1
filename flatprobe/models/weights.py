"""Weights of a checkpoint for a network: the state_dict that is meant, under the network's names."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from flatprobe.models.differences import differences
from flatprobe.models.matching import Match, match_names
from flatprobe.models.normalised import Normalise
from flatprobe.utils.contents import Contents, check_dense, rank
from flatprobe.utils.natural import listed
from flatprobe.utils.tensor_files import State

HOW = "give the architecture as model= (--model package.module:name or path/to/file.py:name on the command line)"
SIZES = "The names agree and the sizes do not: give the widths that it has (--model-arg width=64 on the command line)."


def choose(contents: Contents, key: str | None, file: Path, network: nn.Module | None) -> tuple[State, list[str]]:
    """The state_dict of a file that is meant, and what was said about the choice.

    Raises:
        ValueError: if the key names none, or several fit.
    """
    states = contents.states
    if key is not None:
        return _under(states, key, file)
    fits = [name for name, state in states.items() if network is not None and _fits(network, state, file)]
    pool = fits or list(states)
    first = [name for name in pool if rank(name) == min(map(rank, pool))]
    if len(first) > 1:
        msg = (
            f"the checkpoint {file} holds several state_dicts: {', '.join(pool)}; choose one with key= "
            f"(--key {pool[0]} on the command line)"
        )
        raise ValueError(msg)
    others = [name or "the file itself" for name in fits if name != first[0]]
    check_dense(states[first[0]], file)
    said = [f"weights read from the key {first[0]!r}"] if first[0] else []
    if others:
        said.append(f"{listed(others)} would fit too (key=, or --key)")
    return states[first[0]], said


def _fits(network: nn.Module, state: State, file: Path) -> bool:
    try:
        check_dense(state, file)
    except ValueError:
        return False
    return _match(network, state, file).whole


def _under(states: Mapping[str, State], key: str, file: Path) -> tuple[State, list[str]]:
    """The state_dict under a key, or the tensors whose names begin with it.

    Raises:
        ValueError: if there is none, or several.
    """
    named = [name for name in states if name == key] or [name for name in states if f".{name}.".find(f".{key}.") >= 0]
    parts = {name: {k: v for k, v in state.items() if k.startswith(f"{key}.")} for name, state in states.items()}
    inside = [name for name, part in parts.items() if part]
    if len(named) == 1 or (not named and len(inside) == 1):
        chosen = states[named[0]] if named else parts[inside[0]]
        check_dense(chosen, file)
        return chosen, [f"weights read from the key {key!r}"]
    firsts = {name.split(".")[0] for state in states.values() for name in state if "." in name}
    msg = (
        f"key must be one of the checkpoint {file}, got {key!r}. It holds the state_dicts "
        f"{listed([name or '(the file itself)' for name in states])}, whose names begin with {listed(sorted(firsts))}."
    )
    raise ValueError(msg)


def load_weights(network: nn.Module, state: Mapping[str, Tensor], source: str) -> list[str]:
    """Copy a state_dict into the network, after a check of names, shapes and kinds.

    Args:
        network: the network that receives the values.
        state: names and values, matched to the network by `flatprobe.models.matching`. A missing name takes the value
            of a name to which it is tied, since many writers drop duplicates.
        source: the state's name in an error.

    Returns:
        Sentences on what was changed to make the names fit.

    Raises:
        ValueError: if names, shapes or kinds differ.
    """
    found, match = check_state(network, state, source)
    network.load_state_dict(found, strict=False)
    return match.words()


def _match(network: nn.Module, state: Mapping[str, Tensor], source: object = "") -> Match:
    """The state under the names of the network; `Normalise` may keep its own values.

    Raises:
        ValueError: if several parts of the state fit.
    """
    optional = [
        f"{place}.{name}" if place else name
        for place, layer in network.named_modules()
        if isinstance(layer, Normalise)
        for name in ("mean", "std")
    ]
    try:
        return match_names(state, _own(network), optional)
    except ValueError as error:
        msg = f"the checkpoint {source} has {error}"
        raise ValueError(msg) from error


def _own(network: nn.Module) -> dict[str, Tensor]:
    state = network.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def check_state(network: nn.Module, state: Mapping[str, Tensor], source: str) -> tuple[dict[str, Tensor], Match]:
    """The state under all names of the network.

    Raises:
        ValueError: if the state belongs to another network.
    """
    own, match = _own(network), _match(network, state, source)
    found = dict(match.tensors)
    tied = {id(value): found[name] for name, value in own.items() if name in found}
    found |= {name: tied[id(value)] for name, value in own.items() if name not in found and id(value) in tied}
    if told := differences(found, own):
        sizes = f" {SIZES}" if {*found} == {*own} else ""
        msg = (
            f"the checkpoint {source} is of another network than this {type(network).__name__}: {told}; "
            f"expected the same names, shapes and kinds of numbers: {HOW} that it was saved from.{sizes}"
        )
        raise ValueError(msg)
    return found, match
