"""Attacks: exact on affine networks, the half-space step against brute force, points that are what they say."""

import pytest
import torch
from torch import nn

from flatprobe import models
from flatprobe.attacks import MINIMUM_NORM, NORMS, Perturbed, fgsm, minimum_norm, pgd
from flatprobe.attacks.boundary_bisection import bisect_to_boundary
from flatprobe.attacks.deepfool import deepfool
from flatprobe.attacks.fixed import start_randomly
from flatprobe.attacks.halfspace import nearest_point
from flatprobe.attacks.ifgsm import ifgsm
from flatprobe.attacks.points import adversarial, distance, lead, log_odds, with_gradient
from flatprobe.utils import rng
from tests.helpers import cases
from tests.helpers.references import affine_margin

BOX = (0.0, 1.0)


def problem(model: nn.Module, shape: tuple[int, ...], samples: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs in the unit box, labelled by the network itself."""
    inputs = torch.rand((samples, *shape), generator=rng.generator(1, "problem")).double()
    with torch.no_grad():
        return inputs, model(inputs).argmax(1)


def draws(inputs: torch.Tensor):
    return lambda k: rng.sample_normal(0, len(inputs), inputs.shape[1:], 0, "test", k).to(inputs)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ["ddn", "fab", "deepfool"])
def test_closed_form_attacks_that_linearise_are_exact_on_affine_networks(attack: str, norm: str) -> None:
    model = cases.affine(classes=4)  # fab and ddn choose among three runners-up
    inputs, labels = problem(model, (7,))
    found = minimum_norm(attack, model, inputs, labels, norm=norm, draw=draws(inputs))
    exact = affine_margin(model.weight, model.bias, inputs, labels, norm)
    torch.testing.assert_close(found.distance, exact, rtol=1e-6, atol=0)  # the closing's
    assert bool((found.distance >= exact * (1 - 1e-12)).all())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ["log_barrier", "ifgsm"])
def test_closed_form_the_others_close_on_two_classes(attack: str, norm: str) -> None:
    """With two classes there is one boundary to find. ifgsm's budgets are halved 12 times."""
    model = cases.affine(classes=2)
    inputs, labels = problem(model, (7,))
    found = minimum_norm(attack, model, inputs, labels, norm=norm, draw=draws(inputs))
    exact = affine_margin(model.weight, model.bias, inputs, labels, norm)
    assert bool((found.distance >= exact * (1 - 1e-12)).all())
    torch.testing.assert_close(found.distance, exact, rtol=5e-3 if attack == "log_barrier" else 1e-3, atol=0)


@pytest.mark.parametrize("box", [None, BOX])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", MINIMUM_NORM)
def test_property_points_are_adversarial_as_they_are_and_as_far_as_it_says(attack: str, norm: str, box) -> None:
    model = cases.cnn().float()
    inputs, labels = problem(cases.cnn(), (1, 8, 8))
    inputs, labels = inputs.float(), labels.clone()
    labels[:3] = (labels[:3] + 1) % 10
    found = minimum_norm(attack, model, inputs, labels, norm=norm, box=box, draw=draws(inputs), steps=12)
    assert found.distance[:3].tolist() == [0, 0, 0]
    assert torch.equal(found.points[:3], inputs[:3])
    reached = found.distance.isfinite()
    assert int(reached.sum()) > 30
    assert bool((found.distance[3:] > 0).all())
    assert torch.equal(found.distance, distance(found.points, inputs, norm).where(reached, torch.inf))
    for points in (found.points, found.points.flip(0).contiguous().flip(0)):
        assert bool((model(points).argmax(1) != labels)[reached].all())
    one_by_one = torch.cat([model(point[None]) for point in found.points])
    assert bool((one_by_one.argmax(1) != labels)[reached].all())
    if box is not None:
        assert 0 <= float(found.points.min()) <= float(found.points.max()) <= 1


@pytest.mark.parametrize("box", [None, BOX])
@pytest.mark.parametrize("norm", NORMS)
def test_slow_reference_the_nearest_point_of_a_half_space_in_a_box(norm: str, box) -> None:
    """Against a fine bisection of the multiplier, and no random point of the box is nearer and inside."""
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(30, 12, generator=generator, dtype=torch.float64)
    normal = torch.randn(30, 12, generator=generator, dtype=torch.float64)
    direction = normal if norm == "l2" else normal.sign()

    def at(t: torch.Tensor) -> torch.Tensor:
        moved = start + t[:, None] * direction
        return moved if box is None else moved.clamp(*box)

    furthest = (normal * (at(torch.full((30,), 1e3).double()) - start)).sum(1)
    gap = furthest.clamp_max(3.0) * torch.rand(30, generator=generator, dtype=torch.float64) * 0.7
    low, high = torch.zeros(30, dtype=torch.float64), torch.full((30,), 1e3, dtype=torch.float64)
    for _ in range(200):
        t = (low + high) / 2
        inside = (normal * (at(t) - start)).sum(1) >= gap
        low, high = torch.where(inside, low, t), torch.where(inside, t, high)
    found = nearest_point(start, normal, gap, norm, box)
    short = gap - (normal * (found - start)).sum(1)
    assert float(short.max()) < 0.05 * float(gap.max())  # 4 Newton steps from below; most are exact
    assert float((short < 1e-9).double().mean()) > 0.8
    exact = short < 1e-9
    torch.testing.assert_close(found[exact], at(high)[exact], rtol=0, atol=1e-9)
    trials = torch.rand(20000, 12, generator=generator, dtype=torch.float64) * (1 if box else 3)
    for row in range(5):
        own = trials[((trials - start[row]) @ normal[row]) >= gap[row]]
        nearer = distance(own, start[row].expand_as(own), norm)
        assert float(nearer.min()) >= float(distance(found[row : row + 1], start[row : row + 1], norm)) - 1e-9


def test_closed_form_the_closing_finds_the_first_boundary_of_a_step() -> None:
    """z = (0, a piecewise constant function): secants are useless, the middles still halve the bracket."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros(len(x)), (x[:, 0] > 0.3).double() - 0.5], 1)

    inputs, labels = torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    far = Perturbed(torch.ones_like(inputs), torch.ones(1, dtype=torch.float64))
    near = bisect_to_boundary(forward, inputs, labels, far, norm="l2", box=None, passes=40)
    assert 0.3 < float(near.distance) < 0.3 + 2**-20
    none = bisect_to_boundary(forward, inputs, labels, Perturbed.none(inputs), norm="l2", box=None)
    assert none.distance.tolist() == [float("inf")]


def test_closed_form_the_direction_of_the_loss_does_not_vanish_where_the_network_is_certain() -> None:
    """The cross-entropy's own gradient is exactly 0 in float32 there, and an attack that follows it stands still."""
    inputs, labels = problem(cases.affine(), (7,))
    model, inputs = cases.affine().float(), inputs.float()
    model.weight.data *= 300
    model.bias.data *= 300
    plain = with_gradient(model, inputs, labels, lambda z, y: nn.functional.cross_entropy(z, y, reduction="none"))[1]
    assert bool((plain == 0).flatten(1).all(1).any())
    _, gradient = with_gradient(model, inputs, labels, log_odds)
    assert bool((gradient != 0).flatten(1).any(1).all())
    soft = cases.affine()
    inputs, labels = problem(soft, (7,))
    _, own = with_gradient(soft, inputs, labels, log_odds)
    _, plain = with_gradient(soft, inputs, labels, lambda z, y: nn.functional.cross_entropy(z, y, reduction="none"))
    cosine = nn.functional.cosine_similarity(own, plain)
    torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_closed_form_fgsm_is_the_maximiser_of_the_linearised_loss(norm: str) -> None:
    """O20 eq. 8.4 with its sign corrected: v . grad l = ||grad l||_*, and the loss of an affine network rises."""
    model = cases.affine()
    inputs, labels = problem(model, (7,))
    budget = torch.full((40,), 0.2, dtype=torch.float64)
    points = fgsm(model, inputs, labels, budget, norm=norm, box=None)
    _, gradient = with_gradient(model, inputs, labels, log_odds)
    dual = gradient.norm(dim=1) if norm == "l2" else gradient.abs().sum(1)
    torch.testing.assert_close(((points - inputs) * gradient).sum(1), 0.2 * dual, rtol=1e-9, atol=0)
    torch.testing.assert_close(distance(points, inputs, norm), budget, rtol=1e-9, atol=0)
    assert bool((log_odds(model(points), labels) > log_odds(model(inputs), labels)).all())


@pytest.mark.parametrize("norm", NORMS)
def test_property_pgd_stays_in_the_ball_and_the_box_and_is_no_worse_than_its_start(norm: str) -> None:
    model = cases.mlp()
    inputs, labels = problem(model, (1, 8, 8))
    budget = torch.full((40,), 0.3, dtype=torch.float64)
    points, height = pgd(model, inputs, labels, budget, norm=norm, box=BOX, noise=draws(inputs)(0))
    assert float(distance(points, inputs, norm).max()) <= 0.3 * (1 + 1e-12)
    assert 0 <= float(points.min()) <= float(points.max()) <= 1
    torch.testing.assert_close(height, lead(model(points), labels).detach(), rtol=0, atol=1e-9)
    assert bool((height > lead(model(inputs), labels)).all())
    assert float(pgd(model, inputs, labels, budget, norm=norm, box=BOX, steps=1)[1].mean()) < float(height.mean())


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_closed_form_distances_are_those_of_the_points_as_they_are_rounded(norm: str) -> None:
    """In single precision the difference, and the sum of its squares, would be rounded again."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 20, 500, generator=generator)
    difference = first.double() - second.double()
    exact = difference.square().sum(1).sqrt() if norm == "l2" else difference.abs().amax(1)
    torch.testing.assert_close(distance(first, second, norm), exact, rtol=1e-13, atol=0)


def test_property_a_lead_within_rounding_does_not_count() -> None:
    logits = torch.tensor([[1.0, 1.0 + 1e-7, 0.0], [1.0, 1.0 + 1e-4, 0.0], [1.0, 1.0, 0.0]])
    assert adversarial(logits, torch.zeros(3, dtype=torch.long)).tolist() == [False, True, False]


def test_bad_arguments() -> None:
    model = cases.affine()
    inputs, labels = problem(model, (7,))
    with pytest.raises(ValueError, match=r"attack must be one of 'ddn'.*, got 'cw'"):
        minimum_norm("cw", model, inputs, labels, draw=draws(inputs))
    with pytest.raises(ValueError, match=r"norm must be one of 'l2', 'linf'.*, got 'l1'"):
        minimum_norm("ddn", model, inputs, labels, norm="l1", draw=draws(inputs))
    with pytest.raises(ValueError, match=r"steps must be at least 1.*, got 0"):
        minimum_norm("ddn", model, inputs, labels, steps=0, draw=draws(inputs))


@pytest.mark.parametrize("norm", NORMS)
def test_property_further_steps_are_worth_their_passes(norm: str) -> None:
    """On a boundary of many pieces DDN improves on the FAB steps it begins with, the barrier's steps on their start."""
    model = models.mlp((20,), widths=(32,) * 5, classes=6).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter *= 4 if name.endswith("weight") else 0
    inputs, labels = problem(model, (20,), samples=60)

    def median(attack: str, steps: int) -> float:
        found = minimum_norm(attack, model, inputs, labels, norm=norm, draw=draws(inputs), steps=steps)
        return float(found.distance.median())

    # Seen: 0.974 and 0.964 for ddn, 0.951 and 0.927 for the barrier.
    assert median("ddn", 50) < 0.985 * median("fab", 5)
    assert median("log_barrier", 60) < 0.985 * median("log_barrier", 1)


def test_property_random_starts_are_uniform_in_the_cube_and_on_the_sphere() -> None:
    inputs, budget = torch.full((4000, 3), 0.5, dtype=torch.float64), torch.full((4000,), 0.2, dtype=torch.float64)
    noise = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    offset = start_randomly(inputs, noise, budget, norm="linf", box=None) - inputs
    share = (offset.flatten().sort().values / 0.2 + 1) / 2
    assert float((share - torch.linspace(0, 1, 12000, dtype=torch.float64)).abs().max()) < 0.015  # Kolmogorov-Smirnov
    sphere = start_randomly(inputs, noise, budget, norm="l2", box=None) - inputs
    torch.testing.assert_close(sphere.norm(dim=1), budget, rtol=1e-12, atol=0)
    assert float(sphere.mean(0).abs().max()) < 0.01


def test_closed_form_ifgsm_halves_the_bracket_between_two_budgets() -> None:
    """z = (0, x^3 - 1) changes its class 0.5 from x = 0.5; the linearised lead is 0 at 7 / 6."""

    class Cubic(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([torch.zeros_like(x), x**3 - 1], 1)

    inputs, labels = torch.full((1, 1), 0.5, dtype=torch.float64), torch.tensor([0])
    found = ifgsm(Cubic(), inputs, labels, norm="linf", box=None, draw=draws(inputs))
    assert 0.5 <= float(found.distance) <= 0.5 + 7 / 6 / 2**11


def test_deepfool_ends_once_every_class_has_changed() -> None:
    """One step on an affine network, and the pass that sees it."""
    model = cases.affine(classes=4)
    inputs, labels = problem(model, (7,))
    passes = []
    found = deepfool(
        lambda x: passes.append(len(x)) or model(x), inputs, labels, norm="l2", box=None, draw=draws(inputs)
    )
    assert bool(found.distance.isfinite().all())
    assert len(passes) <= 4
