"""Weights of the endpoints of an interpolation, from networks or state_dicts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flatprobe.network.inspection import agree
from flatprobe.network.modules import BATCH_NORMS, check_finite, unwrap
from flatprobe.network.network import Network
from flatprobe.network.weights import Weights, strip_prefixes
from flatprobe.risk.empirical import EmpiricalRisk, RiskFunction
from flatprobe.utils.rng import keep_global_states

Endpoint = nn.Module | Mapping[str, Tensor]

# Policies for buffers that differ between the endpoints and are not running statistics.
POLICIES = (None, "interpolate", "keep")

_FEW = 8  # Samples of the check of an endpoint.


def weights_of_endpoints(
    endpoints: Sequence[Endpoint] | Any, risk: RiskFunction, batch_norm: str | None, buffers: str | None
) -> list[Weights]:
    """Weights of the endpoints, and the buffers that are combined like weights.

    Buffers that do not affect the logits (counters, caches) and BatchNorm statistics keep the values of the risk,
    unless the statistics are interpolated. Statistics of other normalization layers, and other buffers that affect the
    logits and differ, need a policy.

    Args:
        endpoints: modules in eval mode, or state_dicts.
        risk: the risk, whose network defines names and shapes.
        batch_norm: the policy for statistics, as in `interpolate`.
        buffers: the policy for other buffers, as in `interpolate`.

    Returns:
        One dictionary per endpoint.

    Raises:
        TypeError: unless the endpoints are a list of modules or state_dicts.
        ValueError: for an endpoint with other names or shapes, in training mode, or not finite.
        ValueError: for a module that computes another function than the risk's network at its weights.
        ValueError: for buffers that differ, affect the logits, and have no policy.
    """
    if isinstance(endpoints, nn.Module | Mapping | str) or not isinstance(endpoints, Sequence):
        msg = (
            f"the endpoints are a {type(endpoints).__name__}; expected a list of two or more networks, modules in eval "
            "mode or state_dicts: [first, second]"
        )
        raise TypeError(msg)
    states = [_state(endpoint, place, risk) for place, endpoint in enumerate(endpoints)]
    if isinstance(risk, EmpiricalRisk):
        for place, (endpoint, state) in enumerate(zip(endpoints, states, strict=True)):
            if isinstance(endpoint, nn.Module) and not isinstance(endpoint, torch.jit.ScriptModule):
                _check_function(endpoint, state, place, risk)
    averaged = _averaged_buffers(states, risk, batch_norm, buffers) if isinstance(risk, EmpiricalRisk) else set()
    for place, state in enumerate(states):
        missing = sorted(averaged - state.keys())
        if missing:
            msg = f"endpoint {place} lacks the buffers {missing[:5]}, which are to be combined; expected all of them"
            raise ValueError(msg)
    names = (*risk.center, *sorted(averaged))
    return [{name: state[name] for name in names} for state in states]


def _check_function(endpoint: nn.Module, state: Weights, place: int, risk: EmpiricalRisk) -> None:
    """Check that the network at the weights of an endpoint is the endpoint.

    Raises:
        ValueError: if the logits differ, or the endpoint cannot run on the samples.
    """
    inputs = next(iter(risk.data.batches(min(_FEW, len(risk.data))))).inputs
    try:
        own = Network(endpoint, risk.network.read)
        own.lay_out(last=False)  # Without an inspection, only the default layout is safe.
        with torch.no_grad(), keep_global_states():
            logits = own(own.prepare(inputs)).to(risk.network.device)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        msg = (
            f"endpoint {place} cannot be run on the risk's data ({error}); expected a network that returns their "
            "logits, or, if its weights alone are meant, its state_dict()"
        )
        raise ValueError(msg) from error
    with torch.no_grad():
        expected = risk.network(risk.network.prepare(inputs), state)
        risk.network.rest()
    if logits.shape != expected.shape or not agree(logits, expected, {*own.precisions, *risk.network.precisions}):
        size = float((logits - expected).abs().max()) if logits.shape == expected.shape else float("inf")
        msg = (
            f"endpoint {place} is another function than the risk's model: its logits of {len(expected)} samples differ "
            f"by up to {size:.3g} from those of {risk.network.name} with its weights and buffers; expected the same "
            "forward, activations, hooks and attributes, or, if its weights alone are meant, its state_dict()"
        )
        raise ValueError(msg)


def statistics_of(risk: EmpiricalRisk) -> set[str]:
    """Floating buffers of every layer that has a buffer named running_*."""
    return {
        f"{name}.{buffer}" if name else buffer
        for name, layer in risk.network.module.named_modules()
        if any(own.startswith("running_") for own, _ in layer.named_buffers(recurse=False))
        for buffer, value in layer.named_buffers(recurse=False)
        if value.is_floating_point()
    }


def _averaged_buffers(
    states: Sequence[Weights], risk: EmpiricalRisk, batch_norm: str | None, buffers: str | None
) -> set[str]:
    """Names of the buffers to combine like weights.

    Raises:
        ValueError: for buffers that differ, affect the logits, and have no policy.
    """
    statistics = statistics_of(risk)
    own = {name for name in statistics if isinstance(_holder(risk, name), BATCH_NORMS)}
    averaged = {name for name in statistics if name in risk.buffers} if batch_norm == "interpolate" else set()
    for place, state in enumerate(states):
        for name in _acting_buffers(state, risk, averaged | own):
            layer = f"{name!r} of endpoint {place}, of a layer {type(_holder(risk, name)).__name__},"
            if name in statistics:
                msg = (
                    f"the running statistic {layer} differs from the risk's model, and batch_norm is {batch_norm!r}; "
                    'expected batch_norm="interpolate", which combines statistics like weights: only those of '
                    "torch.nn.BatchNorm can be recalibrated"
                )
                raise ValueError(msg)
            between = state[name].is_floating_point() and not _is_singular_vector(name, risk)
            if buffers is None or (buffers == "interpolate" and not between):
                policies = '"interpolate" (combine them like weights) or "keep"' if between else '"keep"'
                msg = (
                    f"the buffer {layer} differs from the risk's model and acts on its logits; expected "
                    f"buffers={policies} (that of the risk's model), or endpoints with permanent parametrizations and "
                    "pruning: call torch.nn.utils.parametrize.remove_parametrizations, remove_spectral_norm or "
                    "prune.remove"
                )
                raise ValueError(msg)
            if buffers == "interpolate":
                averaged.add(name)
    return averaged


def _is_singular_vector(name: str, risk: EmpiricalRisk) -> bool:
    """True for a singular vector of spectral normalization, of arbitrary sign."""
    return name.endswith(("_u", "_v")) and {f"{name[:-1]}u", f"{name[:-1]}v"} <= risk.buffers.keys()


def _acting_buffers(state: Weights, risk: EmpiricalRisk, known: set[str]) -> Iterator[str]:
    """Names of the buffers outside `known` that differ from the risk's buffers and change its logits."""
    found = [
        name
        for name, value in risk.buffers.items()
        if name in state and name not in known and not torch.equal(state[name], value)
    ]
    if not found:
        return
    inputs = risk.network.prepare(next(iter(risk.data.batches(risk.batch_size))).inputs)

    def logits(names: Sequence[str]) -> Tensor:
        with torch.no_grad():
            return risk.network(inputs, {name: state[name] for name in (*risk.center, *names)})

    before = logits([])
    for name in found:
        if not torch.equal(logits([name]), before):
            yield name


