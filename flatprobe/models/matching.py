"""The names of a checkpoint's tensors -> those of a network, however the one or the other was wrapped."""

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

# Segments that wrappers put into names: nn.DataParallel and AveragedModel, torch.compile, activation checkpointing,
# FSDP and DeepSpeed.
_WRAPPERS = {"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module"}
# Names, by their last segment, that no network in eval mode depends on: counters of BatchNorm and of AveragedModel, and
# what profilers leave.
_IDLE = {"num_batches_tracked", "n_averaged", "total_ops", "total_params", "_extra_state"}
# Of parametrizations, as torch.nn.utils.weight_norm and spectral_norm named them before.
_EARLIER = (
    (r"parametrizations\.(\w+)\.original0$", r"\1_g"),
    (r"parametrizations\.(\w+)\.original1$", r"\1_v"),
    (r"parametrizations\.(\w+)\.original$", r"\1_orig"),
    (r"parametrizations\.(\w+)\.0\._([uv])$", r"\1_\2"),
)


def matched(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state under the network's names; what finds no name there keeps its own.

    Segments of wrappers do not count, wherever they are; nor does a prefix that all names of one side have and those of
    the other lack. Counters that do not act in eval mode are left out, or taken from the network.

    Args:
        state: names and values.
        own: the network's.

    >>> import torch
    >>> list(matched({"net.module.weight": torch.zeros(1), "net.n_averaged": torch.ones(1)}, {"weight": torch.ones(1)}))
    ['weight']
    """
    names = _plain(own)
    found = dict(zip(_plain(state), state.values(), strict=True))
    prefix, missing = _prefixes(list(found), names)
    lookup = dict(zip(names, own, strict=True))
    result: dict[str, Tensor] = {}
    for name, value in found.items():
        place = missing + name.removeprefix(prefix)
        if place in lookup:
            result[lookup[place]] = value
        elif name.rpartition(".")[2] not in _IDLE:
            result[place] = value
    return {name: value for name, value in own.items() if name.rpartition(".")[2] in _IDLE} | result


def _plain(names: Iterable[str]) -> list[str]:
    """The names without the segments of wrappers, as earlier versions of torch had them; as given where two agree."""
    given = list(names)
    plain = [".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in given]
    for pattern, earlier in _EARLIER:
        plain = [re.sub(pattern, earlier, name) for name in plain]
    return plain if len({*plain}) == len(given) else given


def _prefixes(found: Sequence[str], names: Sequence[str]) -> tuple[str, str]:
    """The prefix of all found names that the others lack, and that of all others that the found ones lack."""
    weights, others = ([name for name in side if name.rpartition(".")[2] not in _IDLE] for side in (found, names))
    if {*weights} & {*others}:
        return "", ""
    for long, short, swapped in ((weights, others, False), (others, weights, True)):
        for ending in short[:20]:  # more than one, since a tied weight may be stored under its other name only
            for name in long:
                prefix = name.removesuffix(ending)
                if name.endswith(f".{ending}") and all(each.startswith(prefix) for each in long):
                    return ("", prefix) if swapped else (prefix, "")
    return "", ""
