"""Input transformations: closed forms on known pictures and affine networks, laws, keys, and training with each."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flatprobe.data import LabelledData
from flatprobe.models import mlp
from flatprobe.training import ForwardPass, train
from flatprobe.training.forward import Mixture
from flatprobe.training.registry import build, describe
from flatprobe.training.transforms import (
    FGSM,
    PGD,
    TRANSFORMS,
    CropAndFlip,
    Cutout,
    Deformation,
    GaussianNoise,
    GradientStep,
    Mixup,
)
from flatprobe.training.transforms.displacement import roughness
from tests.helpers import cases
from tests.helpers.properties import assert_same_state
from tests.helpers.transform_arguments import ARGUMENTS

TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}  # algebra in float64


def passed_over(
    inputs: torch.Tensor, labels: torch.Tensor | None = None, network: nn.Module | None = None, key=(0, 0), **options
) -> ForwardPass:
    labels = torch.zeros(len(inputs), dtype=torch.int64) if labels is None else labels
    return ForwardPass(network or nn.Flatten(), inputs, labels, key=key, updates=False, **options)


def counted(network: nn.Module) -> list[int]:
    """The sizes of the batches that the network is called with."""
    sizes: list[int] = []
    network.register_forward_hook(lambda _module, arguments, _outputs: sizes.append(len(arguments[0])))
    return sizes


def test_property_every_transform_is_tried_here() -> None:
    assert ARGUMENTS.keys() == TRANSFORMS.keys()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_property_a_transform_is_a_function_of_the_key_and_leaves_the_batch_alone(name: str) -> None:
    data = cases.data_for((1, 8, 8), samples=12)
    inputs, labels = data.inputs.clone(), data.labels.clone()
    network, transform = mlp((1, 8, 8), widths=(6,)), TRANSFORMS[name](**ARGUMENTS[name])
    state = torch.random.get_rng_state()
    draws = [transform(passed_over(data.inputs, data.labels, network, key))[0] for key in ((0, 1), (0, 1), (0, 2))]
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2]) == (name in {"fgsm", "gradient_step"})
    assert draws[0].shape == inputs.shape
    assert not draws[0].requires_grad
    assert torch.equal(data.inputs, inputs)
    assert torch.equal(data.labels, labels)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_property_json_round_trip(name: str) -> None:
    transform = build("transform", {"name": name, **ARGUMENTS[name]}, TRANSFORMS)
    record = describe(transform, TRANSFORMS)
    assert record["name"] == name
    assert ARGUMENTS[name].items() <= record.items()
    assert build("transform", record, TRANSFORMS) == transform


@pytest.mark.parametrize("name", ARGUMENTS)
def test_property_training_with_each_and_resuming_it_to_the_last_bit(name: str, tmp_path: Path) -> None:
    data = cases.data_for((1, 8, 8), samples=24)
    network = nn.Sequential(mlp((1, 8, 8), widths=(6,)), nn.Dropout(0.2), nn.BatchNorm1d(10))
    options = {"batch_size": 8, "transforms": [{"name": name, **ARGUMENTS[name]}]}
    whole = train(network, data, epochs=3, **options)
    assert whole.settings["settings"]["transforms"][0]["name"] == name
    assert whole.history[-1]["train_loss"] != train(network, data, epochs=3, batch_size=8).history[-1]["train_loss"]
    interrupted = {"n": 0}

    def stopping(passed: ForwardPass):
        interrupted["n"] += 1
        if interrupted["n"] == 5:
            raise KeyboardInterrupt
        return TRANSFORMS[name](**ARGUMENTS[name])(passed)

    # Both runs are asked for the caller's own function; the record does not look into its dictionary.
    options["transforms"] = [stopping]
    with pytest.raises(KeyboardInterrupt):
        train(network, data, epochs=3, out=tmp_path, save_every=0, **options)
    resumed = train(network, data, epochs=3, out=tmp_path, save_every=0, **options)
    assert resumed.epochs == 3
    assert_same_state(resumed.model, whole.model)


def test_closed_form_gaussian_noise_has_the_law_that_it_says() -> None:
    """Monte Carlo: mean and variance of 4e5 entries within 4 standard errors; no pass through the network."""
    network = nn.Flatten()
    sizes = counted(network)
    inputs = torch.full((40, 10_000), 0.5, dtype=torch.float64)
    noise = GaussianNoise(0.2)(passed_over(inputs, network=network))[0] - inputs
    count = noise.numel()
    assert float(noise.mean()) == pytest.approx(0, abs=4 * 0.2 / count**0.5)
    assert float(noise.var()) == pytest.approx(0.04, abs=4 * 0.04 * (2 / count) ** 0.5)
    assert float((noise[0] * noise[1]).mean()) == pytest.approx(0, abs=4 * 0.04 / 100)  # samples are independent
    assert sizes == []


@pytest.mark.parametrize("each", ["batch", "sample"])
def test_mixup_is_the_mixture_of_inputs_and_labels(each: Any) -> None:
    """Closed form: with one-hot inputs, x' is the mixed one-hot target itself, and the loss is that on it."""
    inputs, labels = torch.eye(6, dtype=torch.float64), torch.arange(6)
    points, mixture = Mixup(each=each)(passed_over(inputs, labels))
    assert isinstance(mixture, Mixture)
    target = sum(weights[:, None] * F.one_hot(own, 6) for weights, own in mixture.parts)
    torch.testing.assert_close(points, target, **TOLERANCE)
    torch.testing.assert_close(target.sum(1), torch.ones(6, dtype=torch.float64), **TOLERANCE)
    assert torch.equal(mixture.parts[0][1], labels)
    assert sorted(mixture.parts[1][1].tolist()) == labels.tolist()  # everyone is once the second
    shares = {round(float(share), 9) for share in mixture.parts[0][0]}
    assert len(shares) == (1 if each == "batch" else 6)
    network = cases.affine(classes=6, inputs=6)
    passed = passed_over(points, mixture, network)
    torch.testing.assert_close(passed.loss, F.cross_entropy(network(points), target), **TOLERANCE)


