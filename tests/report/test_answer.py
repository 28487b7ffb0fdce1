"""The answer: tables, marks and sentences are the statistics of the results (reference, closed form)."""

from dataclasses import replace
from statistics import mean, stdev

import pytest
import torch

from flatprobe.probes.generalization import Generalization
from flatprobe.probes.hessian_eigenvalues import HessianEigenvalues
from flatprobe.report.alternative import describe
from flatprobe.report.answer import Topic, answer
from flatprobe.report.differences import Differences
from flatprobe.report.figures import FLATNESS, GENERALIZATION, headline_figures
from flatprobe.report.legend import unequal_losses
from flatprobe.report.networks import describe as describe_networks
from flatprobe.report.networks import near_chance
from flatprobe.report.section import Cell
from flatprobe.report.verdicts import grouped
from flatprobe.studies.headlines import headline
from flatprobe.utils.numbers import MISSING, plus_minus, three
from flatprobe.utils.results import Result, settings
from tests.plotting.test_plotting import INFINITE, SUBJECT, curve, flatness, margins_of, norms

NAMES = ("natural 0", "natural 1", "random 0", "random 1")
GROUPS = {name: name.split()[0] for name in NAMES}
RADII = {"natural 0": [14.0, 16.0], "natural 1": [15.0, 18.0, INFINITE], "random 0": [3.0, 3.5], "random 1": [3.2, 3.4]}
Records = dict[str, dict[str, Result]]


def topics(
    records: Records, groups: dict[str, str] | None = None, along: dict[str, float] | None = None
) -> dict[str, Topic]:
    differences = Differences.of(records, groups, {})
    return {own.title: own for own in answer(headline_figures(records, {}), differences, groups, along, "epoch")}


def rows(topic: Topic) -> dict[str, tuple[Cell, ...]]:
    return {row.cells[0].words: row.cells[1:] for body in topic.table.bodies for row in body.rows}


def sentences(topic: Topic) -> dict[str, str]:
    return dict(topic.verdicts)


def generalization(right: int, right_test: int, *, of: int = 100) -> Generalization:
    """So many of a hundred training and of a hundred test samples right."""
    correct = torch.cat([torch.arange(of) < right, torch.arange(of) < right_test]).double()
    split = ("train",) * of + ("test",) * of
    return Generalization(
        split=split, losses=1 - correct, correct=correct, settings=settings("generalization", SUBJECT)
    )


def test_rows_of_groups_and_their_ratio_against_plain_statistics() -> None:
    found = rows(topics({"flatness_radius": {name: flatness(RADII[name]) for name in NAMES}}, GROUPS)[FLATNESS])
    assert list(found) == ["natural", "random", "natural / random", *NAMES]
    natural, random = [15.0, 16.5], [3.25, 3.3]
    assert found["natural"][0] == Cell(plus_minus(15.75, stdev(natural)), small="(1 censored)", value=15.75)
    assert found["random"][0].words == plus_minus(3.275, stdev(random))
    ratio = mean(natural) / mean(random)
    relative = sum(stdev(own) ** 2 / 2 / mean(own) ** 2 for own in (natural, random)) ** 0.5
    assert found["natural / random"][0].words == plus_minus(ratio, ratio * relative)
    assert found["natural 1"][0].words == "16.5"
    assert "1 of 3 beyond 2,170" in found["natural 1"][0].small


def test_groups_of_one_network_are_not_printed_twice() -> None:
    records: Records = {"flatness_radius": {name: flatness(RADII[name]) for name in NAMES}}
    assert list(rows(topics(records, {name: name for name in NAMES})[FLATNESS])) == list(NAMES)
    assert list(rows(topics(records, dict.fromkeys(NAMES, "networks"))[FLATNESS])) == list(NAMES)
    assert grouped(["a", "b", "c"], {"a": "x", "b": "x", "c": "c"}) == {"x": ["a", "b"], "c": ["c"]}


def test_cells_are_the_results_own_headlines() -> None:
    records: Records = {
        "functional_margins": {name: margins_of(seed) for seed, name in enumerate(NAMES)},
        "jacobian_norms": {name: norms(seed) for seed, name in enumerate(NAMES)},
        "gaussian_robustness": {name: curve(seed) for seed, name in enumerate(NAMES)},
    }
    (topic,) = topics(records).values()
    assert [own.words for own in topic.table.heads] == [
        "network", "Functional margins", "Jacobian norms", "Gaussian robustness",
    ]  # fmt: skip
    for name, cells in rows(topic).items():
        for cell, own in zip(cells, (headline(results[name]) for results in records.values()), strict=True):
            assert own is not None
            assert f"{cell.words} {cell.small}" == own.words
            assert cell.number == own.scale * own.value


def test_groups_that_overlap_have_no_order() -> None:
    values = {"a": 1.0, "b": 3.0, "c": 2.0, "d": 4.0}
    groups = {"a": "low", "b": "low", "c": "high", "d": "high"}
    assert "above" not in describe("mean", values, groups)


