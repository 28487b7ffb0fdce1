"""Matching of the tensor names of a checkpoint and a network."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from flatprobe.utils.contents import rank
from flatprobe.utils.natural import listed

# Segments of names that come from wrappers: nn.DataParallel and AveragedModel, torch.compile, activation checkpointing,
# FSDP and DeepSpeed.
_WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module"}
# Last segments of names on which no network in eval mode depends: counters of BatchNorm, AveragedModel and profilers.
_IDLE = {"num_batches_tracked", "n_averaged", "total_ops", "total_params", "_extra_state"}
# Names of parametrizations, and the earlier names in torch.nn.utils.weight_norm and spectral_norm.
_EARLIER = (
    (r"parametrizations\.(\w+)\.original0$", r"\1_g"),
    (r"parametrizations\.(\w+)\.original1$", r"\1_v"),
    (r"parametrizations\.(\w+)\.original$", r"\1_orig"),
    (r"parametrizations\.(\w+)\.0\._([uv])$", r"\1_\2"),
)
_MOST = 200  # prefixes that are tried


class Match(NamedTuple):
    """The tensors of a checkpoint under the names of a network.

    Args:
        tensors: name of the network, or for unexpected ones of the checkpoint -> value.
        whole: True if each of the network's tensors was found in its shape.
        removed: prefix that the checkpoint's names have and the network's lack.
        added: prefix that the network's names have and the checkpoint's lack.
        left_out: names of the checkpoint under other prefixes than the network's.
        wrappers: segments of wrappers that only the checkpoint's names have.
        kept: names of the network that may keep the network's own values, and do.
    """

    tensors: dict[str, Tensor]
    whole: bool
    removed: str = ""
    added: str = ""
    left_out: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """Sentences on what was changed to make the names fit."""
        said = [f"prefix {wrapper}. removed from the names" for wrapper in self.wrappers]
        said += [f"prefix {self.removed} removed from the names"] if self.removed else []
        said += [f"prefix {self.added} added to the names"] if self.added else []
        if self.left_out:
            said.append(f"{len(self.left_out)} tensors of other parts left out: {listed(self.left_out)}")
        said += [f"{listed(self.kept)} kept from the model"] if self.kept else []
        return said


def match_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor], optional: Collection[str] = ()) -> Match:
    """The state under the names of the network.

    Segments of wrappers are ignored. A prefix of the names is removed, or added, if all of the network's tensors are
    found then. Tensors under other prefixes, such as those of a loss or a metric, are left out if they are the smaller
    part. Counters without effect in eval mode are left out, or taken from the network.

    Args:
        state: names and values.
        own: names and values of the network. One value under several names is tied: one of the names is enough.
        optional: names of the network that keep its values where the state lacks them.

    >>> import torch
    >>> found = {"net.module.weight": torch.zeros(1), "net.n_averaged": torch.ones(1)}
    >>> match = match_names(found, {"weight": torch.ones(1)})
    >>> list(match.tensors), match.words()
    (['weight'], ['prefix module. removed from the names', 'prefix net. removed from the names'])
    """
    names = dict(zip(_plain(own), own, strict=True))
    found = dict(zip(_plain(state), state.values(), strict=True))
    needed = _needed(names, own, optional)
    removed, added, fits = _prefixes(found, needed, {name: own[place] for name, place in names.items()})
    tensors: dict[str, Tensor] = {}
    left_out: list[str] = []
    for name, value in found.items():
        place = added + name.removeprefix(removed)
        if name.startswith(removed) and place in names:
            tensors[names[place]] = value
        elif name.rpartition(".")[2] in _IDLE:
            continue
        elif fits and not name.startswith(removed):
            left_out.append(name)
        else:  # of another network
            tensors[place] = value
    own_idle = {name: value for name, value in own.items() if name.rpartition(".")[2] in _IDLE}
    kept = {name: own[name] for name in optional if name not in tensors}
    whole = fits and all(
        any(names[name] in tensors and tensors[names[name]].shape == own[names[name]].shape for name in group)
        for group in needed
    )
    wrappers = [part for part in _WRAPPERS if _has(state, part) and not _has(own, part)]
    return Match(
        own_idle | kept | tensors, whole, removed, added, tuple(left_out), tuple(sorted(wrappers)), tuple(kept)
    )


def _plain(names: Iterable[str]) -> list[str]:
    """Names without wrappers, or unchanged if two would become equal."""
    given = list(names)
    plain = [".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in given]
    for pattern, earlier in _EARLIER:
        plain = [re.sub(pattern, earlier, name) for name in plain]
    return plain if len({*plain}) == len(given) else given


def _needed(names: Mapping[str, str], own: Mapping[str, Tensor], optional: Collection[str]) -> list[list[str]]:
    """The plain names that the checkpoint must have, in groups of tied ones."""
    groups: dict[int, list[str]] = {}
    for plain, name in names.items():
        if plain.rpartition(".")[2] not in _IDLE and name not in optional:
            groups.setdefault(id(own[name]), []).append(plain)
    return list(groups.values())


def _prefixes(
    found: Mapping[str, Tensor], needed: Sequence[Sequence[str]], own: Mapping[str, Tensor]
) -> tuple[str, str, bool]:
    """The prefix to remove from the checkpoint's names, the one to add, and whether they make the names fit.

    Raises:
        ValueError: if several parts of the checkpoint fit equally well.
    """
    common = _common([name for group in needed for name in group])
    weights = [name for name in found if name.rpartition(".")[2] not in _IDLE]
    half = sum(found[name].numel() for name in weights) / 2
    several: dict[tuple[str, str], float] = {}  # the parts that fit, and their places among the customary names
    guess, most = ("", ""), 0
    for prefix in _candidates(weights, needed, common):
        pair = _cancel(prefix, common)
        inside = [name for group in needed if (name := _first(found, group, prefix, common)) is not None]
        if len(inside) > most or (len(inside) == most and pair == ("", "")):
            guess, most = pair, len(inside)
        if len(inside) < len(needed):
            continue
        if pair == ("", "") or all(name.startswith(pair[0]) for name in weights):
            return (*pair, True)
        tensors = {name: found[prefix + name.removeprefix(common)] for name in inside}
        alike = all(value.shape == own[name].shape for name, value in tensors.items())
        if alike and sum(value.numel() for value in tensors.values()) >= half:
            several[pair] = rank(pair[0].rstrip("."))
    best = [pair for pair, place in several.items() if place == min(several.values())]
    if len(best) > 1:
        parts = ", ".join(removed.rstrip(".") for removed, _ in best)
        msg = f"several parts that fit the network: {parts}. Choose one with key= (--key)."
        raise ValueError(msg)
    return (*best[0], True) if best else (*guess, False)


def _candidates(weights: Sequence[str], needed: Sequence[Sequence[str]], common: str) -> list[str]:
    """Prefixes under which the checkpoint has one of the network's first names."""
    prefixes: dict[str, None] = {}
    for group in needed[:20]:
        for name in group:
            ending = name.removeprefix(common)
            prefixes |= {
                each.removesuffix(ending): None for each in weights if each == ending or each.endswith(f".{ending}")
            }
    return sorted(prefixes, key=lambda prefix: prefix != common)[:_MOST]


def _first(found: Mapping[str, Tensor], group: Sequence[str], prefix: str, common: str) -> str | None:
    """The first of several tied names that the checkpoint has under the prefix."""
    return next((name for name in group if prefix + name.removeprefix(common) in found), None)


def _common(names: Sequence[str]) -> str:
    """The longest beginning of all names that ends with a dot."""
    parts = [name.split(".")[:-1] for name in names]
    shared: list[str] = []
    for level in zip(*parts, strict=False):
        if len({*level}) > 1:
            break
        shared.append(level[0])
    return "".join(f"{part}." for part in shared)


def _cancel(removed: str, added: str) -> tuple[str, str]:
    """Two prefixes without the segments that both end with."""
    one, other = removed.split(".")[:-1], added.split(".")[:-1]
    while one and other and one[-1] == other[-1]:
        one.pop()
        other.pop()
    return "".join(f"{part}." for part in one), "".join(f"{part}." for part in other)


def _has(names: Iterable[str], part: str) -> bool:
    return any(part in name.split(".") for name in names)
