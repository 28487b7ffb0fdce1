"""Lower bounds of the RKHS norm: closed forms on affine networks, slow references, draws of classes."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from flatprobe.training import ForwardPass, train
from flatprobe.training.penalties import (
    PENALTIES,
    AdversarialDeformation,
    AdversarialPerturbation,
    DoubleBackpropagation,
    RKHSGradient,
)
from flatprobe.training.penalties import classes as shared
from flatprobe.training.registry import build, describe
from flatprobe.training.transforms.displacement import deform, roughness, scale_within
from flatprobe.utils.rng import generator
from tests.helpers.cases import batch
from tests.helpers.penalties import NETWORKS, SLOW, assert_adds_up, assert_value_and_gradient, gradients_of, passed_for
from tests.helpers.references import with_statistics
from tests.helpers.small_data import clusters

EXACT = {"rtol": 1e-9, "atol": 1e-12}
EVERY = [RKHSGradient(), AdversarialPerturbation(0.5, steps=3), AdversarialDeformation(grid=3, steps=3)]


def affine(*extra: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(50, 3), *extra).double().train()


@pytest.mark.parametrize(
    "penalty", [RKHSGradient(), *(AdversarialPerturbation(e, steps=s) for e, s in ((1.0, 1), (0.3, 7)))]
)
def test_affine_networks_rise_by_the_length_of_their_rows(penalty: Any) -> None:
    """Closed form: sum_k ||w_k||^2, whatever the radius; its gradient is 2 W."""
    network = affine()
    value = penalty(passed_for(network))
    torch.testing.assert_close(value, network[1].weight.square().sum(), **EXACT)
    found = gradients_of(value, network)
    torch.testing.assert_close(found["1.weight"], 2 * network[1].weight.detach(), **EXACT)
    assert float(found["1.bias"].abs().max()) < 1e-12


@pytest.mark.parametrize("penalty", [RKHSGradient(), AdversarialPerturbation(0.3)], ids=str)
def test_dropout_repeats_its_mask(penalty: Any) -> None:
    """Closed form: some sample keeps each logit here, and it is doubled."""
    network = affine(nn.Dropout(0.5))
    torch.manual_seed(0)
    value = penalty(passed_for(network))
    torch.testing.assert_close(value, 4 * network[1].weight.square().sum(), **EXACT)


def own_gradient(network, x, k):
    variable = x[None].clone().requires_grad_()
    (found,) = torch.autograd.grad(network(variable)[0, k], variable)
    return found[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_largest_gradients(name: str) -> None:
    """Slow reference: autograd for each class and sample."""

    def reference(network, inputs, _labels):
        return sum(max(float(own_gradient(network, x, k).square().sum()) for x in inputs) for k in range(3))

    assert_value_and_gradient(RKHSGradient(), reference, NETWORKS[name]())


def walked(network, x, k, radius, steps):
    """Slow reference: projected ascent of f_k from x, the best point."""
    best, current = x, x
    with torch.no_grad():
        heights = [float(network(x[None])[0, k])]
    for _ in range(steps):
        g = own_gradient(network, current, k)
        offset = current + 2.5 * radius / steps * g / g.norm() - x
        current = x + offset * min(1.0, radius / float(offset.norm()))
        with torch.no_grad():
            heights.append(float(network(current[None])[0, k]))
        best = current if heights[-1] == max(heights) else best
    return best


@pytest.mark.parametrize("name", NETWORKS)
def test_perturbations(name: str) -> None:
    """Slow reference, the points held as they are at the unmoved weights."""
    network, radius, steps = NETWORKS[name](), 2.0, 4
    frozen = with_statistics(network, batch()[0])
    ends = [[walked(frozen, x, k, radius, steps) for x in batch()[0]] for k in range(3)]

    def reference(moved, inputs, _labels):
        with torch.no_grad():
            rises = [
                [moved(e[None])[0, k] - moved(x[None])[0, k] for x, e in zip(inputs, ends[k], strict=True)]
                for k in range(3)
            ]
        return sum((float(max(own)) / radius) ** 2 for own in rises)

    assert_value_and_gradient(AdversarialPerturbation(radius, steps=steps), reference, network)


def test_a_constant_displacement_of_a_ramp() -> None:
    """Closed form: the ramp rises by its slope times the 1 / c2 pixels that C <= 1 allows, away from the border."""
    ramp = torch.arange(9.0).view(9, 1) + 2 * torch.arange(9.0)
    images = ramp.expand(2, 1, 9, 9).double()
    network = nn.Sequential(nn.Flatten(), nn.Linear(81, 2, bias=False)).double()
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].weight[0, 40], network[1].weight[1, 40] = 3.0, -1.0
    for c2 in (0.5, 0.25):
        passed = ForwardPass(network, images, torch.tensor([0, 1]))
        value = AdversarialDeformation(grid=1, c2=c2)(passed)
        assert value.item() == pytest.approx((9 + 1) * 5 / c2**2, rel=1e-9)
    rises = gradients_of(value, network)["1.weight"]
    assert rises[0, 40].item() == pytest.approx(2 * 3 * 5 / c2**2, rel=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_deformations_are_allowed_and_their_gradient_is_that_of_the_rise(name: str) -> None:
    """Slow reference for value and gradient given the images found; property: they are deformed within C <= 1."""
    network, penalty = NETWORKS[name](), AdversarialDeformation(grid=3, steps=4)
    ends, seen = {}, []
    original = scale_within

    def recorded(tau, size):
        found = original(tau, size)
        seen.append(roughness(found, (5, 5)))
        return found

    def kept(passed, k, steps, moved):
        ends[k] = shared.climb(passed, k, steps, moved)
        return ends[k]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flatprobe.training.penalties.adversarial_deformation.scale_within", recorded)
        patch.setattr("flatprobe.training.penalties.adversarial_deformation.climb", kept)
        penalty(passed_for(network))
    assert len(seen) == 3 * 4
    assert all(bool((found <= 1 + 1e-12).all()) for found in seen)
    assert all(bool((gains >= 0).all()) and bool(gains.any()) for _, gains in ends.values())

    def reference(moved, inputs, _labels):
        with torch.no_grad():
            rises = [moved(ends[k][0])[:, k] - moved(inputs)[:, k] for k in range(3)]
        return sum(float(own.max()) ** 2 for own in rises)

    assert_value_and_gradient(penalty, reference, network)


def test_the_ascent_finds_more_than_random_deformations() -> None:
    """Property: 50 random displacements of C = 1 rise less, for every class."""
    network, (inputs, _) = NETWORKS["cnn"](), batch()
    total = 0.0
    with torch.no_grad():
        for k in range(3):
            best = 0.0
            for draw in range(50):
                tau = torch.randn(6, 2, 3, 3, generator=generator(draw, "tau"), dtype=torch.float64)
                tau = scale_within(1e6 * tau, roughness(1e6 * tau, (5, 5)))
                best = max(best, float((network(deform(inputs, tau)) - network(inputs))[:, k].max()))
            total += best**2
    assert AdversarialDeformation(grid=3, steps=10)(passed_for(network)).item() > total


@pytest.mark.parametrize("c2", [0.5, 1.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_no_translation_by_whole_pixels_that_is_allowed_rises_more(c2: Any, seed: int) -> None:
    """Slow reference: every translation with C <= 1, by indexing, on rough filters whose slopes mislead."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)]
        network = nn.Sequential(*layers).double()
        images = torch.rand(5, 1, 8, 8).double().round()
    reach, total = int(1 / c2), 0.0
    allowed = [(x, y) for x in range(-reach, reach + 1) for y in range(-reach, reach + 1) if c2 * math.hypot(x, y) <= 1]
    places = torch.arange(8)
    with torch.no_grad():
        rises = []
        for x, y in allowed:
            rows, columns = (places - y).clamp(0, 7), (places - x).clamp(0, 7)
            rises.append(network(images[:, :, rows][..., columns]) - network(images))
        total = float(torch.stack(rises).amax((0, 1)).square().sum())
    for steps in (1, 5):
        passed = ForwardPass(network, images, torch.zeros(5, dtype=torch.int64))
        assert AdversarialDeformation(c2=c2, steps=steps)(passed).item() >= total * (1 - 1e-12)


