"""Differences between networks: paired and unpaired intervals against plain formulas, and their coverage."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import flatprobe as fp
from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.margins import Margins
from flatprobe.report.differences import Differences
from flatprobe.report.figures import headline_figures
from flatprobe.report.verdicts import verdict
from flatprobe.risk.empirical import Risk
from flatprobe.studies.differences import differences_of, group_differences_of, marks_of
from tests.helpers import cases

DATA = cases.data_for((1, 4, 4), samples=60)


def margins(values: list[float] | torch.Tensor, fingerprint: str = "one") -> Margins:
    values = torch.as_tensor(values, dtype=torch.float64)
    settings = {"probe": "functional_margins", "arguments": {}, "subject": {"data": {"fingerprint": fingerprint}}}
    return Margins(values=values, labels=torch.zeros(len(values), dtype=torch.int64), settings=settings)


def radii(values: list[float], limit: float = 100.0, shapes: str = "same") -> tuple[FlatnessRadii, dict[str, str]]:
    found = torch.tensor(values, dtype=torch.float64)
    zeros = torch.zeros(len(values), dtype=torch.int64)
    settings = {"arguments": {"law": "isotropic", "seed": 0, "max_radius": limit}, "subject": {}, "selected": ["w"]}
    result = FlatnessRadii(
        radii=found, lower=found, upper=found, evaluations=zeros, excursions=zeros, probing_ratio=found,
        start=Risk(0.1, 0.0), frozen=(), inactive=None, settings=settings,
    )  # fmt: skip
    return result, {"shapes": shapes}


def test_slow_reference_paired_and_unpaired_intervals() -> None:
    a, b, c = np.arange(8.0), np.array([0, 2, 1, 3, 5, 4, 6, 9.0]), np.arange(6.0) - 9
    results = {"a": margins(torch.tensor(a)), "b": margins(torch.tensor(b)), "c": margins(torch.tensor(c), "other")}
    rows = {row.network: row for row in differences_of("m", results, {})}
    assert {row.reference for row in rows.values()} == {"b"}
    alpha = 0.05 / 3  # three pairs
    low, high = stats.ttest_rel(a, b).confidence_interval(1 - alpha)
    assert (rows["a"].lower, rows["a"].upper) == pytest.approx((low, high))
    assert rows["a"].paired
    assert not rows["a"].separated
    low, high = stats.ttest_ind(c, b, equal_var=False).confidence_interval(1 - alpha)
    assert (rows["c"].lower, rows["c"].upper) == pytest.approx((low, high))
    assert (rows["c"].paired, rows["c"].separated, rows["c"].count) == (False, True, 6)
    assert rows["c"].difference == pytest.approx(c.mean() - b.mean())


def test_directions_are_paired_for_weights_of_the_same_shapes_alone() -> None:
    own, facts = zip(radii([1.0, 2, 3]), radii([1.5, 2.5, 3.5]), radii([2.0, 3, 4], shapes="other"), strict=True)
    results, known = dict(zip("abc", own, strict=True)), dict(zip("abc", facts, strict=True))
    rows = {row.network: row for row in differences_of("r", results, known)}
    assert rows.keys() == {"a", "b"}
    assert not rows["a"].paired
    (row,) = differences_of("r", {name: results[name] for name in "ab"}, known)
    assert (row.paired, row.over, row.difference) == (True, "directions", pytest.approx(-0.5))
    assert row.lower == row.upper == pytest.approx(-0.5)  # all pairs differ alike


def test_closed_form_censored_directions_count_up_to_the_common_limit() -> None:
    (a, known), (b, _) = radii([1.0, math.inf, 3.0], limit=10.0), radii([2.0, 20.0, 4.0], limit=50.0)
    (row,) = differences_of("r", {"a": a, "b": b}, {"a": known, "b": known})
    assert row.difference == pytest.approx((1 + 10 + 3) / 3 - (2 + 10 + 4) / 3)


def test_property_the_intervals_of_all_pairs_hold_together() -> None:
    """Five networks, correlated over the samples; the best is chosen from the data."""
    generator, truth, missed, times = np.random.default_rng(0), np.array([0, 0.1, 0.2, 0.2, 0.25]), 0, 400
    for _ in range(times):
        shared = generator.normal(size=(40, 1))
        values = truth + shared + generator.normal(size=(40, 5)) * [0.3, 0.5, 0.4, 0.6, 0.5]
        results = {str(k): margins(torch.tensor(values[:, k])) for k in range(5)}
        rows = differences_of("m", results, {})
        gaps = [(row, truth[int(row.network)] - truth[int(row.reference)]) for row in rows]
        missed += any(not row.lower <= gap <= row.upper for row, gap in gaps)
    assert missed / times <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / times)


def test_property_medians_are_covered() -> None:
    generator, missed, times = np.random.default_rng(1), 0, 60
    other = fp.geometric_margins(cases.mlp((1, 4, 4)), DATA, upper="deepfool", lower=())
    for _ in range(times):
        first = generator.exponential(size=60)
        second = first + generator.normal(0.5, 0.4, size=60)  # the medians differ by a number that a large draw tells
        results = {}
        for name, values in (("a", first), ("b", second)):
            arrays = torch.tensor(values)
            object.__setattr__(made := type(other)(**vars(other)), "upper", arrays)
            results[name] = made
        (row,) = differences_of("g", results, {})
        assert row.paired
        sign = 1 if row.network == "a" else -1
        missed += not row.lower <= -0.457 * sign <= row.upper
    assert missed / times <= 0.2


def test_only_what_has_a_better_direction_is_compared() -> None:
    model = cases.mlp((1, 4, 4))
    norms = fp.weight_norms(model, (1, 4, 4))
    assert differences_of("weight_norms", {"a": norms, "b": norms}, {}) == []
    assert differences_of("m", {"a": margins([1.0, 2.0])}, {}) == []
    slices = {
        f"{k}": fp.random_slice(fp.EmpiricalRisk(cases.mlp((1, 4, 4), seed=k), DATA), dimensions=1) for k in (0, 1)
    }
    (row,) = differences_of("random_slice", slices, {})
    assert math.isnan(row.lower)
    assert not row.separated


def test_slow_reference_groups_by_welch() -> None:
    results = {
        f"{group}{k}": margins([value, value])
        for group, k, value in [
            ("a", 0, 1.0),
            ("a", 1, 1.5),
            ("b", 0, 3.0),
            ("b", 1, 3.2),
            ("b", 2, 3.1),
            ("alone", 0, 9.0),
        ]
    }
    (row,) = group_differences_of("m", results, {name: name[:-1] for name in results})
    low, high = stats.ttest_ind([1.0, 1.5], [3.0, 3.2, 3.1], equal_var=False).confidence_interval(0.95)
    assert (row.network, row.reference) == ("a", "b")
    assert (row.lower, row.upper) == pytest.approx((low, high))
    assert row.over == "networks"


def test_best_and_worst_are_marked_only_where_they_are_separated_from_all_others() -> None:
    shifts = (("a", 0.0), ("b", 5.0), ("c", 1.0))
    apart = {name: margins(torch.arange(20.0) / 100 + shift) for name, shift in shifts}
    assert marks_of("m", apart, {}) == {"a": "worst", "b": "best"}
    assert marks_of("m", apart | {"twin": apart["a"]}, {}) == {"b": "best"}
    assert marks_of("m", apart | {"twin": apart["b"]}, {}) == {"a": "worst"}
    near = {name: margins(torch.tensor(np.random.default_rng(k).normal(size=20))) for k, name in enumerate("ab")}
    assert marks_of("m", near, {}) == {}


def test_errors_under_noise_have_newcombes_interval() -> None:
    results = {
        str(k): fp.gaussian_robustness(cases.mlp((1, 4, 4), seed=k), DATA, gammas=[0.2], draws=2) for k in (0, 1)
    }
    (row,) = differences_of("gaussian_robustness", results, {})
    p, q = (float(results[name].mean[0]) for name in (row.network, row.reference))
    (pl, pu), (ql, qu) = ([float(end[0]) for end in results[name].interval()] for name in (row.network, row.reference))
    expected = (p - q - math.hypot(p - pl, qu - q), p - q + math.hypot(pu - p, q - ql))
    assert (row.lower, row.upper) == pytest.approx(expected)


def test_one_sample_has_no_interval_of_its_median() -> None:
    found = {
        name: fp.geometric_margins(cases.mlp((1, 4, 4), seed=k), DATA.head(1), lower=()) for k, name in enumerate("ab")
    }
    rows = differences_of("geometric_margins", found, {})
    assert all(math.isnan(row.lower) and not row.separated for row in rows)


def test_groups_of_different_figures_are_not_compared() -> None:
    test = cases.data_for((1, 4, 4), samples=40, seed=7)
    models = {name: cases.mlp((1, 4, 4), seed=k) for k, name in enumerate(("a0", "a1", "b0", "b1"))}
    found = {name: fp.generalization(model, DATA, test if name[0] == "a" else None) for name, model in models.items()}
    assert group_differences_of("generalization", found, {name: name[0] for name in found}) == []
    assert (
        group_differences_of("generalization", {name: found[name] for name in ("a0", "a1")}, dict.fromkeys(found, "a"))
        == []
    )


def test_censored_directions_count_in_the_means_of_groups() -> None:
    values = {
        "a0": [1.0, math.inf, math.inf],
        "a1": [1.2, math.inf, math.inf],
        "b0": [3.0, 3.2, 2.9],
        "b1": [3.0, 3.1, 2.8],
    }
    found = {name: radii(own)[0] for name, own in values.items()}
    (row,) = group_differences_of("r", found, {name: name[0] for name in found})
    assert (row.network, row.reference) == ("b", "a")
    assert row.difference == pytest.approx(3.0 - (201 + 201.2) / 6)


def test_a_verdict_follows_the_difference_in_which_censored_directions_count() -> None:
    values = {
        "a0": [1.0, math.inf, math.inf],
        "a1": [1.2, math.inf, math.inf],
        "b0": [3.0, 3.2, 2.9],
        "b1": [3.0, 3.1, 2.8],
    }
    records = {"flatness_radius": {name: radii(own)[0] for name, own in values.items()}}
    groups = {name: name[0] for name in values}
    (figure,) = headline_figures(records, {})
    said = verdict(figure, Differences.of(records, groups, {}), groups)
    assert said.startswith("the networks of a are flatter than those of b")
