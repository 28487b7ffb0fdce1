"""Matching of the tensor names of a checkpoint and a network."""

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

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


def match_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state under the names of the network.

    Segments of wrappers are ignored, and so is a prefix that all names of one side have and the other side lacks.
    Counters without effect in eval mode are left out, or taken from the network.

    Args:
        state: names and values.
        own: names and values of the network.

    >>> import torch
    >>> found = {"net.module.weight": torch.zeros(1), "net.n_averaged": torch.ones(1)}
    >>> list(match_names(found, {"weight": torch.ones(1)}))
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
    """Names without wrappers, or unchanged if two would become equal."""
    given = list(names)
    plain = [".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in given]
    for pattern, earlier in _EARLIER:
        plain = [re.sub(pattern, earlier, name) for name in plain]
    return plain if len({*plain}) == len(given) else given


def _prefixes(found: Sequence[str], names: Sequence[str]) -> tuple[str, str]:
    """The prefix of one side's names that the other side lacks, in both directions."""
    weights, others = ([name for name in side if name.rpartition(".")[2] not in _IDLE] for side in (found, names))
    if {*weights} & {*others}:
        return "", ""
    for long, short, swapped in ((weights, others, False), (others, weights, True)):
        for ending in short[:20]:  # several, since a tied weight may be stored under another name
            for name in long:
                prefix = name.removesuffix(ending)
                if name.endswith(f".{ending}") and all(each.startswith(prefix) for each in long):
                    return ("", prefix) if swapped else (prefix, "")
    return "", ""
