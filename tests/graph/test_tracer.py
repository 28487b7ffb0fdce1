"""Networks traced into steps: the steps are the network, whatever way its code is written."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatprobe import models
from flatprobe.graph import Graph, folded, trace
from flatprobe.graph.lipschitz import certified_margins
from tests.helpers.cases import NETWORKS, affine
from tests.helpers.properties import assert_model_untouched


class Foreign(nn.Module):
    """Functional calls, an activation in place, string padding, a strided slice, a pad, branches, a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding="same")
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4 * 49, 10)
        self.matrix = nn.Parameter(torch.rand(12, 12))

    def forward(self, x: Tensor) -> Tensor:
        before = self.norm(self.convolution(x))
        after = F.relu(before, inplace=True)
        halved = F.max_pool2d(after, 2, 2) + F.pad(before[:, :2, ::2, ::2], (0, 0, 0, 0, 1, 1))
        z = self.linear(F.dropout(halved, 0.5, self.training).view(x.size(0), -1))
        joined = torch.cat([F.gelu(z, approximate="tanh"), F.adaptive_max_pool2d(halved, 1)[:, :2, 0, 0]], 1)
        joined = joined @ self.matrix.T + 1 - self.matrix[0] / 2
        return joined + F.leaky_relu(joined * 2, 0.2) - F.silu(-joined)


def foreign() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Foreign().double()
        network(torch.rand(32, 1, 14, 14, dtype=torch.float64))
    return network.eval()


CASES = {
    **{name: (build, (1, 8, 8)) for name, build in NETWORKS.items()},
    "foreign": (foreign, (1, 14, 14)),
    "affine": (affine, (7,)),
}


def traced(name: str) -> tuple[nn.Module, Graph, Tensor]:
    build, shape = CASES[name]
    network = build()
    return network, trace(network, shape), torch.rand(2, *shape, dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
def test_slow_reference_the_steps_reproduce_the_network(name: str) -> None:
    network, graph, inputs = traced(name)
    assert all(step.kind != "other" for step in graph.steps)
    with torch.no_grad():
        logits = network(inputs)
    torch.testing.assert_close(graph.run(inputs), logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(folded(graph).run(inputs), logits, rtol=0, atol=1e-12)


def test_closed_form_batch_norm_and_normalisation_are_folded() -> None:
    kinds = [step.kind for step in folded(traced("residual")[1]).steps]
    assert "affine" not in kinds
    _, graph, _ = traced("foreign")
    layer = next(step for step in folded(graph).steps if step.kind == "convolution")
    assert layer.layer == "convolution"
    assert layer.options["folded"] == ("norm",)


def test_property_tracing_leaves_the_model_alone() -> None:
    network = foreign()
    assert_model_untouched(network, lambda: trace(network, (1, 14, 14)))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def test_what_cannot_be_traced_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Branching cannot be traced on inputs of shape \(3,\)"):
        trace(Branching().eval(), (3,))
    with pytest.raises(ValueError, match="Pair returns no single tensor of logits"):
        trace(Pair().eval(), (3,))
    with pytest.raises(ValueError, match="takes 2 samples at a time, and 3 were given"):
        trace(nn.Identity().eval(), (3,)).run(torch.zeros(3, 3))


def test_unknown_operations_keep_their_names() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)).eval()
    step = trace(network, (3,)).steps[-1]
    assert step.kind == "other"
    message = r"the Lipschitz constant is not known for the operation aten.softmax.int in the layer '1'"
    with pytest.raises(ValueError, match=message):
        step.refuse("the Lipschitz constant")
    circular = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular"), nn.Flatten()).eval()
    assert any(step.kind == "other" for step in trace(circular, (1, 6)).steps)


