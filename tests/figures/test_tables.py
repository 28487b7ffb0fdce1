"""The documentation's tables: what is committed is what the committed records give."""

import pandas as pd
import pytest

from figures.tables.__main__ import TABLES
from figures.tables.markdown import DOCS, GAP, ROOT, marked, ratio
from figures.tables.peers import ratios
from figures.tables.reproductions import HEADLINES, README, number, ours, rewrite_readme


@pytest.mark.parametrize("name", TABLES)
def test_a_committed_table_is_that_of_the_records_slow_reference(name: str) -> None:
    committed = (DOCS / f"{name}.txt").read_text(encoding="utf-8")
    assert committed == TABLES[name](), "run `python -m figures.tables`"


def test_the_rows_of_readme_are_those_of_the_records_slow_reference() -> None:
    committed = README.read_text(encoding="utf-8")
    assert committed == rewrite_readme(committed), "run `python -m figures.tables`"
    assert all(row.label in committed for row in HEADLINES)
    other = committed.replace("| direction only |", "| reproduced |", 1)
    assert rewrite_readme(other) == committed


def test_an_outcome_is_shown_with_its_interval_and_unit_closed_form() -> None:
    outcome = {"effect": 2.5, "interval": [1.23456, 3.0], "unit": "points"}
    assert ours(outcome).replace(GAP, " ") == "2.5 [1.235, 3] points"
    assert ours({"effect": 2.0, "interval": ["nan", "nan"], "unit": ""}) == "2"
    assert ours({"effect": 2725, "interval": None, "unit": "a|b"}) == "2,725 a\\|b"
    assert [number(value) for value in (None, 0.0, 97.67, 1e-15, 123456.7)] == ["", "0", "97.67", "1e-15", "123,457"]


def test_every_table_is_shown_on_a_page_and_no_other_is_committed_property() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert {path.stem for path in DOCS.glob("*.txt")} == set(TABLES)
    assert [name for name in TABLES if f"_tables/{name}.txt" not in pages] == []


def test_numbers_have_two_significant_digits_closed_form() -> None:
    assert [ratio(value) for value in (0.561, 0.994, 0.996, 3.44, 9.96, 28.4)] == [
        "0.56", "0.99", "1.0", "3.4", "10", "28",
    ]  # fmt: skip
    assert (marked("1", worse=True), marked("1", worse=False)) == ("**1**", "1")


def test_ratios_to_peers_are_of_medians_with_the_largest_loss_first_closed_form() -> None:
    seconds = {("a", "MLP"): (3.0, 1.0), ("b", "digits"): (1.0, 2.0), ("b", "MLP"): (8.0, 2.0)}
    frame = pd.DataFrame(
        {"work": work, "network": network, "variant": variant, "cpu_seconds": value * factor}
        for (work, network), pair in seconds.items()
        for variant, value in zip(("flatprobe", "peer"), pair, strict=True)
        for factor in ((0.5, 1.0, 4.0) if variant == "flatprobe" else (1.0, 1.0, 1.0))
    )
    found = ratios(frame)
    assert [work for work, _ in found.index] == ["b", "a"]
    assert list(found) == ["digits", "MLP"]
    assert found.loc[("b", "peer")].tolist() == [0.5, 4.0]
    assert found.loc[("a", "peer"), "MLP"] == 3.0
