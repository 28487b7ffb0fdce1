"""Layers whose norms are not known: they are named, and no other layer's norms stand in their place."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.graph.layer_norms import listed_layers
from flatprobe.graph.lipschitz import certified_margins
from flatprobe.training import ForwardPass
from flatprobe.training.constraints import SpectralProjection, UnitRows
from flatprobe.training.penalties import JacobianPerLayer, SpectralNorm

SHAPE = (2, 6, 6)


def behind(layer: nn.Module, shape: tuple[int, ...] = SHAPE) -> nn.Module:
    """The layer, named "0", and a linear one behind it, "2"."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        size = layer.double()(torch.zeros(1, *shape, dtype=torch.float64)).numel()
        return nn.Sequential(layer, nn.Flatten(), nn.Linear(size, 3)).double().eval()


class Own(nn.Module):
    """A weight of its own, and a function of it and the inputs."""

    def __init__(self, shape: tuple[int, ...], function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(shape))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.W)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.inner = kind(6, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x[:, 0])[0]


class Called(nn.Linear):
    def __call__(self, x: Tensor) -> Tensor:
        return 3 * super().__call__(x)


class Squared(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).square()


class Cropped(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., 1:]


def hooked() -> nn.Module:
    layer = nn.Linear(6, 4)
    layer.register_forward_hook(lambda _layer, _args, output: output.square())
    return layer


PADDED = ("circular", "reflect", "replicate")
LEFT_OUT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    **{mode: (lambda mode=mode: nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode), "'0' (Conv2d)") for mode in PADDED},
    "an even kernel": (lambda: nn.Conv2d(2, 3, 2, padding="same"), "'0' (Conv2d)"),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3), "'0' (ConvTranspose2d)"),
    "lstm": (lambda: Recurrent(nn.LSTM), "'0.inner' (LSTM)"),
    "gru": (lambda: Recurrent(nn.GRU), "'0.inner' (GRU)"),
    "rnn": (lambda: Recurrent(nn.RNN), "'0.inner' (RNN)"),
    "bilinear": (lambda: Own((3, 6, 6), lambda x, w: F.bilinear(x, x, w)), "'0' (Own)"),
    "einsum": (lambda: Own((6, 4), lambda x, w: torch.einsum("bcij,jk->bcik", x, w)), "'0' (Own)"),
    "from the left": (lambda: Own((5, 6), lambda x, w: w @ x), "'0' (Own)"),
    "several matrices": (lambda: Own((2, 6, 4), lambda x, w: x @ w), "'0' (Own)"),
    "entries and a sum": (lambda: Own((4, 6), lambda x, w: (x[..., None, :] * w).sum(-1)), "'0' (Own)"),
    "another call": (lambda: Called(6, 4), "'0' (Called)"),
    "another forward": (lambda: Squared(6, 4), "'0' (Squared)"),
    "part of the output": (lambda: Cropped(2, 3, 3), "'0' (Cropped)"),
    "hook": (hooked, "'0' (Linear)"),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_has_no_known_norm_is_named_and_left_out_of_the_products(name: str, tmp_path: Path) -> None:
    build, named = LEFT_OUT[name]
    model = behind(build())
    with pytest.warns(UserWarning, match="are left out of the layers") as told:
        result = fp.weight_norms(model, SHAPE, path=False)
    assert [str(entry.message).count(named) for entry in told] == [1]
    assert result.left_out == [named]
    assert result.names == ("2",)
    assert result.product() == pytest.approx(float(torch.linalg.matrix_norm(model[2].weight.detach(), 2)), rel=1e-6)
    fp.save(result, tmp_path / "norms.parquet")
    assert fp.load(tmp_path / "norms.parquet").left_out == [named]


def test_the_networks_own_weight_is_named_by_itself() -> None:
    model = Own((6, 4), lambda x, w: torch.einsum("bi,ij->bj", x, w)).eval()
    with pytest.raises(ValueError, match=r"Own must apply a linear or zero-padded convolutional layer, got 'W'"):
        fp.weight_norms(model, 6, path=False)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias, padding=1)


class Thrice(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


class Permuted(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def normalised() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3))


def thrice_by_a_hook() -> nn.Module:
    layer = nn.Conv2d(2, 3, 3)
    layer.register_forward_hook(lambda _layer, _args, output: 3 * output)
    return layer


def watched() -> nn.Module:
    layer = nn.Conv2d(2, 3, 3)
    layer.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize("build", [Standardised, Thrice, Permuted, normalised, thrice_by_a_hook, watched])
def test_slow_reference_a_layer_that_is_such_an_operator_has_its_norms(build: Callable[..., nn.Module]) -> None:
    arguments = () if not isinstance(build, type) else (2, 3) if issubclass(build, nn.Linear) else (2, 3, 3)
    model = behind(build(*arguments))
    with torch.no_grad():
        offset = model[0](torch.zeros(1, *SHAPE, dtype=torch.float64)).flatten(1)
        matrix = model[0](torch.eye(72, dtype=torch.float64).view(72, *SHAPE)).flatten(1) - offset
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fp.weight_norms(model, SHAPE)
    assert (result.names, result.left_out) == (("0", "2"), [])
    assert float(result.of("spectral")[0]) == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-6)
    assert float(result.of("frobenius")[0]) == pytest.approx(float(matrix.norm()), rel=1e-9)


