"""Affine steps folded into the layers before them."""

import torch
from torch import Tensor, nn

from flatprobe.graph import fold, trace
from tests.helpers.graphs import traced


def test_closed_form_batch_norm_and_normalisation_are_folded() -> None:
    kinds = [step.kind for step in fold(traced("residual")[1]).steps]
    assert "affine" not in kinds
    _, graph, _ = traced("foreign")
    layer = next(step for step in fold(graph).steps if step.kind == "convolution")
    assert layer.layer == "convolution"
    assert layer.options["folded"] == ("norm",)


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
    graph = fold(trace(network, (6,)))
    assert [step.kind for step in graph.steps] == ["input", "linear"]
    inputs = torch.randn(2, 6, dtype=torch.float64)
    torch.testing.assert_close(graph.run(inputs), network(inputs).detach(), rtol=1e-12, atol=0)


class Signs(nn.Module):
    """A sign turned, means over one dimension of unequal ones, and a normalisation that turns signs."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.linear = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 4, 3)
        with torch.no_grad():
            self.norm.weight.copy_(torch.tensor([-2.0, 0.5, -1.0, 3.0]))
            self.norm.running_mean.copy_(torch.tensor([0.1, -0.3, 0.2, 0.4]))

    def forward(self, x: Tensor) -> Tensor:
        return -self.linear(self.norm(self.convolution(-x)).mean(-1).flatten(1))


def test_slow_reference_signs_and_means_over_dimensions_counted_from_behind() -> None:
    network = Signs().double().eval()
    graph, inputs = trace(network, (1, 6, 9)), torch.rand(2, 1, 6, 9, dtype=torch.float64)
    with torch.no_grad():
        logits = network(inputs)
    torch.testing.assert_close(graph.run(inputs), logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(fold(graph).run(inputs), logits, rtol=0, atol=1e-12)
    assert next(step for step in graph.steps if step.kind == "mean").options["count"] == 7
    turned = [step for step in graph.steps if step.operation.startswith("aten.neg")]
    assert [float(step.tensors["scale"]) for step in turned] == [-1.0, -1.0]
    layer = next(step for step in fold(graph).steps if step.kind == "convolution")
    scale = network.norm.weight / (network.norm.running_var + network.norm.eps).sqrt()
    expected = network.convolution.weight * scale[:, None, None, None]
    torch.testing.assert_close(layer.tensors["weight"], expected, rtol=1e-12, atol=0)
