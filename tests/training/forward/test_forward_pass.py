"""The forward pass that penalties share: derivatives with BatchNorm (slow references), layers, repetition."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import flatprobe as fp
from flatprobe import models
from flatprobe.training import ForwardPass
from flatprobe.training.forward import Mixture
from flatprobe.utils.rng import generator
from tests.helpers.cases import batch, normalised_network
from tests.helpers.penalties import assert_differences, gradients_of
from tests.helpers.references import with_statistics

TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}  # algebra in float64


def penalty_of(passed: ForwardPass) -> torch.Tensor:
    """Something that depends on every entry of every sample's Jacobian."""
    rows = [passed.derivative(passed.logits[:, k]) for k in range(3)]
    return sum(((k + 1) * row.square()).sum() for k, row in enumerate(rows)) + passed.gradient().pow(3).sum()


def reference_penalty(network: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same, sample by sample, in the network with this batch's statistics as constants."""
    frozen = with_statistics(network, inputs)
    total = torch.zeros((), dtype=torch.float64)
    for x, y in zip(inputs, labels, strict=True):
        variable = x[None].clone().requires_grad_()
        z = frozen(variable)[0]
        for k in range(3):
            (row,) = torch.autograd.grad(z[k], variable, retain_graph=True)
            total += (k + 1) * row.square().sum()
        (row,) = torch.autograd.grad(F.cross_entropy(z[None], y[None]), variable)
        total += row.pow(3).sum()
    return total


def test_derivatives_are_per_sample_though_batch_norm_mixes_the_batch() -> None:
    """Slow reference."""
    network = normalised_network()
    inputs, labels = batch()
    value = penalty_of(ForwardPass(network, inputs, labels, updates=False))
    torch.testing.assert_close(value.detach(), reference_penalty(network, inputs, labels), **TOLERANCE)


def test_slow_reference_gradient_of_a_derivative_goes_through_the_statistics() -> None:
    """Finite differences of the reference value in every parameter's direction: 1e-6 is their own error."""
    network = normalised_network()
    inputs, labels = batch()
    passed = ForwardPass(network, inputs, labels, updates=False)
    found = gradients_of(penalty_of(passed), network)
    assert_differences(found, network, lambda moved: float(reference_penalty(moved, inputs, labels)))


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str
)
def test_objective_and_running_statistics_are_torchs_own(options: dict[str, Any]) -> None:
    """Slow reference: the module called as it is."""
    network, inputs = normalised_network(**options), batch()[0]
    labels = batch()[1]
    other = copy.deepcopy(network)
    passed = ForwardPass(network, inputs, labels)
    passed.loss.backward()
    F.cross_entropy(other(inputs), labels).backward()
    for (name, own), expected in zip(network.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own.grad, expected.grad, **TOLERANCE, msg=name)
    for (name, own), expected in zip(network.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(own, expected, **TOLERANCE, msg=name)


def test_slow_reference_the_gradient_with_statistics_in_play_is_torchs_too() -> None:
    """A backward pass through everything, the inputs included, by autograd and not by `derivative`."""
    network = normalised_network()
    inputs, labels = batch()
    passed = ForwardPass(network, inputs, labels)
    (found,) = torch.autograd.grad(passed.loss, passed.inputs)
    variable = inputs.clone().requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(network(variable), labels), variable)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_slow_reference_convolutions_differentiate_to_the_third_order() -> None:
    """gradgradcheck covers two orders; the derivative of a penalty's gradient is the third."""
    layer = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2).double()
    inputs = torch.randn(1, 2, 4, 4, generator=generator(1), dtype=torch.float64)

    def function(x: torch.Tensor) -> torch.Tensor:
        passed = ForwardPass(nn.Sequential(layer, nn.Tanh(), nn.Flatten()), x, torch.zeros(1, dtype=torch.int64))
        return passed.again(x)

    variable = inputs.requires_grad_()
    assert torch.autograd.gradgradcheck(function, variable)

    def third(x: torch.Tensor) -> torch.Tensor:
        (first,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x, create_graph=True)[0]

    assert torch.autograd.gradcheck(third, variable)


def test_another_pass_at_the_same_points_is_the_same_and_leaves_no_trace() -> None:
    """Property: dropout masks and statistics are repeated; running statistics and generators go on as without it."""
    network = nn.Sequential(normalised_network(momentum=None), nn.Dropout(0.5), nn.Linear(3, 3).double()).train()
    inputs, labels = batch()
    torch.manual_seed(5)
    passed = ForwardPass(network, inputs, labels)
    first = passed.logits
    buffers = copy.deepcopy(dict(network.named_buffers()))
    state = torch.get_rng_state()
    torch.testing.assert_close(passed.again(inputs), first, **TOLERANCE)
    assert not torch.allclose(passed.again(inputs + 1), first)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in network.named_buffers():
        assert torch.equal(value, buffers[name]), name


def test_property_a_pass_without_updates_leaves_the_buffers() -> None:
    network = normalised_network()
    before = copy.deepcopy(dict(network.named_buffers()))
    _ = ForwardPass(network, *batch(), updates=False).logits
    for name, value in network.named_buffers():
        assert torch.equal(value, before[name]), name


