"""What rounding does to logits stays within its bound, and certificates are those of the network as it is computed."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe import models
from flatprobe.graph import fold, trace
from flatprobe.graph.lipschitz import certified_margins, step_constants
from flatprobe.graph.lipschitz.certificates import _lower
from flatprobe.graph.lipschitz.rounding import Affine, Arithmetic, arithmetic, rounding
from tests.helpers.cases import affine

CPU = torch.device("cpu")


def bound(network: nn.Module, shape: tuple[int, ...], used: Arithmetic, kind: str = "spectral") -> Affine:
    graph = fold(trace(network, shape))
    return rounding(graph, step_constants(graph, kind), used)


def cancelling() -> nn.Module:
    """Large biases, which the normalisation after them takes away again."""
    layer, norm = nn.Linear(6, 3), nn.BatchNorm1d(3)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1e6, -3e6, 7e6]))
    norm.running_mean.copy_(layer.bias.detach())
    return nn.Sequential(layer, norm)


def folded_offset() -> nn.Module:
    """Large biases that a normalisation is folded onto, and small ones of its own."""
    layer, norm = nn.Linear(6, 3), nn.BatchNorm1d(3)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.1e6, -3.3e6, 7.7e6]))
    return nn.Sequential(layer, norm)


def offset() -> nn.Module:
    """Values that come from biases alone, and a sum that loses their digits."""
    first, last = nn.Linear(6, 400), nn.Linear(400, 3)
    with torch.no_grad():
        first.weight.zero_()
        first.bias.copy_(torch.linspace(0.1, 1e4, 400))
    return nn.Sequential(first, nn.ReLU(), last)


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(6, 12), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(3 * x - 1)
        first, second = z.chunk(2, 1)
        joined = torch.cat([torch.maximum(first, second), first.sigmoid(), nn.functional.softplus(z)], 1)
        return nn.functional.log_softmax(self.last(joined) - z.view(-1, 4, 3).sum(1) / 7, 1)


class Summed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        z = self.convolution(x).cos()
        return z.sum((2, 3)) + nn.functional.adaptive_avg_pool2d(z, (1, 1)).flatten(1) + z.amax((2, 3))


NETWORKS = {
    "cancelling": (cancelling, (6,)),
    "folded offset": (folded_offset, (6,)),
    "offset": (offset, (6,)),
    "branches": (Branches, (6,)),
    "sums": (Summed, (1, 40, 40)),
    "mlp": (lambda: models.mlp((1, 8, 8), widths=(64, 32)), (1, 8, 8)),
    "residual": (lambda: models.resnet((1, 8, 8), depth=10, width=4), (1, 8, 8)),
    "constants": (lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()), (4,)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_property_logits_are_within_the_bound_of_exact_ones(name: str, dtype: torch.dtype) -> None:
    build, shape = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build().to(dtype).eval()
        inputs = (torch.randn(64, *shape) * 10.0 ** torch.linspace(-2, 3, 64).view(-1, *(1,) * len(shape))).to(dtype)
    found = bound(network, shape, arithmetic(dtype, CPU))
    exact = copy.deepcopy(network).double()
    with torch.no_grad():
        errors = (network(inputs).double() - exact(inputs.double())).norm(dim=1)
    allowed = found.constant + found.slope * inputs.double().flatten(1).norm(dim=1)
    finite = errors.isfinite()  # half precision overflows
    assert int(finite.sum()) > 10 or (name in {"cancelling", "folded offset"} and dtype == torch.float16)
    assert bool((errors <= allowed)[finite].all())
    if dtype == torch.float32:
        assert math.isfinite(found.constant)
        assert float(errors.max()) > 0


def test_closed_form_one_layer_and_two() -> None:
    """gamma of the 7 products and 16 operations beside them; what a bias adds is seen by the layer after it."""
    used = Arithmetic(2.0**-20, 0.0)
    gamma = 23 * 2.0**-20 / (1 - 23 * 2.0**-20)
    network = affine(5, 7)
    weight = network.weight.detach().abs()
    widened = float((weight.sum(1).max() * weight.sum(0).max()).sqrt())
    found = bound(network, (7,), used)
    assert found.slope == pytest.approx(gamma * widened, rel=1e-9)
    assert found.constant == pytest.approx(gamma * float(network.bias.detach().norm()), rel=1e-9)
    two = nn.Sequential(nn.Linear(7, 7), nn.Linear(7, 5, bias=False)).double().eval()
    with torch.no_grad():
        two[0].weight.zero_()
        two[1].weight.fill_(1.0)
    norm = float(two[0].bias.detach().norm())
    assert bound(two, (7,), used).constant == pytest.approx(
        gamma * norm * math.sqrt(35) + gamma * math.sqrt(35) * (norm + gamma * norm), rel=1e-9
    )
    assert bound(two, (7,), Arithmetic(2.0**-4, 0.0)).constant == math.inf  # 23 of 16 units: nothing is left


def test_closed_form_underflow_and_rounded_factors() -> None:
    layer = nn.Linear(7, 5, bias=False).eval()
    assert bound(layer, (7,), Arithmetic(0.0, 1e-3)).constant == pytest.approx(23 * 1e-3 * math.sqrt(5))
    rough = bound(layer, (7,), Arithmetic(0.0, 0.0, {"linear": 2.0**-11})).slope
    weight = layer.weight.detach().abs().double()
    assert rough == pytest.approx(2.1 * 2.0**-11 * float((weight.sum(1).max() * weight.sum(0).max()).sqrt()), rel=1e-6)


def test_closed_form_the_jump_of_softplus() -> None:
    found = bound(nn.Sequential(nn.Softplus(1.0, 2.0)).double().eval(), (9,), Arithmetic(0.0, 0.0))
    assert found == Affine(3 * math.log1p(math.exp(-2.0)), 0.0)


def test_arithmetic_follows_torchs_settings() -> None:
    assert arithmetic(torch.float64, CPU) == Arithmetic(2.0**-53, 2.0**-1022)
    single = arithmetic(torch.float32, CPU)
    assert (single.unit, single.least, dict(single.factors)) == (
        2.0**-24,
        2.0**-126,
        {"linear": 0.0, "convolution": 0.0},
    )
    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = products.fp32_precision
    try:
        products.fp32_precision = "bf16"
        assert arithmetic(torch.float32, CPU).factors == {"linear": 2.0**-8, "convolution": 0.0}
    finally:
        products.fp32_precision = before
    assert arithmetic(torch.float16, CPU).factors == {}


def test_regression_a_single_precision_network_keeps_its_class_within_its_certificate() -> None:
    """Logits of 1e4 and a small lead: the network in float32 changes its class well inside the radius of float64."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Linear(64, 3).eval()
    common = torch.randn(64, generator=generator) * 200
    with torch.no_grad():
        network.weight.copy_(common + 1e-3 * torch.randn(3, 64, generator=generator))
        network.bias.copy_(torch.tensor([3e-3, 0.0, 0.0]))
    inputs = torch.randn(1, 64, generator=generator) * 8
    with torch.no_grad():
        label = network.double()(inputs.double()).argmax(1)
        exact_logits = network(inputs.double())
        old = float(certified_margins(network, (64,))(exact_logits, label, inputs.double().norm(dim=1)))
        network.float()
        logits = network(inputs)
        steps = torch.randn(20_000, 64, generator=generator)
        lengths = torch.linspace(0.01, 1, 20_000)[:, None] * old
        points = inputs + lengths * steps / steps.norm(dim=1, keepdim=True)
        distances = (points.double() - inputs.double()).norm(dim=1)
        changed = network(points).argmax(1) != label
    nearest = float(distances[changed].min())
    assert float(logits.abs().max()) > 1e3
    assert nearest < 0.9 * old
    assert float(certified_margins(network, (64,))(logits, label, inputs.double().norm(dim=1))) < nearest


