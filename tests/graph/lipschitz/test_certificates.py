"""Certified margins: exact where the network is affine, never above a class change that exists."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from flatprobe import models
from flatprobe.graph import fold, trace
from flatprobe.graph.lipschitz import activation_constant, certified_margins, propagate, step_constants
from tests.helpers.allocations import Allocations
from tests.helpers.cases import NETWORKS, affine
from tests.helpers.graphs import CASES, Foreign, foreign
from tests.helpers.properties import assert_model_untouched

KINDS = ("spectral", "frobenius")


def lower(network: nn.Module, inputs: Tensor, labels: Tensor | None = None, kind: str = "spectral") -> Tensor:
    with torch.no_grad():
        logits = network(inputs)
    labels = logits.argmax(1) if labels is None else labels
    return certified_margins(network, tuple(inputs.shape[1:]), kind)(logits, labels, inputs.flatten(1).norm(dim=1))


def exact_affine(network: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        logits = network(inputs)
    W, y = network.weight.detach(), logits.argmax(1)
    radii = (logits.gather(1, y[:, None]) - logits) / (W[y][:, None] - W[None]).norm(dim=2)
    return radii.scatter(1, y[:, None], torch.inf).amin(1)


@pytest.mark.parametrize("kind", KINDS)
def test_closed_form_an_affine_network_closes_on_the_exact_margin(kind: str) -> None:
    network, inputs = affine(), torch.randn(50, 7, dtype=torch.float64)
    exact, found = exact_affine(network, inputs), lower(network, inputs, kind=kind)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=0)
    assert bool((found <= exact).all())


def test_closed_form_normalisation_and_batch_norm_before_the_last_layer() -> None:
    norm = nn.BatchNorm1d(7).double()
    norm.running_var.fill_(4.0)
    norm.eps = 0.0
    network = nn.Sequential(norm, nn.Linear(7, 5).double()).eval()
    inputs = torch.randn(20, 7, dtype=torch.float64)
    halved = affine()
    with torch.no_grad():
        halved.weight.copy_(network[1].weight / 2)
        halved.bias.copy_(network[1].bias)
    torch.testing.assert_close(lower(network, inputs), exact_affine(halved, inputs), rtol=1e-9, atol=0)


def test_closed_form_a_last_layer_that_is_not_linear_takes_root_two() -> None:
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU()).double().eval()
    with torch.no_grad():
        network[0].weight.copy_(2 * torch.eye(3))
    inputs = torch.tensor([[3.0, 1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([(6 - 2) / (math.sqrt(2) * 2)], dtype=torch.float64)
    torch.testing.assert_close(lower(network, inputs), expected, rtol=1e-9, atol=0)


def test_closed_form_misclassified_and_tied_samples_have_none_and_constant_logits_any() -> None:
    network = affine(3, 4)
    inputs = torch.randn(6, 4, dtype=torch.float64)
    with torch.no_grad():
        wrong = (network(inputs).argmax(1) + 1) % 3
        assert not lower(network, inputs, wrong).any()
        network.weight.zero_()
        assert bool(lower(network, inputs).isinf().all())
        network.bias.zero_()
        assert not lower(network, inputs, torch.zeros(6, dtype=torch.long)).any()


def test_closed_form_branches_add_and_concatenations_take_the_root_of_squares() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x + 3 * x.relu(), 2 * x], 1) - 1

    graph = fold(trace(Branches().eval(), (3,)))
    constant = propagate(graph, step_constants(graph, "spectral"))[-1]
    assert constant == pytest.approx(math.hypot(1 + 3, 2), rel=1e-9)


ACTIVATIONS = {
    "relu": nn.ReLU(),
    "leaky_relu": nn.LeakyReLU(0.3),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "gelu": nn.GELU(),
    "gelu by tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
    "mish": nn.Mish(),
    "elu": nn.ELU(1.7),
    "celu": nn.CELU(0.5),
    "selu": nn.SELU(),
    "hardswish": nn.Hardswish(),
    "hardtanh": nn.Hardtanh(),
    "relu6": nn.ReLU6(),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slow_reference_activations_by_their_steepest_slope(name: str) -> None:
    graph = fold(trace(nn.Sequential(ACTIVATIONS[name]).double().eval(), (3,)))
    constant = activation_constant(graph.steps[-1].options)
    x = torch.linspace(-12, 12, 200_001, dtype=torch.float64).requires_grad_()
    (slopes,) = torch.autograd.grad(ACTIVATIONS[name](x).sum(), x)
    steepest = float(slopes.abs().max())
    assert constant is not None
    assert steepest <= constant * (1 + 1e-12)
    assert constant <= steepest * 1.001  # true constants, not loose ones: the grid misses a maximum by less


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*NETWORKS, "foreign"])
def test_property_no_class_change_within_the_certified_radius(name: str, kind: str) -> None:
    """A hard search: gradient ascent on each rival's lead, projected into the certified ball."""
    build, shape = CASES[name]
    network = build()
    inputs = torch.rand(6, *shape, dtype=torch.float64)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    radii = lower(network, inputs, kind=kind)
    assert bool((radii > 0).all())
    for rival in range(10):
        rivals = torch.where(labels == rival, (labels + 1) % 10, rival)
        v = torch.zeros_like(inputs)
        for _ in range(25):
            v.requires_grad_()
            logits = network(inputs + v)
            leads = (logits.gather(1, rivals[:, None]) - logits.gather(1, labels[:, None])).sum()
            (slope,) = torch.autograd.grad(leads, v)
            flat = slope.flatten(1)
            v = (flat / flat.norm(dim=1, keepdim=True).clamp_min(1e-30) * radii[:, None]).view_as(inputs).detach()
            assert bool((network(inputs + v).argmax(1) == labels).all())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["relu", "tanh", "gelu", "silu", "leaky_relu"]), st.integers(1, 3))