def test_slow_reference_derivatives_at_other_points() -> None:
    network = normalised_network()
    inputs, labels = batch()
    passed = ForwardPass(network, inputs, labels)
    points = (inputs + 0.1).requires_grad_()
    found = passed.derivative(passed.losses_at(points), at=points, create_graph=False)
    frozen = with_statistics(network, inputs)
    variable = (inputs + 0.1).requires_grad_()
    (expected,) = torch.autograd.grad(F.cross_entropy(frozen(variable), labels, reduction="sum"), variable)
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_property_a_pass_without_gradients_at_points_that_ask_for_them() -> None:
    """Regression: their alias, made while no gradients are recorded, has no place in a graph."""
    passed = ForwardPass(nn.Linear(2, 2), torch.eye(2), torch.tensor([0, 1]), lay_out=lambda inputs: inputs)
    points = torch.eye(2).requires_grad_()
    with torch.no_grad():
        found = passed.again(points)
    assert torch.equal(found, passed.logits)


@pytest.mark.parametrize("written_to", [None, "before", "after"])
def test_max_pooling_behind_a_relu_is_torchs_own(written_to: Any) -> None:
    """Slow reference: windows that overlap, ties, windows that are all negative; tensors that are written to."""

    class Network(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = 1.0 * x
            h = F.relu(z)
            with torch.no_grad():
                if written_to is not None:
                    (z if written_to == "before" else h).mul_(-1)
            return F.max_pool2d(h, 3, stride=2, padding=1).square().flatten(1)

    x = torch.randint(-3, 3, (4, 1, 7, 7), generator=generator(0)).double()
    x[0] = -1
    passed = ForwardPass(Network(), x, torch.zeros(4, dtype=torch.int64))
    along = torch.arange(16.0, dtype=torch.float64).expand(4, -1)
    variable = x.clone().requires_grad_()
    logits = Network()(variable)
    assert torch.equal(passed.logits, logits)
    if written_to != "after":  # a ReLU keeps its output, and torch refuses to differentiate what was written over
        (expected,) = torch.autograd.grad(logits, variable, along)
        assert torch.equal(passed.derivative(passed.logits, along), expected)


def test_mixtures_weigh_their_losses() -> None:
    """Closed form: the cross-entropy on a soft target."""
    logits = torch.tensor([[1.0, 2.0, 0.0]], dtype=torch.float64)
    mixture = Mixture(((torch.tensor([0.3]), torch.tensor([0])), (torch.tensor([0.7]), torch.tensor([2]))))
    passed = ForwardPass(nn.Identity(), logits, mixture)
    target = torch.tensor([[0.3, 0.0, 0.7]], dtype=torch.float64)
    assert float(passed.loss.detach()) == pytest.approx(float(F.cross_entropy(logits, target)), abs=1e-7)


def test_property_draws_depend_on_the_key_alone_and_without_one_on_torchs_generator() -> None:
    network, (inputs, labels) = models.mlp((2, 5, 5), classes=3).double(), batch()
    draws = [ForwardPass(network, inputs, labels, key=(0, step)).normal((2, 3), "v") for step in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    torch.manual_seed(3)
    free = ForwardPass(network, inputs, labels)
    first, second = free.normal((4,)), free.normal((4,))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(ForwardPass(network, inputs, labels).normal((4,)), first)


def test_refusals() -> None:
    tokens = ForwardPass(nn.Sequential(nn.Embedding(3, 2), nn.Flatten()), torch.ones(2, 1).long(), torch.tensor([0, 1]))
    assert tokens.loss.isfinite()
    with pytest.raises(ValueError, match=r"inputs have no gradient.*fp\.at_embedding"):
        _ = tokens.inputs
    cut = ForwardPass(nn.Threshold(0.5, 1.0), torch.ones(1, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"do not depend differentiably on the inputs"):
        cut.derivative(cut.logits.detach())
    one = ForwardPass(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(2)), torch.ones(1, 2), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"shape \(1, 2\) in training mode; expected two values per channel"):
        _ = one.logits


def test_property_passes_repeat_whatever_the_first_one_wrote() -> None:
    """A spectral norm takes a step of its power iteration in each forward pass; InstanceNorm keeps averages."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [parametrizations.spectral_norm(nn.Conv2d(2, 3, 3)), nn.InstanceNorm2d(3, track_running_stats=True)]
        network = nn.Sequential(*layers, nn.Flatten(), parametrizations.spectral_norm(nn.Linear(27, 3))).double()
    inputs, labels = batch()
    passed = fp.ForwardPass(network.train(), inputs, labels)
    first = passed.logits.detach()
    after = copy.deepcopy(dict(network.named_buffers()))
    torch.testing.assert_close(passed.again(inputs).detach(), first, rtol=1e-9, atol=1e-11)
    _ = fp.ForwardPass(network, inputs, labels, updates=False).logits
    for name, value in network.named_buffers():
        assert torch.equal(value, after[name]), name


def test_property_draws_do_not_depend_on_torchs_default_type() -> None:
    passed = fp.ForwardPass(nn.Identity(), torch.zeros(2, 3), torch.tensor([0, 1]), key=(0,))
    before = torch.get_default_dtype()
    found = []
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        try:
            found.append([draw((4,), "word") for draw in (passed.normal, passed.uniform, passed.signs)])
        finally:
            torch.set_default_dtype(before)
    for one, other in zip(*found, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
