"""Endpoints of an interpolation: networks, or their state_dicts, to the weights that a risk takes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flatprobe.network.inspection import agree
from flatprobe.network.modules import BATCH_NORMS, check_finite, unwrapped
from flatprobe.network.network import Network
from flatprobe.network.weights import Weights, unprefixed
from flatprobe.risk.empirical import EmpiricalRisk, RiskFunction
from flatprobe.utils.rng import keep_global_states

Endpoint = nn.Module | Mapping[str, Tensor]

# What becomes of buffers that are no statistics and differ between the endpoints.
POLICIES = (None, "interpolate", "keep")

_FEW = 8  # samples that an endpoint is looked at with


def weights_of_endpoints(
    endpoints: Sequence[Endpoint] | Any, risk: RiskFunction, batch_norm: str | None, buffers: str | None
) -> list[Weights]:
    """The endpoints' weights, and those of their buffers that are combined like weights.

    Buffers that differ but do not act on the logits (counters, caches) stay the risk's own. So do BatchNorm's
    statistics, unless they are interpolated. Statistics of other normalisation layers and all other buffers that act
    need a policy.

    Args:
        endpoints: modules in eval mode, or state_dicts.
        risk: whose network says which names and shapes there are.
        batch_norm: the policy for statistics, as in `interpolate`.
        buffers: the policy for other buffers, as in `interpolate`.

    Returns:
        A dictionary an endpoint.

    Raises:
        TypeError: if they are no list.
        ValueError: for an endpoint that does not fit, or is another function than the risk's model at its weights, and
            for buffers that differ and have no policy.
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
    averaged = _averaged(states, risk, batch_norm, buffers) if isinstance(risk, EmpiricalRisk) else set()
    for place, state in enumerate(states):
        missing = sorted(averaged - state.keys())
        if missing:
            msg = f"endpoint {place} lacks the buffers {missing[:5]}, which are to be combined; expected all of them"
            raise ValueError(msg)
    names = (*risk.center, *sorted(averaged))
    return [{name: state[name] for name in names} for state in states]


def _check_function(endpoint: nn.Module, state: Weights, place: int, risk: EmpiricalRisk) -> None:
    """The risk's network at the endpoint's weights and buffers is the endpoint, on a few samples.

    Raises:
        ValueError: if their logits differ, or the endpoint cannot be run on these.
    """
    inputs = next(iter(risk.data.batches(min(_FEW, len(risk.data))))).inputs
    try:
        own = Network(endpoint)
        own.lay_out(last=False)  # whether it can run in another one is not known
        with torch.no_grad(), keep_global_states():
            logits = own(own.prepare(inputs)).to(risk.network.device)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        msg = (
            f"endpoint {place} cannot be run on the risk's data ({error}); expected a network that returns logits of "
            "them, or, where its weights alone are meant, its state_dict()"
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
            "forward, activations, hooks and attributes, or, where its weights alone are meant, its state_dict()"
        )
        raise ValueError(msg)


def statistics_of(risk: EmpiricalRisk) -> set[str]:
    """The names of running statistics: the floating buffers of every layer with one that is called running_*."""
    return {
        f"{name}.{buffer}" if name else buffer
        for name, layer in risk.network.module.named_modules()
        if any(own.startswith("running_") for own, _ in layer.named_buffers(recurse=False))
        for buffer, value in layer.named_buffers(recurse=False)
        if value.is_floating_point()
    }


