"""The sandwich and the accuracy curves as pictures and in the report: what is drawn is what the results hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flatprobe.plotting import curve, geometric, png
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.report.section import Cell
from flatprobe.report.sections import sections
from flatprobe.studies.headlines import headline, unit
from flatprobe.utils.results import settings

SUBJECT: dict[str, object] = {}


def sandwich(upper: list[float], lower: list[float], method: str = "spectral", norm: str = "l2") -> GeometricMargins:
    high, low = torch.tensor(upper, dtype=torch.float64), torch.tensor(lower, dtype=torch.float64)
    return GeometricMargins(
        lower=low, upper=high, lowers={method: low}, uppers={"ddn": high}, labels=torch.zeros(len(high)).long(),
        settings=settings("geometric_margins", SUBJECT, norm=norm),
    )  # fmt: skip


def accuracy(budgets: list[float], correct: list[list[bool]], attack: str = "pgd") -> AdversarialAccuracy:
    return AdversarialAccuracy(
        budgets=torch.tensor(budgets, dtype=torch.float64), correct=torch.tensor(correct),
        labels=torch.zeros(len(correct[0])).long(),
        settings=settings("adversarial_accuracy", SUBJECT, attack=attack, norm="linf", budgets=budgets),
    )  # fmt: skip


MARGINS = {
    "a": sandwich([1.0, 2.0, 4.0, float("inf")], [0.1, 0.2, 0.4, 0.8]),
    "b": sandwich([0.0, 0.5, 1.0, 2.0], [0.0, 0.1, 0.1, 0.3]),
}
CURVES = {
    "a": accuracy([0.2, 0.0], [[True, False, False, True], [True, True, True, True]]),
    "b": accuracy([0.0, 0.2], [[True, True, True, False], [False, False, False, False]]),
}


def test_closed_form_the_curves_of_the_sandwich_are_the_ends_distributions() -> None:
    ax = geometric.draw(MARGINS)
    for (upper, lower), result in zip(np.reshape(ax.lines, (2, 2)), MARGINS.values(), strict=True):
        for line, ends in ((upper, result.upper), (lower, result.lower)):
            for x, y in zip(*line.get_data(), strict=True):
                assert y == float((ends <= x).double().mean())
    assert "certified lower bounds" in ax.get_xlabel()
    assert ax.get_xscale() == "log"
    assert "estimated" in geometric.draw(sandwich([1.0], [0.5], "gradient")).get_xlabel()
    assert png(geometric.draw(sandwich([float("inf")], [0.0])))[:4] == b"\x89PNG"


def test_closed_form_the_curves_of_the_accuracy_are_sorted_by_budget() -> None:
    ax = curve.draw(CURVES)
    assert [line.get_xdata().tolist() for line in ax.lines] == [[0, 0.2], [0, 0.2]]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 0.5], [0.75, 0]]
    assert "linf" in ax.get_xlabel()
    assert "PGD" in ax.get_ylabel()


def test_bad_results() -> None:
    with pytest.raises(TypeError, match="expected GeometricMargins"):
        geometric.draw(CURVES)
    with pytest.raises(TypeError, match="expected Robustness or AdversarialAccuracy or SmoothedCertificate"):
        curve.draw(MARGINS)
    with pytest.raises(ValueError, match="different values of norm"):
        geometric.draw({"a": MARGINS["a"], "b": sandwich([1.0], [0.5], norm="linf")})
    with pytest.raises(ValueError, match="different values of attack"):
        curve.draw({"a": CURVES["a"], "b": accuracy([0.1], [[True]], attack="fgsm")})


def test_the_report_has_their_sections_and_headlines() -> None:
    (section,) = sections({"geometric_margins": MARGINS}, None)
    table = section.panels[0].table
    assert table is not None
    assert table.heading == (
        "network, median",
        "lower, spectral",
        "upper, ddn",
        "not found",
        "lower above upper",
    )
    assert table.rows[0] == ("a", "0.300", "3.00", "1 of 4", "0 of 4")
    assert "certified" in section.sentence
    assert headline(MARGINS["a"]).words == "[0.300, 3.00] (1 not found)"
    assert unit(MARGINS) == "l2 distance; medians over samples, certified lower bound and shortest found"
    (section,) = sections({"adversarial_accuracy": CURVES}, None)
    table = section.panels[0].table
    assert table is not None
    assert table.rows[0][1].startswith("50.0 [")
    assert headline(CURVES["b"]).words.startswith("0 [0")
    assert unit({"b": CURVES["b"]}) == "% correct under PGD, linf budget 0.2 [Wilson 95 %]"


def test_a_lower_bound_of_0_has_its_recorded_reason_and_is_0_everywhere() -> None:
    reason = "no lead of a logit exceeds the bound on its rounding in float32"
    found = sandwich([1.0, 2.0], [0.0, 0.0])
    found = replace(found, settings={**found.settings, "subject": {"uncertified": {"spectral": reason}}})
    (section,) = sections({"geometric_margins": {"a": found}}, None)
    assert f"The spectral lower bound is 0 for a: {reason}." in section.sentence
    assert "knows the layers" not in section.sentence
    table = section.panels[0].table
    assert table is not None
    assert table.rows[0][1] == Cell("0", small="not certified")
    assert headline(found).words == "[0, 1.50]"  # type: ignore[union-attr]
