"""What a training refuses: flags, numbers and lists of parts before it begins, what parts return in its first step."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.models import mlp
from flatprobe.training.constraints import CONSTRAINTS, Ball, Box, SpectralProjection
from flatprobe.training.forward import Mixture
from flatprobe.training.penalties import (
    AdversarialDeformation,
    AdversarialPerturbation,
    HessianScaled,
    JacobianFrobenius,
    JacobianSpectral,
    RKHSGradient,
    SpectralNorm,
    TikhonovDifferences,
    hsfob_db,
    hsfob_db1,
)
from flatprobe.training.registry import build, describe
from flatprobe.training.transforms import (
    FGSM,
    PGD,
    CropAndFlip,
    Cutout,
    Deformation,
    GaussianNoise,
    GradientStep,
    Mixup,
)
from flatprobe.utils.arguments import at_least, flag, given, positive, whole
from tests.helpers.small_data import clusters


def trained(**settings):
    return fp.train(mlp((4,), widths=(3,), classes=3), clusters(8), **{"epochs": 1, "batch_size": 4} | settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resume": "no"}, r"resume must be one of True, False.*, got 'no'"),
        ({"progress": "yes"}, r"progress must be one of True, False, None.*, got 'yes'"),
        ({"epochs": "3"}, r"epochs must be a whole number, at least 1.*, got '3'"),
        ({"epochs": 2.5}, r"epochs must be a whole number.*, got 2.5"),
        ({"epochs": None}, r"epochs must be a number.*, got None"),
        ({"epochs": True}, r"epochs must be a whole number.*, got True"),
        ({"batch_size": 2.5}, r"batch_size must be a whole number.*, got 2.5"),
        ({"batch_size": True}, r"batch_size must be .*, got True"),
        ({"batch_size": None}, r"batch_size must be .*, got None"),
        ({"learning_rate": "0.1"}, r"learning_rate must be a positive finite number.*, got '0.1'"),
        ({"learning_rate": None}, r"learning_rate must be .*, got None"),
        ({"learning_rate": True}, r"learning_rate must be .*, got True"),
        ({"until": "loss", "target_loss": "1"}, r"target_loss must be .*, got '1'"),
        ({"momentum": None}, "momentum must be at least 0 and below 1, got None"),
        ({"momentum": False}, r"momentum must be .*, got False"),
        ({"weight_decay": None}, r"weight_decay must be a finite number.*, got None"),
        ({"seed": None}, r"seed must be a whole number.*, got None"),
        ({"seed": 1.5}, r"seed must be a whole number.*, got 1.5"),
        ({"seed": "1"}, r"seed must be .*, got '1'"),
        ({"threads": 1.5}, r"threads must be a whole number.*, got 1.5"),
        ({"save_every": "a"}, "save_every must be a number of seconds, at least 0, got 'a'"),
        ({"save_every": math.nan}, r"save_every must be .*, got nan"),
        ({"save_every": -1}, r"save_every must be .*, got -1"),
        ({"penalties": [(True, "spectral_norm")]}, "strength of the penalty spectral_norm is True"),
        ({"transforms": "mixup"}, r"transforms is 'mixup'; expected a list of transforms: transforms=\[transform\]"),
        ({"transforms": {"name": "mixup"}}, r"transforms is \{'name': 'mixup'\}; expected a list"),
        ({"transforms": Mixup()}, r"transforms is Mixup\(alpha=1.0.*\); expected a list"),
        ({"transforms": None}, "transforms is None; expected a list of transforms: leave transforms out for none"),
        ({"transforms": [{"alpha": 1.0}]}, r"the transform \{'alpha': 1.0\} has no \"name\"; expected one of 'gauss"),
        ({"constraints": "ball"}, "constraints is 'ball'; expected a list of constraints"),
        (
            {"penalties": JacobianFrobenius()},
            r"penalties is Jac.*; expected a list of penalties: penalties=\[\(strength",
        ),
        ({"penalties": None}, "penalties is None; expected a list of penalties: leave penalties out"),
        ({"penalties": hsfob_db}, r"penalties is <function hsfob_db.*: call it: penalties=hsfob_db\("),
        ({"penalties": [hsfob_db1(0.1)]}, r"a list of pairs itself.*penalties=\[\*hsfob_db1\(0.1\), \.\.\.\]"),
        ({"penalties": (0.1, "spectral_norm")}, r"an entry of penalties is 0.1; expected a pair \(strength, penalty\)"),
        ({"penalties": [("spectral_norm", 0.1)]}, r"is \('spectral_norm', 0.1\); expected .*, the other way round"),
    ],
)
def test_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trained(**settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PGD(0.1, random_start="false"), r"random_start must be one of True, False.*, got 'false'"),
        (lambda: SpectralNorm(exact="no"), r"exact must be .*, got 'no'"),
        (lambda: CropAndFlip(flip=None), r"flip must be .*, got None"),
        (lambda: CropAndFlip(padding=1.5), r"padding must be a whole number, at least 0.*, got 1.5"),
        (lambda: Cutout(None), r"size must be .*, got None"),
        (lambda: Cutout(1.5), r"size must be .*, got 1.5"),
        (lambda: Cutout(1, fill="black"), "fill is 'black'; expected a finite number"),
        (lambda: Deformation(grid=1.5), r"grid must be .*, got 1.5"),
        (lambda: GaussianNoise(None), r"deviation must be a number.*, got None"),
        (lambda: GaussianNoise("a"), r"deviation must be a positive finite number.*, got 'a'"),
        (lambda: FGSM(True), r"budget must be a positive finite number.*, got True"),
        (lambda: FGSM(None), r"budget must be .*, got None"),
        (lambda: FGSM(0.1, box=("a", "b")), r"box is \('a', 'b'\); expected \(low, high\)"),
        (lambda: FGSM(0.1, box=1.0), r"box is 1.0; expected \(low, high\)"),
        (lambda: PGD(0.1, steps=1.5), r"steps must be .*, got 1.5"),
        (lambda: GradientStep("1"), r"step must be .*, got '1'"),
        (lambda: Mixup(None), r"alpha must be .*, got None"),
        (lambda: Ball(True), r"radius must be .*, got True"),
        (lambda: Box("a", "b"), "low is 'a' and high 'b'; expected low below high"),
        (lambda: Box(-math.inf, None), "low is -inf and high None"),
        (lambda: Box(math.nan, 1.0), "low is nan"),
        (lambda: SpectralProjection(1.0, iterations=1.5), r"iterations must be .*, got 1.5"),
        (lambda: SpectralProjection(None), r"bound must be .*, got None"),
        (lambda: JacobianFrobenius(projections=1.5), r"projections must be .*, got 1.5"),
        (lambda: JacobianSpectral(iterations="2"), r"iterations must be .*, got '2'"),
        (lambda: HessianScaled(projections=True), r"projections must be .*, got True"),
        (lambda: RKHSGradient(classes=1.5), r"classes must be .*, got 1.5"),
        (lambda: RKHSGradient(classes=None), r"classes must be .*, got None"),
        (lambda: AdversarialPerturbation(radius=None), r"radius must be .*, got None"),
        (lambda: AdversarialDeformation(steps=None), r"steps must be .*, got None"),
        (lambda: TikhonovDifferences("a"), r"step must be .*, got 'a'"),
        (lambda: SpectralNorm(iterations=None), r"iterations must be .*, got None"),
        (
            lambda: fp.training.schedules.inverse_rate(convexity=1, smoothness="1", variance=1, distance=1),
            r"smoothness must be .*, got '1'",
        ),
    ],
)
def test_parts(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_scalars_of_other_libraries_pass() -> None:
    """Property: NumPy's and torch's scalars count as Python's, arrays and their booleans do not."""
    for value in (np.int64(2), np.uint8(2), torch.tensor(2), np.array(2)):
        at_least(1, value=value)
        whole(value=value)
    for value in (2, 2.5, np.float32(2.5), torch.tensor(2.5)):
        positive(value=value)
        given(value=value)
    for value in (True, np.False_, torch.tensor(True)):
        flag(value=value)
    for value in (np.bool_(True), torch.ones(2), np.ones(2), np.float64(2.0), torch.tensor(2.0)):
        with pytest.raises(ValueError, match="must be a whole number, at least 1"):
            at_least(1, value=value)
    for value in (np.bool_(True), torch.ones(2), np.ones(2)):
        with pytest.raises(ValueError, match="must be a positive finite number"):
            positive(value=value)


