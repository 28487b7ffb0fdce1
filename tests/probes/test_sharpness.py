"""Worst-case sharpness: bowls whose maximum is known, both balls, the whole data set, everything refused."""

import math

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.network.weights import move, norm
from flatprobe.risk.directions import direction
from tests.helpers import cases
from tests.helpers.properties import (
    assert_batch_size_invariant,
    assert_model_untouched,
    assert_seed_determines,
    rescaled_relu,
)

DATA = cases.data_for((4, 4), samples=40, classes=4)
IMAGES = cases.data_for((1, 8, 8), samples=70)
MODEL = cases.smooth()
RISK = fp.EmpiricalRisk(MODEL, DATA)
CURVATURE = torch.tensor([4.0, 1.0, 0.5, 3.0]).double()
CENTER = {"a": torch.tensor([0.5, -4.0]).double(), "b": torch.tensor([3.0, 0.0]).double()}


def test_closed_form_a_bowl_rises_along_its_steepest_axis() -> None:
    result = fp.worst_case_sharpness(cases.Quadratic(CENTER, CURVATURE.diag()), radius=0.3, steps=100)
    torch.testing.assert_close(
        result.increases, torch.full((3,), 4 * 0.3**2 / 2, dtype=torch.float64), rtol=1e-6, atol=0
    )
    torch.testing.assert_close(result.lengths, torch.full((3,), 0.3, dtype=torch.float64), rtol=1e-9, atol=0)
    assert result.loss == 0
    part = fp.worst_case_sharpness(cases.Quadratic(CENTER, CURVATURE.diag()), radius=0.3, steps=100, parameters="b")
    assert part.sharpness == pytest.approx(3 * 0.3**2 / 2, rel=1e-6)


def test_closed_form_a_bowl_under_the_adaptive_law_scales_each_weight_by_itself() -> None:
    """(v_j / |w_j|)_j in the ball: the maximum is radius^2 / 2 max_j A_jj w_j^2; the zero weight does not count."""
    result = fp.worst_case_sharpness(
        cases.Quadratic(CENTER, CURVATURE.diag()), law="adaptive", radius=0.1, steps=100, restarts=2
    )
    assert result.sharpness == pytest.approx(1 * 16 * 0.1**2 / 2, rel=1e-6)
    assert result.frozen == ()
    center = {**CENTER, "b": torch.zeros(2).double()}
    assert fp.worst_case_sharpness(cases.Quadratic(center, CURVATURE.diag()), law="adaptive").frozen == ("b",)


