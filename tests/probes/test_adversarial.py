"""Adversarial accuracy: exact on affine networks, monotone by construction, indexed starts, bands, records."""

import pytest
import torch
from scipy import stats

import flatprobe as fp
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched, assert_seed_determines
from tests.helpers.references import affine_margin

BUDGETS = [0.0, 0.05, 0.1, 0.3]


def affine_problem(classes: int) -> tuple[cases.Affine, fp.LabelledData]:
    model, data = cases.affine(classes=classes), cases.data_for((7,), classes=classes)
    with torch.no_grad():
        labels = model(data.inputs.double()).argmax(1)
    labels[:10] = (labels[:10] + 1) % classes
    return model, fp.LabelledData(data.inputs, labels, classes=classes)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_closed_form_two_classes_stand_where_the_margin_exceeds_the_budget(attack: str, norm: str) -> None:
    model, data = affine_problem(2)
    margin = affine_margin(model.weight, model.bias, data.inputs, data.labels, norm)
    budgets = [0.0, *margin.quantile(torch.tensor([0.3, 0.6]).double()).tolist()]
    budgets = [budget * 1.0001 for budget in budgets]  # no sample on the edge
    result = fp.adversarial_accuracy(model, data, budgets=budgets, norm=norm, attack=attack)
    for budget, correct in zip(budgets, result.correct, strict=True):
        clear = (margin - budget).abs() >= (0.03 if attack == "pgd" else 1e-6) * budget  # 20 steps come this near
        assert int(clear.sum()) > 120
        assert torch.equal(correct[clear], (margin > budget)[clear])
    assert float(result.accuracy[0]) == 120 / 130  # ten labels are wrong


def test_property_the_curve_does_not_increase_and_pgd_is_stronger() -> None:
    model, data = cases.cnn(), cases.data_for((1, 8, 8))
    with torch.no_grad():
        data = fp.LabelledData(data.inputs, model(data.inputs.double()).argmax(1), classes=10)
    order = [0.1, 0.0, 0.3, 0.05]
    curves = {
        attack: fp.adversarial_accuracy(model, data, budgets=order, norm="linf", attack=attack, box=(0.0, 1.0))
        for attack in ("fgsm", "pgd")
    }
    for result in curves.values():
        assert result.budgets.tolist() == order
        ascending = result.correct[result.budgets.argsort()]
        assert bool((ascending[1:] <= ascending[:-1]).all())  # each sample, not only the mean
    assert float(curves["pgd"].accuracy.mean()) < float(curves["fgsm"].accuracy.mean())
    more = fp.adversarial_accuracy(model, data, budgets=order, norm="linf", restarts=3, steps=5, box=(0.0, 1.0))
    less = fp.adversarial_accuracy(model, data, budgets=order, norm="linf", restarts=1, steps=5, box=(0.0, 1.0))
    assert bool((more.correct <= less.correct).all())


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_untouched_and_batch_size_invariant(name: str) -> None:
    model, data = cases.NETWORKS[name](), cases.data_for((1, 8, 8), samples=40)
    options = {"budgets": [0.0, 0.1], "steps": 4, "restarts": 2}
    assert_model_untouched(model, lambda: fp.adversarial_accuracy(model, data, **options))
    assert_batch_size_invariant(
        lambda data, size: fp.adversarial_accuracy(model, data, batch_size=size, **options).correct.double(), data
    )


def test_property_seed_determines() -> None:
    model, data = affine_problem(5)
    margin = affine_margin(model.weight, model.bias, data.inputs, data.labels, "linf")
    budgets = margin[margin > 0].quantile(torch.linspace(0.1, 0.9, 30).double()).tolist()
    assert_seed_determines(
        lambda seed: fp.adversarial_accuracy(model, data, budgets=budgets, norm="linf", steps=1, seed=seed).correct
    )


def test_closed_form_band_is_wilsons() -> None:
    model, data = affine_problem(3)
    result = fp.adversarial_accuracy(model, data, budgets=BUDGETS, steps=3)
    lower, upper = result.band(0.9)
    for row in range(len(BUDGETS)):
        count = int(result.correct[row].sum())
        reference = stats.binomtest(count, 130).proportion_ci(0.9, method="wilson")
        assert (float(lower[row]), float(upper[row])) == pytest.approx((reference.low, reference.high), rel=1e-9)
    with pytest.raises(ValueError, match=r"level must be a confidence in .*, got 95"):
        result.band(95)