def test_what_was_not_measured_is_not_invented() -> None:
    records: Records = {
        "flatness_radius": {"a": flatness([INFINITE] * 2), "b": flatness([2.0, 3.0]), "c": flatness([2.0, 4.0])},
        "weight_noise": {"a": flatness([1.0, 2.0])},
    }
    found = rows(topics(records, {"a": "one", "b": "two", "c": "two"})[FLATNESS])
    assert found["a"][0].words == "not reached by 2,170"
    assert found["a"][0].number == INFINITE
    assert found["b"][1].words == MISSING
    assert found["two"][1].words == MISSING
    assert found["one / two"][0].words == MISSING


def test_sentences_of_two_networks_give_both_figures_and_the_difference() -> None:
    wide = {"a": flatness([7.0, 7.2, 6.8, 7.1]), "b": flatness([3.3, 3.2, 3.4, 3.3])}
    topic = topics({"flatness_radius": dict(wide)})[FLATNESS]
    words = sentences(topic)["Flatness radius"]
    assert words.startswith("a is flatter than b: 7.03 against 3.30, difference 3.73 [3.")
    assert [cell.mark for (cell,) in rows(topic).values()] == ["best", "worst"]
    close = {"a": flatness([7.0, 3.0, 5.0]), "b": flatness([4.0, 5.0, 5.8])}
    topic = topics({"flatness_radius": dict(close)})[FLATNESS]
    assert sentences(topic)["Flatness radius"].startswith(
        "a and b are not separated: 5.00 against 4.93, difference 0.06"
    )
    assert [cell.mark for (cell,) in rows(topic).values()] == ["", ""]


def test_sentences_of_many_networks_name_the_ends_and_what_is_close() -> None:
    radii = {f"n{k}": flatness([5.0 + k + 0.01 * own for own in range(12)]) for k in range(8)}
    radii["n8"] = flatness([12.0 + 0.01 * own + (0.3, -0.25)[own % 2] for own in range(12)])
    topic = topics({"flatness_radius": dict(radii)})[FLATNESS]
    assert sentences(topic)["Flatness radius"] == ("n8 is highest, 12.1, not separated from n7; n0 is lowest, 5.05.")
    marks = {name: cell.mark for name, (cell,) in rows(topic).items() if cell.mark}
    assert marks == {"n0": "worst"}


def test_sentences_of_groups_compare_their_means() -> None:
    records: Records = {
        "jacobian_norms": {name: norms(seed, 20 if seed < 2 else 60) for seed, name in enumerate(NAMES)}
    }
    (topic,) = topics(records, GROUPS).values()
    own = {name: result.summary()["mean"] for name, result in records["jacobian_norms"].items()}
    low, high = (mean([own[f"{group} {k}"] for k in (0, 1)]) for group in ("natural", "random"))
    assert sentences(topic)["Jacobian norms"].startswith(
        f"the networks of natural are smoother than those of random: {three(low)} against {three(high)} on average, "
        f"difference {three(low - high)} ["
    )


def test_saturated_scores_are_said_once() -> None:
    top = {name: margins_of(0, "scores", outputs="softmax") for name in NAMES}
    top = {name: replace(own, values=torch.full((200,), 2**0.5, dtype=torch.float64)) for name, own in top.items()}
    records: Records = {
        "functional_margins": {name: margins_of(k) for k, name in enumerate(NAMES)},
        "scores": dict(top),
    }
    (topic,) = topics(records).values()
    assert [own.words for own in topic.table.heads] == ["network", "Functional margins"]
    assert sentences(topic)["Scores"].startswith("all 1.41, saturated at √2")


def test_scores_below_their_maximum_are_compared() -> None:
    found = {name: margins_of(seed, "scores", outputs="softmax") for seed, name in enumerate(NAMES)}
    (topic,) = topics({"scores": dict(found)}).values()
    assert [own.words for own in topic.table.heads] == ["network", "Scores"]
    assert "saturated" not in sentences(topic)["Scores"]


def test_generalization_comes_first_with_gap_and_intervals() -> None:
    records: Records = {
        "flatness_radius": {"a": flatness([1.0, 2.0]), "b": flatness([3.0, 4.0])},
        "generalization": {"a": generalization(100, 90), "b": generalization(100, 50)},
    }
    found = topics(records)
    assert list(found) == [GENERALIZATION, FLATNESS]
    topic = found[GENERALIZATION]
    assert [own.words for own in topic.table.heads] == [
        "network", "Training accuracy", "Test accuracy", "Accuracy gap", "Training loss", "Test loss", "Loss gap",
    ]  # fmt: skip
    cells = rows(topic)["b"]
    assert [cell.words for cell in cells] == ["100", "50.0", "50.0", "0", "0.500", "0.500"]
    low, high = generalization(100, 50).interval("test_accuracy")
    assert cells[1].small == f"[{three(100 * low)}, {three(100 * high)}]"
    assert sentences(topic)["Test accuracy"].startswith(
        "a is more accurate than b: 90.0 against 50.0, difference 40.0 ["
    )
    assert list(sentences(topic)) == ["Test accuracy"]  # the others have no interval of the difference