def test_writing_to_a_view_is_followed_or_refused() -> None:
    class Viewed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            doubled = x * 2
            doubled.view(-1, 3).relu_()
            return doubled

    with pytest.raises(ValueError, match="Viewed writes in place to a view of a value that it uses again"):
        trace(Viewed().eval(), (3,))
    network = nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2)), nn.ReLU(inplace=True), nn.Flatten()).double()
    inputs = torch.randn(2, 4, dtype=torch.float64)
    torch.testing.assert_close(trace(network.eval(), (4,)).run(inputs), network(inputs).detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_precision_is_read_in_float64(dtype: torch.dtype) -> None:
    network = models.mlp((1, 4, 4), widths=(8,)).to(dtype).eval()
    graph = trace(network, (1, 4, 4))
    assert all(value.dtype == torch.float64 for step in graph.steps for value in step.tensors.values())


class Dead(nn.Module):
    """A branch that leads nowhere, and logits that are folded back past it."""

    def __init__(self) -> None:
        super().__init__()
        self.output, self.first, self.second = nn.Linear(6, 3), nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.output(x)
        self.feature = self.second(self.first(x).tanh())
        return z / 0.01


def test_regression_branches_that_lead_nowhere_are_no_part_of_the_network() -> None:
    network = Dead().double().eval()
    graph = folded(trace(network, (6,)))
    assert [step.kind for step in graph.steps] == ["input", "linear"]
    inputs = torch.randn(2, 6, dtype=torch.float64)
    torch.testing.assert_close(graph.run(inputs), network(inputs).detach(), rtol=1e-12, atol=0)


class Shared(nn.Module):
    """Slices that share entries, one of them written to."""

    def __init__(self, copied: bool) -> None:
        super().__init__()
        self.layer, self.copied = nn.Linear(6, 8), copied

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        first, second = h[:, :4], h[:, 2:6]
        first = first.clone() if self.copied else first
        first.mul_(10)
        return first + second


def test_regression_what_shares_memory_with_what_is_written_to_is_refused() -> None:
    with pytest.raises(ValueError, match="Shared writes in place to a view of a value that it uses again"):
        trace(Shared(copied=False).eval(), (6,))
    network = Shared(copied=True).double().eval()
    inputs = torch.randn(2, 6, dtype=torch.float64)
    torch.testing.assert_close(trace(network, (6,)).run(inputs), network(inputs).detach(), rtol=1e-12, atol=0)


class Counting(nn.Module):
    """Buffers that each pass writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.ones(3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        self.average.mul_(0.5)
        return x * self.average


def test_regression_the_callers_buffers_are_not_written_to() -> None:
    network = Counting().eval()
    trace(network, (3,))
    assert torch.equal(network.average, torch.ones(3, dtype=torch.float64))


class Frozen(nn.Module):
    """A part that is not to be trained, and writing into parts of a tensor, which is not followed."""

    def __init__(self, written: bool) -> None:
        super().__init__()
        self.layer, self.written = nn.Linear(3, 3), written

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            h = self.layer(x)
        if self.written:
            zeros = torch.zeros(len(x), 3, dtype=x.dtype)
            zeros[:, :2] = h[:, :2]
            return zeros
        return self.layer(h)


def test_regression_what_cannot_be_followed_says_where_to_look() -> None:
    network = Frozen(written=False).double().eval()
    inputs = torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(trace(network, (3,)).run(inputs), network(inputs).detach(), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match=r"Frozen applies .* cannot be followed .* for writing into parts of a tensor"):
        trace(Frozen(written=True).eval(), (3,))
    pooled = nn.Sequential(nn.Unflatten(1, (2, 4)), nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten()).eval()
    assert any(step.kind == "other" for step in trace(pooled, (8,)).steps)  # torch takes the samples for channels


def test_casts_to_another_precision_are_followed_and_not_certified() -> None:
    class Cast(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.float() * 2).double()

    network = nn.Sequential(nn.Linear(3, 3), Cast()).double().eval()
    steps = trace(network, (3,)).steps
    assert [step.kind for step in steps] == ["input", "linear", "rearrange", "affine", "rearrange"]
    assert [step.dtype for step in steps] == [None, None, torch.float32, torch.float32, None]
    with pytest.raises(
        ValueError, match=r"aten.to.dtype in .* '1' in torch.float32, and takes its inputs in torch.float64"
    ):
        certified_margins(network, (3,))


def test_regression_views_do_not_depend_on_the_layout_that_the_weights_have() -> None:
    network, inputs = foreign(), torch.rand(2, 1, 14, 14, dtype=torch.float64)
    expected = network(inputs).detach()
    graph = trace(network.to(memory_format=torch.channels_last), (1, 14, 14))
    torch.testing.assert_close(graph.run(inputs), expected, rtol=0, atol=1e-12)


def test_regression_networks_are_traced_in_threads() -> None:
    networks = [models.mlp((1, 4, 4), widths=(8,), seed=seed).double().eval() for seed in range(6)]
    inputs = torch.rand(2, 1, 4, 4, dtype=torch.float64)
    with ThreadPoolExecutor(6) as threads:
        graphs = list(threads.map(lambda network: trace(network, (1, 4, 4)), networks))
    for network, graph in zip(networks, graphs, strict=True):
        torch.testing.assert_close(graph.run(inputs), network(inputs).detach(), rtol=0, atol=1e-12)


class Kept(nn.Module):
    """A layer under two names, applied twice, and what a pass has left behind with its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(3, 3), nn.Linear(3, 2)
        self.layers = nn.ModuleList([self.layer, self.layer])
        self.features: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        self.features = x
        return self.last(x)


def test_regression_shared_layers_and_what_a_pass_leaves_are_traced() -> None:
    network = Kept().double().eval()
    network.layer.register_forward_hook(lambda layer, _args, outputs: setattr(layer, "kept", outputs))
    inputs = torch.randn(2, 3, dtype=torch.float64)
    expected = network(inputs)
    graph = trace(network, (3,))
    torch.testing.assert_close(graph.run(inputs), expected.detach(), rtol=0, atol=1e-12)
    assert [step.kind for step in graph.steps].count("linear") == 3
    assert network.features is not None
    assert network.features.requires_grad


class Signs(nn.Module):
    """A sign turned, means over one dimension of unequal ones, and a normalisation that turns signs."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.linear = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 4, 3)
        with torch.no_grad():
            self.norm.weight.copy_(torch.tensor([-2.0, 0.5, -1.0, 3.0]))
            self.norm.running_mean.copy_(torch.tensor([0.1, -0.3, 0.2, 0.4]))

    def forward(self, x: Tensor) -> Tensor:
        return -self.linear(self.norm(self.convolution(-x)).mean(-1).flatten(1))  # type: ignore[no-any-return]


def test_slow_reference_signs_and_means_over_dimensions_counted_from_behind() -> None:
    network = Signs().double().eval()
    graph, inputs = trace(network, (1, 6, 9)), torch.rand(2, 1, 6, 9, dtype=torch.float64)
    with torch.no_grad():
        logits = network(inputs)
    torch.testing.assert_close(graph.run(inputs), logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(folded(graph).run(inputs), logits, rtol=0, atol=1e-12)
    assert next(step for step in graph.steps if step.kind == "mean").options["count"] == 7
    turned = [step for step in graph.steps if step.operation.startswith("aten.neg")]
    assert [float(step.tensors["scale"]) for step in turned] == [-1.0, -1.0]
    layer = next(step for step in folded(graph).steps if step.kind == "convolution")
    scale = network.norm.weight / (network.norm.running_var + network.norm.eps).sqrt()
    expected = network.convolution.weight * scale[:, None, None, None]
    torch.testing.assert_close(layer.tensors["weight"], expected, rtol=1e-12, atol=0)


def test_a_padding_on_one_side_is_no_convolution_that_is_known() -> None:
    network = nn.Sequential(nn.Conv1d(1, 2, 2, padding="same"), nn.Flatten()).eval()
    assert [step.kind for step in trace(network, (1, 6)).steps][1] == "other"


def test_closed_form_the_offset_of_a_normalisation_is_as_large_as_what_cancels_in_it() -> None:
    norm = nn.BatchNorm1d(2, eps=0.0).double().eval()
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([1e3, -1e3]))
        norm.bias.copy_(norm.running_mean)
    step = trace(norm, (2,)).steps[-1]
    assert step.tensors["shift"].flatten().tolist() == [0.0, 0.0]
    assert step.tensors["magnitude"].flatten().tolist() == [2e3, 2e3]
