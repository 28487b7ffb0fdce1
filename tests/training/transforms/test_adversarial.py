"""Adversarial transforms: closed forms on affine networks, the attacks that measure, budgets, BatchNorm, certainty."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.attacks import NORMS, fgsm, pgd
from flatprobe.attacks.fixed import start_randomly
from flatprobe.attacks.points import lead, length, log_odds, with_gradient
from flatprobe.models import mlp
from flatprobe.training.forward import Mixture
from flatprobe.training.penalties import DoubleBackpropagation
from flatprobe.training.transforms import FGSM, PGD, GradientStep
from flatprobe.training.transforms.budgets import ascent_direction
from tests.helpers import cases
from tests.helpers.cases import batch, normalised_network
from tests.helpers.references import with_statistics
from tests.training.transforms.test_transforms import TOLERANCE, counted, passed_over


def affine_batch(samples: int = 20) -> tuple[cases.Affine, torch.Tensor, torch.Tensor]:
    inputs = cases.data_for((7,), samples=samples).inputs.double()
    return cases.affine(classes=2), inputs, torch.arange(samples) % 2


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_on_an_affine_network_closed_form(norm: str) -> None:
    """Of two classes every loss falls along w_y - w_j: the step ends at e of it, in its sign or its unit vector."""
    network, inputs, labels = affine_batch()
    towards = (network.weight[1 - labels] - network.weight[labels]).detach()
    unit = towards.sign() if norm == "linf" else towards / towards.norm(dim=1, keepdim=True)
    steep = (network(inputs).gather(1, labels[:, None]) - network(inputs).gather(1, 1 - labels[:, None])).flatten() < 1
    for loss in ("cross_entropy", {"name": "smoothed_maximum", "epsilon": 0.3}, "hinge"):
        moved = steep[:, None] if loss == "hinge" else torch.ones(len(labels), 1, dtype=torch.bool)
        points, same = FGSM(0.3, norm=norm)(passed_over(inputs, labels, network, loss=loss))
        torch.testing.assert_close(points, inputs + 0.3 * unit * moved, **TOLERANCE)
        assert torch.equal(same, labels)
    assert 0 < int(steep.sum()) < len(steep)


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_on_an_affine_network_ends_where_fgsm_does(norm: str) -> None:
    """Closed form: the farthest point of the ball; in l2 the angle t to it falls as d tan(t / 2) = -tan(t / 2) ds."""
    network, inputs, labels = affine_batch()
    passed = passed_over(inputs, labels, network)
    points, _ = PGD(0.3, norm=norm, steps=200)(passed)
    far = (FGSM(0.3, norm=norm)(passed)[0] - inputs) / 0.3
    if norm == "linf":
        torch.testing.assert_close(points, inputs + 0.3 * far, **TOLERANCE)
    else:
        noise = passed.normal(tuple(inputs.shape), "pgd")
        begun = ((noise / noise.norm(dim=1, keepdim=True)) * far).sum(1).acos()
        ended = 2 * ((begun / 2).tan() * torch.e**-2.5).atan()
        on = begun < torch.pi / 2  # the others first cross the ball
        assert int(on.sum()) > 4
        # Half a step of the 200, 2.5 / 200, is the walk's error.
        found = ((points - inputs) * far).sum(1) / 0.3
        torch.testing.assert_close(found[on], ended.cos()[on], rtol=0, atol=6e-3)
    unstarted, _ = PGD(0.3, norm=norm, steps=3, random_start=False)(passed)
    torch.testing.assert_close(unstarted, FGSM(0.3, norm=norm)(passed)[0], **TOLERANCE)


@pytest.mark.parametrize("norm", NORMS)
def test_attacks_are_those_that_measure(norm: str) -> None:
    """Slow reference: flatprobe.attacks by forward passes of their own, and PGD's walk in a loop."""
    network = cases.smooth()
    inputs, labels = cases.data_for((1, 4, 4), samples=9, classes=4).inputs.double(), torch.arange(9) % 4
    budget = torch.full((9,), 0.2, dtype=torch.float64)
    passed = passed_over(inputs, labels, network)
    expected = fgsm(network, inputs, labels, budget, norm=norm, box=(0.0, 1.0))
    torch.testing.assert_close(FGSM(0.2, norm=norm, box=(0, 1))(passed)[0], expected, **TOLERANCE)
    noise = passed.normal(tuple(inputs.shape), "pgd")
    current = start_randomly(inputs, noise, budget, norm=norm, box=(0.0, 1.0))
    for _ in range(4):
        _, gradient = with_gradient(network, current, labels, log_odds)
        unit = gradient.sign() if norm == "linf" else gradient / length(gradient, "l2").view(-1, 1, 1, 1)
        offset = current + 2.5 / 4 * 0.2 * unit - inputs
        long = length(offset, "l2").view(-1, 1, 1, 1)
        offset = offset.clamp(-0.2, 0.2) if norm == "linf" else torch.where(long > 0.2, offset * 0.2 / long, offset)
        current = (inputs + offset).clamp(0, 1)
    found, _ = PGD(0.2, norm=norm, steps=4, box=(0, 1))(passed)
    torch.testing.assert_close(found, current, **TOLERANCE)
    best, highest = pgd(network, inputs, labels, budget, norm=norm, box=(0.0, 1.0), steps=4, noise=noise)
    same = (lead(network(found), labels) - highest).abs() < 1e-12  # the last point is often the best of the probe's
    assert int(same.sum()) >= 3
    torch.testing.assert_close(found[same], best[same], **TOLERANCE)