def test_a_network_that_guesses_is_warned_of_once() -> None:
    subject = {"network": {"class": "MLP"}, "data": {"source": {"name": "made up"}, "samples": 100, "classes": 10}}
    given = settings("generalization", subject)
    records = {"generalization": {"a": generalization(14, 5), "b": generalization(60, 50)}}
    own = {"generalization": {name: replace(own, settings=given) for name, own in records["generalization"].items()}}
    (words,) = near_chance(own, [])
    assert words.startswith("a: the accuracy is near chance.")
    assert near_chance(own, ["a: accuracy 14 % is near chance"]) == []


def test_networks_are_named_by_the_class_within_a_normalization() -> None:
    numbers = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    wrapped = {"class": "Normalised", "inner_class": "ResNet", "normalised": numbers}
    found = describe_networks({"a": wrapped, "b": wrapped})
    assert found.shared == (("Class", "ResNet, inputs normalized by 0.485, 0.456, 0.406 / 0.229, 0.224, 0.225"),)
    assert describe_networks({"a": {"class": "MLP"}}).shared == (("Class", "MLP"),)  # a record of an earlier version


def test_along_a_number_the_rows_have_its_order_and_the_sentences_its_course() -> None:
    along = {"late": 20.0, "early": 1.0, "middle": 10.0}
    radii = {"late": flatness([5.0, 5.2]), "early": flatness([1.0, 1.2]), "middle": flatness([7.0, 7.2])}
    topic = topics({"flatness_radius": dict(radii)}, None, along)[FLATNESS]
    found = rows(topic)
    assert list(found) == ["early", "middle", "late"]
    assert [cells[0].words for cells in found.values()] == ["1", "10", "20"]
    assert topic.table.heads[1].words == "epoch"
    assert sentences(topic)["Flatness radius"] == "1.10 at epoch 1, 5.10 at epoch 20; highest at epoch 10 (7.10)."
    assert all(cells[1].mark == "" for cells in found.values())


def test_along_a_number_places_that_are_not_separated_are_named() -> None:
    along = {f"e{k}": float(k) for k in range(1, 7)}
    radii = {name: flatness([5.0 + 0.1 * place, 7.0, 6.0]) for name, place in along.items()}
    radii["e1"] = flatness([1.0, 1.5, 1.2])
    topic = topics({"flatness_radius": dict(radii)}, None, along)[FLATNESS]
    words = sentences(topic)["Flatness radius"]
    assert words.endswith("highest at the end, not separated from epoch 2, epoch 3, epoch 4 and 1 more.")
    assert "best" not in words


def test_without_an_interval_nothing_is_said_to_be_close() -> None:
    values = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    given = settings("hessian_eigenvalues", SUBJECT, which="largest")
    top = {
        name: HessianEigenvalues(
            eigenvalues=values[k : k + 1], residuals=values[:1], layers=("all",), products=3, settings=given
        )
        for k, name in enumerate("abc")
    }
    topic = topics({"hessian_eigenvalues": dict(top)})[FLATNESS]
    assert sentences(topic)["Hessian eigenvalues"] == "a is lowest, 0.100; c is highest, 3.00."


def test_training_losses_that_differ_by_a_factor_are_said() -> None:
    def words(right: int) -> str:
        records: Records = {"generalization": {"a": generalization(98, 90), "b": generalization(right, 90)}}
        return unequal_losses(headline_figures(records, {}))

    assert words(96) == ""  # 0.02 against 0.04
    assert words(95).startswith("The training losses are from 0.0200 (a) to 0.0500 (b).")


def test_fingerprints_and_hashes_are_apart() -> None:
    facts = {name: {"class": "MLP", "fingerprint": "f" * 32, "weights_hash": name * 32} for name in "ab"}
    found = describe_networks(facts)
    assert found.shared == (("Class", "MLP"),)
    assert found.table is None
    assert found.hashes == (("Fingerprint of the data", "f" * 32),)
    assert found.hash_table is not None
    assert found.hash_table.heading == ("network", "Hash of the weights")


def test_one_network_has_figures_and_no_comparison() -> None:
    topic = topics({"flatness_radius": {"only": flatness([1.0, 2.0])}})[FLATNESS]
    assert rows(topic)["only"][0].mark == ""
    assert topic.verdicts == ()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"a": 1.0}, "Mean: a 1.00."),
        ({"a": 1.0, "b": float("nan")}, "Mean: a 1.00; none for b."),
        ({"a": float("nan")}, "Mean: none is finite."),
        ({"a": 1.0, "b": 1.0}, "Mean: a 1.00, b 1.00."),  # neither is above the other
    ],
)
def test_alternative_texts_say_what_is_missing(values: dict[str, float], words: str) -> None:
    assert describe("mean", values) == words
