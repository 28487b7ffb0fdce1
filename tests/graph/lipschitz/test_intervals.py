"""Interval propagation: exact where the network is affine, never above a class change, sound to rounding."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.graph import fold, trace
from flatprobe.graph.lipschitz import certificates, certified_bounds, certified_margins
from flatprobe.graph.lipschitz.intervals import _Propagation, interval_margins
from flatprobe.graph.lipschitz.rounding import arithmetic
from tests.helpers.cases import NETWORKS, Attention, affine
from tests.helpers.graphs import CASES
from tests.helpers.properties import assert_model_untouched

SHAPE = (1, 4, 4)


@pytest.fixture(autouse=True)
def _same_inputs_in_any_order() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def own_labels(network: nn.Module, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return network(inputs).argmax(1)


def radii(network: nn.Module, inputs: Tensor) -> Tensor:
    return interval_margins(network, tuple(inputs.shape[1:]))(inputs, own_labels(network, inputs))


def _seeded(*layers: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for layer in layers:
            for value in layer.parameters():
                nn.init.normal_(value, std=0.5)
    return nn.Sequential(*layers).double().eval()


def _exact(weight: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    leads = (logits.gather(1, labels[:, None]) - logits) / (weight[labels][:, None] - weight).abs().sum(2)
    return leads.scatter(1, labels[:, None], torch.inf).amin(1)


def test_closed_form_an_affine_network_closes_on_the_exact_margin() -> None:
    network, inputs = affine(), torch.randn(50, 7, dtype=torch.float64)
    labels = own_labels(network, inputs)
    exact, found = _exact(network.weight.detach(), network(inputs).detach(), labels), radii(network, inputs)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=0)
    assert bool((found <= exact).all())
    assert not interval_margins(network, (7,))(inputs, (labels + 1) % 5).any()


def test_closed_form_scales_before_the_last_layer_and_a_log_softmax_after_it() -> None:
    norm = nn.BatchNorm1d(7, affine=False, eps=0.0).double()
    norm.running_var.fill_(4.0)
    network = nn.Sequential(norm, nn.Linear(7, 5).double(), nn.LogSoftmax(1)).eval()
    inputs = torch.randn(20, 7, dtype=torch.float64)
    labels = own_labels(network, inputs)
    exact = _exact(network[1].weight.detach() / 2, network[:2](inputs).detach(), labels)
    torch.testing.assert_close(radii(network, inputs), exact, rtol=1e-9, atol=0)


def test_closed_form_a_last_layer_that_is_not_linear_has_separate_intervals() -> None:
    network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Tanh()).double().eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(2))
    found = radii(network, torch.tensor([[3.0, 1.0]], dtype=torch.float64))  # tanh(3 - eps) = tanh(1 + eps)
    torch.testing.assert_close(found, torch.ones(1, dtype=torch.float64), rtol=1e-3, atol=0)


def _slow(layers: list[nn.Module], x: Tensor, label: int) -> float:
    """By 60 halvings of plain interval arithmetic on one sample of a network of linear layers and ReLU."""

    def holds(eps: float) -> bool:
        low, high = x - eps, x + eps
        for layer in layers[:-1]:
            if isinstance(layer, nn.Linear):
                plus, minus, bias = layer.weight.clamp_min(0), layer.weight.clamp_max(0), layer.bias
                low, high = plus @ low + minus @ high + bias, plus @ high + minus @ low + bias
            else:
                low, high = low.relu(), high.relu()
        rows, biases = layers[-1].weight, layers[-1].bias
        for j in range(len(rows)):
            row = rows[label] - rows[j]
            lead = row.clamp_min(0) @ low + row.clamp_max(0) @ high + biases[label] - biases[j]
            if j != label and float(lead) <= 0:
                return False
        return True

    low, high = 0.0, 10.0
    for _ in range(60):
        low, high = ((low + high) / 2, high) if holds((low + high) / 2) else (low, (low + high) / 2)
    return low


def test_slow_reference_plain_intervals_and_halvings() -> None:
    network = _seeded(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 4))
    inputs = torch.randn(20, 6, dtype=torch.float64)
    labels = own_labels(network, inputs)
    with torch.no_grad():
        expected = torch.tensor(
            [_slow(list(network), x, int(y)) for x, y in zip(inputs, labels, strict=True)], dtype=torch.float64
        )
    found = radii(network, inputs)
    assert bool((found <= expected * (1 + 1e-9)).all())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)  # the search's steps


def _moved(inputs: Tensor, eps: Tensor, count: int = 40) -> Tensor:
    """(count, *inputs) points of the box: corners for the most part, and points within."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (count, *inputs.shape), generator=generator, dtype=torch.float64) * 2 - 1
    signs[::4] = 2 * torch.rand(signs[::4].shape, generator=generator, dtype=torch.float64) - 1
    return inputs + signs * eps.view(-1, *[1] * (inputs.ndim - 1))


