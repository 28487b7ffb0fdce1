"""Norms of the weights against dense matrices and hand computation."""

import copy
import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import flatprobe as fp
from flatprobe.graph import fold, trace
from tests.helpers.cases import NETWORKS
from tests.helpers.graphs import foreign
from tests.helpers.properties import assert_model_untouched


def dense(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    size = math.prod(shape)
    with torch.no_grad():
        offset = layer(torch.zeros(1, *shape, dtype=torch.float64)).flatten(1)
        return (layer(torch.eye(size, dtype=torch.float64).view(size, *shape)).flatten(1) - offset).T


def test_slow_reference_layers_as_dense_matrices_with_batch_norm() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_var.copy_(torch.tensor([0.5, 2.0, 4.0]))
    parts = [nn.Conv2d(2, 3, 3, stride=2, padding=1), norm, nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)]
    model = nn.Sequential(*parts).double().eval()
    result = fp.weight_norms(model, (2, 6, 6))
    matrices = [dense(model[:2], (2, 6, 6)), dense(model[4], (27,))]
    assert result.names == ("0", "4")
    for place, matrix in enumerate(matrices):
        values = torch.linalg.svdvals(matrix)
        assert result.of("spectral")[place] == pytest.approx(float(values[0]), rel=1e-6)
        assert result.of("frobenius")[place] == pytest.approx(float(values.norm()), rel=1e-9)
        assert result.of("stable_rank")[place] == pytest.approx(float((values / values[0]).square().sum()), rel=1e-5)
    with torch.no_grad():
        kernel = model[0].weight * (norm.weight / (norm.running_var + norm.eps).sqrt()).view(-1, 1, 1, 1)
        reshaped = torch.linalg.svdvals(kernel.flatten(1))
    assert result.of("reshaped_spectral")[0] == pytest.approx(float(reshaped[0]), rel=1e-9)
    assert result.of("reshaped_frobenius")[0] == pytest.approx(float(reshaped.norm()), rel=1e-9)
    torch.testing.assert_close(result.fan_in[0], kernel.abs().sum((1, 2, 3)).detach(), rtol=1e-12, atol=0)
    assert result.product() == pytest.approx(math.prod(result.of("spectral").tolist()), rel=1e-12)


def test_closed_form_l2_and_the_distance_to_the_initial_weights() -> None:
    model = fp.models.mlp((2, 2), widths=(3,)).eval()
    trained = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.5)
    count = sum(parameter.numel() for parameter in model.parameters())
    for initial in (model, model.state_dict()):
        result = fp.weight_norms(trained, (2, 2), initial=initial)
        assert result.distance == pytest.approx(0.5 * math.sqrt(count), rel=1e-6)
    flat = torch.cat([parameter.detach().flatten() for parameter in trained.parameters()]).double()
    assert result.l2 == pytest.approx(float(flat.norm()), rel=1e-6)
    assert math.isnan(fp.weight_norms(trained, (2, 2)).distance)


def test_closed_form_a_linear_layer_at_several_positions() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Flatten()).double().eval()
    result = fp.weight_norms(model, (4, 3))
    matrix = dense(model, (4, 3))
    assert result.of("spectral")[0] == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-9)
    assert result.of("frobenius")[0] == pytest.approx(float(matrix.norm()), rel=1e-9)


def test_closed_form_what_is_divided_by_a_margin_does_not_grow_with_the_logits() -> None:
    model = fp.models.mlp((2, 2), widths=(3,)).double().eval()
    louder = copy.deepcopy(model)
    last = [layer for layer in louder.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(10)
        last.bias.mul_(10)
    before, after = fp.weight_norms(model, (2, 2)).normalised(0.7), fp.weight_norms(louder, (2, 2)).normalised(7.0)
    for name in ("product of spectral", "product of frobenius"):
        assert after[name] == pytest.approx(before[name], rel=1e-9)
    assert before["path"] == pytest.approx(fp.weight_norms(model, (2, 2)).path / 0.7)


@pytest.mark.parametrize("name", NETWORKS)
def test_property_the_model_is_left_alone_and_the_record_is_whole(name: str, tmp_path: Path) -> None:
    model = NETWORKS[name]()
    assert_model_untouched(model, lambda: fp.weight_norms(model, (1, 8, 8)))
    result = fp.weight_norms(model, (1, 8, 8), initial=model)
    fp.save(result, tmp_path / "norms.parquet")
    loaded = fp.load(tmp_path / "norms.parquet")
    assert loaded.summary() == pytest.approx(result.summary())
    assert loaded.names == result.names
    assert torch.equal(loaded.layers, result.layers)
    assert all(map(torch.equal, loaded.fan_in, result.fan_in))


def test_a_layer_applied_twice_is_listed_twice_at_its_own_sizes() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 3, stride=2, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x)).flatten(1)

    model = Twice().double().eval()
    result = fp.weight_norms(model, (1, 9, 9))
    assert result.names == ("layer", "layer (2)")
    for place, size in enumerate((9, 5)):
        expected = torch.linalg.matrix_norm(dense(model.layer, (1, size, size)), 2)
        assert result.of("spectral")[place] == pytest.approx(float(expected), rel=1e-6)


def test_pinned_functional_code_is_walked_and_folds_are_named() -> None:
    result = fp.weight_norms(foreign(), (1, 14, 14))
    assert result.names == ("convolution", "linear", "aten.matmul.default")
    assert fold(trace(foreign(), (1, 14, 14))).steps[1].options["folded"] == ("norm",)