def _holder(risk: EmpiricalRisk, name: str) -> nn.Module:
    return risk.network.module.get_submodule(name.rpartition(".")[0])


def _state(endpoint: object, place: int, risk: RiskFunction) -> Weights:
    """Weights and buffers of an endpoint, checked against the risk's network.

    Prefixes of `torch.compile`, `nn.DataParallel` and `AveragedModel` are removed. A tied weight may have any of its
    names.

    Returns:
        Weights and buffers in the dtype, on the device and in the layout of those of the risk.

    Raises:
        TypeError: for anything but a module or a state_dict.
        ValueError: for an endpoint in training mode, or not finite.
        ValueError: for missing or unexpected names, other shapes, or tied weights that differ.
    """
    given = _tensors(endpoint, place)
    expected = {**risk.center, **(risk.buffers if isinstance(risk, EmpiricalRisk) else {})}
    state = {name: value.detach() for name, value in strip_prefixes(given, list(expected)).items()}
    state = _untie(state, _aliases(risk), place)
    missing = [name for name in risk.center if name not in state]
    unexpected = [name for name in state if name not in expected]
    if missing or unexpected:
        msg = (
            f"endpoint {place} is another network: missing {missing[:5]}, unexpected {unexpected[:5]}; expected the "
            "names of the risk's model"
        )
        raise ValueError(msg)
    for name, value in state.items():
        if value.shape != expected[name].shape:
            msg = (
                f"{name!r} has shape {tuple(value.shape)} in endpoint {place} and {tuple(expected[name].shape)} "
                "in the risk's model; expected equal shapes"
            )
            raise ValueError(msg)
    check_finite(state, f"endpoint {place}")
    return {name: torch.empty_like(expected[name]).copy_(value) for name, value in state.items()}


def _tensors(endpoint: object, place: int) -> Mapping[str, Tensor]:
    """Tensors of an endpoint by name.

    Raises:
        TypeError: for anything but a module or a dictionary of tensors.
        ValueError: for a module in training mode.
    """
    if isinstance(endpoint, nn.Module):
        module = unwrap(endpoint)
        training = next((name or "it" for name, layer in module.named_modules() if layer.training), None)
        if training is not None:
            msg = f"endpoint {place} is in training mode ({training}); expected eval mode: call .eval() first"
            raise ValueError(msg)
        endpoint = {**dict(module.named_buffers()), **module.state_dict()}  # A state_dict lacks some buffers.
    if not isinstance(endpoint, Mapping):
        kind = f"a {type(endpoint).__name__}"
        what = f"{endpoint!r}, {kind}" if isinstance(endpoint, str) else kind
        inner = isinstance(getattr(endpoint, "model", None), nn.Module)
        fix = "its .model" if inner else "fp.load_checkpoint(path, model) reads one from a file"
        msg = f"endpoint {place} is {what}; expected a module in eval mode or a state_dict: {fix}"
        raise TypeError(msg)
    tensors = {name: value for name, value in endpoint.items() if not str(name).endswith("_extra_state")}
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            msg = (
                f"the entry {name!r} of endpoint {place} is a {type(value).__name__}; expected a state_dict, whose "
                "entries are tensors: take the entry of the checkpoint that holds the weights"
            )
            raise TypeError(msg)
    return tensors


def _aliases(risk: RiskFunction) -> dict[str, str]:
    """Further names of tied tensors of the risk's network -> the name in its weights."""
    if not isinstance(risk, EmpiricalRisk):
        return {}
    state = risk.network.module.state_dict(keep_vars=True)
    own = {id(value): name for name, value in state.items() if name in risk.center or name in risk.buffers}
    return {name: own[id(value)] for name, value in state.items() if id(value) in own and own[id(value)] != name}


def _untie(state: Weights, aliases: Mapping[str, str], place: int) -> Weights:
    """The state with one name per tied tensor.

    Raises:
        ValueError: if tensors that are tied in the risk's model differ.
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
