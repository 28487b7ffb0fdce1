"""The per-layer Jacobian penalty: slow references by hooks, its two gradients, closed forms, unknown layers."""

import copy
import json
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flatprobe.training import ForwardPass
from flatprobe.training.penalties import PENALTIES, JacobianFrobenius, JacobianPerLayer
from flatprobe.training.registry import build, describe
from flatprobe.utils.rng import generator
from tests.helpers.cases import batch
from tests.helpers.penalties import (
    NETWORKS,
    assert_adds_up,
    assert_finite_differences,
    assert_same,
    assert_trains,
    passed_for,
    value_and_gradients,
)
from tests.helpers.references import with_statistics

OUTPUTS = ("logits", "softmax")
HELD = (True, False)


def layers_of(network):
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


def of_sample(network, x, chosen, outputs, held):
    """sum_l ||g_l W_l||^2: hooks keep zhat_l, the adjoint is torch's own of the layer."""
    seen = []

    def keep(layer, inputs, zhat):
        seen.append((layer, inputs[0].shape, zhat))

    handles = [layer.register_forward_hook(keep) for layer in layers_of(network)]
    z = network(x[None])[0]
    for handle in handles:
        handle.remove()
    f = z if outputs == "logits" else z.softmax(0)
    total = 0.0
    for layer, shape, zhat in seen:
        (g,) = torch.autograd.grad(f[chosen], zhat, create_graph=True)
        g = g.detach() if held else g
        if isinstance(layer, nn.Linear):
            pulled = g @ layer.weight
        else:
            geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
            pulled = nn.grad.conv2d_input(shape, layer.weight, g, *geometry)
        total = total + pulled.square().sum()
    return total


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_slow_reference(name: str, outputs: str, held: Any) -> None:
    network, (inputs, labels) = NETWORKS[name](), batch()
    passed = passed_for(network, key=(3,))
    chosen = passed.integers(passed.logits.shape[1], (len(labels),), "jacobian_per_layer")
    assert len(set(chosen.tolist())) > 1
    found = value_and_gradients(network, JacobianPerLayer(outputs, held)(passed))
    slow = with_statistics(network, inputs)
    values = [of_sample(slow, x, k, outputs, held) for x, k in zip(inputs, chosen, strict=True)]
    assert_same(found, value_and_gradients(slow, sum(values) / len(values)))


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_slow_reference_the_differentiated_gradient_is_that_of_the_value(outputs: str) -> None:
    assert_finite_differences(JacobianPerLayer(outputs, held=False), "batch_norm")


def test_a_constant_adjoint_is_exact_for_the_logits_of_a_relu_network() -> None:
    """Property: each term's derivative in its own weight, by differentiating through everything."""
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 5), nn.ReLU(), nn.Linear(5, 3))
    network, (inputs, labels) = network.double(), batch(4)
    passed = ForwardPass(network, inputs, labels, key=(0,))
    constant = torch.autograd.grad(
        JacobianPerLayer("logits")(passed), [layer.weight for layer in passed.layers], retain_graph=True
    )
    chosen = passed.integers(3, (4,), "jacobian_per_layer")
    for own, (layer, pulled, _) in zip(
        constant, passed.layer_gradients(passed.logits, F.one_hot(chosen, 3).double()), strict=True
    ):
        (expected,) = torch.autograd.grad(pulled.square().sum() / 4, layer.weight, retain_graph=True)
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)


def test_slow_reference_the_output_is_uniform() -> None:
    """Monte Carlo: the mean over many draws is the mean over the classes, with no factor C; 4 standard errors."""
    network = nn.Linear(3, 4, bias=False).double()
    samples = 20000
    passed = ForwardPass(network, torch.ones(samples, 3, dtype=torch.float64), torch.zeros(samples).long(), key=(0,))
    squares = network.weight.detach().square().sum(1)
    error = squares.std(unbiased=False) / samples**0.5
    assert error < 0.01 * squares.mean()
    value = JacobianPerLayer("logits")(passed).detach()
    assert abs(value - squares.mean()) <= 4 * error


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2, bias=False).double()
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[1.0, 2.0], [-3.0, 1.0]]))

    def forward(self, x):
        return self.layer(self.layer(x))


def test_a_shared_weight_counts_at_each_use() -> None:
    """Closed form: ||e W||^2 + ||e W W||^2; at constant g the gradient is 2 g^T g W at both."""
    network = Twice()
    passed = ForwardPass(network, torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0]), key=(0,))
    value, gradient = value_and_gradients(network, JacobianPerLayer("logits")(passed))
    W = network.layer.weight.detach()
    e = F.one_hot(passed.integers(2, (1,), "jacobian_per_layer"), 2).double()
    torch.testing.assert_close(value, (e @ W).square().sum() + (e @ W @ W).square().sum())
    torch.testing.assert_close(gradient, 2 * e.mT @ e @ W + 2 * (e @ W).mT @ (e @ W) @ W)


