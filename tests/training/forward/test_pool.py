"""Max pooling of a forward pass against torch's: values, gradients, and derivatives of those."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp

WINDOWS = {
    "plain": {"kernel_size": 2},
    "tuples": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    "overlapping": {"kernel_size": 3, "stride": 1},
    "dilated": {"kernel_size": 2, "dilation": 2, "stride": 1},
    "standing out": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    "lists": {"kernel_size": [2], "stride": []},
}
LAYOUTS = (torch.contiguous_format, torch.channels_last)


class Pooled(nn.Module):
    """By the function, the input by its keyword."""

    def __init__(self, **window: object) -> None:
        super().__init__()
        self.window = window

    def forward(self, inputs: Tensor) -> Tensor:
        return F.max_pool2d(input=inputs.tanh(), **self.window).flatten(1)


def derivatives(z: Tensor, x: Tensor) -> list[Tensor]:
    """The gradient of a sum over all outputs, of a function of that gradient, and of a function of that one."""
    scales = torch.arange(1.0, z.shape[1] + 1, dtype=z.dtype)
    found = [(scales * z.square()).sum()]
    for _ in range(3):
        (row,) = torch.autograd.grad(found[-1], x, create_graph=True)
        found += [row, row.pow(3).sum()]
    return found[1::2]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("name", WINDOWS)
def test_slow_reference(name: str, layout: Any) -> None:
    """Torch's own, to the third derivative, to float64's rounding."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 3, 7, 6, generator=generator, dtype=torch.float64).to(memory_format=layout)
    network = Pooled(**WINDOWS[name])
    passed = fp.ForwardPass(network, inputs, torch.zeros(2, dtype=torch.int64))
    x = inputs.clone().requires_grad_()
    expected = network(x)
    assert torch.equal(passed.logits, expected)
    for one, other in zip(derivatives(passed.logits, passed.inputs), derivatives(expected, x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_slow_reference_positions_are_torchs() -> None:
    class Unpooled(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            values, positions = F.max_pool2d(inputs, 2, return_indices=True)
            return F.max_unpool2d(values, positions, 2).flatten(1)

    inputs = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    passed = fp.ForwardPass(Unpooled(), inputs, torch.tensor([0, 1]))
    assert torch.equal(passed.logits, Unpooled()(inputs))


class Written(nn.Module):
    """Convolution, ReLU, pooling, linear layer, with something done in between."""

    def __init__(self, between):
        super().__init__()
        self.first, self.last, self.between = nn.Conv2d(1, 2, 3), nn.Linear(8, 3), between

    def forward(self, inputs):
        z = self.first(inputs)
        return self.last(self.between(z).flatten(1))


def kept(z):
    h = F.relu(z)
    h.retain_grad()
    return F.max_pool2d(h, 2)


def hooked(z):
    h = F.relu(z)
    h.register_hook(lambda gradient: 0.1 * gradient)
    return F.max_pool2d(h, 2)


def without_gradients(z):
    with torch.no_grad():
        h = F.relu(z)
    return F.max_pool2d(h, 2) + F.max_pool2d(z, 2)


def detached(z):
    return F.max_pool2d(F.relu(z).detach_(), 2) + F.max_pool2d(z, 2)


def written_before(z):
    h = F.relu(z)
    z.mul_(2)
    return F.max_pool2d(h, 2)


BETWEEN = {
    "nothing": lambda z: F.max_pool2d(F.relu(z), 2),
    "a ReLU in place": lambda z: F.max_pool2d(F.relu(z), 2).relu_(),
    "written to": lambda z: F.max_pool2d(F.relu(z), 2).mul_(2),
    "in place before": lambda z: F.max_pool2d(F.relu(z, inplace=True), 2),
    "z written to": written_before,
    "kept": kept,
    "hooked": hooked,
    "without gradients": without_gradients,
    "detached": detached,
}


@pytest.mark.parametrize("name", BETWEEN)
def test_behind_a_relu_as_torch(name: str) -> None:
    """Slow reference: the gradient in every weight of the squared gradient in the inputs, by torch alone."""
    torch.manual_seed(0)
    network = Written(BETWEEN[name]).double()
    inputs = torch.randn(4, 1, 6, 6, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0])
    found = fp.penalties.DoubleBackpropagation()(fp.ForwardPass(network, inputs, labels))
    x = inputs.clone().requires_grad_()
    (row,) = torch.autograd.grad(F.cross_entropy(network(x), labels, reduction="sum"), x, create_graph=True)
    expected = row.square().sum() / 4
    weights = list(network.parameters())
    for one, other in zip(
        (found, *torch.autograd.grad(found, weights, materialize_grads=True)),
        (expected, *torch.autograd.grad(expected, weights, materialize_grads=True)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_property_rows_side_by_side_have_gradients() -> None:
    """Torch maps the derivatives of torch's own functions over several rows at once."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.Tanh(), Pooled(kernel_size=(1, 2)), nn.Linear(3, 3)).double()
    inputs = torch.randn(2, 1, 6, dtype=torch.float64).view(2, 6)
    passed = fp.ForwardPass(network, inputs[:, None, :].flatten(1), torch.tensor([0, 1]))
    units = torch.eye(3, dtype=torch.float64)[:, None].expand(3, 2, 3)
    (rows,) = torch.autograd.grad(passed.logits, passed.inputs, units, is_grads_batched=True, create_graph=True)
    x = inputs.clone().requires_grad_()
    slow = torch.stack([torch.autograd.grad(network(x)[:, k].sum(), x, create_graph=True)[0] for k in range(3)])
    weight = network[3].weight
    torch.testing.assert_close(
        torch.autograd.grad(rows.square().sum(), weight)[0], torch.autograd.grad(slow.square().sum(), weight)[0]
    )


def test_a_place_that_is_not_on_the_way_is_refused() -> None:
    seen = []

    def seeing(z):
        seen.append(F.relu(z))
        return F.max_pool2d(seen[-1], 2)

    passed = fp.ForwardPass(Written(seeing), torch.randn(2, 1, 6, 6), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"`of` does not depend differentiably on `at`.*max pooling"):
        passed.derivative(passed.logits, at=seen[0])