class WithToken(nn.Module):
    """Weights that are added or set beside the values multiply nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(1, 4, 4))
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last((torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place).flatten(1))


def test_weights_that_multiply_nothing_are_not_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fp.weight_norms(WithToken().eval(), (3, 4), path=False).left_out == []


def test_a_network_that_is_not_traced_lists_what_torch_runs_as_a_linear_layer() -> None:
    class Thrice(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 3 * super().forward(x)

    first, before = nn.Linear(4, 4), nn.Linear(4, 4)
    first.register_forward_hook(lambda _layer, _args, output: 3 * output)
    before.register_forward_pre_hook(lambda _layer, args: 3 * args[0])
    weight_normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    parts = [nn.Embedding(9, 4), first, before, Thrice(4, 4), Called(4, 4), weight_normed]
    with pytest.warns(
        UserWarning, match=r"applies '0' \(Embedding\), '1' \(Linear\), '2' \(Linear\), '3' \(Thrice\), "
    ):
        result = fp.weight_norms(nn.Sequential(*parts).eval(), None, path=False)
    assert result.names == ("5",)
    assert result.left_out[-1] == "'4' (Called)"
    assert result.product() == pytest.approx(
        float(torch.linalg.matrix_norm(weight_normed.weight.detach(), 2)), rel=1e-6
    )


@pytest.mark.parametrize("mode", PADDED)
def test_no_operator_of_a_convolution_with_another_padding_is_used_elsewhere(mode: str) -> None:
    model = behind(nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode))
    with pytest.raises(ValueError, match=r"not known for the operation aten.pad.default in the layer '0'"):
        certified_margins(model, SHAPE)
    with pytest.raises(ValueError, match=r"path norm .* not known for the operation aten.pad.default in the layer '0'"):
        fp.weight_norms(model, SHAPE)
    passed = ForwardPass(model, torch.randn(2, *SHAPE, dtype=torch.float64), torch.tensor([0, 1]))
    refused = r"met the layer '0', which is neither linear nor a convolution .* zero padding"
    for part in (SpectralNorm(), JacobianPerLayer()):
        with pytest.raises(ValueError, match=refused):
            part(passed)
    with pytest.raises(ValueError, match=refused):
        SpectralProjection(1.0)(model, passed.layers)
    UnitRows()(model, passed.layers)  # of the kernel, whatever is done before it
    torch.testing.assert_close(model[0].weight.flatten(1).norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_a_padding_of_its_own_leaves_the_convolution_behind_it_as_it_is() -> None:
    model = nn.Sequential(nn.CircularPad2d(1), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(108, 3)).double().eval()
    plain = nn.Sequential(model[1], nn.Flatten(), model[3]).eval()
    result = fp.weight_norms(model, SHAPE, path=False)
    assert result.names == ("1", "3")
    torch.testing.assert_close(result.layers, fp.weight_norms(plain, (2, 8, 8), path=False).layers)


class Mixed(nn.Module):
    """One of two layers in another precision."""

    def __init__(self, dtype: torch.dtype, *, first: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)
        (self.a if first else self.b).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x.to(self.a.weight.dtype)).relu().to(self.b.weight.dtype)).float()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_in_several_precisions(dtype: torch.dtype, *, first: bool) -> None:
    model = Mixed(dtype, first=first).eval()
    plain = nn.Sequential(model.a, nn.ReLU(), model.b)
    doubled = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).double().eval()
    doubled.load_state_dict(plain.state_dict())
    result, exact = fp.weight_norms(model, 4), fp.weight_norms(doubled, 4)
    torch.testing.assert_close(result.layers, exact.layers, rtol=1e-9, atol=0)
    assert result.names == ("a", "b")
    assert result.path == pytest.approx(exact.path, rel=1e-9)

    data = fp.LabelledData(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(6).long())
    with torch.no_grad():
        labels = model(data.inputs.to(model.a.weight.dtype)).argmax(1)
    data = fp.LabelledData(data.inputs, labels)
    with pytest.warns(UserWarning, match=r"in torch\.\w+, and takes its inputs in torch\.\w+; expected one precision"):
        margins = fp.geometric_margins(model, data, lower=("spectral", "gamma_1", "gamma_2", "gradient"))
    assert margins.lower.tolist() == [0.0] * 6
    reached = margins.upper.isfinite()
    assert bool(reached.any())
    exact_upper = fp.geometric_margins(doubled, data, lower=()).upper
    coarse = 0.2 if dtype == torch.bfloat16 else 0.02
    assert all(
        math.isclose(a, b, rel_tol=coarse, abs_tol=coarse) for a, b in zip(margins.upper, exact_upper, strict=True)
    )


def test_a_linear_layer_with_tied_weights_is_listed_closed_form() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

    module = Tied().eval()
    layers = listed_layers(module)
    assert layers.names == ["head"]
    largest = float(torch.linalg.matrix_norm(module.head.weight.detach().double(), 2))
    assert layers.values[0][0] == pytest.approx(largest, rel=1e-6)