def test_property_a_single_precision_certificate_is_near_that_of_double_precision() -> None:
    network = models.mlp((1, 8, 8), widths=(64,)).eval()
    inputs = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    exact = copy.deepcopy(network).double()
    norms = inputs.double().flatten(1).norm(dim=1)
    with torch.no_grad():
        labels = exact(inputs.double()).argmax(1)
        own = certified_margins(network, (1, 8, 8))(network(inputs), labels, norms)
        double = certified_margins(exact, (1, 8, 8))(exact(inputs.double()), labels, norms)
    assert bool((own <= double).all())
    assert float((own / double).median()) > 0.95


def test_closed_form_what_rounding_takes_here_and_a_radius_away() -> None:
    """The lead of 1 less sqrt(2) times the error of all logits, at the input of norm 2 and r further away."""
    logits, labels = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    found = _lower(lambda _labels: 3.0, Affine(0.1, 0.01), logits, labels, torch.tensor([2.0], dtype=torch.float64))
    expected = (1 - 2 * math.sqrt(2) * (0.1 + 0.01 * 2)) / (3 + math.sqrt(2) * 0.01)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_certificates_that_rounding_takes_whole_are_told() -> None:
    """Leads of about 1e-7 of the logits: certified in float64, and not in float32."""
    model = nn.Linear(4, 3).eval()
    with torch.no_grad():
        model.weight.copy_(torch.eye(3, 4) * 1e-3)
        model.bias.fill_(1e3)
    inputs = torch.cat([torch.eye(3, 4), torch.eye(3, 4)])
    data = fp.LabelledData(inputs, torch.arange(6) % 3)
    fine = fp.geometric_margins(
        copy.deepcopy(model).double(), fp.LabelledData(inputs.double(), data.labels), upper="fab"
    )
    assert bool((fine.lower > 0).all())
    assert not fine.uncertified
    with pytest.warns(UserWarning, match=r"not certified by spectral.* no lead .* float32: measure model\.double\(\)"):
        result = fp.geometric_margins(model, data, upper="fab")
    assert not result.lower.any()
    assert not result.certified
    assert "rounding in float32" in result.uncertified["spectral"]
    wrong = fp.LabelledData(inputs, (data.labels + 1) % 3)
    assert not fp.geometric_margins(model, wrong, upper="fab").uncertified  # nothing to certify
