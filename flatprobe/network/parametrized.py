"""Weights that layers compute from parameters: parametrizations and masks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from flatprobe.network.weights import Weights


def computed_weights(module: nn.Module) -> dict[str, tuple[list[str], Callable[[], Tensor]]]:
    """Computed weights: name -> names of the parameters behind it, computation.

    Covers every parametrization of `torch.nn.utils.parametrize`, and `torch.nn.utils.weight_norm`, `spectral_norm` and
    `prune`.

    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))
    >>> {name: raw for name, (raw, _) in computed_weights(layer).items()}
    {'weight': ['parametrizations.weight.original0', 'parametrizations.weight.original1']}
    """
    parameters = [name for name, _ in module.named_parameters()]
    found: dict[str, tuple[list[str], Callable[[], Tensor]]] = {}
    for prefix, layer in module.named_modules():
        start = f"{prefix}." if prefix else ""
        if is_parametrized(layer):
            for name in layer.parametrizations:
                inside = f"{start}parametrizations.{name}."
                raw = [own for own in parameters if own.startswith(inside)]
                found[start + name] = raw, lambda layer=layer, name=name: getattr(layer, name)  # type: ignore[misc]
        for hook in layer._forward_pre_hooks.values():  # noqa: SLF001 - torch has no public way to ask
            name, compute = _older(hook, layer)
            if compute is not None:
                kinds = (f"{start}{name}{suffix}" for suffix in ("_g", "_v", "_orig"))
                found[start + name] = [own for own in kinds if own in parameters], compute
    return found


def _older(hook: object, layer: nn.Module) -> tuple[str, Callable[[], Tensor] | None]:
    if isinstance(hook, WeightNorm):
        return hook.name, lambda: hook.compute_weight(layer)
    if isinstance(hook, SpectralNorm):
        return hook.name, lambda: hook.compute_weight(layer, do_power_iteration=False)
    if isinstance(hook, BasePruningMethod):
        return hook._tensor_name, lambda: hook.apply_mask(layer)  # type: ignore[no-untyped-call] # noqa: SLF001
    return "", None


def holder_of(name: str) -> str:
    """The name of the module that holds a parameter or its computed weight.

    >>> holder_of("0.weight"), holder_of("0.parametrizations.weight.original"), holder_of("weight")
    ('0', '0', '')
    """
    inside = f".{name}".find(".parametrizations.")
    return name[: max(inside - 1, 0)] if inside >= 0 else name.rpartition(".")[0]


def computes_weight(hook: object, layer: nn.Module) -> bool:
    """True for a forward pre-hook of torch that only computes a weight of the layer."""
    return _older(hook, layer)[1] is not None


def with_computed(module: nn.Module, weights: Weights) -> Weights:
    """The weights, with computed weights in place of the parameters behind them."""
    result = dict(weights)
    with torch.no_grad():
        for name, (raw, compute) in computed_weights(module).items():
            for own in raw:
                result.pop(own, None)
            result[name] = compute().detach()
    return result