@pytest.mark.parametrize("name", CASES)
def test_property_no_class_change_within_the_radius(name: str) -> None:
    """Corners of the box, and ascent by signs on each rival's lead."""
    build, shape = CASES[name]
    network, inputs = build(), torch.rand(6, *shape, dtype=torch.float64)
    labels, eps = own_labels(network, inputs), radii(network, inputs)
    assert bool((eps > 0).all())
    for points in _moved(inputs, eps):
        assert torch.equal(own_labels(network, points), labels)
    classes = network(inputs).shape[1]
    for rival in range(classes):
        rivals, points = torch.where(labels == rival, (labels + 1) % classes, rival), inputs
        for _ in range(5):
            points = points.detach().requires_grad_()
            logits = network(points)
            leads = logits.gather(1, rivals[:, None]) - logits.gather(1, labels[:, None])
            (slope,) = torch.autograd.grad(leads.sum(), points)
            points = inputs + slope.sign() * eps.view(-1, *[1] * len(shape))
            assert torch.equal(own_labels(network, points), labels)


ACTIVATIONS = {
    **{f.__name__: f for f in (F.relu, F.relu6, F.hardtanh, torch.tanh, torch.sigmoid, F.silu, F.mish, F.hardswish)},
    **{f.__name__: f for f in (F.selu, F.hardsigmoid, F.logsigmoid, F.softshrink, torch.erf, torch.sin, torch.cos)},
    **{f.__name__: f for f in (F.gelu, F.elu, F.celu, F.softplus, torch.abs, torch.asinh)},
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "falling leaky": lambda x: F.leaky_relu(x, -0.5),
    "prelu": lambda x: F.prelu(x, torch.tensor(-0.3, dtype=x.dtype)),
    "falling elu": lambda x: F.elu(x, -1.5),
    "clamp": lambda x: x.clamp(-0.5, 0.7),
    "softplus that jumps": lambda x: F.softplus(x, threshold=1.0),
}
OTHERS = {
    "average": lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "max": lambda x: F.max_pool2d(x, 3, 2, 1),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 3) - 2 * F.adaptive_max_pool2d(x, 3),
    "mean": lambda x: x.mean((2, 3), keepdim=True).expand(-1, 3, 2, 2),
    "sum": lambda x: x.sum(1) / 3 - x.amax(1) + x.amin(1),
    "larger": lambda x: torch.maximum(x, -0.5 * x) + torch.minimum(2 * x, x.flip(3)),
    "moves": lambda x: torch.cat([F.pad(x, (1, 1)), -x.repeat(1, 1, 1, 2)[..., :6]], 1).permute(0, 2, 1, 3),
    "half": lambda x: 1 - x[:, ::2] * 3,
}


class Around(nn.Module):
    """A function between two layers."""

    def __init__(self, function: object, last: bool) -> None:
        super().__init__()
        self.first, self.function = nn.Conv2d(1, 3, 3, padding=1), function
        self.last = nn.LazyLinear(4) if last else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(2 * x)).flatten(1))


def around(function: object, *, last: bool = True) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Around(function, last).double()
        network(torch.rand(1, *SHAPE, dtype=torch.float64))
        nn.init.normal_(network.first.weight, std=2.0)
        nn.init.normal_(network.first.bias)
    return network.eval()


@pytest.mark.parametrize(("last", "dtype"), [(True, torch.float32), (False, torch.float64)])
@pytest.mark.parametrize("name", [*ACTIVATIONS, *OTHERS, "log softmax"])
def test_property_the_bound_is_below_every_lead_in_the_box(name: str, last: bool, dtype: torch.dtype) -> None:
    """The computed leads, in the network's precision, over the corners and within."""
    network = around({**ACTIVATIONS, **OTHERS}.get(name, torch.tanh), last=last).to(dtype)
    network = nn.Sequential(network, nn.LogSoftmax(1)) if name == "log softmax" else network
    propagation = _Propagation(fold(trace(network, SHAPE)), arithmetic(dtype, torch.device("cpu")))
    inputs = torch.randn(8, *SHAPE, dtype=dtype)
    labels = own_labels(network, inputs)
    for size in (0.0, 1e-7, 0.05, 1.0):
        eps = torch.full((8,), size, dtype=torch.float64)
        bound = propagation.margin(inputs.double(), labels, eps)
        for points in _moved(inputs.double(), eps):
            with torch.no_grad():
                logits = network(points.to(dtype) if size else inputs).double()
            lead = (logits.gather(1, labels[:, None]) - logits).scatter(1, labels[:, None], torch.inf).amin(1)
            slack = 0.0 if dtype == torch.float64 else 1e-5 * size  # the points are rounded, and may leave the box
            assert bool((bound <= lead + slack).all())
        if size == 0 and "softplus" not in name:  # close to the lead at the sample itself
            torch.testing.assert_close(bound, lead, rtol=0, atol=1e-2 if dtype == torch.float32 else 1e-11)