def test_rounds_never_take_a_row_twice() -> None:
    """Property: all positions once, and as few rounds as the commonest row asks for."""
    for draw in range(20):
        rows = torch.randint(4, (9,), generator=generator(draw, "rows")).tolist()
        groups = shared.group_rows(rows)
        assert sorted(position for group in groups for position in group) == list(range(9))
        assert all(len({rows[position] for position in group}) == len(group) for group in groups)
        assert len(groups) == max(map(rows.count, rows))


@pytest.mark.parametrize("penalty", EVERY, ids=str)
def test_closed_form_classes_that_are_drawn_have_the_mean_of_all(penalty: Any) -> None:
    """Exact: the mean over the three possible draws is the whole sum, in value and in gradient."""
    network = NETWORKS["batch_norm"]()
    whole = penalty(passed_for(network))
    settings = {**describe(penalty, PENALTIES), "classes": 1}
    drawn = build("penalty", settings, PENALTIES)
    values: dict[int, torch.Tensor] = {}
    for step in range(40):
        passed = passed_for(network, key=(0, step))
        (k,), factor = shared.draw_classes(passed, 1, str(settings["name"]))
        assert factor == 3
        if k not in values:
            values[k] = drawn(passed)
    assert sorted(values) == [0, 1, 2]
    mean = sum(values.values()) / 3
    torch.testing.assert_close(mean, whole, **SLOW)
    expected = gradients_of(whole, network)
    for name, found in gradients_of(mean, network).items():
        torch.testing.assert_close(found, expected[name], **SLOW)


