"""Flatness radii: bowls in closed form, a fixed-step walk, invariances, censoring, bad input."""

import math
import statistics

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.network.weights import move, weights_of
from flatprobe.probes.rounding import float64_risk
from flatprobe.risk.directions import LAWS, direction
from tests.helpers import cases
from tests.helpers.properties import (
    assert_batch_size_invariant,
    assert_model_untouched,
    assert_seed_determines,
    rescaled_relu,
)
from tests.helpers.references import loss_and_error, walked_exit

DATA = cases.data_for((1, 8, 8))


@pytest.mark.parametrize("rtol", [1e-1, 1e-2, 1e-5])
def test_closed_form_the_radius_of_a_bowl_is_the_root_of_two_epsilon(rtol: float) -> None:
    bowl = cases.Bowl(weights_of(cases.mlp()), curvature=3.0)
    radii = fp.flatness_radius(bowl, epsilon=0.05, directions=5, rtol=rtol)
    truth = math.sqrt(2 * 0.05 / 3)
    exact = truth * (1 + 1e-12), truth * (1 - 1e-12)  # the bracket may end at the truth itself
    assert bool(((radii.lower <= exact[0]) & (exact[1] <= radii.upper)).all())
    assert bool((radii.upper <= radii.lower * (1 + rtol) * (1 + 1e-12)).all())
    torch.testing.assert_close(radii.radii, torch.full((5,), truth, dtype=torch.float64), rtol=rtol, atol=0)
    assert radii.mean == pytest.approx(truth, rel=rtol)
    assert bowl.calls == int(radii.evaluations.sum()) + 1


def test_closed_form_along_each_law_a_bowl_exits_at_the_directions_own_length() -> None:
    center = weights_of(cases.mlp())
    for law in LAWS:
        radii = fp.flatness_radius(cases.Bowl(center), epsilon=0.02, directions=3, law=law, rtol=1e-3)
        for k, radius in enumerate(radii.radii.tolist()):
            u = direction(center, tuple(center), law, 0, k)
            length = math.sqrt(sum(float(value.square().sum()) for value in u.values()))
            assert radius == pytest.approx(math.sqrt(2 * 0.02) / length, rel=1e-3)


@pytest.mark.parametrize("parameters", [None, "last"])
def test_slow_reference_a_walk_with_the_weights_loaded_one_sample_at_a_time(parameters: str | None) -> None:
    model, data = cases.mlp(), DATA.head(20)
    center = weights_of(model)
    radii = fp.flatness_radius(fp.EmpiricalRisk(model, data), epsilon=0.05, directions=2, parameters=parameters)
    names = tuple(center) if parameters is None else ("linear3.weight", "linear3.bias")
    start, _ = loss_and_error(model, center, data)
    for k in range(2):
        u = direction(center, names, "isotropic", 0, k)
        step = float(radii.radii[k]) / 40
        walked = walked_exit(lambda r, u=u: loss_and_error(model, move(center, u, r), data)[0] - start, 0.05, step, 99)
        assert radii.lower[k] - step <= walked <= radii.upper[k] + step


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_model_untouched(name: str) -> None:
    model = cases.NETWORKS[name]()
    assert_model_untouched(model, lambda: fp.flatness_radius(fp.EmpiricalRisk(model, DATA), directions=2))


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_batch_size_invariant(name: str) -> None:
    model = cases.NETWORKS[name]()

    def values(data: fp.LabelledData, size: int) -> torch.Tensor:
        result = fp.flatness_radius(fp.EmpiricalRisk(model, data, batch_size=size), directions=2)
        return torch.cat([result.radii, result.lower, result.upper])

    assert_batch_size_invariant(values, DATA)


def test_property_seed_determines() -> None:
    risk = fp.EmpiricalRisk(cases.mlp(), DATA)
    assert_seed_determines(lambda seed: fp.flatness_radius(risk, directions=2, seed=seed).radii)


def test_property_the_adaptive_radius_is_invariant_under_relu_rescaling_and_the_isotropic_is_not() -> None:
    model = cases.mlp()
    twin = rescaled_relu(model, 8.0)
    for law, invariant in (("adaptive", True), ("isotropic", False)):
        first, second = (
            fp.flatness_radius(fp.EmpiricalRisk(network, DATA), directions=3, law=law, rtol=1e-4).radii
            for network in (model, twin)
        )
        close = torch.allclose(first, second, rtol=1e-9)
        assert close == invariant, law
        if not invariant:
            assert float((first / second).log().abs().min()) > 0.1


def test_property_more_directions_leave_the_earlier_ones_in_place() -> None:
    risk = fp.EmpiricalRisk(cases.mlp(), DATA)
    few, many = (fp.flatness_radius(risk, directions=count).radii for count in (2, 5))
    assert torch.equal(few, many[:2])


