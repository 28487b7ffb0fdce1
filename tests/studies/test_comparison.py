"""Comparisons: tables, axes, records and warnings."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch

import flatprobe as fp
from flatprobe.studies.compare import prepare
from flatprobe.studies.comparison import Comparison, Refusal
from flatprobe.studies.estimate import estimate
from flatprobe.studies.records import groups_by_name
from tests.helpers import cases, compared

DATA, TEST = cases.data_for((1, 4, 4), samples=40), cases.data_for((1, 4, 4), samples=30, seed=2)
MODELS = {
    name: cases.mlp((1, 4, 4), widths=(8,), seed=k) for k, name in enumerate(("wide1", "wide2", "deep1", "deep2"))
}
GROUPS = {"wide1": "control", "wide2": "treated", "deep1": "control", "deep2": "treated"}
PROBES = ["generalization", "functional_margins"]


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return fp.compare(MODELS, DATA, test=TEST, probes=PROBES, groups=GROUPS, seed=3)


def test_the_groups_of_the_caller_survive_save_load_and_report(comparison: Comparison, tmp_path: Path) -> None:
    loaded = Comparison.load(comparison.save(tmp_path / "records"))
    assert loaded.groups == GROUPS
    assert loaded.headline().equals(comparison.headline())
    assert loaded.facts == json.loads(json.dumps(comparison.facts))
    page = fp.report(tmp_path / "records", tmp_path / "page.html").read_text()
    assert "control" in page
    assert "treated" in page


@pytest.mark.parametrize(
    ("names", "group"),
    [
        (["natural-0", "natural-1", "natural-2"], "natural"), (["natural_9", "natural_10"], "natural"),
        (["run3", "run4"], "run"), (["seed=1", "seed=2"], "seed"), (["a/run-1", "a/run-0"], "a/run"),
        (["natural-0"], ""), (["7", "8"], ""), (["epoch-1", "epoch-2"], ""), (["step_100", "step_101"], ""),
        (["run/ckpt-5", "run/ckpt-6"], ""), (["width_64", "width_65"], ""), (["lr=0.1", "lr=0.2"], ""),
        (["Epochs=2", "Epochs=3"], ""), (["resnet18", "resnet34"], ""), (["rate0.3", "rate0.4"], ""),
        (["a-1", "b-2"], ""),
    ],
)  # fmt: skip
def test_only_consecutive_numbers_that_count_nothing_are_replicates(names: list[str], group: str) -> None:
    assert groups_by_name(names) == {name: group or name for name in names}


def test_the_table_has_uncertainty_and_provenance(comparison: Comparison) -> None:
    frame = comparison.to_frame()
    row = frame[(frame["network"] == "deep1") & (frame["figure"] == "test_accuracy")].iloc[0]
    result = comparison.results["generalization"]["deep1"]
    assert (row["value"], row["lower"], row["upper"]) == (result.test_accuracy, *result.interval("test_accuracy"))
    assert (row["fingerprint"], row["samples"], row["dtype"]) == (DATA.fingerprint, 40, "float64")
    assert row["weights_hash"] == comparison.facts["deep1"]["weights_hash"]
    assert len({facts["weights_hash"] for facts in comparison.facts.values()}) == 4
    assert comparison.facts["deep1"]["seed"] == 3
    assert comparison.facts["deep1"]["norm"] == pytest.approx(
        math.sqrt(sum(float(value.square().sum()) for value in MODELS["deep1"].state_dict().values()))
    )
    assert "no certified lower bound of the margins" in comparison.facts["deep1"]["checks_not_made"]


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_written_tables_hold_the_same_numbers(comparison: Comparison, ending: str, tmp_path: Path) -> None:
    path = comparison.write(tmp_path / f"table{ending}")
    read = pd.read_parquet(path) if ending == ".parquet" else pd.read_csv(path)
    frame = comparison.to_frame()
    assert list(read.columns) == list(frame.columns)
    assert read["value"].tolist() == pytest.approx(frame["value"].tolist(), nan_ok=True)


def test_written_tables_escape_names(tmp_path: Path) -> None:
    odd = fp.compare({"a_b|%": MODELS["wide1"]}, DATA, probes="functional_margins")
    markdown, latex = (odd.write(tmp_path / f"table{ending}").read_text() for ending in (".md", ".tex"))
    assert r"| a\_b\|% |" in markdown
    assert {line.count(" | ") for line in markdown.splitlines()} == {markdown.splitlines()[0].count(" | ")}
    assert r"a\_b|\%" in latex
    assert r"\toprule" in latex
    with pytest.raises(ValueError, match=r"must end in \.parquet, \.csv, \.md, \.tex, got .*table\.xlsx"):
        odd.write(tmp_path / "table.xlsx")


def test_markdown_has_no_meaning_in_a_name(tmp_path: Path) -> None:
    name = "<b>*a*</b> & `c` [d](e) \\ ~f~ $g$\nh_i_"
    odd = fp.compare({name: MODELS["wide1"]}, DATA, probes="functional_margins")
    written = odd.write(tmp_path / "table.md").read_text()
    assert r"| &lt;b&gt;\*a\*&lt;/b&gt; &amp; \`c\` \[d\](e) \\ \~f\~ \$g\$ h\_i\_ | networks |" in written


def test_a_table_needs_a_place(comparison: Comparison, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "mine.parquet").write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"got the file .*file in .*a/table\.csv"):
        comparison.write(tmp_path / "file" / "a" / "table.csv")
    with pytest.raises(FileExistsError, match=r"must be that of a file, got the folder .*folder\.csv"):
        comparison.write(tmp_path / "folder.csv")
    with pytest.raises(FileExistsError, match=r"mine\.parquet exists and is no record"):
        comparison.write(tmp_path / "mine.parquet")
    assert (tmp_path / "mine.parquet").read_text() == "mine"


def test_a_trajectory_keeps_its_epochs_apart(comparison: Comparison, tmp_path: Path) -> None:
    places = {"wide1": 3, "wide2": 1, "deep1": 2, "deep2": 10}
    own = fp.compare(MODELS, DATA, test=TEST, probes=PROBES, along=places, along_name="epoch")
    assert own.networks == ["wide2", "deep1", "wide1", "deep2"]
    assert set(own.headline()["count"]) == {1}  # nothing is averaged over the axis
    frame = own.trajectory()
    accuracy = frame[frame["figure"] == "test_accuracy"]
    assert accuracy["epoch"].tolist() == [1, 2, 3, 10]
    by_name = own.results["generalization"]
    assert accuracy["value"].tolist() == [by_name[name].test_accuracy for name in own.networks]
    assert Comparison.load(own.save(tmp_path)).trajectory().equals(frame)
    with pytest.raises(ValueError, match="must have an axis for a trajectory"):
        comparison.trajectory()
    with pytest.raises(ValueError, match="along must hold a finite number for every network, got none for wide2"):
        fp.compare(MODELS, DATA, probes=PROBES, along={"wide1": 1, "deep1": 1, "deep2": 1})


def test_other_data_are_never_mixed_without_a_word(comparison: Comparison) -> None:
    assert comparison.warnings == ()
    other = DATA.with_random_labels(seed=1)
    data = {"wide1": DATA, "wide2": DATA, "deep1": other, "deep2": other}
    apart = fp.compare(MODELS, data, probes="functional_margins", groups={name: name[:4] for name in MODELS})
    (words,) = apart.warnings
    assert "on different samples (wide1, wide2; deep1, deep2): differences over samples are unpaired" in words
    rows = apart.differences().query("kind == 'network'")
    assert (rows["paired"] == (rows["network"].str[:4] == rows["reference"].str[:4])).all()
    mixed = fp.compare(MODELS, data, probes="functional_margins", groups=GROUPS)
    assert mixed.warnings == (
        "the means of control, treated are over networks that were measured on different samples",
    )
    results = {"m": {"a": fp.scores(MODELS["wide1"], DATA)}, "n": {"a": fp.scores(MODELS["wide1"], other)}}
    assert "a: the measurements are on different samples" in Comparison(results, {"a": "a"}).warnings[0]
    results = {"m": {"a": fp.scores(MODELS["wide1"], DATA), "b": fp.scores(MODELS["wide1"], DATA, outputs="logits")}}
    assert "different values of outputs" in Comparison(results, {"a": "a", "b": "b"}).warnings[0]


def test_other_networks_are_never_mixed_without_a_word(tmp_path: Path) -> None:
    fp.compare({"a": MODELS["wide1"], "b": MODELS["deep1"]}, DATA, probes=["scores", "weight_norms"], out=tmp_path)
    assert Comparison.load(tmp_path).warnings == ()
    fp.compare({"a": MODELS["wide2"], "b": MODELS["deep1"]}, DATA, probes="functional_margins", out=tmp_path)
    (words,) = Comparison.load(tmp_path).warnings
    assert words.startswith("a: the records are of networks of different weights or functions (functional_margins; ")
    assert words.endswith("(functional_margins; scores, weight_norms). Measure again, or in another folder")
    assert words in fp.report(tmp_path, tmp_path / "page.html").read_text()
    (tmp_path / "comparison.json").unlink()  # the records alone tell it
    assert len(Comparison.load(tmp_path).warnings) == 1


def test_landscapes_of_other_networks_are_told(tmp_path: Path) -> None:
    fp.compare({name: MODELS[name] for name in ("wide1", "wide2")}, DATA, probes="landscape", out=tmp_path)
    assert Comparison.load(tmp_path).warnings == ()
    fp.compare({"wide1": MODELS["deep1"], "wide2": MODELS["wide2"]}, DATA, probes="scores", out=tmp_path)
    (words,) = Comparison.load(tmp_path).warnings
    assert words.startswith("wide1: the records are of networks of different weights or functions (scores; landscape)")


@pytest.mark.filterwarnings("ignore:.*measurements were refused")
def test_records_of_other_weights_than_the_facts_are_told(tmp_path: Path) -> None:
    fp.compare({"a": MODELS["wide1"]}, DATA, probes="scores", out=tmp_path)
    bad = fp.Measurement("scores", on="test", name="t")
    fp.compare({"a": MODELS["wide2"]}, DATA, probes=bad, out=tmp_path)
    (words,) = Comparison.load(tmp_path).warnings
    assert words.startswith("a: the weights of scores differ from those that were loaded last. Measure again")


def test_samples_that_were_asked_for_are_no_warning(tmp_path: Path) -> None:
    probes = ["functional_margins", fp.Measurement("scores", on="test"), fp.Measurement("jacobian_norms", samples=9)]
    found = fp.compare({"a": MODELS["wide1"]}, DATA, test=TEST, probes=probes, out=tmp_path)
    assert found.warnings == Comparison.load(tmp_path).warnings == ()
    other = DATA.with_random_labels(seed=1)
    for on, data, test in (("test", DATA, other), ("train", other, TEST)):
        fp.compare(
            {"a": MODELS["wide1"]}, data, test=test, probes=fp.Measurement("scores", on=on, name=on), out=tmp_path / on
        )
        fp.compare({"a": MODELS["wide1"]}, DATA, test=TEST, probes=probes, out=tmp_path / on)
        (words,) = Comparison.load(tmp_path / on).warnings
        assert words.startswith("a: the measurements are on different samples")


def test_refusals_are_rows_and_the_comparison_is_one_line(comparison: Comparison) -> None:
    own = Comparison(comparison.results, GROUPS, refusals=(Refusal("scores", "wide1", "no"),))
    row = own.to_frame().iloc[-1]
    assert (row["measurement"], row["network"], row["refusal"], row["figure"]) == ("scores", "wide1", "no", "")
    assert repr(own) == "Comparison(2 measurements of 4 networks, 1 refused)"
    assert own._repr_html_().startswith("<table")
    assert len(own.headline()) == len(comparison.headline())


def test_a_folder_of_another_version_is_refused(comparison: Comparison, tmp_path: Path) -> None:
    folder = comparison.save(tmp_path / "records")
    (folder / "comparison.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match=r"comparison\.json must have the format 1, got 99"):
        Comparison.load(folder)
    (folder / "comparison.json").unlink()
    assert set(Comparison.load(folder).groups.values()) == {"wide", "deep"}
    assert torch.equal(
        Comparison.load(folder).results["functional_margins"]["deep1"].values,
        comparison.results["functional_margins"]["deep1"].values,
    )


def test_without_classes_no_margins_or_attacks_are_missed() -> None:
    inputs = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    data, model = fp.LabelledData(inputs, inputs.sum(1, keepdim=True)), torch.nn.Linear(3, 1).eval()
    with pytest.warns(UserWarning, match="were refused"):
        own = fp.compare({"line": model}, data, loss="squared_error", probes=["generalization", "scores"])
    missed = " ".join(own.facts["line"]["checks_not_made"])
    assert "generalization gap" in missed
    assert "margins" not in missed
    assert "attack" not in missed
    assert repr(own) == "Comparison(1 measurement of 1 network, 1 refused)"


def test_the_level_of_differences_is_a_confidence() -> None:
    found = fp.compare(compared.networks(2), compared.data(), probes=["scores"])
    with pytest.raises(ValueError, match=r"level must be a confidence in \(0, 1\), got 95"):
        found.differences(level=95)


def test_estimates_are_in_proportion_to_the_samples_that_are_measured() -> None:
    data, test = compared.data(), compared.data().head(20)
    probes = [
        "functional_margins",
        fp.Measurement("functional_margins", on="test", name="test"),
        fp.Measurement("gradient_noise", arguments={"batch_size": 2}, samples=10, name="noise"),
    ]
    rows = {row.measurement: row for row in estimate(prepare(compared.networks(1), data, test=test, probes=probes))}
    share = rows["test"].seconds / rows["functional_margins"].seconds
    assert share == pytest.approx(20 / len(data))
    assert rows["noise"].gradients == 1 + 200 * 2 / 10
