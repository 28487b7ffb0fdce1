"""Weight normalization as a part of the network: closed forms, a loop over rows, run folders, probes, refusals."""

import copy

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.models import Normalised, all_convolutional, build, mlp, recipe_of, scaled, unit_rows
from flatprobe.utils.rng import generator
from tests.helpers import cases
from tests.helpers.properties import assert_model_untouched, assert_same_state

EXACT = {"rtol": 0, "atol": 1e-12}  # float64
DATA = cases.data_for((1, 8, 8), samples=40)
RAW = "parametrizations.weight.original"


def normalized(*, seed: int = 0) -> nn.Module:
    return unit_rows(cases.mlp(seed=seed))


def as_plain(network: nn.Module) -> nn.Module:
    """The same function, with W as the parameter."""
    plain = cases.mlp()
    with torch.no_grad():
        for name in ("linear1", "linear2", "linear3"):
            plain.get_submodule(name).weight.copy_(network.get_submodule(name).weight)
            plain.get_submodule(name).bias.copy_(network.get_submodule(name).bias)
    return plain


@pytest.mark.parametrize("groups", [1, 2])
def test_slow_reference_row_by_row(groups: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = nn.Sequential(nn.Conv2d(4, 6, 3, groups=groups), nn.Flatten(), nn.Linear(6, 3)).double()
    after = unit_rows(before)
    x = torch.rand(5, 4, 3, 3, dtype=torch.float64, generator=generator(0))
    expected = copy.deepcopy(before)
    with torch.no_grad():
        for layer in (expected[0], expected[2]):
            for row in layer.weight:
                row /= sum(float(entry) ** 2 for entry in row.flatten()) ** 0.5
    torch.testing.assert_close(after(x), expected(x), **EXACT)
    for place in (0, 2):
        assert torch.equal(after.get_parameter(f"{place}.{RAW}"), before[place].weight)
        assert torch.equal(after[place].bias, before[place].bias)
        torch.testing.assert_close(after[place].weight, expected[place].weight, **EXACT)


def test_closed_form_gradient_of_a_row() -> None:
    """(1 - w w^T) g / ||v||, g the gradient with respect to the row w of W."""
    network, (inputs, labels) = normalized(), DATA.gather(torch.arange(9))
    plain = as_plain(network)
    for each in (network, plain):
        nn.functional.cross_entropy(each(inputs.double()), labels).backward()
    for name in ("linear1", "linear3"):
        found = network.get_parameter(f"{name}.{RAW}")
        for v, gradient, g in zip(found.detach(), found.grad, plain.get_submodule(name).weight.grad, strict=True):
            w = v / v.norm()
            torch.testing.assert_close(gradient, (g - w * (w @ g)) / v.norm(), **EXACT)


def test_closed_form_plain_gradient_steps_lengthen_the_rows() -> None:
    """Pythagoras: ||v - rate * dv||^2 = ||v||^2 + rate^2 ||dv||^2, since dv is tangential."""
    network = normalized()
    run = fp.train(network, DATA, epochs=1, batch_size=len(DATA), learning_rate=0.5, momentum=0.0)
    for name in ("linear1", "linear2", "linear3"):
        before, after = (each.get_parameter(f"{name}.{RAW}").detach() for each in (network, run.model))
        expected = before.square().sum(1) + (after - before).square().sum(1)
        torch.testing.assert_close(after.square().sum(1), expected, **EXACT)
        assert float((after.norm(dim=1) - before.norm(dim=1)).median()) > 1e-4  # a unit that is never active stays


def test_a_row_of_zeros_stays_and_has_finite_derivatives() -> None:
    layer = unit_rows(nn.Linear(3, 2, bias=False).double())
    with torch.no_grad():
        layer.get_parameter(RAW).copy_(torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]]))
    assert layer.weight.tolist() == [[0.0, 0.0, 0.0], [0.6, 0.0, 0.8]]
    raw = layer.get_parameter(RAW)
    (first,) = torch.autograd.grad(layer(torch.ones(1, 3).double()).square().sum(), raw, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), raw)
    assert bool(first.isfinite().all())
    assert bool(second.isfinite().all())


def test_rows_of_halves_beyond_the_range_of_their_squares() -> None:
    layer = unit_rows(nn.Linear(2, 2, bias=False).half())
    with torch.no_grad():
        layer.get_parameter(RAW).copy_(torch.tensor([[3e-6, 4e-6], [3e4, 4e4]]))
    torch.testing.assert_close(layer.weight.float(), torch.tensor([[0.6, 0.8]] * 2), rtol=0.01, atol=0)
    assert layer.weight.dtype == torch.float16