def test_property_a_box_without_one_bound_is_recorded() -> None:
    for box, bounds in ((Box(0.0, math.inf), {"low": 0.0, "high": None}), (Box(None, 1), {"low": None, "high": 1})):
        assert describe(box, CONSTRAINTS) == {"name": "box", **bounds}
        assert build("constraint", describe(box, CONSTRAINTS), CONSTRAINTS) == box
    run = trained(constraints=[Box(0.0, math.inf)])
    assert all(bool((value >= 0).all()) for value in run.model.parameters())
    assert run.settings["settings"]["constraints"] == [{"name": "box", "low": 0.0, "high": None}]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (
            lambda logits: logits.square().mean(1),
            r"returned a tensor of shape \(4,\); expected a scalar tensor, a mean",
        ),
        (lambda logits: logits.mean()[None], r"returned a tensor of shape \(1,\)"),
        (lambda _: 0.5, "returned a float; expected a scalar tensor"),
        (lambda _: None, "returned a NoneType"),
        (lambda logits: logits.detach().mean(), "returned a scalar without a gradient in the weights"),
    ],
)
def test_what_a_penalty_returns(returned: Any, message: str) -> None:
    def mine(passed):
        return returned(passed.logits)

    with pytest.raises(ValueError, match=f"the penalty '.*mine' {message}"):
        trained(penalties=[(0.1, mine)])