def test_property_mixup_of_mixtures_and_attacks_on_them() -> None:
    inputs, labels = torch.eye(6, dtype=torch.float64), torch.arange(6)
    once, mixture = Mixup(each="sample")(passed_over(inputs, labels, key=(0, "first")))
    twice, nested = Mixup(each="sample")(passed_over(once, mixture, key=(0, "second")))
    assert len(nested.parts) == 4
    target = sum(weights[:, None] * F.one_hot(own, 6) for weights, own in nested.parts)
    torch.testing.assert_close(twice, target, **TOLERANCE)
    network = cases.affine(classes=6, inputs=6)
    points, same = FGSM(0.1, norm="l2")(passed_over(twice, nested, network))
    gradient = (network(twice).softmax(1) - target) @ network.weight
    expected = twice + 0.1 * gradient / gradient.norm(dim=1, keepdim=True)
    torch.testing.assert_close(points, expected.detach(), **TOLERANCE)
    assert same is nested


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_closed_form_mixup_weights_are_beta(alpha: Any) -> None:
    """Monte Carlo: mean 1/2 and variance 1 / (4 (2 alpha + 1)) within 4 standard errors."""
    count = 20_000
    weights = Mixup(alpha=alpha, each="sample")(passed_over(torch.zeros(count, 1).double()))[1].parts[0][0]
    variance = 1 / (4 * (2 * alpha + 1))
    assert float(weights.mean()) == pytest.approx(0.5, abs=4 * (variance / count) ** 0.5)
    spread = (weights - 0.5).square()
    assert float(spread.mean()) == pytest.approx(variance, abs=4 * float(spread.std()) / count**0.5)


def test_cutout_area_and_law() -> None:
    """Closed form: in each axis the square keeps the pixels within the border; every pixel is a centre alike often."""
    count, size, side = 20_000, 3, 5
    points, _ = Cutout(size, fill=0.25)(passed_over(torch.ones(count, 2, side, side)))
    assert torch.equal(points[:, 0], points[:, 1])
    assert set(points.unique().tolist()) == {0.25, 1.0}
    gone = points[:, 0] != 1
    lengths = [2, 3, 3, 3, 2]  # of the side by its centre
    areas = sorted({a * b for a in lengths for b in lengths})
    found = gone.flatten(1).sum(1)
    assert sorted(found.unique().tolist()) == areas
    for area in areas:
        probability = sum(a * b == area for a in lengths for b in lengths) / 25
        error = (probability * (1 - probability) / count) ** 0.5
        assert float((found == area).float().mean()) == pytest.approx(probability, abs=4 * error)
    corner = gone & (found == 4)[:, None, None]
    assert bool((corner.any(0) == torch.tensor([[a != 2 != b for a in range(5)] for b in range(5)])).all())


def picture() -> torch.Tensor:
    return torch.arange(1.0, 13).view(1, 1, 3, 4)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("mode", ["zero", "reflect"])
def test_crop_and_flip_of_a_known_picture(mode: str, flip: Any) -> None:
    """Closed form: the windows are all those of the padded picture and of its mirror image, alike often."""
    count = 20_000
    inputs = picture().expand(count, -1, -1, -1)
    points, _ = CropAndFlip(padding=1, mode=mode, flip=flip)(passed_over(inputs))
    padded = F.pad(picture(), (1, 1, 1, 1), mode="constant" if mode == "zero" else "reflect")[0, 0]
    expected = [padded[r : r + 3, c : c + 4] for r in range(3) for c in range(3)]
    expected += [window.flip(1) for window in expected] if flip else []
    seen, counts = points.flatten(1).unique(dim=0, return_counts=True)
    assert sorted(seen.tolist()) == sorted(window.flatten().tolist() for window in expected)
    probability = 1 / len(expected)
    error = (probability * (1 - probability) / count) ** 0.5
    assert bool(((counts / count - probability).abs() < 4 * error).all())