def test_closed_form_directions_that_never_leave_are_censored_and_kept_out_of_the_mean() -> None:
    class Dented(cases.Bowl):
        def __call__(self, weights: dict[str, torch.Tensor]) -> fp.Risk:
            positive = float((weights["w"] - self.center["w"]).flatten()[0]) > 0
            return super().__call__(weights) if positive else fp.Risk(0.0, 0.0)

    radii = fp.flatness_radius(Dented({"w": torch.zeros(50, 1)}), directions=12, max_radius=7.0, rtol=1e-4)
    assert 0 < radii.censored < 12
    assert bool((radii.radii[~radii.reached] == math.inf).all())
    assert radii.mean == pytest.approx(math.sqrt(0.1), rel=1e-4)
    assert radii.median == pytest.approx(math.sqrt(0.1), rel=1e-4)
    assert radii.summary()["censored"] == radii.censored
    nothing = fp.flatness_radius(Dented({"w": torch.zeros(50, 1)}), directions=2, epsilon=1e9, max_radius=1.0)
    assert math.isnan(nothing.mean)
    assert math.isnan(nothing.std)


def test_closed_form_the_error_objective_is_a_step_function() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    model = cases.Affine(weight, torch.zeros(2, dtype=torch.float64))
    data = fp.LabelledData(torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0]))
    radii = fp.flatness_radius(fp.EmpiricalRisk(model, data), objective="error", epsilon=0.5, directions=8, rtol=1e-3)
    center = weights_of(model)
    for k in range(8):  # the sample changes class where (w_0 - w_1) x + b_0 - b_1 changes sign
        u = direction(center, ("weight", "bias"), "isotropic", 0, k)
        slope = float(u["weight"][0, 0] - u["weight"][1, 0] + u["bias"][0] - u["bias"][1])
        truth = -1 / slope if slope < 0 else math.inf
        assert float(radii.radii[k]) == pytest.approx(truth, rel=1e-3)


def test_closed_form_the_standard_deviation_is_that_of_a_sample() -> None:
    radii = fp.flatness_radius(fp.EmpiricalRisk(cases.mlp(), DATA), directions=4)
    assert radii.std == pytest.approx(statistics.stdev(radii.radii.tolist()), rel=1e-12)


def test_the_error_objective_measures_the_change_from_the_start() -> None:
    model = cases.affine(10, 64)
    risk = fp.EmpiricalRisk(model, DATA)
    start = risk().error
    assert start > 0.5  # random labels: an epsilon below it is left at once unless the start is taken off
    radii = fp.flatness_radius(risk, objective="error", epsilon=0.02, directions=3)
    assert bool((radii.lower > 0).all())
    for k, radius in enumerate(radii.lower.tolist()):
        u = direction(risk.center, tuple(risk.center), "isotropic", 0, k)
        assert abs(risk(move(risk.center, u, radius)).error - start) <= 0.02


def test_filter_law_reports_the_parameters_that_do_not_move() -> None:
    radii = fp.flatness_radius(fp.EmpiricalRisk(cases.mlp(), DATA), directions=1, law="filter")
    assert radii.frozen == ("linear1.bias", "linear2.bias", "linear3.bias")
    assert radii.settings["frozen"] == list(radii.frozen)


def test_zero_weights_do_not_move_under_the_relative_laws_and_are_named() -> None:
    model = cases.mlp()
    with torch.no_grad():
        model.linear2.weight.zero_()
        model.linear3.bias.zero_()
    risk = fp.EmpiricalRisk(model, DATA)
    frozen = {law: fp.flatness_radius(risk, directions=1, law=law).frozen for law in LAWS}
    biases = ("linear1.bias", "linear2.weight", "linear2.bias", "linear3.bias")
    assert frozen == {
        "isotropic": (),
        "adaptive": ("linear2.weight", "linear3.bias"),
        "filter": biases,
        "layer": biases,
    }
    assert fp.random_slice(risk, steps=3, law="adaptive").frozen == frozen["adaptive"]


def trained(**options: int) -> nn.Module:
    model = cases.mlp().float().train()
    return fp.train(model, DATA, epochs=30, learning_rate=0.1, **options).model


def test_single_precision_is_held_against_float64_where_epsilon_is_small() -> None:
    single, double = trained(), trained().double()
    met = 0
    for epsilon in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9):
        exact = fp.flatness_radius(fp.EmpiricalRisk(double, DATA), epsilon=epsilon, directions=3).radii
        try:
            radii = fp.flatness_radius(fp.EmpiricalRisk(single, DATA), epsilon=epsilon, directions=3).radii
        except ValueError:
            assert epsilon < 1e-5
            continue
        met += 1
        torch.testing.assert_close(radii, exact, rtol=2.1e-2, atol=0)  # the bracket, and its tolerance on either side
    assert 2 <= met < 6
    with pytest.raises(ValueError, match=r"must pass epsilon = .* Rounding of the loss decides .* model\.double"):
        fp.flatness_radius(fp.EmpiricalRisk(single, DATA), epsilon=3e-8, directions=3, rtol=1e-3)
    with pytest.raises(ValueError, match=r"got 1e-14. Below that, the rounding of the loss in float64 decides"):
        fp.flatness_radius(fp.EmpiricalRisk(double, DATA), epsilon=1e-14)