@pytest.mark.parametrize("function", [nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Hardswish(), torch.abs])
def test_property_the_least_value_of_an_activation_lies_between_the_ends(function: Any) -> None:
    class Alone(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([function(x), 0 * x], 1)  # the lead of class 0 is the activation

    propagation = _Propagation(fold(trace(Alone().eval(), (1,))), arithmetic(torch.float64, torch.device("cpu")))
    grid = torch.linspace(-8, 8, 100_001, dtype=torch.float64)
    values = function(grid)
    place, least = grid[values.argmin()], values.min()
    for center in (place, place - 0.3, place + 0.6):
        box = center.view(1, 1), torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.float64)
        found = propagation.margin(*box)
        assert bool((found <= least).all())
        torch.testing.assert_close(found, least.view(1), rtol=0, atol=1e-4)


def test_property_a_larger_box_has_a_smaller_bound() -> None:
    network = NETWORKS["cnn"]()
    propagation = _Propagation(fold(trace(network, (1, 8, 8))), arithmetic(torch.float64, torch.device("cpu")))
    inputs = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    labels = own_labels(network, inputs)
    bounds = [
        propagation.margin(inputs, labels, torch.full((5,), eps, dtype=torch.float64)) for eps in (0, 1e-3, 0.1, 1)
    ]
    assert all(bool((after < before).all()) for before, after in itertools.pairwise(bounds))


def test_property_a_rounding_that_hides_the_lead_leaves_no_radius() -> None:
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)).half().eval()
    inputs = torch.rand(3, 64)
    assert not interval_margins(network, (64,))(inputs, torch.zeros(3, dtype=torch.int64)).any()


def test_pinned_a_cnn() -> None:
    inputs = torch.linspace(0, 1, 128, dtype=torch.float64).view(2, 1, 8, 8)
    expected = torch.tensor([0.0307394917206, 0.139005036456], dtype=torch.float64)
    torch.testing.assert_close(radii(NETWORKS["cnn"](), inputs), expected, rtol=1e-9, atol=0)


def test_property_untouched() -> None:
    network = NETWORKS["residual"]()
    assert_model_untouched(network, lambda: interval_margins(network, (1, 8, 8)))


def test_the_probe_takes_the_larger_certificate_per_sample() -> None:
    network = NETWORKS["residual"]()
    inputs = torch.rand(8, 1, 8, 8, dtype=torch.float64)
    labels = own_labels(network, inputs)
    data = fp.LabelledData(inputs, labels, classes=10)
    found = fp.geometric_margins(network, data, upper=("deepfool",), norm="linf")
    old = certified_margins(network, (1, 8, 8))(network(inputs).detach(), labels, inputs.flatten(1).norm(dim=1))
    torch.testing.assert_close(found.lowers["spectral"], old / math.sqrt(64), rtol=1e-9, atol=0)
    torch.testing.assert_close(found.lowers["interval"], radii(network, inputs), rtol=0, atol=0)
    assert torch.equal(found.lower, torch.maximum(found.lowers["spectral"], found.lowers["interval"]))
    assert found.violations == 0
    assert found.settings["arguments"]["lower"] == ["spectral"]
    assert "interval" not in fp.geometric_margins(network, data, upper=("deepfool",)).lowers


def test_all_certificates_of_a_network_share_one_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    traced: list[nn.Module] = []
    monkeypatch.setattr(certificates, "trace", lambda module, shape: traced.append(module) or trace(module, shape))
    network = NETWORKS["cnn"]()
    kinds = ("spectral", "frobenius", "interval")
    bounds, missing = certified_bounds(network, torch.rand(2, 1, 8, 8), kinds, "linf", single=True)
    assert (list(bounds), missing, len(traced)) == ([*kinds], {}, 1)


def test_a_layer_without_a_rule_is_named() -> None:
    with pytest.raises(ValueError, match=r"the interval is not known for the operation aten\.\S+ in"):
        interval_margins(around(lambda x: x.log_softmax(1)), SHAPE)
    with pytest.raises(ValueError, match=r"is not known for the operation|cannot be traced"):
        interval_margins(Attention(), (3, 8))