def _averaged(states: Sequence[Weights], risk: EmpiricalRisk, batch_norm: str | None, buffers: str | None) -> set[str]:
    """The names of the buffers to combine like weights.

    Raises:
        ValueError: for buffers that differ and act, and have no policy.
    """
    statistics = statistics_of(risk)
    own = {name for name in statistics if isinstance(_holder(risk, name), BATCH_NORMS)}
    averaged = {name for name in statistics if name in risk.buffers} if batch_norm == "interpolate" else set()
    for place, state in enumerate(states):
        for name in _acting(state, risk, averaged | own):
            layer = f"{name!r} of endpoint {place}, of a layer {type(_holder(risk, name)).__name__},"
            if name in statistics:
                msg = (
                    f"the running statistic {layer} differs from the risk's model, and batch_norm is {batch_norm!r}; "
                    'expected batch_norm="interpolate", which combines them like the weights: only those of '
                    "torch.nn.BatchNorm can be recalibrated"
                )
                raise ValueError(msg)
            between = state[name].is_floating_point() and not _singular(name, risk)
            if buffers is None or (buffers == "interpolate" and not between):
                policies = ('"interpolate" (combine them like the weights) or ' if between else "") + '"keep"'
                msg = (
                    f"the buffer {layer} differs from the risk's model and acts on its logits; expected "
                    f"buffers={policies} (that of the risk's model), or endpoints whose parametrisation or pruning was "
                    "made permanent, by torch.nn.utils.parametrize.remove_parametrizations, remove_spectral_norm or "
                    "prune.remove"
                )
                raise ValueError(msg)
            if buffers == "interpolate":
                averaged.add(name)
    return averaged


def _singular(name: str, risk: EmpiricalRisk) -> bool:
    """One of the two singular vectors that a spectral normalisation keeps; either sign is right, so none between."""
    return name.endswith(("_u", "_v")) and {f"{name[:-1]}u", f"{name[:-1]}v"} <= risk.buffers.keys()


def _acting(state: Weights, risk: EmpiricalRisk, known: set[str]) -> Iterator[str]:
    """The buffers beside the known ones that differ from the risk's and change the logits of its first batch."""
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
    """The endpoint's weights and buffers, checked against the risk's network.

    Parts of names that `torch.compile`, `nn.DataParallel` or `AveragedModel` insert are left out. A weight that the
    risk's network has under several names may be given under any of them.

    Returns:
        Weights and buffers, in the dtype, on the device and in the layout of the risk's own.

    Raises:
        TypeError: if it is neither a module nor a state_dict.
        ValueError: if it is in training mode, not finite, or of another network (names, shapes, weights that are tied
            there and differ here).
    """
    given = _tensors(endpoint, place)
    expected = {**risk.center, **(risk.buffers if isinstance(risk, EmpiricalRisk) else {})}
    state = {name: value.detach() for name, value in unprefixed(given, list(expected)).items()}
    state = _untied(state, _aliases(risk), place)
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
    """The tensors of an endpoint by name.

    Raises:
        TypeError: if it is neither a module nor a dictionary of tensors.
        ValueError: if it is in training mode.
    """
    if isinstance(endpoint, nn.Module):
        module = unwrapped(endpoint)
        training = next((name or "it" for name, layer in module.named_modules() if layer.training), None)
        if training is not None:
            msg = f"endpoint {place} is in training mode ({training}); expected eval mode: call .eval() first"
            raise ValueError(msg)
        endpoint = {**dict(module.named_buffers()), **module.state_dict()}  # some buffers are left out of the latter
    if not isinstance(endpoint, Mapping):
        kind = f"a {type(endpoint).__name__}"
        what = f"{endpoint!r}, {kind}" if isinstance(endpoint, str) else kind
        inner = isinstance(getattr(endpoint, "model", None), nn.Module)
        cure = "its .model" if inner else "fp.load_checkpoint(path, model) reads one from a file"
        msg = f"endpoint {place} is {what}; expected a module in eval mode or a state_dict: {cure}"
        raise TypeError(msg)
    tensors = {name: value for name, value in endpoint.items() if not str(name).endswith("_extra_state")}
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            msg = (
                f"the entry {name!r} of endpoint {place} is a {type(value).__name__}; expected a state_dict, whose "
                "entries are tensors: of a checkpoint, the one that holds the weights"
            )
            raise TypeError(msg)
    return tensors


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
