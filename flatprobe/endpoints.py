"""Endpoints of an interpolation: networks, or their state_dicts, to the weights that a risk takes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from flatprobe.modules import BATCH_NORMS, check_finite
from flatprobe.risk import EmpiricalRisk, RiskFunction
from flatprobe.weights import Weights, unprefixed

Endpoint = nn.Module | Mapping[str, Tensor]


def weights_of_endpoint(endpoint: Endpoint, place: int, risk: RiskFunction, averaged: set[str]) -> Weights:
    """The endpoint's weights, checked against the risk's network.

    A prefix that `torch.compile` or `nn.DataParallel` put before every name is removed. A weight that the risk's
    network has under several names may be given under any of them.

    Args:
        endpoint: a module in eval mode, or a state_dict.
        place: its number, for the errors.
        risk: whose network says which names and shapes there are.
        averaged: the buffers that are wanted too: BatchNorm's statistics, where they are combined like weights.

    Returns:
        The weights and the averaged buffers, in the dtype, on the device and in the layout of the risk's own.

    Raises:
        ValueError: if it is in training mode, not finite, or of another network (names, shapes, other buffers, weights
            that are tied there and differ here).
    """
    if isinstance(endpoint, nn.Module):
        training = next((name or "it" for name, layer in endpoint.named_modules() if layer.training), None)
        if training is not None:
            msg = f"endpoint {place} is in training mode ({training}); expected eval mode: call .eval() first"
            raise ValueError(msg)
        endpoint = endpoint.state_dict()
    buffers = risk.buffers if isinstance(risk, EmpiricalRisk) else {}
    expected = {**risk.center, **buffers}
    state = {name: value.detach() for name, value in unprefixed(endpoint, list(expected)).items()}
    state = _untied(state, _aliases(risk), place)
    missing = [name for name in (*risk.center, *sorted(averaged)) if name not in state]
    unexpected = [name for name in state if name not in expected]
    if missing or unexpected:
        msg = (
            f"endpoint {place} is another network: missing {missing[:5]}, unexpected {unexpected[:5]}; expected the "
            "names of the risk's model"
        )
        raise ValueError(msg)
    for name in state.keys() & expected.keys():
        if state[name].shape != expected[name].shape:
            msg = (
                f"{name!r} has shape {tuple(state[name].shape)} in endpoint {place} and {tuple(expected[name].shape)} "
                "in the risk's model; "
                "expected equal shapes"
            )
            raise ValueError(msg)
    check_finite(state, f"endpoint {place}")
    for name in buffers.keys() & state.keys() - statistics_of(risk):
        if not torch.equal(state[name].to(buffers[name]), buffers[name]) and not name.endswith("num_batches_tracked"):
            msg = (
                f"the buffer {name!r} of endpoint {place} differs from the risk's model; expected the same: it is no "
                "BatchNorm statistic"
            )
            raise ValueError(msg)
    return {
        name: torch.empty_like(value).copy_(state[name])
        for name, value in expected.items()
        if name in risk.center or name in averaged
    }


def statistics_of(risk: RiskFunction) -> set[str]:
    """The names of BatchNorm's running means and variances."""
    if not isinstance(risk, EmpiricalRisk):
        return set()
    layers = risk.network.module.named_modules()
    return {
        f"{name}.{buffer}"
        for name, layer in layers
        if isinstance(layer, BATCH_NORMS)
        for buffer in ("running_mean", "running_var")
    }


def _aliases(risk: RiskFunction) -> dict[str, str]:
    """Each further name of a tensor that the risk's network has under several -> the name that its weights have."""
    if not isinstance(risk, EmpiricalRisk):
        return {}
    state = risk.network.module.state_dict(keep_vars=True)
    own = {id(value): name for name, value in state.items() if name in risk.center or name in risk.buffers}
    return {name: own[id(value)] for name, value in state.items() if id(value) in own and own[id(value)] != name}


def _untied(state: Weights, aliases: Mapping[str, str], place: int) -> Weights:
    """The state with tied tensors under one name each.

    Raises:
        ValueError: where tensors that are tied in the risk's model differ.
    """
    for name in aliases.keys() & state.keys():
        value = state.pop(name)
        if not torch.equal(state.setdefault(aliases[name], value), value):
            msg = (
                f"{name!r} and {aliases[name]!r} differ in endpoint {place}; expected the same values: in the risk's "
                "model they are one tensor"
            )
            raise ValueError(msg)
    return state