def test_large_logits_have_large_rounding_and_are_looked_at_sooner() -> None:
    model = trained()
    assert float64_risk(fp.EmpiricalRisk(model, DATA), 0.05, recalibrated=False) is None
    with torch.no_grad():
        model.linear3.weight.mul_(1e5)
    assert float64_risk(fp.EmpiricalRisk(model, DATA), 0.05, recalibrated=False).network.dtype == torch.float64
    assert float64_risk(cases.Bowl(weights_of(model)), 1e-9, recalibrated=False) is None


class Jumping(cases.Bowl):
    """A loss and an error that jump at the center itself."""

    def __call__(self, weights: dict[str, torch.Tensor]) -> fp.Risk:
        here = super().__call__(weights).loss == 0
        return fp.Risk(loss=0.0 if here else 1.0, error=0.0 if here else 1.0)


def test_a_jump_at_the_center_is_an_error_of_the_loss_and_a_radius_of_0_of_the_error() -> None:
    jumping = Jumping({"w": torch.zeros(4, 2, dtype=torch.float64)})
    with pytest.raises(
        ValueError, match=r"must be continuous at the center, .* every radius along direction 0 down to"
    ):
        fp.flatness_radius(jumping, directions=2)
    radii = fp.flatness_radius(jumping, directions=2, objective="error")
    assert radii.radii.tolist() == radii.lower.tolist() == [0.0, 0.0]
    assert bool(radii.reached.all())


def test_the_record_keeps_the_selection_as_asked_and_as_found() -> None:
    risk = fp.EmpiricalRisk(cases.mlp(), DATA)
    for asked, recorded in ((None, None), ("last", "last"), (("linear2.*",), ["linear2.*"])):
        settings = fp.flatness_radius(risk, directions=1, parameters=asked).settings
        assert settings["arguments"]["parameters"] == recorded
    assert settings["selected"] == ["linear2.weight", "linear2.bias"]


def test_batch_norm_frozen_and_recalibrated_differ_and_a_network_without_it_is_refused() -> None:
    model = cases.residual()
    risk = fp.EmpiricalRisk(model, DATA)
    frozen, recalibrated = (
        fp.flatness_radius(risk, directions=2, batch_norm=policy) for policy in ("frozen", "recalibrate")
    )
    assert not torch.equal(frozen.radii, recalibrated.radii)
    with pytest.raises(ValueError, match="Sequential has no BatchNorm to recalibrate"):
        fp.flatness_radius(fp.EmpiricalRisk(cases.mlp(), DATA), batch_norm="recalibrate")


def test_result_survives_the_record(tmp_path) -> None:
    result = fp.flatness_radius(fp.EmpiricalRisk(cases.mlp(), DATA), directions=3, law="filter")
    loaded = fp.load(fp.save(result, tmp_path / "radii.parquet"))
    assert type(loaded) is type(result)
    for name in ("radii", "lower", "upper", "evaluations", "excursions", "probing_ratio"):
        assert torch.equal(getattr(loaded, name), getattr(result, name))
    assert (loaded.start, loaded.frozen) == (result.start, result.frozen)
    assert loaded.settings["arguments"]["seed"] == 0
    assert loaded.settings["subject"]["data"]["fingerprint"] == DATA.fingerprint
    assert "FlatnessRadii(mean=" in repr(loaded)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilon": 0.0}, r"epsilon must be a positive.*, got 0.0"),
        ({"epsilon": -0.1}, r"epsilon must be .*, got -0.1"),
        ({"epsilon": math.nan}, r"epsilon must be .*, got nan"),
        ({"rtol": 0.0}, r"rtol must be .*, got 0.0"),
        ({"rtol": 1e-17}, "rtol must be at least 1e-12, got 1e-17"),
        ({"max_radius": -1.0}, r"max_radius must be .*, got -1.0"),
        ({"directions": 0}, r"directions must be at least 1.*, got 0"),
        ({"verify": -1}, r"verify must be .*, got -1"),
        ({"parameters": "nope.*"}, "matches no parameter"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.flatness_radius(cases.Bowl({"w": torch.ones(2, 2)}), **arguments)


def test_a_start_that_is_not_finite_is_an_error() -> None:
    bowl = cases.Bowl({"w": torch.ones(2, 2)}, curvature=math.inf)
    with pytest.raises(ValueError, match="the loss at the center must be finite, got nan"):
        fp.flatness_radius(bowl)


def test_a_float_network_agrees_with_its_double() -> None:
    model = cases.mlp()
    single = nn.Sequential(*model).float().eval()
    double = fp.flatness_radius(fp.EmpiricalRisk(cases.mlp(), DATA), directions=3, rtol=1e-3).radii
    torch.testing.assert_close(
        fp.flatness_radius(fp.EmpiricalRisk(single, DATA), directions=3, rtol=1e-3).radii, double, rtol=1e-3, atol=0
    )