def test_result_survives_the_record(tmp_path) -> None:
    model, data = affine_problem(3)
    result = fp.adversarial_accuracy(model, data, budgets=BUDGETS, attack="fgsm")
    loaded = fp.load(fp.save(result, tmp_path / "accuracy.parquet"))
    for field in ("budgets", "correct", "labels"):
        assert torch.equal(getattr(loaded, field), getattr(result, field))
    assert list(result.to_frame().columns) == ["budget", "sample", "label", "correct"]
    assert "accuracy(0.05)" in repr(loaded)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budgets": []}, r"budgets must be one or more finite numbers >= 0, got \[\]"),
        ({"budgets": [-0.1]}, r"budgets must be one or more finite numbers >= 0, got \[-0\.1\]"),
        ({"budgets": [float("inf")]}, r"finite numbers >= 0, got \[inf\]"),
        ({"steps": 0}, r"steps must be at least 1.*, got 0"),
        ({"restarts": 0}, r"restarts must be at least 1.*, got 0"),
        ({"attack": "cw"}, r"attack must be one of 'fgsm', 'pgd'.*, got 'cw'"),
        ({"norm": "l1"}, r"norm must be one of 'l2', 'linf'.*, got 'l1'"),
        ({"box": (0.5, 1.0)}, r"the box \[0\.5, 1\] must contain the data, got .* in sample 0"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.adversarial_accuracy(cases.mlp(), cases.data_for((1, 8, 8)), **{"budgets": [0.1], **arguments})


def test_property_the_callers_inference_mode_changes_nothing() -> None:
    model, options = cases.residual(), {"lower": ("spectral", "gamma_2", "gradient"), "upper": ("ddn",), "steps": 4}
    data = cases.data_for((1, 8, 8), samples=6)
    expected = fp.geometric_margins(model, data, **options)
    with torch.inference_mode():
        inside = fp.LabelledData(data.inputs.clone(), data.labels.clone(), classes=10)
        result = fp.geometric_margins(model, inside, **options)
        fp.adversarial_accuracy(model, inside, budgets=[0.1], steps=2)
    assert torch.equal(result.upper, expected.upper)
    assert torch.equal(result.lower, expected.lower)


def test_property_a_point_that_rounding_carries_past_the_budget_does_not_count() -> None:
    """At inputs of 2^14 single precision steps by 2^-9: the nearest adversarial point lies 1.2 budgets away."""
    model = cases.Affine(
        torch.tensor([[1.0], [-1.0]]), torch.tensor([-(2.0**14), 2.0**14]) + 0.001 * torch.tensor([1, -1])
    )
    model = model.float().eval()
    data = fp.LabelledData(torch.tensor([[2.0**14]]), torch.tensor([0]), classes=2)
    # PGD's steps are below the rounding, so that it finds the point from about half of the starts.
    for attack, restarts in (("fgsm", 1), ("pgd", 20)):
        found = fp.adversarial_accuracy(model, data, budgets=[0.0, 0.0016, 0.002], attack=attack, restarts=restarts)
        assert found.correct[:, 0].tolist() == [True, True, False]


def test_closed_form_nearer_points_of_the_margins_cap_the_accuracy() -> None:
    model, data = affine_problem(3)
    weak = fp.adversarial_accuracy(model, data, budgets=[0.0, 0.1, 0.5], steps=1)
    margins = fp.geometric_margins(model, data, upper="deepfool", lower=())
    capped = weak.capped(margins)
    assert torch.equal(capped.correct, weak.correct & (margins.upper > weak.budgets[:, None]))
    assert int(capped.correct.sum()) < int(weak.correct.sum())
    assert bool((capped.accuracy <= (margins.upper > weak.budgets[:, None]).double().mean(1)).all())
    assert torch.equal(capped.capped(margins).correct, capped.correct)
    assert capped.settings["subject"]["capped by"] == ["deepfool"]
    assert "capped by" not in weak.settings["subject"]


def test_margins_of_something_else_do_not_cap() -> None:
    model, data = affine_problem(3)
    boxed = fp.LabelledData(data.inputs.clamp(0, 1), data.labels, classes=3)
    accuracy = fp.adversarial_accuracy(model, boxed, budgets=0.1, steps=1, box=(0.0, 1.0))
    options = {"upper": "deepfool", "lower": ()}
    for box, norm in ((None, "l2"), ((0.0, 1.0), "linf"), ((-1.0, 1.0), "l2")):
        with pytest.raises(ValueError, match=r"margins must have the norm and the box of the accuracy, l.*, got l"):
            accuracy.capped(fp.geometric_margins(model, boxed, box=box, norm=norm, **options))
    with pytest.raises(ValueError, match="the margins belong to another data; expected those of the same network"):
        accuracy.capped(fp.geometric_margins(model, boxed.head(9), box=(0.0, 1.0), **options))
    free = fp.adversarial_accuracy(model, boxed, budgets=0.1, steps=1)
    inside = fp.geometric_margins(model, boxed, box=(0.0, 1.0), **options)
    assert bool((free.capped(inside).correct <= free.correct).all())


def test_one_budget_may_be_given_as_a_number() -> None:
    model, data = affine_problem(2)
    one, listed = (fp.adversarial_accuracy(model, data, budgets=budgets, steps=2) for budgets in (0.1, [0.1]))
    assert torch.equal(one.correct, listed.correct)
    assert one.settings["arguments"] == listed.settings["arguments"]
    assert fp.adversarial_accuracy(model, data, budgets=torch.tensor([0.1, 0.2]), steps=2).correct.shape == (2, 130)
    with pytest.raises(ValueError, match=r"budgets must be a number, or several.*, got 'small'"):
        fp.adversarial_accuracy(model, data, budgets="small")
    noisy = fp.gaussian_robustness(model, data, gammas=0.1, draws=2)
    assert torch.equal(noisy.error, fp.gaussian_robustness(model, data, gammas=[0.1], draws=2).error)
