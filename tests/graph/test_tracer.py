"""Networks traced into steps: the steps are the network, whatever way its code is written."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe import models
from flatprobe.graph import fold, trace
from tests.helpers.graphs import CASES, foreign, traced
from tests.helpers.properties import assert_model_untouched


@pytest.mark.parametrize("name", CASES)
def test_slow_reference_the_steps_reproduce_the_network(name: str) -> None:
    network, graph, inputs = traced(name)
    assert all(step.kind != "other" for step in graph.steps)
    with torch.no_grad():
        logits = network(inputs)
    torch.testing.assert_close(graph.run(inputs), logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(fold(graph).run(inputs), logits, rtol=0, atol=1e-12)


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
    with pytest.raises(ValueError, match=r"Pair cannot be traced .*is a tuple of 2: .*fp.WithOutput"):
        trace(Pair().eval(), (3,))
    with pytest.raises(ValueError, match="takes 2 samples at a time, and 3 were given"):
        trace(nn.Identity().eval(), (3,)).run(torch.zeros(3, 3))


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


def test_a_forward_that_looks_at_values_is_told_without_torchs_graph(capfd: pytest.CaptureFixture[str]) -> None:
    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.mean().item() > 0 else self.layer(2 * x)

    with pytest.raises(
        ValueError, match=r"cannot be traced on .* \(its forward decides by the values of a tensor: look"
    ):
        fp.weight_norms(Looking().eval(), 4)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