def test_property_the_network_moves_no_faster_than_its_constant(seed: int, activation: str, depth: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layer = nn.Linear(4, 4).double()
        layer.weight.data.copy_(torch.randn(4, 4, generator=generator, dtype=torch.float64) * 2)
        layers += [layer, ACTIVATIONS[activation]]
    network = nn.Sequential(*layers).eval()
    graph = fold(trace(network, (4,)))
    constant = propagate(graph, step_constants(graph, "spectral"))[-1]
    x, y = torch.randn(2, 200, 4, generator=generator, dtype=torch.float64)
    y = x + y * 10.0 ** torch.randint(-6, 1, (200, 1), generator=generator)
    with torch.no_grad():
        moved = (network(x) - network(y)).norm(dim=1)
    assert bool((moved <= constant * (x - y).norm(dim=1) * (1 + 1e-9) + 1e-12).all())


def test_closed_form_the_frobenius_constant_of_layers_applied_at_several_positions() -> None:
    for layers, shape in (
        ([nn.Linear(3, 2), nn.Flatten()], (4, 5, 3)),
        ([nn.Conv1d(2, 3, 3, padding=1), nn.Flatten()], (2, 7)),
        ([nn.Unflatten(1, (2, 7)), nn.Conv1d(2, 3, 3, stride=2), nn.Flatten()], (14,)),
    ):
        network = nn.Sequential(*layers).double().eval()
        size = math.prod(shape)
        with torch.no_grad():
            offset = network(torch.zeros(1, *shape, dtype=torch.float64))
            matrix = network(torch.eye(size, dtype=torch.float64).view(size, *shape)) - offset
        graph = fold(trace(network, shape))
        assert propagate(graph, step_constants(graph, "frobenius"))[-1] == pytest.approx(float(matrix.norm()), rel=1e-9)


def test_certificates_of_many_classes_hold_no_table_of_pairs() -> None:
    """3,000 classes: the distances of all pairs would be 72 MB."""
    layers = [nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3000)]
    network = nn.Sequential(*layers).double().eval()
    inputs = torch.rand(40, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with Allocations() as allocated:
        found = lower(network, inputs)
    assert allocated.largest < 2**21
    weight = layers[2].weight.detach()
    labels = network(inputs).argmax(1)
    logits = network(inputs).detach()
    slopes = torch.linalg.matrix_norm(layers[0].weight.detach(), 2) * (weight[labels][:, None] - weight).norm(dim=2)
    radii = (logits.gather(1, labels[:, None]) - logits) / slopes
    expected = radii.scatter(1, labels[:, None], torch.inf).amin(1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_hold_few_copies_of_the_weights(kind: str) -> None:
    """Twice float32 for the weights in float64, twice for the largest Gram matrix, and its eigenvalues' own."""
    network = nn.Sequential(nn.Linear(600, 600), nn.ReLU(), nn.Linear(600, 600), nn.ReLU(), nn.Linear(600, 5)).eval()
    size = sum(parameter.nbytes for parameter in network.parameters())
    with Allocations() as allocated:
        certified_margins(network, (600,), kind)
    assert allocated.peak <= (6 + 1) * size  # the caller's own counts once


def test_regression_s17s_printed_constant_is_no_lower_bound() -> None:
    """S17 eq. 36 as printed, sqrt(2) min (z_y - z_j) / prod ||W||, exceeds the exact margin of an affine network."""
    violated = 0
    for seed in range(200):
        network = affine(2, 3, seed=seed)
        inputs = torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            logits = network(inputs)
        printed = (
            math.sqrt(2)
            * float(logits.max() - logits.min())
            / float(torch.linalg.matrix_norm(network.weight.detach(), 2))
        )
        exact = float(exact_affine(network, inputs))
        violated += printed > exact
        assert float(lower(network, inputs)) <= exact
    assert violated > 100


def test_property_rounding_is_subtracted() -> None:
    """Inputs so large that the logits hold no digit of the lead certify nothing."""
    network = affine(3, 4)
    inputs = torch.full((1, 4), 1e17, dtype=torch.float64)
    with torch.no_grad():
        logits = torch.tensor([[1e-3, 0.0, 0.0]], dtype=torch.float64)
    radii = certified_margins(network, (4,))(logits, torch.tensor([0]), inputs.norm(dim=1))
    assert not radii.any()


def test_property_the_caller_is_left_alone() -> None:
    network = foreign()
    assert_model_untouched(network, lambda: certified_margins(network, (1, 14, 14)))
    assert isinstance(network, Foreign)


def test_unknown_layers_and_kinds_are_named() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)).eval()
    message = r"the Lipschitz constant is not known for the operation aten.layer_norm.default in the layer '1'"
    with pytest.raises(ValueError, match=message):
        certified_margins(network, (3,))
    with pytest.raises(ValueError, match=r"kind must be one of 'spectral', 'frobenius'.*, got 'l2'"):
        certified_margins(network, (3,), "l2")
    odd = nn.Sequential(nn.CELU(-0.5)).eval()
    with pytest.raises(ValueError, match=r"the Lipschitz constant is not known for the operation aten.celu"):
        certified_margins(odd, (3,))


def test_pinned_a_deeper_network_has_a_smaller_certificate() -> None:
    inputs = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    shallow = models.mlp((1, 8, 8), widths=(16,)).double().eval()
    with torch.no_grad():
        margins = F.relu(shallow(inputs)).amax(1)
    assert bool((lower(shallow, inputs, kind="frobenius") <= lower(shallow, inputs)).all())
    assert bool((lower(shallow, inputs) < margins.clamp_min(1)).all())


def test_regression_constants_that_underflow_certify_nothing_infinite() -> None:
    layers = [nn.Linear(2, 2, bias=False) for _ in range(4)] + [nn.Linear(2, 2)]
    network = nn.Sequential(*layers).double().eval()
    with torch.no_grad():
        for layer, scale in zip(layers, (1e-170, 1e-170, 1e150, 1e150, 1.0), strict=True):
            layer.weight.copy_(scale * torch.eye(2, dtype=torch.float64))
        layers[-1].bias.copy_(torch.tensor([1.0, 0.0]))
    assert bool(lower(network, torch.zeros(1, 2, dtype=torch.float64)).isfinite().all())