def test_what_has_no_norms_is_refused() -> None:
    with pytest.raises(ValueError, match="Identity must apply a linear or zero-padded convolutional layer, got none"):
        fp.weight_norms(nn.Identity().eval(), (3,))
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)).eval()
    with pytest.raises(
        ValueError,
        match=r"the path norm \(which path=False leaves out\) is not known for",
    ):
        fp.weight_norms(model, (3,))
    assert math.isnan(fp.weight_norms(model, (3,), path=False).path)
    with pytest.raises(ValueError, match=r"initial must hold the weights of this network: '0.weight' has shape"):
        fp.weight_norms(model, (3,), initial={"0.weight": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match=r"'0.weight' is missing"):
        fp.weight_norms(model, (3,), initial={})
    with pytest.raises(ValueError, match="is in training mode"):
        fp.weight_norms(nn.Linear(2, 2).train(), (2,))
    with pytest.raises(ValueError, match=r"margin must be a positive finite number.*, got 0"):
        fp.weight_norms(nn.Linear(2, 2).eval(), (2,)).normalised(0)


def hooked(kind: str) -> tuple[nn.Module, nn.Module]:
    """A network that computes a weight from its parameters, and the plain network with that weight."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        plain = copy.deepcopy(model)
        if kind == "parametrized weight norm":
            nn.utils.parametrizations.weight_norm(model[0])
        elif kind == "parametrized spectral norm":
            nn.utils.parametrizations.spectral_norm(model[0])
        elif kind == "orthogonal":
            nn.utils.parametrizations.orthogonal(model[0])
        elif kind == "pruned":
            prune.l1_unstructured(model[0], "weight", 0.5)
        elif kind == "pruned twice":
            prune.l1_unstructured(model[0], "weight", 0.3)
            prune.random_unstructured(model[0], "weight", 0.3)
        elif kind == "spectral norm hook":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                nn.utils.spectral_norm(model[0])
            model(torch.randn(4, 6))
        elif kind == "weight norm hook":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                nn.utils.weight_norm(model[0])
    model.eval()
    with torch.no_grad():
        model(torch.randn(2, 6))
        plain[0].weight.copy_(model[0].weight)
    return model, plain.eval()


HOOKS = (
    "parametrized weight norm",
    "parametrized spectral norm",
    "orthogonal",
    "pruned",
    "pruned twice",
    "spectral norm hook",
    "weight norm hook",
)


@pytest.mark.parametrize("kind", HOOKS)
def test_norms_are_those_of_the_weights_that_are_applied(kind: str) -> None:
    model, plain = hooked(kind)
    found, expected = fp.weight_norms(model, (6,)), fp.weight_norms(plain, (6,))
    for name in ("l2", "path"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-6)
    torch.testing.assert_close(found.layers, expected.layers, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.fan_in[0], expected.fan_in[0], rtol=1e-5, atol=0)
    assert found.settings["subject"]["network"]["parametrised"] == ["0.weight"]
    assert "parametrised" not in expected.settings["subject"]["network"]
    begun, plain_begun = copy.deepcopy(model), copy.deepcopy(plain)
    with torch.no_grad():
        model[2].weight.mul_(2)
        model[0].bias.add_(1)
        plain[2].weight.mul_(2)
        plain[0].bias.add_(1)
    expected = fp.weight_norms(plain, (6,), initial=plain_begun)
    for initial in (begun, begun.state_dict()):
        assert fp.weight_norms(model, (6,), initial=initial).distance == pytest.approx(expected.distance, rel=1e-6)
    untraced = fp.weight_norms(model, None, path=False)
    torch.testing.assert_close(untraced.layers, fp.weight_norms(model, (6,)).layers, rtol=1e-5, atol=0)


def test_flatness_says_which_weights_are_computed() -> None:
    model, _ = hooked("parametrized weight norm")
    data = fp.LabelledData(torch.randn(12, 6), torch.arange(12) % 3)
    found = fp.flatness_radius(fp.EmpiricalRisk(model, data), directions=2)
    assert found.settings["subject"]["network"]["parametrised"] == ["0.weight"]


def test_the_shape_may_be_a_number_or_the_data() -> None:
    model = nn.Linear(6, 3).eval()
    expected = fp.weight_norms(model, (6,))
    data = fp.LabelledData(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))
    for given in (6, [6], data, torch.Size([6])):
        found = fp.weight_norms(model, given)
        assert found.summary() == pytest.approx(expected.summary(), nan_ok=True)
        assert found.settings["arguments"] == expected.settings["arguments"]
    tokens = fp.weight_norms(model, (5, 6))  # a layer applied to each of five tokens, and outputs of any shape
    assert tokens.path == pytest.approx(5**0.5 * expected.path)
    for wrong in ("6", (6.0,), data.inputs):
        with pytest.raises(TypeError, match=r"(?s)must be the shape of one sample, .* Take data.input_shape"):
            fp.weight_norms(model, wrong)
    with pytest.raises(TypeError, match=r"initial must be a module or a state_dict, got 'a.pt'. fp.load_"):
        fp.weight_norms(model, (6,), initial="a.pt")
    with pytest.raises(TypeError, match=r"input_shape must be the shape of one sample, .* got none. Pass the data too"):
        fp.weight_norms(model)