def test_property_the_lengths_of_the_rows_change_no_output_and_scale_the_radius() -> None:
    network = fp.train(normalized(), DATA, epochs=20, batch_size=10, learning_rate=0.2).model
    longer = scaled(network, 2.0)
    x = DATA.inputs.double()
    torch.testing.assert_close(longer(x), network(x), **EXACT)
    for name, value in network.named_parameters():
        assert torch.equal(longer.get_parameter(name), value * (2 if name.endswith(RAW) else 1)), name
    radii = [
        fp.flatness_radius(fp.EmpiricalRisk(each, DATA), epsilon=0.3, directions=3, parameters=f"*{RAW}", rtol=1e-4)
        for each in (network, longer)
    ]
    assert bool(radii[0].reached.all())
    torch.testing.assert_close(radii[1].radii, 2 * radii[0].radii, rtol=2e-4, atol=0)
    assert radii[0].settings["subject"]["network"]["parametrised"] == [f"linear{k}.weight" for k in (1, 2, 3)]


def test_property_probes_of_the_function_and_norms_are_those_of_the_computed_weights() -> None:
    network = normalized()
    plain = as_plain(network)
    jacobians = [fp.jacobian_maximum(each, DATA) for each in (network, plain)]
    assert jacobians[0].maximum == pytest.approx(jacobians[1].maximum, rel=1e-12)
    norms = [fp.weight_norms(each, (1, 8, 8)).to_frame() for each in (network, plain)]
    assert norms[0].equals(norms[1])
    margins = [fp.functional_margins(each, DATA).values for each in (network, plain)]
    torch.testing.assert_close(*margins, **EXACT)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (None, ["linear1", "linear2", "linear3"]),
        ("linear3", ["linear3"]),
        (["*1", "linear3"], ["linear1", "linear3"]),
        ("linear[12]", ["linear1", "linear2"]),
    ],
)
def test_run_folder_round_trip_for_chosen_layers(layers, expected, tmp_path) -> None:
    network = unit_rows(mlp((1, 8, 8), widths=(7, 5)), layers)
    raw = [name for name, _ in network.named_parameters() if name.endswith(RAW)]
    assert raw == [f"{name}.{RAW}" for name in expected]
    run = fp.train(network, DATA, epochs=2, learning_rate=0.1, out=tmp_path / "run")
    loaded = fp.load_checkpoint(tmp_path / "run")
    assert_same_state(loaded, run.model)
    assert recipe_of(loaded) == recipe_of(network)
    x = DATA.inputs[:5]
    assert torch.equal(loaded(x), run.model(x))
    again = fp.train(network, DATA, epochs=2, learning_rate=0.1, out=tmp_path / "run")  # resumed: returned as it is
    assert_same_state(again.model, run.model)


def test_recipes_nest_either_way() -> None:
    convolutional = all_convolutional((1, 8, 8), channels=2, classes=3, seed=4)
    for network in (
        Normalised(unit_rows(convolutional, "conv*"), 0.5, 0.25),
        unit_rows(Normalised(convolutional, 0.5, 0.25), "network.conv*"),
        unit_rows(unit_rows(convolutional, "conv*"), "linear"),
    ):
        assert_same_state(build(recipe_of(network)), network)
    assert recipe_of(unit_rows(nn.Linear(2, 3))) is None


def test_property_the_network_is_not_changed() -> None:
    network = cases.cnn()
    assert not any(layer.training for layer in unit_rows(network).modules())
    assert all(layer.training for layer in unit_rows(cases.cnn().train()).modules())
    assert_model_untouched(network, lambda: unit_rows(network))
    assert type(network[0]) is nn.Conv2d


@pytest.mark.parametrize(
    ("make", "layers", "message"),
    [
        (lambda: mlp((4,), widths=(3,)), "relu1", r"layers must match .* \(linear1, linear2\), got 'relu1'"),
        (lambda: mlp((4,), widths=(3,)), ["linear1", "conv*"], r"got 'conv\*'"),
        (nn.ReLU, None, r"layers must match .* \(none\)"),
        (lambda: unit_rows(mlp((4,), widths=(3,))), "linear1", "layer 'linear1' must be a parameter"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), None, "must be a parameter, got a computed"),
    ],
)
def test_refusals(make, layers, message) -> None:
    with pytest.raises(ValueError, match=message):
        unit_rows(make(), layers)


def test_a_recipe_without_its_layers_is_refused() -> None:
    recipe = {"name": "unit_rows", "arguments": {"network": recipe_of(mlp((4,)))}}
    with pytest.raises(ValueError, match=r"does not fit its builder .* unit_rows\(network, layers\)"):
        build(recipe)
