"""Max pooling of a forward pass against torch's: values, gradients, and derivatives of those."""

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
def test_slow_reference(name, layout):
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


def test_positions_are_torchs():
    class Unpooled(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            values, positions = F.max_pool2d(inputs, 2, return_indices=True)
            return F.max_unpool2d(values, positions, 2).flatten(1)

    inputs = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    passed = fp.ForwardPass(Unpooled(), inputs, torch.tensor([0, 1]))
    assert torch.equal(passed.logits, Unpooled()(inputs))
