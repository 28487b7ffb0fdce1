"""What every probe promises, as assertions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from flatprobe.data import LabelledData
from flatprobe.data.inputs import map_tensors

BATCH_SIZES = (1, 7, 64, None)


def assert_model_untouched(model: nn.Module, probe: Callable[[], Any]) -> None:
    """Weights, buffers, modes, requires_grad, gradients and the global random states are the same after the probe."""
    for index, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(index))
    next(iter(model.parameters())).requires_grad_(requires_grad=False)
    before = _snapshot(model)
    identities = {name: id(value) for name, value in model.named_parameters()}
    probe()
    after = _snapshot(model)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert _equal(value, after[name]), f"{name} changed"
    assert identities == {name: id(value) for name, value in model.named_parameters()}


def _snapshot(model: nn.Module) -> dict[str, Any]:
    state: dict[str, Any] = {f"state {name}": value.clone() for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state[f"requires_grad {name}"] = parameter.requires_grad
        state[f"grad {name}"] = None if parameter.grad is None else parameter.grad.clone()
        state[f"strides {name}"] = parameter.stride()
    for name, layer in model.named_modules():
        state[f"mode {name}"] = layer.training
        state[f"attributes {name}"] = sorted(layer.__dict__)
        state[f"hooks {name}"] = len(layer._forward_hooks) + len(layer._forward_pre_hooks)
    state["torch rng"] = torch.get_rng_state()
    state["numpy rng"] = str(np.random.get_state())
    state["grad mode"] = torch.is_grad_enabled()
    state["threads"] = torch.get_num_threads()
    return state


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    return bool(first == second)


def assert_batch_size_invariant(values: Callable[[LabelledData, int], torch.Tensor], data: LabelledData) -> None:
    """The same numbers to 1e-9 in float64 for batch sizes 1, 7, 64 and n, in memory and streamed."""
    reference = values(data, len(data))
    scale = reference[reference.isfinite()].abs().max().clamp_min(1)
    for size in (1, 7, 64):
        torch.testing.assert_close(values(data, size), reference, rtol=0, atol=1e-9 * float(scale))
    torch.testing.assert_close(values(streamed(data), 7), reference, rtol=0, atol=1e-9 * float(scale))


def assert_seed_determines(values: Callable[[int], torch.Tensor]) -> None:
    """The same seed gives the same bits, another seed other values."""
    first = values(3)
    torch.manual_seed(12345)
    assert torch.equal(first, values(3))
    assert not torch.equal(first, values(4))


class _Items(Dataset[tuple[Any, Any]]):
    def __init__(self, data: LabelledData) -> None:
        self.inputs, self.labels = data.inputs, data.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return map_tensors(lambda part: part[index], self.inputs), self.labels[index]


def streamed(data: LabelledData) -> LabelledData:
    """The same data, read item by item from a map-style data set."""
    return LabelledData.from_dataset(_Items(data), classes=data.classes)


def rescaled_relu(network: nn.Sequential, factor: float, units: slice = slice(0, None, 2)) -> nn.Sequential:
    """The same function: incoming weights and bias of units multiplied, outgoing divided (first two linear layers)."""
    import copy

    result = copy.deepcopy(network)
    first, second = [layer for layer in result if isinstance(layer, nn.Linear)][:2]
    with torch.no_grad():
        first.weight[units] *= factor
        first.bias[units] *= factor
        second.weight[:, units] /= factor
    return result


def assert_same_state(first: nn.Module, second: nn.Module) -> None:
    one, other = first.state_dict(), second.state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
