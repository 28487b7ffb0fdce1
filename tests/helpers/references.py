"""Slow, obvious float64 references: loops over samples, classes and directions."""

import copy
import math
from collections.abc import Callable

import torch
from torch import nn

from flatprobe.data import LabelledData
from flatprobe.network.weights import Weights
from flatprobe.risk.function import Risk


def loss_and_error(model: nn.Module, weights: Weights, data: LabelledData) -> tuple[float, float]:
    """Cross-entropy and error with the weights loaded into a copy, one sample at a time."""
    network = copy.deepcopy(model)
    network.load_state_dict({**network.state_dict(), **weights})
    losses, wrong = [], 0
    with torch.no_grad():
        for index in range(len(data)):
            z = network(data.inputs[index : index + 1].double())[0].tolist()
            y = int(data.labels[index])
            largest = max(z)
            losses.append(largest + math.log(sum(math.exp(value - largest) for value in z)) - z[y])
            wrong += z.index(largest) != y
    return math.fsum(losses) / len(data), wrong / len(data)


def walked_exit(increase: Callable[[float], float], level: float, step: float, max_radius: float) -> float:
    """The first of the fixed steps at which |increase| exceeds the level."""
    for index in range(1, int(max_radius / step) + 1):
        if not abs(increase(index * step)) <= level:
            return index * step
    return math.inf


def jacobian(model: nn.Module, x: torch.Tensor, *, softmax: bool = False) -> torch.Tensor:
    """dz/dx or dp/dx of one sample by autograd's own full Jacobian, (classes, inputs)."""

    def function(flat: torch.Tensor) -> torch.Tensor:
        z = model(flat.view(1, *x.shape))[0]
        return z.softmax(0) if softmax else z

    return torch.autograd.functional.jacobian(function, x.flatten())


def hessian(model: nn.Module, data: LabelledData) -> torch.Tensor:
    """The Hessian of the mean cross-entropy over all parameters in order, by autograd's own, as one matrix."""
    names = [name for name, _ in model.named_parameters()]
    values = [value.detach().clone() for _, value in model.named_parameters()]
    inputs = data.inputs.double()

    def risk(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([value.numel() for value in values])
        state = {name: part.view_as(value) for name, part, value in zip(names, parts, values, strict=True)}
        return torch.nn.functional.cross_entropy(torch.func.functional_call(model, state, inputs), data.labels)

    return torch.autograd.functional.hessian(risk, torch.cat([value.flatten() for value in values]))


def affine_margin(
    weight: torch.Tensor, bias: torch.Tensor, inputs: torch.Tensor, labels: torch.Tensor, norm: str
) -> torch.Tensor:
    """The exact geometric margin of z = W x + b: min_j (z_y - z_j) / ||w_y - w_j||_*, 0 where misclassified."""
    weight, bias = weight.detach(), bias.detach()
    values = []
    for x, y in zip(inputs.double(), labels.tolist(), strict=True):
        z = (weight @ x + bias).tolist()
        dual = [(weight[y] - row).norm() if norm == "l2" else (weight[y] - row).abs().sum() for row in weight]
        others = [(z[y] - z[j]) / float(dual[j]) for j in range(len(z)) if j != y]
        values.append(max(0.0, min(others)))
    return torch.tensor(values, dtype=torch.float64)


def with_statistics(network: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """A copy whose BatchNorm layers normalise with this batch's statistics, which are functions of the copy's weights.

    A derivative in the inputs of another pass then holds them constant, and one in the weights goes through them.
    """
    copied = copy.deepcopy(network)
    for layer in copied.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.forward = _Recorded(layer)
    copied(inputs)
    return copied


class _Recorded:
    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        self.layer, self.taken = layer, None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        shape = (1, -1, *(1,) * (x.ndim - 2))
        if self.taken is None:
            axes = [0, *range(2, x.ndim)]
            self.taken = x.mean(axes).view(shape), x.var(axes, unbiased=False).view(shape)
        mean, variance = self.taken
        weight, bias = self.layer.weight.view(shape), self.layer.bias.view(shape)
        return (x - mean) / (variance + self.layer.eps).sqrt() * weight + bias


def differentiable_jacobian(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """z and dz/dx (classes, inputs) of one sample, differentiable in the weights."""
    variable = x[None].clone().requires_grad_()
    z = network(variable)[0]
    rows = [torch.autograd.grad(value, variable, create_graph=True)[0].flatten() for value in z]
    return z, torch.stack(rows)


class NaiveRisk:
    """The mean loss of single samples as a function of the weights, in a loop over samples in float64.

    Args:
        model: in eval mode and float64.
        samples: (arguments of the model, a batch of one; target) per sample.
        loss: (all that the model returns, target) -> scalar.
    """

    def __init__(self, model: nn.Module, samples: list[tuple[dict | tuple, object]], loss: Callable) -> None:
        self.model, self.samples, self.loss = model, samples, loss
        self.center = {name: value.detach() for name, value in model.named_parameters()}

    def of(self, index: int, weights: Weights) -> torch.Tensor:
        """The loss of one sample."""
        inputs, target = self.samples[index]
        args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
        return self.loss(torch.func.functional_call(self.model, {**self.center, **weights}, args, kwargs), target)

    def mean(self, weights: Weights) -> torch.Tensor:
        """The mean loss."""
        total = torch.zeros((), dtype=torch.float64)
        for index in range(len(self.samples)):
            total = total + self.of(index, weights)
        return total / len(self.samples)

    def __call__(self, weights: Weights) -> Risk:
        """The risk, without an error."""
        with torch.no_grad():
            return Risk(float(self.mean(weights)))

    def gradient(self, weights: Weights, of: Callable | None = None) -> Weights:
        """The gradient by autograd, through the loop."""
        leaves = {**{n: v.clone().requires_grad_() for n, v in self.center.items()}}
        leaves |= {name: value.detach().clone().requires_grad_() for name, value in weights.items()}
        found = torch.autograd.grad((of or self.mean)(leaves), list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, found, strict=True))

    def hvp(self, weights: Weights, direction: Weights) -> Weights:
        """The Hessian product, by autograd through the gradient of the loop."""
        leaves = {n: weights.get(n, v).detach().clone().requires_grad_() for n, v in self.center.items()}
        slopes = torch.autograd.grad(
            self.mean(leaves), list(leaves.values()), create_graph=True, materialize_grads=True
        )
        named = zip(leaves, slopes, strict=True)
        along = sum((slope * direction[name]).sum() for name, slope in named if name in direction)
        found = torch.autograd.grad(along, list(leaves.values()), materialize_grads=True, allow_unused=True)
        return dict(zip(leaves, found, strict=True))