def test_random_starts_lie_on_the_surface_of_the_ball_of_the_weights_that_move() -> None:
    class Recorded(cases.Quadratic):
        def gradient(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            points.append(self._flat(weights).clone())
            return super().gradient(weights)

    points: list[torch.Tensor] = []
    center = torch.tensor([2.0, 0.0, -0.5, 0.0, 1.0]).double()
    risk = Recorded({"w": center}, torch.eye(5).double())
    fp.worst_case_sharpness(risk, law="adaptive", radius=0.3, restarts=3, steps=1)
    moving = center != 0
    for start in points[1:]:  # after the center, whose slope is 0, so that all three starts are random
        assert torch.equal(start[~moving], center[~moving])
        relative = (start - center)[moving] / center[moving].abs()
        assert float(relative.norm()) == pytest.approx(0.3, rel=1e-12)
    assert len(points) == 1 + 3 * 2


def test_closed_form_a_tilted_bowl_has_the_trust_regions_maximum() -> None:
    """max of <v, A v> / 2 + <b, v> over ||v|| <= r: v = (mu - A)^-1 b with mu above A's largest, ||v|| = r."""
    b, r = torch.tensor([0.2, 1.0, -0.3, 0.1]).double(), 0.7
    low, high = float(CURVATURE.max()), float(CURVATURE.max() + b.norm() / r)
    for _ in range(200):
        mu = (low + high) / 2
        low, high = (mu, high) if float((b / (mu - CURVATURE)).norm()) > r else (low, mu)
    v = b / (high - CURVATURE)
    expected = float(CURVATURE @ v.square() / 2 + b @ v)
    bowl = cases.Quadratic(CENTER, CURVATURE.diag(), b)
    result = fp.worst_case_sharpness(bowl, radius=r, steps=500, restarts=4)
    assert result.sharpness == pytest.approx(expected, rel=1e-6)
    assert bool((result.increases <= expected * (1 + 1e-12)).all())


def test_closed_form_nothing_rises_below_a_maximum() -> None:
    result = fp.worst_case_sharpness(cases.Quadratic(CENTER, -CURVATURE.diag()), restarts=2)
    assert result.increases.tolist() == [0.0, 0.0]
    assert result.lengths.tolist() == [0.0, 0.0]


def test_it_is_found_in_a_network_and_never_below_sams_step_nor_a_random_search() -> None:
    result = fp.worst_case_sharpness(RISK, radius=0.5, steps=30)
    base, slope = RISK.loss_and_gradient()
    sam = RISK(move(RISK.center, slope, 0.5 / norm(slope))).loss - base
    names = tuple(RISK.center)
    random = [
        RISK(move(RISK.center, direction(RISK.center, names, "isotropic", 1, k), 0.5)).loss - base for k in range(30)
    ]
    assert result.sharpness >= sam > 0
    assert result.sharpness > max(random)
    assert result.summary()["least"] > 0.9 * result.sharpness
    assert int(result.passes.max()) <= 31


def test_regression_the_maximum_over_the_data_is_not_the_mean_of_the_batches_maxima() -> None:
    """sharpness-vs-generalization averages each batch's own worst case: larger, and other for other batches."""
    options = {"radius": 0.5, "steps": 20, "restarts": 1}
    whole = fp.worst_case_sharpness(RISK, **options).sharpness
    means = []
    for size in (5, 20):
        spans = [slice(k, k + size) for k in range(0, 40, size)]
        parts = [fp.LabelledData(DATA.inputs[span], DATA.labels[span], classes=4) for span in spans]
        maxima = [fp.worst_case_sharpness(fp.EmpiricalRisk(MODEL, part), **options).sharpness for part in parts]
        means.append(sum(maxima) / len(maxima))
    assert means[0] > 1.05 * means[1] > 1.05**2 * whole
    again = fp.worst_case_sharpness(fp.EmpiricalRisk(MODEL, DATA, batch_size=5), **options).sharpness
    assert again == pytest.approx(whole, rel=1e-9)


def test_property_the_adaptive_law_follows_a_rescaling_of_relu_units_and_l2_does_not() -> None:
    model = cases.mlp()
    risks = [fp.EmpiricalRisk(network, IMAGES) for network in (model, rescaled_relu(model, 4.0))]
    adaptive = [fp.worst_case_sharpness(risk, law="adaptive", steps=10, restarts=2).increases for risk in risks]
    torch.testing.assert_close(adaptive[0], adaptive[1], rtol=1e-9, atol=0)
    plain = [fp.worst_case_sharpness(risk, steps=10, restarts=2).sharpness for risk in risks]
    assert abs(plain[0] / plain[1] - 1) > 0.05


@pytest.mark.parametrize("law", ["l2", "adaptive"])
def test_property_untouched_batch_size_and_seed(law: str) -> None:
    model = cases.residual()
    assert_model_untouched(
        model, lambda: fp.worst_case_sharpness(fp.EmpiricalRisk(model, IMAGES), law=law, steps=1, restarts=1)
    )
    assert_batch_size_invariant(
        lambda data, size: (
            fp.worst_case_sharpness(
                fp.EmpiricalRisk(MODEL, data, batch_size=size), law=law, steps=2, restarts=2
            ).increases
        ),
        DATA,
    )
    assert_seed_determines(lambda seed: fp.worst_case_sharpness(RISK, law=law, steps=2, seed=seed).increases)


def test_record_round_trips(tmp_path) -> None:
    result = fp.worst_case_sharpness(RISK, steps=2)
    loaded = fp.load(fp.save(result, tmp_path / "sharpness.parquet"))
    for name in ("increases", "lengths", "passes"):
        assert torch.equal(getattr(loaded, name), getattr(result, name))
    assert (loaded.loss, loaded.radius, loaded.frozen) == (result.loss, 0.05, ())
    assert loaded.settings == result.settings


class Cliff(nn.Module):
    """Its logits are not finite once the weights have moved."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(4).double())
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        distance = (self.gate.detach() - 1).abs().sum()
        return 2 * self.gate * x.flatten(1)[:, :4] + (0.0 if float(distance) < 1e-3 else math.inf)


def test_a_loss_that_is_not_finite_in_the_ball_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"not finite|NaN or infinite|finite within the ball of radius 0.05, got (nan|inf)"
    ):
        fp.worst_case_sharpness(fp.EmpiricalRisk(Cliff(), DATA))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"law": "linf"}, r"law must be one of 'l2', 'adaptive'.*, got 'linf'"),
        ({"radius": 0.0}, r"radius must be a positive finite number.*, got 0.0"),
        ({"radius": -1.0}, r"radius must be a positive.*, got -1.0"),
        ({"steps": 0}, r"steps must be at least 1.*, got 0"),
        ({"restarts": 0}, r"restarts must be at least 1.*, got 0"),
        ({"parameters": "conv*"}, "matches no parameter"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.worst_case_sharpness(RISK, **options)


def test_other_refusals() -> None:
    with pytest.raises(TypeError, match=r"the risk Bowl has no gradient; expected .* gradient\(weights\)"):
        fp.worst_case_sharpness(cases.Bowl({"w": torch.ones(2)}))
    zero = cases.Quadratic({"w": torch.zeros(2).double()}, torch.eye(2).double())
    with pytest.raises(ValueError, match=r'must have a selected parameter that is not zero, got w\. .*law="l2"'):
        fp.worst_case_sharpness(zero, law="adaptive")


def test_closed_form_a_maximum_inside_the_ball_is_not_pushed_to_its_surface() -> None:
    """I(v) = <b, v> - ||v||^2 / 2 is largest at v = b, half the radius away: ||b||^2 / 2."""
    b = torch.tensor([0.3, -0.1, 0.2, 0.1]).double()
    bowl = cases.Quadratic(CENTER, -torch.eye(4).double(), b)
    result = fp.worst_case_sharpness(bowl, radius=2 * float(b.norm()), steps=60)
    expected = torch.full((3,), float(b @ b) / 2, dtype=torch.float64)
    torch.testing.assert_close(result.increases, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(result.lengths, torch.full_like(expected, float(b.norm())), rtol=1e-3, atol=0)