def test_property_crop_and_flip_of_nothing_is_the_batch() -> None:
    inputs = torch.rand(4, 3, 5, 6)
    assert torch.equal(CropAndFlip(padding=0, flip=False)(passed_over(inputs))[0], inputs)


def test_deformations_of_a_ramp_show_their_displacement() -> None:
    """Closed form: inside the border, a picture that rises by 1 a pixel falls by tau; C is as asked for."""
    ramp = torch.arange(12.0, dtype=torch.float64)
    inputs = torch.stack([ramp.expand(12, 12), ramp[:, None].expand(12, 12)])[None].expand(8, -1, -1, -1)
    passed = passed_over(inputs)
    points, _ = Deformation(size=0.6, grid=3)(passed)
    tau = (inputs - points)[:, :, 2:-2, 2:-2]  # no pixel moves by 2 or more
    drawn = passed.normal((8, 2, 3, 3), "deformation")
    scaled = 0.6 * drawn / roughness(drawn, (12, 12)).view(-1, 1, 1, 1)
    torch.testing.assert_close(roughness(scaled, (12, 12)), torch.full((8,), 0.6, dtype=torch.float64), **TOLERANCE)
    whole = F.interpolate(scaled, size=(12, 12), mode="bilinear", align_corners=True)
    torch.testing.assert_close(tau, whole[:, :, 2:-2, 2:-2], **TOLERANCE)
    assert float(tau.norm(dim=1).amax()) <= 0.6 / 0.5  # c2 alone


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GaussianNoise(0.0), r"deviation must be a positive finite number.*, got 0\.0"),
        (lambda: FGSM(-1.0), r"budget must be a positive.*, got -1\.0"),
        (lambda: FGSM(0.1, norm="l1"), r"norm must be one of 'l2', 'linf'.*, got 'l1'"),
        (lambda: FGSM(0.1, box=(1.0, 0.0)), r"box is \(1\.0, 0\.0\); expected \(low, high\) with low below high"),
        (lambda: PGD(0.1, steps=0), r"steps must be at least 1.*, got 0"),
        (lambda: PGD(0.1, box=(1.0,)), r"box is \(1\.0,\); expected \(low, high\)"),
        (lambda: GradientStep(float("inf")), r"step must be a positive.*, got inf"),
        (lambda: Mixup(alpha=0), r"alpha must be a positive.*, got 0"),
        (lambda: Mixup(each="pair"), r"each must be one of 'batch', 'sample'.*, got 'pair'"),
        (lambda: Cutout(0), r"size must be at least 1.*, got 0"),
        (lambda: CropAndFlip(padding=-1), r"padding must be at least 0.*, got -1"),
        (lambda: CropAndFlip(mode="wrap"), r"mode must be one of 'zero', 'reflect'.*, got 'wrap'"),
        (
            lambda: Cutout(2)(passed_over(torch.ones(2, 5))),
            r"the transform 'cutout' met inputs of shape \(2, 5\); expected images",
        ),
        (
            lambda: CropAndFlip()(passed_over(torch.ones(2, 5))),
            r"the transform 'crop_and_flip' met inputs of shape \(2, 5\); expected images",
        ),
        (
            lambda: CropAndFlip(padding=3, mode="reflect")(passed_over(torch.ones(2, 1, 5, 3))),
            r"padding is 3 and the images are 5 x 3; expected less",
        ),
        (lambda: Deformation(size=1.5), r"size is 1\.5; expected at most 1"),
        (lambda: Deformation(grid=0), r"grid must be at least 1.*, got 0"),
        (lambda: Deformation(c1=0.0), r"c1 must be a positive.*, got 0\.0"),
        (
            lambda: Deformation()(passed_over(torch.ones(2, 5))),
            r"the transform 'deformation' met inputs of shape \(2, 5\)",
        ),
        (lambda: GaussianNoise(1.0)(passed_over(torch.ones(2, 1).long())), "the inputs have no gradient"),
        (lambda: build("transform", {"name": "fgsm", "radius": 1}, TRANSFORMS), "expected some of budget, norm, box"),
    ],
)
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_data_of_other_shapes_are_named_in_training() -> None:
    data = LabelledData(torch.rand(8, 5), torch.arange(8) % 2)
    with pytest.raises(ValueError, match=r"'cutout' met inputs of shape \(8, 5\)"):
        train(mlp((5,), widths=(3,), classes=2), data, epochs=1, transforms=[Cutout(2)])
