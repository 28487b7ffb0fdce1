"""Compare and the demo: what they measure is what the probes measure alone."""

from pathlib import Path

import pytest
import torch

import flatprobe as fp
from flatprobe.report import report
from flatprobe.report.sections import make_title
from flatprobe.studies import demo as demo_module
from flatprobe.studies.compare import DEFAULT, NEED_CLASSES, Comparison, default_for
from flatprobe.studies.demo import MEASURED
from flatprobe.studies.probes_by_name import CHOICES
from flatprobe.studies.records import load_records
from tests.helpers import cases

DATA = cases.data_for((1, 8, 8), samples=40)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    models = {f"{group}-{k}": cases.mlp(seed=first + k) for group, first in (("a", 0), ("b", 3)) for k in range(4)}
    return fp.compare(models, DATA, groups={name: name[0] for name in models}, seed=1, probes=MEASURED)


def test_slow_reference_each_result_is_the_probes_own(comparison: Comparison) -> None:
    assert list(comparison.results) == list(MEASURED)
    model = cases.mlp(seed=5)
    risk = fp.EmpiricalRisk(model, DATA)
    assert torch.equal(comparison.results["flatness_radius"]["b-2"].radii, fp.flatness_radius(risk, seed=1).radii)
    last = fp.flatness_radius(risk, parameters="last", seed=1)
    assert torch.equal(comparison.results["flatness_radius_last_layer"]["b-2"].radii, last.radii)
    for probe in (fp.functional_margins, fp.scores, fp.jacobian_norms):
        assert torch.equal(comparison.results[probe.__name__]["b-2"].values, probe(model, DATA).values)
    line = fp.random_slice(risk, dimensions=1, seed=1)
    assert torch.equal(comparison.results["random_slice"]["b-2"].loss, line.loss)
    curvature = fp.hessian_eigenvalues(risk, seed=1)
    assert torch.equal(comparison.results["hessian_eigenvalues"]["b-2"].eigenvalues, curvature.eigenvalues)
    robustness = fp.gaussian_robustness(model, DATA, seed=1)
    assert torch.equal(comparison.results["gaussian_robustness"]["b-2"].error, robustness.error)
    landscape = fp.interpolate(risk, [cases.mlp(seed=seed) for seed in range(3)], fp.simplex(3))
    assert torch.equal(comparison.results["landscape"]["a"].loss, landscape.loss)
    others = fp.interpolate(risk, [cases.mlp((1, 8, 8), seed=seed) for seed in (3, 4, 5)], fp.simplex(3))
    assert torch.equal(comparison.results["landscape"]["b"].loss, others.loss)


@pytest.fixture(scope="module")
def everything() -> Comparison:
    data = cases.data_for((1, 4, 4), samples=140)
    models = {"a": cases.mlp((1, 4, 4), widths=(8,)), "b": cases.mlp((1, 4, 4), widths=(8,), seed=1)}
    return fp.compare(models, data, probes=CHOICES)


def test_every_choice_is_measured_saved_and_reported(everything: Comparison, tmp_path: Path) -> None:
    assert set(everything.results) == set(CHOICES)
    assert {*DEFAULT} <= {*CHOICES}
    folder = everything.save(tmp_path / "records")
    page = report(load_records(folder), tmp_path / "page.html").read_text()
    for probe in CHOICES:
        assert make_title(probe) in page


def test_closed_form_headline_is_the_mean_over_networks(comparison: Comparison) -> None:
    headline = comparison.headline().set_index(["measurement", "group"])
    row = headline.loc["flatness_radius", "a"]
    means = torch.tensor([comparison.results["flatness_radius"][f"a-{k}"].mean for k in range(4)], dtype=torch.float64)
    assert row["figure"] == "mean"
    assert row["count"] == 4
    assert row["mean"] == pytest.approx(float(means.mean()))
    assert row["std"] == pytest.approx(float(means.std()))


