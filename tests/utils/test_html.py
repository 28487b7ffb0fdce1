"""Tables of results in notebooks: their cells, escaping, and every class of result."""

import html.parser
from pathlib import Path
from typing import Any

import pytest

import flatprobe as fp
from flatprobe.utils.html import described, facts_of, table


class Cells(html.parser.HTMLParser):
    """The texts of the cells by row, and tags that are left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, _attributes: Any) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data


def test_closed_form_cells_of_numbers_and_words() -> None:
    found = Cells(table([("mean_error", 0.123456, 1500, 60.0, True, None, "a b_c")], ("x", "y_z")))
    assert found.rows == [["x", "y z"], ["mean error", "0.123", "1,500", "60", "True", "None", "a b_c"]]
    assert found.open == []
    assert Cells(table([("nan", float("nan")), ("inf", float("inf"))])).rows == [["nan", "–"], ["inf", "∞"]]  # noqa: RUF001


def test_words_are_escaped_and_cut() -> None:
    text = described("<b>", [("<script>", "&")], [("x", "y" * 1000)])
    assert "<script>" not in text
    assert "<b>" not in text
    found = Cells(text)
    assert found.rows[0] == ["<script>", "&"]
    assert len(found.rows[1][1]) == 120


def test_facts_are_those_of_the_settings() -> None:
    data = {"samples": 60, "fingerprint": "ab", "source": {"name": "digits", "split": "train"}}
    settings = {"subject": {"data": data, "network": {"class": "MLP"}}, "arguments": {"seed": 3}}
    assert facts_of(settings) == [
        ("network", "MLP"), ("data", "digits train"), ("samples", 60), ("fingerprint of the data", "ab"), ("seed", 3)
    ]  # fmt: skip
    assert facts_of({}) == []


def test_every_kind_of_result_has_a_table_with_its_figures(tmp_path: Path) -> None:
    data = fp.load_data("digits", limit=40)
    run = fp.train(fp.models.mlp(data.input_shape, widths=(8,)), data, epochs=2, out=tmp_path / "run")
    model, risk = run.model, fp.EmpiricalRisk(run.model, data)
    results: list[Any] = [
        fp.flatness_radius(risk, directions=2),
        fp.functional_margins(model, data),
        fp.gaussian_robustness(model, data, gammas=[0.1], draws=2),
        fp.weight_norms(model, data.input_shape),
        fp.hessian_trace(risk, draws=2),
    ]
    for result in results:
        found = Cells(result._repr_html_())
        assert [row[0].replace(" ", "_") for row in found.rows[: len(result.summary())]] == [*result.summary()]
        assert found.open == []
        assert ["samples", "40"] in found.rows or "weight" in type(result).__name__.lower()
    shown = Cells(run._repr_html_()).rows
    assert shown[0] == ["epochs", "2"]
    assert [row[0] for row in shown[1:3]] == ["train loss", "train accuracy"]
    assert ["folder", str(tmp_path / "run")] in shown
    loss, accuracy = (run.history[-1][name] for name in ("train_loss", "train_accuracy"))
    expected = f"TrainingRun(epochs=2, train_loss={loss:.4g}, train_accuracy={accuracy:.4g}, path='{tmp_path / 'run'}')"
    assert repr(run) == expected


def test_an_audit_shows_its_table() -> None:
    data = fp.load_data("digits", limit=40)
    model = fp.models.mlp(data.input_shape, widths=(8,)).eval()
    audit = fp.audit(model, data, probes=["functional_margins"], changes=["rescaling", "logit_scale"])
    rows = Cells(audit._repr_html_()).rows
    assert rows[0] == ["probe", "figure", "as given", "rescaling", "logit scale", "verdict"]
    assert rows[1][0] == "functional margins"
    assert rows[1][3:] == ["stays", "+300.0%", "follows the logits' scale"]
    assert repr(audit) == "Audit(follows the logits' scale: functional_margins)"


def test_means_are_those_of_the_summary() -> None:
    data = fp.load_data("digits", limit=40)
    model = fp.models.mlp(data.input_shape, widths=(8,)).eval()
    for result in (fp.functional_margins(model, data), fp.scores(model, data), fp.jacobian_norms(model, data)):
        figures = result.summary()
        assert result.mean == pytest.approx(float(result.values.mean()), rel=1e-12)
        assert (result.mean, result.median) == (figures["mean"], figures["median"])
        assert figures["standard_error"] == pytest.approx(result.std / 40**0.5, rel=1e-12)
    trace = fp.hessian_trace(fp.EmpiricalRisk(model, data), draws=3)
    assert trace.mean == trace.trace == trace.summary()["trace"]
    certificate = fp.smoothed_certificate(model, data, draws=20)
    assert certificate.mean == certificate.summary()["mean_radius"] == float(certificate.certified.mean())
    margins = fp.geometric_margins(model, data, upper=("deepfool",))
    assert margins.median == margins.summary()["median_upper"]
    assert margins.mean == float(margins.upper.mean())
