"""Endpoints with other buffers or a wrapper's names: corners are their own values, or the error says why."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel

import flatprobe as fp
from flatprobe.network.weights import strip_prefixes
from tests.helpers import cases

DATA = cases.data_for((1, 6, 6), samples=40, classes=3)


class OwnBatchNorm(nn.Module):
    """As people write it: running statistics in buffers."""

    def __init__(self, channels: int, *, frozen: bool = False) -> None:
        super().__init__()
        place = self.register_buffer if frozen else lambda name, value: setattr(self, name, nn.Parameter(value))
        place("weight", torch.rand(channels) + 0.5)
        place("bias", torch.rand(channels))
        self.register_buffer("running_mean", torch.rand(channels))
        self.register_buffer("running_var", torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            value.view(1, -1, 1, 1) for value in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


class Centring(nn.Module):
    """A running mean alone."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.rand(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.running_mean


def instance_norm() -> nn.Module:
    layer = nn.InstanceNorm2d(2, affine=True, track_running_stats=True)
    layer.running_mean.uniform_()
    return layer


NORMS: dict[str, Callable[[], nn.Module]] = {
    "own": lambda: OwnBatchNorm(2),
    "frozen, its scale in buffers": lambda: OwnBatchNorm(2, frozen=True),
    "instance": instance_norm,
    "centring": Centring,
}


def pair(make: Callable[[], nn.Module]) -> list[nn.Module]:
    """Two networks of one kind, in float64 and eval mode."""
    found = []
    with torch.random.fork_rng():
        for seed in (1, 2):
            torch.manual_seed(seed)
            found.append(make().double().eval())
            with torch.no_grad():
                found[-1](DATA.inputs.double())  # a pruned weight's graph, which deepcopy refuses, goes
    return found


def convolutional(norm: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), norm(), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))


def dense(change: Callable[[nn.Linear], object] = lambda _: None) -> nn.Module:
    layer = nn.Linear(36, 4)
    change(layer)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), nn.Linear(4, 3))


def line(models: list[nn.Module], **options: object) -> list[float]:
    return fp.interpolate(fp.EmpiricalRisk(models[0], DATA), models, fp.segment(3), **options).loss.tolist()


def own(model: nn.Module) -> float:
    return fp.EmpiricalRisk(model, DATA)().loss


def between(models: list[nn.Module], policy: Callable[[str], bool] = lambda _: True) -> float:
    """The loss of a network whose tensors are the means of the two networks'."""
    middle = copy.deepcopy(models[0])
    other = models[1].state_dict()
    with torch.no_grad():
        for name, value in middle.state_dict().items():
            if policy(name) and value.is_floating_point():
                value.add_(other[name]).div_(2)
    return own(middle)


@pytest.mark.parametrize("kind", NORMS)
def test_slow_reference_statistics_of_other_normalisation_layers_are_interpolated(kind: str) -> None:
    models = pair(lambda: convolutional(NORMS[kind]))
    models[1].register_buffer("counter", torch.tensor(5))
    models[0].register_buffer("counter", torch.tensor(3))  # acts on nothing
    loss = line(models, batch_norm="interpolate")
    assert [loss[0], loss[2]] == [own(model) for model in models]
    assert loss[1] == pytest.approx(between(models), rel=1e-9)
    for policy in (None, "recalibrate"):
        with pytest.raises(ValueError, match=r"statistic '1\.\w+' of endpoint 1, .* differs .*batch_norm=\"interpol"):
            line(models, batch_norm=policy)


def test_property_buffers_that_do_not_act_never_matter() -> None:
    models = pair(dense)
    plain = line(models)
    for place, model in enumerate(models):
        model.register_buffer("calls", torch.tensor(place))
        model.register_buffer("cache", torch.full((2,), float(place)).double(), persistent=False)
        model.register_buffer("seen", torch.tensor([place == 0, True]))
    assert line(models) == plain


def test_property_networks_that_share_their_statistics_need_no_policy() -> None:
    models = pair(lambda: convolutional(NORMS["own"]))
    for name in ("running_mean", "running_var"):
        getattr(models[1][1], name).copy_(getattr(models[0][1], name))
    assert line(models)[2] == own(models[1])