def test_a_network_whose_directions_are_all_censored_has_no_mean() -> None:
    model = cases.Affine(torch.zeros(10, 64, dtype=torch.float64), torch.zeros(10, dtype=torch.float64))
    risk = fp.EmpiricalRisk(model, DATA)
    censored = fp.flatness_radius(risk, epsilon=1e6, directions=2)
    assert censored.censored == 2
    frame = Comparison(results={"flatness_radius": {"x": censored}}, groups={"x": "x"}).headline()
    assert frame["figure"].tolist() == ["mean"]
    assert bool(frame["mean"].isna().all())


def test_it_saves_a_record_each(comparison: Comparison, tmp_path) -> None:
    folder = comparison.save(tmp_path / "records")
    assert {path.name for path in folder.iterdir()} == {*MEASURED, "comparison.json"}
    loaded = fp.load(folder / "flatness_radius" / "a-0.parquet")
    assert torch.equal(loaded.radii, comparison.results["flatness_radius"]["a-0"].radii)


def test_landscapes_need_networks_alike_on_the_same_data() -> None:
    pair = {"x": cases.mlp(seed=0), "y": cases.mlp(seed=1)}
    line = fp.compare(pair, DATA, probes=["landscape"]).results["landscape"]["networks"]
    assert line.coefficients.shape[1] == 2
    assert line.barrier >= 0
    other = {"x": DATA, "y": DATA.with_random_labels(seed=3)}
    unlike = {"x": cases.mlp(), "y": cases.cnn()}
    for models, data, reason in ((unlike, DATA, "the same shapes"), (pair, other, "on the same data")):
        with pytest.warns(UserWarning, match=f"landscape of networks: a landscape needs networks .*{reason}"):
            assert fp.compare(models, data, probes=["landscape"]).results == {}
    normalised = {"x": cases.residual(seed=0), "y": cases.residual(seed=1)}
    result = fp.compare(normalised, DATA, probes=["landscape"]).results["landscape"]["networks"]
    assert result.settings["arguments"]["batch_norm"] == "recalibrate"


def test_bad_comparisons() -> None:
    with pytest.raises(ValueError, match="models must hold at least one network"):
        fp.compare({}, DATA)
    with pytest.raises(ValueError, match=r"probe must be one of 'generalization', .*, got 'sharpness'"):
        fp.compare({"x": cases.mlp()}, DATA, probes=["sharpness"])
    with pytest.raises(ValueError, match="network 'x' must have data and a group"):
        fp.compare({"x": cases.mlp()}, {"y": DATA})


def test_the_demo_trains_probes_and_uses_finished_runs_again(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_module, "load_data", lambda name, split: fp.load_data(name, split=split, limit=60))
    monkeypatch.setattr(demo_module, "WIDTHS", (128,))
    monkeypatch.setattr(demo_module, "EQUAL_LOSS", 0.02)
    first = demo_module.demo(tmp_path)
    assert set(first.results) == {*MEASURED, "flatness_radius_equal_loss", "flatness_radius_last_layer_equal_loss"}
    assert sorted(set(first.groups.values())) == ["natural labels", "random labels"]
    assert len(first.results["flatness_radius"]) == 6
    for results in (first.results["flatness_radius"], first.results["flatness_radius_equal_loss"]):
        assert all(result.start.error == 0 for result in results.values())
    assert all(r.start.loss <= 0.02 for r in first.results["flatness_radius_equal_loss"].values())
    assert all("different weights" not in warning for warning in first.warnings)  # the later weights are intended
    assert list(first.seconds) == ["training to 100 % accuracy", "training to equal loss", "probing"]
    for name, result in first.results["flatness_radius_equal_loss"].items():
        run = fp.TrainingRun.load(tmp_path / "runs" / f"{name}-equal-loss")
        assert run.settings["settings"]["learning_rate"] == demo_module.EQUAL_LEARNING_RATE
        assert run.history[-1]["train_loss"] == pytest.approx(result.start.loss, rel=1e-5)
    labels = {name: result.labels.tolist() for name, result in first.results["functional_margins"].items()}
    assert labels["natural-0"] == labels["natural-2"] != labels["random-0"] == labels["random-1"]
    assert (tmp_path / "records" / "landscape" / "random labels.parquet").is_file()

    def untrained(*_args: object, **_kwargs: object) -> None:
        pytest.fail("a finished run was trained again")

    monkeypatch.setattr("flatprobe.training.trainer.Trainer.epoch", untrained)
    second = demo_module.demo(tmp_path)
    for name, result in first.results["flatness_radius"].items():
        assert torch.equal(second.results["flatness_radius"][name].radii, result.radii)
    assert set(second.results) == set(first.results)