def test_a_computed_weight_passes_its_gradient_on() -> None:
    """Slow reference: the chain rule by hand, from the plain layer's gradient to weight normalisation's g and v."""
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    normed = copy.deepcopy(plain)
    nn.utils.parametrizations.weight_norm(normed[0])
    inputs, labels = torch.randn(5, 3, generator=generator(0), dtype=torch.float64), torch.zeros(5).long()
    _, gradient, *_ = value_and_gradients(plain, JacobianPerLayer()(ForwardPass(plain, inputs, labels, key=(0,))))
    parts = [normed[0].parametrizations.weight.original0, normed[0].parametrizations.weight.original1]
    found = torch.autograd.grad(JacobianPerLayer()(ForwardPass(normed, inputs, labels, key=(0,))), parts)
    for own, other in zip(found, torch.autograd.grad(normed[0].weight, parts, gradient), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


class Around(nn.Module):
    """A layer of one's own between others; a linear layer on a constant."""

    def __init__(self, inner: nn.Module, call) -> None:
        super().__init__()
        self.inner, self.call, self.head = inner, call, nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.call(self.inner, x))


def test_a_layer_on_a_constant_counts() -> None:
    """Closed form: its adjoint is there, though no gradient passes through it to an input."""
    network = Around(nn.Linear(4, 4, bias=False), lambda inner, x: x + inner(torch.ones(len(x), 4)))
    passed = ForwardPass(network, torch.zeros(1, 4), torch.tensor([0]), key=(0,))
    value = JacobianPerLayer("logits")(passed).detach()
    row = network.head.weight[passed.integers(2, (1,), "jacobian_per_layer")].detach()
    torch.testing.assert_close(value, row.square().sum() + (row @ network.inner.weight.detach()).square().sum())


def test_property_weights_without_gradients_and_unused_layers() -> None:
    network = Around(nn.Linear(4, 4), lambda inner, x: x + 0 * inner(x).detach())
    network.head.weight.requires_grad_(requires_grad=False)
    passed = ForwardPass(network, torch.zeros(1, 4), torch.tensor([0]), key=(0,))
    value = JacobianPerLayer("logits")(passed)
    row = network.head.weight[passed.integers(2, (1,), "jacobian_per_layer")]
    torch.testing.assert_close(value.detach(), row.square().sum())


def transposed(inner, x):
    return inner(x[:, None])[:, 0]


class Mapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(4, 4))

    def forward(self, x):
        return x @ self.kernel.T


@pytest.mark.parametrize(
    ("inner", "call"),
    [
        (lambda: nn.Embedding(3, 4), lambda inner, x: x + inner((x[:, 0] > 0).long())),
        (lambda: nn.ConvTranspose1d(1, 1, 1), transposed),
        (lambda: nn.Bilinear(4, 4, 4), lambda inner, x: inner(x, x)),
        (lambda: nn.LSTM(4, 4), lambda inner, x: inner(x[None])[0][0]),
        (lambda: nn.MultiheadAttention(4, 2), lambda inner, x: inner(x[None], x[None], x[None])[0][0]),
        (lambda: nn.Conv1d(1, 1, 2, padding="same"), transposed),
        (Mapped, lambda inner, x: inner(x)),
    ],
    ids=["embedding", "conv_transpose", "bilinear", "lstm", "attention", "uneven padding", "a plain product"],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_unknown_layers_are_refused(inner: Any, call: Any) -> None:
    passed = ForwardPass(Around(inner(), call), torch.ones(2, 4), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"met the layer 'inner.*neither linear nor a convolution.*jacobian_frobenius"):
        JacobianPerLayer()(passed)


def test_a_network_that_is_cut_off_is_refused() -> None:
    class Cut(nn.Module):
        def forward(self, x):
            return x.detach()

    with pytest.raises(ValueError, match=r"do not depend differentiably"):
        JacobianPerLayer()(ForwardPass(Cut(), torch.ones(1, 2), torch.tensor([0])))
    with pytest.raises(ValueError, match=r"met no linear layer and no convolution"):
        JacobianPerLayer()(ForwardPass(nn.Tanh(), torch.ones(1, 2), torch.tensor([0])))


def test_property_certain_networks_stay_finite() -> None:
    """At logits of 100 apart, in float32: finite and 0 but for underflow."""
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    with torch.no_grad():
        network[1].bias.copy_(torch.tensor([100.0, 0.0]))
    for held in HELD:
        passed = ForwardPass(network, torch.ones(2, 2), torch.tensor([0, 1]), key=(0,))
        for value in value_and_gradients(network, JacobianPerLayer(held=held)(passed)):
            assert bool((value.abs() < 1e-30).all())


def test_property_penalties_add_up() -> None:
    for held in HELD:
        assert_adds_up(JacobianPerLayer(held=held), JacobianFrobenius(projections=1))


def test_property_by_name_and_in_training() -> None:
    penalty = JacobianPerLayer("logits", held=False)
    assert build("penalty", json.loads(json.dumps(describe(penalty, PENALTIES))), PENALTIES) == penalty
    assert assert_trains((0.1, "jacobian_per_layer"))["jacobian_per_layer"] > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (partial(JacobianPerLayer, outputs="loss"), r"outputs must be one of 'logits', 'softmax'.*, got 'loss'"),
        (partial(JacobianPerLayer, held="yes"), r"held must be one of True, False.*, got 'yes'"),
    ],
)
def test_refused_words(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
