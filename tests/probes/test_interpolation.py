"""Landscapes: corners, closed forms on a bowl, BatchNorm policies, refusals."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.network.weights import weights_of
from flatprobe.risk.recalibration import Recalibration
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched
from tests.helpers.references import loss_and_error

DATA = cases.data_for((1, 8, 8))
PLAIN = [name for name in cases.NETWORKS if name not in {"residual", "normalised"}]


@pytest.mark.parametrize("name", PLAIN)
def test_closed_form_corners_equal_the_networks_own_values_exactly(name: str) -> None:
    build = cases.NETWORKS[name]
    for dtype in (torch.float64, torch.float32):
        models = [build(seed=seed).to(dtype) for seed in range(3)]
        risk = fp.EmpiricalRisk(models[0], DATA)
        points = fp.simplex(3, steps=4)
        landscape = fp.interpolate(risk, models, points)
        for k, model in enumerate(models):
            own = fp.EmpiricalRisk(model, DATA)()
            corner = int((points[:, k] == 1).nonzero())
            assert float(landscape.loss[corner]) == own.loss  # to the last bit
            assert float(landscape.error[corner]) == own.error
            assert float(landscape.accuracy[corner]) == 1 - own.error


@pytest.mark.parametrize("name", PLAIN)
def test_slow_reference_interior_points(name: str) -> None:
    models = [cases.NETWORKS[name](seed=seed) for seed in range(3)]
    data = DATA.head(30)
    points = fp.simplex(3, steps=3)
    landscape = fp.interpolate(fp.EmpiricalRisk(models[2], data), models, points)
    for row, coefficients in enumerate(points.tolist()):
        states = [weights_of(model) for model in models]
        mixed = {k: sum(c * s[k] for c, s in zip(coefficients, states, strict=True)) for k in states[0]}
        loss, error = loss_and_error(models[0], mixed, data)
        assert float(landscape.loss[row]) == pytest.approx(loss, rel=1e-9)
        assert float(landscape.error[row]) == error


def test_closed_form_barrier_of_a_bowl_between_opposite_points() -> None:
    center = {"w": torch.zeros(2, dtype=torch.float64)}
    ends = [{"w": torch.tensor([x, 0.0], dtype=torch.float64)} for x in (-1.0, 3.0)]
    line = fp.interpolate(cases.Bowl(center, curvature=-1.0), ends, fp.segment(steps=21))
    # I = -x^2/2 is concave: at x = -1 + 4t it lies 16 t (1 - t) / 2 above its chord, 2 at the middle
    assert line.barrier == pytest.approx(2.0, rel=1e-12)
    convex = fp.interpolate(cases.Bowl(center), ends, fp.segment(steps=21))
    assert convex.barrier == pytest.approx(0.0, abs=1e-12)


def _line(first: torch.nn.Module, second: torch.nn.Module) -> None:
    fp.interpolate(fp.EmpiricalRisk(first, DATA), [first, second.state_dict()], fp.segment(steps=3))


def test_property_model_and_endpoints_untouched() -> None:
    for name in PLAIN:
        first, second = (cases.NETWORKS[name](seed=seed) for seed in range(2))
        for model in (first, second):
            assert_model_untouched(model, partial(_line, first, second))


def test_property_batch_size_invariant() -> None:
    models = [cases.mlp(seed=seed) for seed in range(2)]

    def values(data: fp.LabelledData, size: int) -> torch.Tensor:
        return fp.interpolate(fp.EmpiricalRisk(models[0], data, batch_size=size), models, fp.segment(steps=5)).loss

    assert_batch_size_invariant(values, DATA)


def test_property_a_point_is_its_own_coefficients_not_its_neighbours() -> None:
    """The defect of loss-landscapes: serpentine grids with odd rows shifted by a cell, a start never evaluated."""
    models = [cases.mlp(seed=seed) for seed in range(3)]
    risk = fp.EmpiricalRisk(models[0], DATA)
    points = fp.simplex(3, steps=5)
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))
    straight, shuffled = (fp.interpolate(risk, models, p).loss for p in (points, points[order]))
    assert torch.equal(straight[order], shuffled)


def test_batch_norm_is_refused_without_a_policy() -> None:
    models = [cases.residual(seed=seed) for seed in range(2)]
    risk = fp.EmpiricalRisk(models[0], DATA)
    with pytest.raises(ValueError, match=r'batch_norm must be "interpolate" or "recalibrate" .*, got None'):
        fp.interpolate(risk, models, fp.segment(steps=3))
    with pytest.raises(ValueError, match=r"batch_norm must be one of.*, got 'average'"):
        fp.interpolate(risk, models, fp.segment(steps=3), batch_norm="average")
    plain = [cases.mlp(seed=seed) for seed in range(2)]
    plain_risk = fp.EmpiricalRisk(plain[0], DATA)
    with pytest.raises(ValueError, match="no BatchNorm to recalibrate"):
        fp.interpolate(plain_risk, plain, fp.segment(), batch_norm="recalibrate")


def test_closed_form_interpolated_batch_norm_reproduces_the_corners_exactly() -> None:
    models = [cases.residual(seed=seed) for seed in range(2)]
    line = fp.interpolate(fp.EmpiricalRisk(models[0], DATA), models, fp.segment(steps=3), batch_norm="interpolate")
    assert [float(line.loss[0]), float(line.loss[2])] == [fp.EmpiricalRisk(m, DATA)().loss for m in models]


def test_slow_reference_recalibrated_statistics_are_those_of_a_training_pass() -> None:
    models = [cases.residual(seed=seed) for seed in range(2)]
    calibration = cases.data_for((1, 8, 8), samples=200, seed=5)
    line = fp.interpolate(
        fp.EmpiricalRisk(models[0], DATA),
        models,
        fp.segment(steps=3),
        batch_norm="recalibrate",
        calibration=calibration,
    )
    for k, row in ((0, 0), (1, 2)):
        twin = copy.deepcopy(models[k])
        for layer in twin.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.train()
                layer.reset_running_stats()
                layer.momentum = None
        with torch.no_grad():
            twin(calibration.inputs.double())
        assert float(line.loss[row]) == pytest.approx(fp.EmpiricalRisk(twin.eval(), DATA)().loss, rel=1e-9)
        assert float(line.loss[row]) != fp.EmpiricalRisk(models[k], DATA)().loss
    assert_model_untouched(
        models[0],
        lambda: fp.interpolate(
            fp.EmpiricalRisk(models[0], DATA), models, fp.segment(steps=3), batch_norm="recalibrate"
        ),
    )


def _shape() -> dict[str, torch.Tensor]:
    return {**cases.mlp().state_dict(), "linear2.weight": torch.zeros(16, 25)}


def _not_finite() -> dict[str, torch.Tensor]:
    return {**cases.mlp().state_dict(), "linear2.bias": torch.full((16,), torch.nan)}


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        (lambda: cases.mlp().train(), "endpoint 1 is in training mode"),
        (lambda: cases.cnn(), "endpoint 1 is another network: missing"),
        (_shape, r"'linear2.weight' has shape \(16, 25\) in endpoint 1 and \(16, 24\) in the risk's model"),
        (_not_finite, "endpoint 1 has 16 NaN or infinite values among the 16 of 'linear2.bias'"),
    ],
)
def test_endpoints_that_do_not_fit_are_named(endpoint, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.interpolate(fp.EmpiricalRisk(cases.mlp(), DATA), [cases.mlp(), endpoint()], fp.segment())


def test_endpoints_with_other_normalisation_are_refused() -> None:
    other = fp.Normalised(fp.models.mlp((1, 8, 8), widths=(16,)), 0.1, 0.4).double().eval()
    with pytest.raises(ValueError, match=r"buffer 'normalise\.mean' of endpoint 1, of a layer Normalise, differs"):
        fp.interpolate(fp.EmpiricalRisk(cases.normalised(), DATA), [cases.normalised(), other], fp.segment())


def test_bad_coefficients() -> None:
    models = [cases.mlp(seed=seed) for seed in range(2)]
    risk = fp.EmpiricalRisk(models[0], DATA)
    with pytest.raises(ValueError, match=r"coefficients must have shape \(points, 2\) for 2 endpoints, got \(6, 3\)"):
        fp.interpolate(risk, models, fp.simplex(3, steps=2))
    with pytest.raises(ValueError, match=r"coefficients of point 0 must sum to 1, got 1\.5"):
        fp.interpolate(risk, models, torch.tensor([[0.5, 1.0]]))
    with pytest.raises(ValueError, match="barrier must be of two endpoints, got 3"):
        _ = fp.interpolate(risk, [*models, models[0]], fp.simplex(3, steps=1)).barrier
    with pytest.raises(ValueError, match="coefficients must include endpoint 1 for the barrier"):
        _ = fp.interpolate(risk, models, fp.segment(steps=4)[:3]).barrier
    with pytest.raises(ValueError, match=r"steps must be at least 2.*, got 1"):
        fp.segment(steps=1)
    with pytest.raises(ValueError, match=r"steps must be at least 1.*, got 0"):
        fp.simplex(3, steps=0)


def test_points_that_are_not_finite_are_reported_not_patched() -> None:
    """The defect of Landscaper: NaN replaced by the mean of the others."""
    models = [cases.mlp(seed=seed).float() for seed in range(2)]
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.mul_(1e25)  # finite weights whose products overflow
    line = fp.interpolate(fp.EmpiricalRisk(models[0], DATA), models, fp.segment(steps=2))
    assert math.isfinite(float(line.loss[0]))
    assert not math.isfinite(float(line.loss[1]))


def test_result_survives_the_record(tmp_path) -> None:
    models = [cases.mlp(seed=seed) for seed in range(2)]
    line = fp.interpolate(fp.EmpiricalRisk(models[0], DATA), models, fp.segment(steps=7))
    loaded = fp.load(fp.save(line, tmp_path / "line.parquet"))
    for name in ("coefficients", "loss", "error"):
        assert torch.equal(getattr(loaded, name), getattr(line, name))
    assert loaded.barrier == line.barrier


def test_closed_form_the_barrier_looks_between_the_endpoints_only() -> None:
    center = {"w": torch.zeros(1, dtype=torch.float64)}
    ends = [{"w": torch.tensor([x], dtype=torch.float64)} for x in (0.0, 1.0)]
    t = torch.tensor([-2.0, -0.1, 0.0, 0.5, 1.0, 1.1, 3.0], dtype=torch.float64)
    line = fp.interpolate(cases.Bowl(center), ends, torch.stack([1 - t, t], 1))
    assert line.barrier == 0  # beyond the endpoints the bowl lies above its chord
    inside = fp.interpolate(cases.Bowl(center), ends, torch.stack([1 - t, t], 1)[3:4])
    assert "barrier" not in inside.summary()


def test_missing_statistics_and_unused_calibration_are_refused() -> None:
    models = [cases.residual(seed=seed) for seed in range(2)]
    risk = fp.EmpiricalRisk(models[0], DATA)
    bare = dict(models[1].named_parameters())
    with pytest.raises(ValueError, match=r"endpoint 1 lacks the buffers .*running_mean"):
        fp.interpolate(risk, [models[0], bare], fp.segment(steps=2), batch_norm="interpolate")
    assert len(fp.interpolate(risk, [models[0], bare], fp.segment(steps=2), batch_norm="recalibrate").loss) == 2
    with pytest.raises(ValueError, match=r"batch_norm must be .recalibrate. where .*, got 'interpolate'"):
        fp.interpolate(risk, models, fp.segment(steps=2), batch_norm="interpolate", calibration=DATA)


def sorted_by_class(data: fp.LabelledData) -> fp.LabelledData:
    order = data.labels.argsort(stable=True)
    return fp.LabelledData(data.inputs[order], data.labels[order], classes=data.classes)


@pytest.mark.parametrize("samples", [2, 200, 384, 700])
def test_property_recalibrated_statistics_do_not_depend_on_the_order_of_the_samples(samples: int) -> None:
    model = cases.residual()
    data = cases.data_for((1, 8, 8), samples=samples)
    data = fp.LabelledData(data.inputs + 0.1 * data.labels[:, None, None, None], data.labels, classes=10)
    risk = fp.EmpiricalRisk(model, data)
    mixed, ordered = (Recalibration(risk, given).statistics(risk.center) for given in (data, sorted_by_class(data)))
    for name, value in mixed.items():
        torch.testing.assert_close(ordered[name], value, rtol=1e-9, atol=1e-12)


def test_closed_form_recalibration_takes_every_sample_once_and_mixes_the_classes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(1), nn.Linear(1, 2)).double().eval()
    inputs = torch.arange(700, dtype=torch.float64)[:, None]
    data = fp.LabelledData(inputs, (inputs[:, 0] > 349).long())  # sorted, as folders are
    found = Recalibration(fp.EmpiricalRisk(model, data)).statistics(dict(model.named_parameters()))
    # Three batches of 233 or 234: the mean of their means is the mean but for one sample's share.
    assert float(found["1.running_mean"]) == pytest.approx(349.5, abs=1)
    assert float(found["1.running_var"]) == pytest.approx(float(inputs.var()), rel=0.05)
    assert int(found["1.num_batches_tracked"]) == 3


def test_slow_reference_recalibration_splits_evenly_and_leaves_dropout_alone() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        front = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)]
        model = nn.Sequential(*front, nn.Flatten(), nn.Linear(144, 10)).double().eval()
    calibration = cases.data_for((1, 8, 8), samples=300, seed=5)
    risk, points = fp.EmpiricalRisk(model, DATA), fp.segment(steps=2)
    line = fp.interpolate(risk, [model, model], points, batch_norm="recalibrate", calibration=calibration)
    twin = copy.deepcopy(model)
    twin[1].train()
    twin[1].reset_running_stats()
    twin[1].momentum = None
    with torch.no_grad():
        twin(calibration.inputs.double())  # 300 samples: one batch
    assert float(line.loss[0]) == pytest.approx(fp.EmpiricalRisk(twin.eval(), DATA)().loss, rel=1e-9)