class Masked(nn.Module):
    """A mask in a buffer that no state_dict holds."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = nn.Linear(36, 3)
        self.register_buffer("mask", (torch.rand(3) > 0.5).to(dtype), persistent=False)
        self.mask[0] = True

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1)) * self.mask


def test_a_buffer_that_no_state_dict_holds_is_looked_at() -> None:
    models = pair(lambda: Masked(torch.float64))
    with pytest.raises(ValueError, match=r"the buffer 'mask' of endpoint 1, of a layer Masked, differs .*and acts"):
        line(models)
    loss = line(models, buffers="interpolate")
    assert [loss[0], loss[2]] == [own(model) for model in models]


def test_slow_reference_other_buffers_are_kept_or_combined() -> None:
    models = pair(lambda: dense(lambda layer: prune.random_unstructured(layer, "weight", 0.5)))
    with pytest.raises(ValueError, match=r"'1\.weight_mask' .* buffers=\"interpolate\" .* or \"keep\" .*prune\.remove"):
        line(models)
    loss = line(models, buffers="interpolate")
    assert [loss[0], loss[2]] == [own(model) for model in models]
    assert loss[1] == pytest.approx(between(models), rel=1e-9)
    kept = line(models, buffers="keep")
    assert kept[1] == pytest.approx(between(models, lambda name: not name.endswith("_mask")), rel=1e-9)
    twin = copy.deepcopy(models[1])
    twin[1].weight_mask.copy_(models[0][1].weight_mask)
    assert [kept[0], kept[2]] == [own(models[0]), own(twin)]
    applied = copy.deepcopy(models)
    for model in applied:
        prune.remove(model[1], "weight")
    assert line(applied)[0::2] == [own(model) for model in models]
    result = fp.interpolate(fp.EmpiricalRisk(models[0], DATA), models, fp.segment(2), buffers="keep")
    assert result.settings["arguments"]["buffers"] == "keep"


def test_values_that_lie_nowhere_between_are_not_combined() -> None:
    models = pair(lambda: Masked(torch.bool))
    with pytest.raises(ValueError, match=r"'mask' .* expected buffers=\"keep\" "):
        line(models, buffers="interpolate")
    assert line(models, buffers="keep")[0] == own(models[0])


SPECTRAL = {
    "parametrized": (
        lambda: dense(parametrizations.spectral_norm),
        lambda layer: parametrize.remove_parametrizations(layer, "weight"),
    ),
    "hooked": (lambda: dense(nn.utils.spectral_norm), nn.utils.remove_spectral_norm),
}


@pytest.mark.parametrize("kind", SPECTRAL)
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*:FutureWarning")
def test_singular_vectors_are_not_averaged_and_the_cure_works(kind: str) -> None:
    make, permanent = SPECTRAL[kind]
    models = pair(make)
    for policy in (None, "interpolate"):
        with pytest.raises(ValueError, match=r"_[uv]' of endpoint 1.* buffers=\"keep\" .*remove_parametrizations"):
            line(models, buffers=policy)
    assert line(models, buffers="keep")[0] == own(models[0])
    values = [own(model) for model in models]
    for model in models:
        permanent(model[1])
    assert line(models)[0::2] == pytest.approx(values, rel=1e-9)


def test_an_averaged_model_is_its_module() -> None:
    models = pair(lambda: convolutional(lambda: nn.BatchNorm2d(2)))
    expected = line(models, batch_norm="interpolate")
    averages = [AveragedModel(model).eval() for model in models]
    averages[1].n_averaged += 3
    for ends in (averages, [models[0], averages[1]], [models[0], averages[1].state_dict()]):
        risk = fp.EmpiricalRisk(ends[0], DATA)
        found = fp.interpolate(risk, ends, fp.segment(3), batch_norm="interpolate")
        assert found.loss.tolist() == expected
    assert fp.jacobian_norms(averages[0], DATA).values.equal(fp.jacobian_norms(models[0], DATA).values)


@pytest.mark.parametrize("word", ["_orig_mod", "module"])
def test_a_wrapper_of_a_part_changes_no_name(word: str) -> None:
    models = pair(lambda: nn.Sequential(dense(), nn.Linear(3, 3)))
    state = models[1].state_dict()
    inside = {name.replace("0.1.", f"0.{word}.1.", 1): value for name, value in state.items()}
    assert inside.keys() != state.keys()
    risk = fp.EmpiricalRisk(models[0], DATA)
    expected = fp.interpolate(risk, models, fp.segment(3)).loss
    assert torch.equal(fp.interpolate(risk, [models[0], inside], fp.segment(3)).loss, expected)
    assert list(strip_prefixes(state, list(inside))) == list(inside)


@pytest.mark.parametrize(
    ("endpoints", "error", "message"),
    [
        (["a.pt", "b.pt"], TypeError, r"endpoint 0 is 'a\.pt', a str; .*: fp\.load_checkpoint\(path, model\) reads"),
        ("a.pt", TypeError, r"the endpoints are a str; expected a list .*: \[first, second\]"),
        ({"a": dense(), "b": dense()}, TypeError, "the endpoints are a dict; expected a list"),
        (dense(), TypeError, "the endpoints are a Sequential; expected a list"),
        ([{"model": {}, "epoch": 3}], TypeError, "the entry 'model' of endpoint 0 is a dict; expected a state_dict"),
        ([3.0, dense()], TypeError, "endpoint 0 is a float; expected a module"),
    ],
)
def test_endpoints_of_another_kind_are_named(endpoints: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fp.interpolate(fp.EmpiricalRisk(dense().double().eval(), DATA), endpoints, fp.segment(2))


def test_the_cures_work(tmp_path) -> None:
    models = pair(dense)
    risk = fp.EmpiricalRisk(models[0], DATA)
    torch.save(models[1].state_dict(), tmp_path / "b.pt")
    loaded = fp.load_checkpoint(tmp_path / "b.pt", models[0])
    assert fp.interpolate(risk, [models[0], loaded], fp.segment(2)).loss.tolist() == [own(model) for model in models]
    run = fp.train(models[0], DATA, epochs=1)
    with pytest.raises(TypeError, match=r"endpoint 1 is a TrainingRun; .*: its \.model"):
        fp.interpolate(risk, [models[0], run], fp.segment(2))
    assert fp.interpolate(risk, [models[0], run.model], fp.segment(2)).loss[1] == own(run.model)


def test_coefficients_of_another_kind_are_named() -> None:
    models = pair(dense)
    for coefficients in ([[1.0, 0.0]], 11, fp.segment):
        with pytest.raises(TypeError, match=r"coefficients must be a tensor \(points, 2\), got a \w+\. Take fp"):
            fp.interpolate(fp.EmpiricalRisk(models[0], DATA), models, coefficients)


def test_landscapes_of_a_comparison_interpolate_them() -> None:
    models = pair(lambda: convolutional(NORMS["own"]))
    compared = fp.compare(dict(zip("ab", models, strict=True)), DATA, probes="landscape")
    found: Any = compared.results["landscape"]["networks"]
    assert found.settings["arguments"]["batch_norm"] == "interpolate"
    assert [float(found.loss[0]), float(found.loss[-1])] == [own(model) for model in models]