@pytest.mark.parametrize("order", [1, -1])
def test_margins_cap_the_accuracy_under_attack_where_both_are_measured(order: int, tmp_path: Path) -> None:
    """PGD in one step misses what the minimum-norm attacks find."""
    model, data = cases.mlp(), cases.data_for((1, 8, 8), samples=40)
    with torch.no_grad():
        data = fp.LabelledData(data.inputs, model(data.inputs.double()).argmax(1), classes=10)
    margin = fp.geometric_margins(model, data, upper="deepfool", lower=()).upper
    budgets = (1.001 * margin.quantile(torch.tensor([0.3, 0.6]).double())).tolist()
    probes = [
        fp.Measurement("adversarial_accuracy", arguments={"budgets": budgets, "steps": 1}),
        fp.Measurement("geometric_margins", arguments={"upper": "deepfool", "lower": []}),
    ][::order]
    results = fp.compare({"net": model}, data, probes=probes, out=tmp_path).results
    accuracy, margins = results["adversarial_accuracy"]["net"], results["geometric_margins"]["net"]
    alone = fp.adversarial_accuracy(model, data, budgets=budgets, steps=1, seed=0)
    assert torch.equal(accuracy.correct, alone.correct & (margins.upper > alone.budgets[:, None]))
    assert int(accuracy.correct.sum()) < int(alone.correct.sum())
    assert torch.equal(fp.load(tmp_path / "adversarial_accuracy" / "net.parquet").correct, accuracy.correct)


def test_test_samples_that_are_the_data_are_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"test must be other samples than data, got the same 40 samples again\. They"):
        found = fp.compare({"x": cases.mlp()}, DATA, test=DATA, probes="generalization")
    assert found.results["generalization"]["x"].summary().keys() == {"train_accuracy", "train_loss"}
    other = fp.LabelledData(DATA.inputs + 1, DATA.labels, classes=10)
    with pytest.warns(UserWarning, match="40 samples again of 1 of 2 networks"):
        found = fp.compare(
            {"x": cases.mlp(), "y": cases.mlp()}, DATA, test={"x": DATA, "y": other}, probes="generalization"
        )
    assert "test_loss" in found.results["generalization"]["y"].summary()
    with pytest.raises(ValueError, match="test must be other samples than data"):
        fp.generalization(cases.mlp(), DATA, DATA)


def test_the_default_without_class_labels_leaves_out_what_needs_them() -> None:
    numbers = fp.LabelledData(torch.rand(8, 3), torch.rand(8, 1))
    with pytest.warns(UserWarning, match=r"no class labels: the probes of the inputs are left out \(functional_marg"):
        names = default_for([numbers], along=True)
    assert names == [name for name in DEFAULT if name not in {*NEED_CLASSES, "landscape"}]
    assert default_for([numbers, DATA], along=False) == [*DEFAULT]


def test_facts_hold_the_normalization_of_the_inputs() -> None:
    wrapped = fp.Normalised(cases.mlp(), 0.1307, 0.3081).eval()
    found = fp.compare({"a": wrapped, "b": cases.mlp()}, DATA, probes=["generalization"])
    assert found.facts["a"]["class"] == "Normalised"
    assert found.facts["a"]["inner_class"] == type(cases.mlp()).__name__
    assert found.facts["a"]["normalised"] == {"mean": [0.1307], "std": [0.3081]}
    assert "normalised" not in found.facts["b"]
