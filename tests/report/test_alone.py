"""The sentences on one network are the numbers of its results (closed form, slow reference)."""

from dataclasses import replace
from statistics import median

import pytest
import torch

import flatprobe as fp
from flatprobe.probes.slices import RandomSlice
from flatprobe.report.alone import sentences
from flatprobe.report.weight_space import LINE_SLICES
from flatprobe.studies.facts import said_of_training
from flatprobe.utils.numbers import three
from flatprobe.utils.results import settings
from tests.helpers import cases
from tests.plotting.test_attacks import sandwich
from tests.plotting.test_plotting import INFINITE, flatness

DATA = cases.data_for((1, 4, 4), samples=40)


def test_the_radius_is_given_in_percent_of_the_norm() -> None:
    result = flatness([1.0, 3.0, INFINITE])
    own = result.settings["arguments"] | {"parameters": None, "objective": "loss", "epsilon": 0.05}
    result = replace(result, settings={**result.settings, "arguments": own})
    (words,) = sentences({"flatness_radius": {"a": result}}, {"a": {"norm": 8.0}})
    assert "by 2.00 on average, 25.0 % of their norm of 8.00, before the loss changes by 0.05" in words
    assert "in the 2 of 3 directions that reach it" in words
    assert sentences({"flatness_radius": {"a": result}}, {"a": {}}) == []  # the norm is not known
    assert sentences({"flatness_radius": {"a": result, "b": result}}, {"a": {"norm": 8.0}, "b": {"norm": 8.0}}) == []


def test_slow_reference_distances_are_related_to_margins_and_slopes_sample_by_sample() -> None:
    model = cases.mlp((1, 4, 4), widths=(8,))
    given = DATA.gather(torch.arange(len(DATA)))[0].double()
    data = fp.LabelledData(given, model(given).argmax(1))  # classified as they are, so that the median lead is above 0
    distances, margins, slopes = (
        probe(model, data) for probe in (fp.geometric_margins, fp.functional_margins, fp.jacobian_norms)
    )
    records = {
        "d": {"a": distances},
        "m": {"a": margins},
        "j": {"a": slopes},
        "n": {"a": fp.gaussian_robustness(model, data)},
    }
    words, noise = sentences(records, {"a": {}})
    ratios = [max(m, 0.0) / (2**0.5 * j) for m, j in zip(margins.values.tolist(), slopes.values.tolist(), strict=True)]
    expected = median(ratios)
    assert f"is at l2 distance {three(distances.median)} (median)" in words
    assert f"used up at {three(expected)}, the median of" in words
    assert f"is {three(distances.median / expected)} times that" in words
    shown = records["n"]["a"]
    assert f"deviation {shown.gammas[shown.shown]:g}, {three(100 * float(shown.mean[shown.shown]))} %" in noise
    assert f"against {three(100 * float(shown.mean[0]))} % without noise" in noise


def test_the_reason_for_no_certificate_is_given() -> None:
    found = sandwich([1.0, 2.0], [0.0, 0.0])
    found = replace(found, settings={**found.settings, "subject": {"uncertified": {"spectral": "no constant"}}})
    (words,) = sentences({"geometric_margins": {"a": found}}, {"a": {}})
    assert words.endswith("is at l2 distance 1.50 (median); no distance is certified: no constant.")


@pytest.mark.parametrize(
    ("losses", "said"),
    [([2.0, 1.0, 0.5], True), ([2.0, 0.5, 0.5], False), ([INFINITE] * 3, False)],
)
def test_a_line_whose_loss_is_lower_elsewhere_is_said(losses: list[float], said: bool) -> None:
    values = torch.tensor(losses, dtype=torch.float64)
    line = RandomSlice(
        coefficients=torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64), loss=values, error=values, cosine=0.0,
        frozen=(), settings=settings("random_slice", {}, law="filter"),
    )  # fmt: skip
    words = LINE_SLICES.sentence({"net": line})
    assert words.endswith("no minimum along it: net (0.500 against 1.00).") is said


def test_whether_a_network_was_trained_on_the_train_split_is_said_unless_recorded() -> None:
    model = cases.mlp((1, 4, 4), widths=(8,))
    trained = fp.train(cases.mlp((1, 4, 4), widths=(8,), seed=1), DATA, epochs=1).model
    found = fp.compare({"own": trained, "foreign": model}, DATA, probes="generalization")
    assert said_of_training(found.results, found.facts) == [
        "Train and test are splits of the data; whether foreign was trained on the train split is not known."
    ]
    alone = fp.compare({"foreign": model}, DATA, probes="generalization")
    assert "whether this network was trained" in said_of_training(alone.results, alone.facts)[0]
    assert found.facts["own"]["trained_on"] == [DATA.fingerprint]
    assert said_of_training({"generalization": {"own": found.results["generalization"]["own"]}}, {}) == []
