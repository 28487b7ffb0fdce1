"""Tasks other than classification: every weight-space probe against a loop over samples in float64."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.probes.gradient_noise import _minibatches
from flatprobe.risk import lines
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched
from tests.helpers.tasks import CASES, Case, drawn, integers, language_model, segmentation

PROBES: dict[str, Callable[[Any], Any]] = {
    "flatness_radius": lambda risk: fp.flatness_radius(risk, directions=2, rtol=1e-6, seed=3).radii,
    "filter radius": lambda risk: fp.flatness_radius(risk, directions=1, law="filter", rtol=1e-6).radii,
    "adaptive radius": lambda risk: fp.flatness_radius(risk, directions=1, law="adaptive", rtol=1e-6).radii,
    "layer radius": lambda risk: fp.flatness_radius(risk, directions=1, law="layer", rtol=1e-6).radii,
    "random_slice": lambda risk: fp.random_slice(risk, steps=3, extent=0.5).loss,
    "worst_case_sharpness": lambda risk: fp.worst_case_sharpness(risk, radius=0.1, steps=3, restarts=2).increases,
    "hessian_trace": lambda risk: fp.hessian_trace(risk, draws=3).forms,
    "hessian_eigenvalues": lambda risk: fp.hessian_eigenvalues(risk).eigenvalues,
    "interpolate": lambda risk: (
        fp.interpolate(
            risk, [risk.center, {n: v + 0.1 * v.abs() for n, v in risk.center.items()}], fp.segment(steps=4)
        ).loss
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]()


def test_slow_reference_value_gradient_and_hessian_product(case: Case) -> None:
    risk, naive = case.risk(batch_size=4), case.naive()
    assert risk().loss == pytest.approx(naive(naive.center).loss, rel=1e-9)
    u = {name: drawn(*value.shape, seed=k) for k, (name, value) in enumerate(risk.center.items())}
    moved = {name: value + 0.1 * u[name] for name, value in risk.center.items()}
    assert risk(moved).loss == pytest.approx(naive(moved).loss, rel=1e-9)
    for point in (None, moved):
        found, expected = risk.gradient(point), naive.gradient(point or naive.center)
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-8, atol=1e-11, msg=name)
    found, expected = risk.hvp(None, u), naive.hvp(naive.center, u)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-8, atol=1e-11, msg=name)


@pytest.mark.parametrize("name", PROBES)
def test_slow_reference_every_probe_measures_the_loop(case: Case, name: str) -> None:
    found, expected = PROBES[name](case.risk(batch_size=4)), PROBES[name](case.naive())
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_slow_reference_gradient_noise(case: Case) -> None:
    naive = case.naive()
    own = [naive.gradient(naive.center, lambda w, k=k: naive.of(k, w)) for k in range(6)]
    flat = torch.stack([torch.cat([part.flatten() for part in gradient.values()]) for gradient in own])
    full = flat.mean(0)
    noise = fp.gradient_noise(case.risk(), batch_size=2, draws=5, seed=1)
    assert noise.gradient_norm == pytest.approx(float(full.norm()), rel=1e-7)
    lengths = [float((flat[p].mean(0) - full).square().sum()) for p in _minibatches(6, 2, 5, False, 1)]
    assert noise.squared_lengths.tolist() == pytest.approx(lengths, rel=1e-6)


def test_property_no_error_in_results_and_tables(case: Case, tmp_path: Any) -> None:
    risk = case.risk()
    assert risk().figures().keys() == {"loss"}
    slice_ = fp.random_slice(risk, steps=3, dimensions=1)
    line = fp.interpolate(risk, [risk.center, risk.center], fp.segment(steps=2))
    for result in (slice_, line):
        assert "error" not in result.to_frame()
        fp.save(result, tmp_path / "record.parquet")
        loaded = fp.load(tmp_path / "record.parquet")
        assert loaded.error.isnan().all()
        assert torch.equal(loaded.loss, result.loss)
    assert line.summary().keys() == {"max_loss", "mean_loss", "points", "barrier"}
    assert "accuracy" not in line.profile()
    with pytest.raises(ValueError, match='quantity must be "loss" for a risk without an error'):
        line.flat_share()
    assert line.flat_share(1e9, quantity="loss") == 1
    radii = fp.flatness_radius(risk, directions=1)
    assert radii.settings["start"].keys() == {"loss"}
    fp.save(radii, tmp_path / "radii.parquet")
    assert fp.load(tmp_path / "radii.parquet").start.loss == radii.start.loss
    with pytest.raises(ValueError, match='objective must be "loss" for a risk without an error'):
        fp.flatness_radius(risk, objective="error", directions=1)


def test_property_the_batch_size_changes_nothing_and_the_model_stays(case: Case) -> None:
    def losses(data: fp.LabelledData, size: int) -> Tensor:
        own = Case(case.model, data, case.loss, case.single, case.output)
        return torch.tensor([own.risk(batch_size=size)().loss])

    assert_batch_size_invariant(losses, case.data)
    own = replace(case, model=copy.deepcopy(case.model))
    assert_model_untouched(own.model, lambda: own.risk().gradient())


def test_closed_form_linear_regression() -> None:
    """I(w) = (1/n) ||X w - t||^2 with the gradient (2/n) X^T (X w - t) and the Hessian (2/n) X^T X."""
    x, t = drawn(20, 3), drawn(20, seed=1)
    model = nn.Linear(3, 1, bias=False).double().eval()
    risk = fp.EmpiricalRisk(model, fp.LabelledData(x, t), loss="squared_error")
    w = model.weight.detach()[0]
    rest, hessian = x @ w - t, 2 / 20 * x.T @ x
    assert risk().loss == pytest.approx(float(rest.square().mean()), rel=1e-12)
    torch.testing.assert_close(risk.gradient()["weight"][0], 2 / 20 * x.T @ rest, rtol=1e-10, atol=0)
    v = drawn(1, 3, seed=2)
    torch.testing.assert_close(risk.hvp(None, {"weight": v})["weight"], v @ hessian, rtol=1e-10, atol=0)
    top = fp.hessian_eigenvalues(risk).eigenvalues
    assert float(top[0]) == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-6)
    trace = fp.hessian_trace(risk, draws=200)
    assert abs(trace.trace - float(hessian.trace())) < 4 * trace.standard_error
    # At the minimizer a direction u of length 1 leaves the level at sqrt(epsilon / (u^T H u / 2)).
    best = torch.linalg.lstsq(x, t[:, None]).solution.T
    with torch.no_grad():
        model.weight.copy_(best)
    least = fp.EmpiricalRisk(model, fp.LabelledData(x, t[:, None]), loss=nn.MSELoss())
    radius = fp.flatness_radius(least, directions=1, epsilon=0.05, rtol=1e-8)
    from flatprobe.risk.directions import direction

    u = direction(least.center, ["weight"], "isotropic", 0, 0)["weight"]
    assert float(radius.radii[0]) == pytest.approx(float((0.05 / (u @ hessian @ u.T / 2)) ** 0.5), rel=1e-6)


@pytest.mark.parametrize("make", [lambda: language_model("model"), language_model])
def test_slow_reference_the_models_own_loss_is_the_token_loss(make: Callable[[], Case]) -> None:
    # transformers computes its loss in float32
    assert make().risk()().loss == pytest.approx(
        language_model().naive()(language_model().risk().center).loss, rel=1e-6
    )


def test_slow_reference_torchs_losses_of_pixels_count_those_that_count() -> None:
    case = segmentation()
    images, masks = case.data.inputs, case.data.labels
    own = [F.cross_entropy(case.model(x[None]), t[None], ignore_index=255) for x, t in zip(images, masks, strict=True)]
    for loss in (nn.CrossEntropyLoss(ignore_index=255), partial(F.cross_entropy, ignore_index=255)):
        risk = fp.EmpiricalRisk(case.model, case.data, loss=loss)
        assert risk().loss == pytest.approx(float(torch.stack(own).mean().detach()), rel=1e-9)
        assert risk.describe()["loss"]["averaged_over"] == [4, 5]
    full = fp.LabelledData(images, masks.where(masks != 255, 0))
    torchs = float(F.cross_entropy(case.model(images), full.labels).detach())
    assert fp.EmpiricalRisk(case.model, full, loss=F.cross_entropy)().loss == pytest.approx(torchs, rel=1e-9)


def test_property_a_loss_may_bring_its_error() -> None:
    class Pixels(nn.CrossEntropyLoss):
        def error(self, z: Tensor, t: Tensor) -> Tensor:
            return (z.argmax(1) != t).double().mean((1, 2))

    case = segmentation()
    risk = fp.EmpiricalRisk(case.model, case.data, loss=Pixels(ignore_index=255))
    wrong = (case.model(case.data.inputs).argmax(1) != case.data.labels).double().mean()
    assert risk().error == pytest.approx(float(wrong), rel=1e-12)
    assert fp.random_slice(risk, steps=3, dimensions=1).accuracy[1] == pytest.approx(1 - float(wrong))


def test_property_targets_keep_their_precision_under_half_precision_networks() -> None:
    x, t = drawn(8, 3), 1000 + drawn(8, seed=1)
    model = nn.Linear(3, 1).to(torch.bfloat16).eval()
    risk = fp.EmpiricalRisk(model, fp.LabelledData(x, t), loss="squared_error")
    expected = (model(x.bfloat16()).double()[:, 0] - t).square().mean()
    assert risk().loss == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_pictures_of_a_risk_without_an_error_show_the_loss_and_refuse_the_accuracy(dimensions: int) -> None:
    risk = segmentation().risk()
    surface = fp.random_slice(risk, steps=3, dimensions=dimensions)
    weights = [risk.center, {name: 1.1 * value for name, value in risk.center.items()}, risk.center]
    points = fp.segment(steps=3) if dimensions == 1 else fp.simplex(3, steps=2)
    landscape = fp.interpolate(risk, weights[: dimensions + 1], points)
    for result in (surface, landscape):
        assert result.plot() is not None
        with pytest.raises(ValueError, match='quantity must be "loss" for a risk without an error'):
            result.plot(quantity="accuracy")


def test_property_a_layer_applied_to_each_token_stores_all_its_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
    data = fp.LabelledData(drawn(10, 7, 4), integers(3, 10, 7))
    risk = fp.EmpiricalRisk(model, data, loss="token_cross_entropy")
    for room, fits in ((10 * 7 * 8 * 8, True), (10 * 7 * 8 * 8 - 1, False)):
        monkeypatch.setattr(lines, "_STORE", room)
        assert (lines.split_for(risk.network, data, [risk.center]) is not None) == fits
        assert risk.along([risk.center])([1.0]).loss == pytest.approx(risk().loss, rel=1e-12)


def test_slow_reference_recalibrated_statistics_of_a_regression() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1)).double().eval()
    x, t = drawn(30, 3), drawn(30, seed=1)
    risk = fp.EmpiricalRisk(model, fp.LabelledData(x, t), loss="squared_error")
    found = fp.interpolate(risk, [model, model], fp.segment(steps=2), batch_norm="recalibrate").loss
    own = copy.deepcopy(model).train()
    own[1].momentum = None
    own(x)
    expected = (own.eval()(x)[:, 0] - t).square().mean()
    assert found.tolist() == pytest.approx([float(expected.detach())] * 2, rel=1e-9)


def test_property_one_output_has_an_error_for_two_classes_and_none_for_counts() -> None:
    model, x = nn.Linear(3, 1).double().eval(), drawn(30, 3)

    def logistic(z: Tensor, y: Tensor) -> Tensor:
        return F.softplus(-(2 * y - 1) * z.flatten())

    def counts(z: Tensor, y: Tensor) -> Tensor:
        return (z.flatten() - y).square()

    y = integers(2, 30)
    found = fp.EmpiricalRisk(model, fp.LabelledData(x, y), loss=logistic)()
    assert found.error == float(((model(x).flatten() > 0) != y).double().mean())
    assert fp.EmpiricalRisk(model, fp.LabelledData(x, integers(5, 30)), loss=counts)().figures().keys() == {"loss"}