def test_property_classes_are_drawn_alike_often() -> None:
    """Monte Carlo: 4 standard errors of 300 draws of 2 of 3 classes."""
    network = affine()
    counts = torch.zeros(3)
    for step in range(300):
        found, _ = shared.draw_classes(passed_for(network, key=(0, step)), 2, "x")
        assert len(set(found)) == 2
        counts[found] += 1
    assert bool(((counts - 200).abs() < 4 * math.sqrt(300 * 2 / 9)).all())
    assert shared.draw_classes(passed_for(network), 7, "x") == ([0, 1, 2], 1.0)


@pytest.mark.parametrize("penalty", EVERY, ids=str)
def test_property_composition_and_json(penalty: Any) -> None:
    assert_adds_up(penalty, DoubleBackpropagation())
    assert build("penalty", describe(penalty, PENALTIES), PENALTIES) == penalty


def test_property_training_with_them() -> None:
    asked = [(0.01, "rkhs_gradient"), (0.01, {"name": "adversarial_perturbation", "steps": 1, "classes": 1})]
    run = train(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), clusters(), epochs=2, penalties=asked)
    assert all(row["rkhs_gradient"] > 0 and row["adversarial_perturbation"] > 0 for row in run.history)


def test_refusals() -> None:
    for own in (RKHSGradient, AdversarialPerturbation, AdversarialDeformation):
        with pytest.raises(ValueError, match=r"classes must be one of 'all'.*, got 'some'"):
            own(classes="some")
        with pytest.raises(ValueError, match=r"classes must be at least 1.*, got 0"):
            own(classes=0)
    with pytest.raises(ValueError, match=r"radius must be a positive finite number.*, got 0"):
        AdversarialPerturbation(0)
    with pytest.raises(ValueError, match=r"steps must be at least 1.*, got 0"):
        AdversarialPerturbation(steps=0)
    with pytest.raises(ValueError, match=r"grid must be at least 1.*, got 0"):
        AdversarialDeformation(grid=0)
    with pytest.raises(ValueError, match=r"c1 must be a positive finite number.*, got -1"):
        AdversarialDeformation(c1=-1)
    passed = ForwardPass(nn.Linear(4, 2), torch.ones(3, 4), torch.tensor([0, 1, 0]))
    with pytest.raises(ValueError, match=r"inputs have shape \(3, 4\); expected images"):
        AdversarialDeformation()(passed)