def mixture(weights, labels):
    """Without the annotations' check, which a user does not have."""
    made = Mixture(())
    object.__setattr__(made, "parts", ((weights, labels),))
    return made


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x, _: x, r"returned \(Tensor\); expected \(inputs, labels\)"),
        (lambda x, _: (x, None), r"are a NoneType for 4 samples; expected one integer per sample"),
        (lambda x, y: (x[:2], y), r"are torch.int64 of shape \(4,\) for 2 samples"),
        (lambda x, y: (x, y.double()), r"are torch.float64 of shape \(4,\)"),
        (lambda x, y: (x, y[:, None]), r"of shape \(4, 1\) for 4 samples"),
        (lambda x, y: (x.sum(), y), "returned inputs without a dimension"),
        (lambda x, y: (x, mixture(torch.ones(4), y[:2])), r"of shape \(2,\) for 4 samples"),
        (lambda x, y: (x, mixture(torch.ones(2), y)), r"has weights of shape \(2,\); expected \(4,\)"),
    ],
)
def test_what_a_transform_returns(returned: Any, message: str) -> None:
    def mine(passed):
        return returned(passed.inputs.detach(), passed.labels)

    with pytest.raises(ValueError, match=f"the (transform|mixture of the transform) '.*mine'.* {message}"):
        trained(transforms=[mine])


def test_a_pass_takes_one_integer_label_per_sample() -> None:
    network, x = nn.Linear(2, 2), torch.ones(3, 2)
    for labels, found in (
        (torch.zeros(2, dtype=torch.int64), r"torch.int64 of shape (2,)"),
        (torch.zeros(3), "torch.float32 of shape (3,)"),
        ([0, 1, 1], "a list"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"the labels of the pass are {found} for 3 samples; expected")):
            fp.ForwardPass(network, x, labels)
    with torch.inference_mode():
        made_inside = torch.ones(3, 2)
        with pytest.raises(ValueError, match=r"inside torch.inference_mode, .*; expected it outside"):
            fp.ForwardPass(network, x, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"made inside torch.inference_mode.*: pass inputs.clone\(\)"):
        fp.ForwardPass(network, made_inside, torch.zeros(3, dtype=torch.int64))