@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", [FGSM, PGD])
def test_budgets_are_kept_and_reached(kind: Any, norm: str, box: Any) -> None:
    """Property: to rounding; without a box a single step has exactly the budget's length."""
    network, data = cases.cnn(), cases.data_for((1, 8, 8), samples=16)
    inputs = data.inputs.double()
    points, _ = kind(0.2, norm=norm, box=box)(passed_over(inputs, data.labels, network))
    sizes = length(points - inputs, norm)
    assert bool((sizes <= 0.2 * (1 + 1e-12)).all())
    if kind is FGSM and box is None:
        torch.testing.assert_close(sizes, torch.full_like(sizes, 0.2), **TOLERANCE)
    if box is not None:
        assert bool(((points >= 0) & (points <= 1)).all())


def test_attacks_see_the_batch_statistics_as_constants() -> None:
    """Slow reference: the network in which BatchNorm is an affine map with this batch's constants."""
    network, (inputs, labels) = normalised_network(), batch()
    frozen = with_statistics(network, inputs)
    variable = inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(frozen(variable), labels, reduction="sum"), variable)
    passed = passed_over(inputs, labels, network)
    expected = inputs + 0.1 * gradient / length(gradient, "l2").view(-1, 1, 1, 1)
    torch.testing.assert_close(FGSM(0.1, norm="l2")(passed)[0], expected, **TOLERANCE)
    torch.testing.assert_close(GradientStep(0.7)(passed)[0], inputs + 0.7 * gradient, **TOLERANCE)
    budget = torch.full((len(inputs),), 0.1, dtype=torch.float64)
    walked, _ = PGD(0.1, steps=2, random_start=False)(passed)
    current = inputs
    for _ in range(2):
        variable = current.clone().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(frozen(variable), labels, reduction="sum"), variable)
        current = inputs + (current + 1.25 * 0.1 * slope.sign() - inputs).clamp(-0.1, 0.1)
    torch.testing.assert_close(walked, current, **TOLERANCE)
    assert budget.shape == labels.shape


def test_property_fgsm_takes_one_pass_and_shares_its_gradient() -> None:
    network = mlp((1, 8, 8), widths=(6,))
    sizes = counted(network)
    data = cases.data_for((1, 8, 8), samples=5)
    passed = passed_over(data.inputs, data.labels, network)
    FGSM(0.1)(passed)
    GradientStep(0.1)(passed)
    assert sizes == [5]
    assert passed.gradient(create_graph=False) is passed.gradient(create_graph=False)
    assert not passed.gradient(create_graph=False).requires_grad
    assert passed.gradient().requires_grad
    later = passed_over(data.inputs, data.labels, network)
    assert later.gradient().requires_grad
    torch.testing.assert_close(later.gradient(create_graph=False), later.gradient().detach())


def test_the_direction_survives_certainty() -> None:
    """Closed form: at a lead of 40 the cross-entropy's own gradient in float32 has lost the entry of the label."""
    inputs, labels = torch.tensor([[40.0, 0.0], [100.0, 0.0]]), torch.tensor([0, 0])
    points, _ = FGSM(0.5, norm="l2")(passed_over(inputs, labels))
    torch.testing.assert_close(points[0] - inputs[0], torch.tensor([-1.0, 1.0]) * 0.5**1.5, rtol=1e-4, atol=0)
    raw = passed_over(inputs[:1], labels[:1])
    assert raw.derivative(raw.losses)[0, 0] == 0


def test_gradient_step_closed_form() -> None:
    """The squared loss of z = W x + b: x + lambda 2 W^T (z - e_y)."""
    network, inputs, labels = affine_batch()
    points, _ = GradientStep(0.05)(passed_over(inputs, labels, network, loss="squared"))
    gradient = 2 * (network(inputs) - F.one_hot(labels, 2)) @ network.weight
    torch.testing.assert_close(points, (inputs + 0.05 * gradient).detach(), **TOLERANCE)


@pytest.mark.parametrize("lead", [20.0, 110.0, 800.0])
@pytest.mark.parametrize("before", [[], [DoubleBackpropagation()]], ids=["alone", "after another"])
def test_attacks_climb_certain_networks_whoever_asked_first(lead: float, before: Any) -> None:
    """Closed form in float32, where p_y is 1: z = x, so the loss grows along (-1, 1)."""
    passed = fp.ForwardPass(nn.Identity(), torch.tensor([[lead, 0.0]]), torch.tensor([0]))
    for penalty in before:
        penalty(passed)
    for attack in (FGSM(0.5), PGD(0.5, steps=2, random_start=False)):
        assert (attack(passed)[0] - passed.inputs.detach()).tolist() == [[-0.5, 0.5]]


def test_slow_reference_attacks_climb_the_loss_of_a_mixture() -> None:
    """Against the gradient of the mixed loss itself, whose parts have slopes of their own; a constant factor aside."""
    inputs = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, 0.0]], dtype=torch.float64)
    weights = torch.tensor([0.3, 0.6], dtype=torch.float64)
    mixture = Mixture(((weights, torch.tensor([0, 2])), (1 - weights, torch.tensor([1, 0]))))
    passed = fp.ForwardPass(nn.Identity(), inputs, mixture)
    found = ascent_direction(passed)
    slope = passed.gradient(create_graph=False)
    torch.testing.assert_close(found, slope / slope.abs().amax(1, keepdim=True), rtol=1e-12, atol=0)
