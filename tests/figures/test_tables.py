"""The documentation's tables: what is committed is what the committed records give."""

import pytest

from figures.tables.__main__ import TABLES
from figures.tables.markdown import DOCS, ROOT, marked, ratio


@pytest.mark.parametrize("name", TABLES)
def test_a_committed_table_is_that_of_the_records_slow_reference(name: str) -> None:
    committed = (DOCS / f"{name}.txt").read_text(encoding="utf-8")
    assert committed == TABLES[name](), "run `python -m figures.tables`"


def test_every_table_is_shown_on_a_page_and_no_other_is_committed_property() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    assert {path.stem for path in DOCS.glob("*.txt")} == set(TABLES)
    assert [name for name in TABLES if f"_tables/{name}.txt" not in pages] == []


def test_numbers_have_two_significant_digits_closed_form() -> None:
    assert [ratio(value) for value in (0.561, 0.994, 0.996, 3.44, 9.96, 28.4)] == [
        "0.56", "0.99", "1.0", "3.4", "10", "28",
    ]  # fmt: skip
    assert (marked("1", worse=True), marked("1", worse=False)) == ("**1**", "1")
