"""Which layers a forward pass sees: names and shapes, products of unknown form, and what is no layer."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from flatprobe.graph.operators import spectral_norm
from flatprobe.training import ForwardPass
from flatprobe.training.constraints import SpectralProjection
from flatprobe.training.forward.layers import distinct
from flatprobe.training.penalties import JacobianPerLayer, SpectralNorm
from tests.helpers.cases import batch, normalised_network


class Around(nn.Module):
    """Something with a matrix, given (matrix, inputs), between the inputs and a linear layer."""

    def __init__(self, call) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(4) + 0.1)
        self.call, self.head, self.columns = call, nn.Linear(4, 2), self.matrix.T
        self.register_buffer("mask", torch.eye(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.call(self, x))


def seen(network: nn.Module) -> list[tuple[str, str]]:
    passed = ForwardPass(network, torch.ones(3, 4), torch.tensor([0, 1, 1]))
    return [(layer.name, layer.kind) for layer in passed.layers]


def test_closed_form_layers_are_seen_with_their_names_and_shapes() -> None:
    passed = ForwardPass(normalised_network(), *batch())
    seen = [(layer.name, layer.kind, layer.input_shape[1:], layer.output_shape[1:]) for layer in passed.layers]
    assert seen == [
        ("first", "convolution", (2, 5, 5), (4, 5, 5)),
        ("second", "convolution", (4, 7, 7), (4, 3, 3)),
        ("skip", "convolution", (4, 5, 5), (4, 3, 3)),
        ("head", "linear", (36,), (3,)),
    ]


def test_the_source_of_a_layer_does_not_see_its_skip() -> None:
    """Closed form: g W and not g W + g, where the layer's input goes past it too; the ReLU works in place."""

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2, bias=False).double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu_(self.layer(x)) + x

    network = Skip()
    with torch.no_grad():
        network.layer.weight.copy_(torch.tensor([[1.0, 2.0], [-3.0, -1.0]]))
    passed = ForwardPass(network, torch.ones(1, 2, dtype=torch.float64), torch.tensor([0]))
    (layer,) = (passed.logits, *passed.layers)[1:]
    source, target = torch.autograd.grad(passed.logits[:, 0].sum(), [layer.source, layer.target])
    assert source.tolist() == [[1.0, 2.0]]
    assert target.tolist() == [[1.0, 0.0]]


