"""What a transform adds to the loss (O20 eq. RT): with strength 1, the objective and R_T are plain training on T."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flatprobe.models import mlp
from flatprobe.training import ForwardPass, train
from flatprobe.training.penalties import PENALTIES, DoubleBackpropagation, Transformed
from flatprobe.training.registry import build, describe
from flatprobe.training.transforms import FGSM, TRANSFORMS, GaussianNoise, Transform
from flatprobe.utils.rng import generator
from tests.helpers import cases
from tests.helpers.cases import batch, normalised_network
from tests.helpers.properties import assert_same_state
from tests.helpers.references import with_statistics
from tests.helpers.transform_arguments import ARGUMENTS
from tests.training.transforms.test_transforms import TOLERANCE, counted


def smooth_cnn() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(27, 3)).double()


def smooth_mlp() -> nn.Module:
    return mlp((2, 5, 5), widths=(6,), classes=3, activation="tanh").double()


def gradients(total: torch.Tensor, network: nn.Module) -> list[torch.Tensor]:
    found = torch.autograd.grad(total, list(network.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, network.parameters(), strict=True)]


def terms(network: nn.Module, transform: Transform) -> tuple[ForwardPass, torch.Tensor, torch.Tensor, object]:
    """A pass with R_T in it, and what T makes of the batch."""
    inputs, labels = batch()
    passed = ForwardPass(network, inputs, labels, key=(0, 0), updates=False)
    points, mixed = transform(ForwardPass(network, inputs, labels, key=(0, 0), updates=False))
    return passed, Transformed(transform)(passed), points.detach(), mixed


@pytest.mark.parametrize("make", [smooth_mlp, smooth_cnn])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_strength_one_is_plain_training_on_the_transform(name: str, make: Any) -> None:
    """Closed form, value and gradient: the same draws, without BatchNorm."""
    network, transform = make(), TRANSFORMS[name](**ARGUMENTS[name])
    passed, value, points, labels = terms(network, transform)
    plain = ForwardPass(network, points, labels, updates=False).loss
    torch.testing.assert_close(passed.loss + value, plain, **TOLERANCE)
    for found, expected in zip(gradients(passed.loss + value, network), gradients(plain, network), strict=True):
        torch.testing.assert_close(found, expected, **TOLERANCE)


def statistics_of(network: nn.Module, inputs: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The logits at other points with the statistics of the inputs, gradients through them: torch's own layers."""

    def normalised(layer: nn.Module, x: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        axes = [0, *range(2, x.ndim)]
        shape = (1, -1, *(1,) * (x.ndim - 2))
        mean, variance = x.mean(axes).view(shape), x.var(axes, unbiased=False).view(shape)
        scale = layer.weight.view(shape) / (variance + layer.eps).sqrt()
        shift = layer.bias.view(shape)
        return (x - mean) * scale + shift, (other - mean) * scale + shift

    both = [network.first(inputs), network.first(points)]
    both = [torch.tanh(x) for x in normalised(network.norm, *both)]
    both = [F.relu(network.second(F.pad(x, (1, 1, 1, 1)))) + network.skip(x) for x in both]
    return network.head(normalised(network.flat, *(x.flatten(1) for x in both))[1])


@pytest.mark.parametrize("name", ["gaussian_noise", "fgsm", "pgd"])
def test_with_batch_norm_the_points_are_compared_in_one_network(name: str) -> None:
    """Slow reference: f(x') with the statistics of x, through which the gradient goes; training on T takes its own."""
    network, transform = normalised_network(), TRANSFORMS[name](**ARGUMENTS[name])
    passed, value, points, labels = terms(network, transform)
    inputs = batch()[0]
    expected = F.cross_entropy(statistics_of(network, inputs, points), labels)
    torch.testing.assert_close(passed.loss + value, expected, **TOLERANCE)
    for found, own in zip(gradients(passed.loss + value, network), gradients(expected, network), strict=True):
        torch.testing.assert_close(found, own, **TOLERANCE)
    frozen = with_statistics(network, inputs)
    torch.testing.assert_close(passed.loss + value, F.cross_entropy(frozen(points), labels), **TOLERANCE)
    plain = ForwardPass(network, points, labels, updates=False).loss
    assert float((plain - expected).detach().abs()) > 1e-4


def test_slow_reference_gradient_by_finite_differences_at_fixed_points() -> None:
    """1e-6 is their own error; x' is a constant."""
    network = smooth_cnn()
    _, value, points, labels = terms(network, FGSM(0.3, norm="l2"))
    found = gradients(value, network)
    directions = [
        torch.randn(p.shape, generator=generator(k), dtype=torch.float64) for k, p in enumerate(network.parameters())
    ]
    sides = []
    for sign in (1, -1):
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for parameter, direction in zip(moved.parameters(), directions, strict=True):
                parameter.add_(sign * 1e-5 * direction)
        inputs = batch()[0]
        risen = F.cross_entropy(moved(points), labels) - F.cross_entropy(moved(inputs), labels)
        sides.append(float(risen.detach()))
    expected = (sides[0] - sides[1]) / 2e-5
    assert float(sum((g * u).sum() for g, u in zip(found, directions, strict=True))) == pytest.approx(
        expected, rel=1e-6
    )


def test_property_two_penalties_in_one_pass_are_their_sum_and_share_the_gradient() -> None:
    network = smooth_mlp()
    inputs, labels = batch()
    both = (DoubleBackpropagation(), Transformed(FGSM(0.2)))
    alone = [penalty(ForwardPass(network, inputs, labels)) for penalty in both]
    sizes = counted(network)
    passed = ForwardPass(network, inputs, labels)
    together = [penalty(passed) for penalty in both]
    torch.testing.assert_close(sum(together), sum(alone), **TOLERANCE)
    assert sizes == [6, 6]  # x, and x'
    for found, expected in zip(gradients(sum(together), network), gradients(sum(alone), network), strict=True):
        torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize("asked", [{"name": "mixup", "alpha": 0.4}, FGSM(0.1, box=(0, 1)), "crop_and_flip"])
def test_property_json_round_trip_with_the_transform_inside(asked: Any) -> None:
    penalty = build("penalty", {"name": "transformed", "transform": asked}, PENALTIES)
    record = describe(penalty, PENALTIES)
    assert record["transform"]["name"] in TRANSFORMS
    assert build("penalty", record, PENALTIES) == penalty
    assert describe(build("penalty", record, PENALTIES), PENALTIES) == record


def test_property_a_transform_of_the_callers_own_is_recorded_by_name() -> None:
    def halved(passed: ForwardPass) -> tuple[torch.Tensor, object]:
        return passed.inputs / 2, passed.labels

    record = describe(Transformed(halved), PENALTIES)
    assert record["transform"]["name"].endswith("halved")


def test_property_training_with_it_resumes_to_the_last_bit(tmp_path: Path) -> None:
    data, network = cases.data_for((1, 8, 8), samples=24), mlp((1, 8, 8), widths=(6,))
    options = {"batch_size": 8, "penalties": [(0.5, Transformed(GaussianNoise(0.3))), (0.5, Transformed(FGSM(0.1)))]}
    whole = train(network, data, epochs=3, **options)
    assert {"transformed", "transformed_2"} <= whole.history[-1].keys()
    assert whole.settings["settings"]["penalties"][0][1]["transform"] == {"name": "gaussian_noise", "deviation": 0.3}
    train(network, data, epochs=3, out=tmp_path / "run", **options)
    loaded = train(network, data, epochs=3, out=tmp_path / "run", **options)
    assert_same_state(loaded.model, whole.model)


def test_training_on_the_transform_is_strength_one_step_by_step() -> None:
    """Closed form: FGSM draws nothing, so the two trainings are the same but for rounding."""
    data, network = cases.data_for((1, 8, 8), samples=24), smooth_mlp_of((1, 8, 8))
    implicit = train(network, data, epochs=2, batch_size=8, transforms=[FGSM(0.1, norm="l2")])
    explicit = train(network, data, epochs=2, batch_size=8, penalties=[(1.0, Transformed(FGSM(0.1, norm="l2")))])
    for own, expected in zip(implicit.model.parameters(), explicit.model.parameters(), strict=True):
        torch.testing.assert_close(own, expected, **TOLERANCE)


def smooth_mlp_of(shape: tuple[int, ...]) -> nn.Module:
    return mlp(shape, widths=(6,), activation="tanh").double()


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"the transform must be one of 'gaussian_noise'.*, got 'blur'"):
        Transformed("blur")
    with pytest.raises(ValueError, match=r"budget must be a positive.*, got 0"):
        Transformed({"name": "fgsm", "budget": 0})
    with pytest.raises(TypeError, match=r"the transform is a int; expected an object such as those of fp\.transforms"):
        Transformed(3)