def test_a_layer_as_an_operator() -> None:
    """Property: <y, W x> = <W^T y, x> = <G(x, y), W> for any number of samples; W x is the layer's own, without b."""
    passed = ForwardPass(normalised_network(), *batch())
    assert [layer.operand_shape for layer in passed.layers] == [(2, 5, 5), (4, 7, 7), (4, 5, 5), (36,)]
    for layer in passed.layers:
        with torch.no_grad():
            x = torch.randn(2, *layer.operand_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
            image = layer.product(x)
            y = torch.randn(image.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            assert image.shape == (2, *layer.image_shape)
            inner = (y * image).sum()
            torch.testing.assert_close((layer.adjoint(y) * x).sum(), inner, rtol=1e-9, atol=1e-12)
            torch.testing.assert_close((layer.gathered(x, y) * layer.weight).sum(), inner, rtol=1e-9, atol=1e-12)


def filled(own: Around, x: torch.Tensor) -> torch.Tensor:
    """A constant that the inputs are written to, by a view."""
    total = torch.zeros(len(x), 4)
    total[:, :2].add_(x[:, :2])
    return total @ own.matrix


PRODUCTS = {
    "matmul": lambda own, x: x @ own.matrix,
    "transposed": lambda own, x: (own.matrix.T @ x.T).T,
    "a view that was made before": lambda own, x: x @ own.columns,
    "einsum": lambda own, x: torch.einsum("bi,oi->bo", x, own.matrix),
    "a computed weight": lambda own, x: x @ own.matrix.relu().tril(),
    "a masked weight": lambda own, x: x @ (own.matrix * own.mask),
    "written to": filled,
    "read by Python": lambda own, x: torch.tensor(x.tolist()) @ own.matrix + x,
    "bilinear": lambda own, x: F.bilinear(x, x, own.matrix.expand(4, 4, 4)),
    "embedding": lambda own, x: F.embedding((x[:, 0] > 0).long(), own.matrix) + x,
    "a learned query": lambda own, x: x + F.scaled_dot_product_attention(own.matrix[:1], x, x),
}
NO_LAYERS = {
    "dropout": lambda own, x: x + F.dropout(own.matrix, 0.5)[0],
    "pad": lambda own, x: x + F.pad(own.matrix, (1, 1))[0, :4],
    "normalize": lambda own, x: x + F.normalize(own.matrix)[0],
    "relu": lambda own, x: x + F.relu(own.matrix)[0] + F.gelu(own.matrix)[1],
    "a gain": lambda own, x: x * own.matrix[0],
    "a position": lambda own, x: x + own.matrix[: len(x)],
    "an embedded position": lambda own, x: x + F.embedding(torch.arange(len(x)), own.matrix),
    "layer norm": lambda own, x: F.layer_norm(x[:, None].expand(-1, 4, -1), (4, 4), own.matrix)[:, 0],
    "a product of weights": lambda own, x: x * (own.matrix @ own.mask @ own.matrix)[0],
    "looks": lambda own, x: x * own.matrix.shape[0] * float(own.matrix.detach().double().cpu().numel()),
}


@pytest.mark.parametrize("call", PRODUCTS.values(), ids=PRODUCTS)
def test_closed_form_products_of_unknown_form_are_seen(call: Any) -> None:
    assert seen(Around(call)) == [("matrix", "unknown"), ("head", "linear")]


@pytest.mark.parametrize("call", NO_LAYERS.values(), ids=NO_LAYERS)
def test_closed_form_what_computes_a_weight_or_works_entry_by_entry_is_no_layer(call: Any) -> None:
    assert seen(Around(call)) == [("head", "linear")]


class LowRank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.eye(2, 4))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight @ self.factor.T @ self.factor


PARAMETRIZED = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "low rank": lambda layer: parametrize.register_parametrization(layer, "weight", LowRank()),
}


@pytest.mark.parametrize("wrap", PARAMETRIZED.values(), ids=PARAMETRIZED)
def test_parametrized_layers_are_penalised_and_not_projected(wrap: Any) -> None:
    """Closed form: SpectralNorm is the norm of the weight that is applied, whatever it is computed from."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(wrap(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 2))
        network(torch.ones(1, 4))  # of spectral normalisation, which changes in every pass
    passed = ForwardPass(network, torch.ones(3, 4), torch.tensor([0, 1, 1]), key=(0,))
    assert [layer.kind for layer in passed.layers] == ["linear", "linear"]
    assert passed.layers[0].name.startswith("0.parametrizations.weight")
    norms = [spectral_norm(layer.weight.detach()) for layer in passed.layers]
    value = SpectralNorm(exact=True)(passed)
    assert value.item() == pytest.approx(sum(norm**2 for norm in norms), rel=1e-5)
    for term in (value, SpectralNorm()(passed), JacobianPerLayer()(passed)):
        own = list(network[0].parametrizations.parameters())
        assert any(bool(found.any()) for found in torch.autograd.grad(term, own, retain_graph=True))
    with pytest.raises(ValueError, match=r"layer '0\.param.*', whose weight is computed .*remove_parametrizations"):
        SpectralProjection(1.0)(network, passed.layers)


def test_closed_form_layers_that_are_applied_alike_are_one() -> None:
    layer, other = nn.Linear(4, 4), nn.Linear(4, 4)
    passed = ForwardPass(nn.Sequential(layer, layer, other), torch.ones(2, 4), torch.tensor([0, 1]))
    assert list(distinct(passed.layers)) == ["0.0.4", "1.2.4"]
