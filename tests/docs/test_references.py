"""Citations: each key and each "author (year)" of the package, the analyses and the pages stands in the references."""

import re
import unicodedata

import pytest

from figures.tables.markdown import ROOT

REFERENCES = (ROOT / "docs" / "references.md").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^\((ref-[\w-]+)\)=$", REFERENCES, flags=re.MULTILINE))
# First author, "et al." or further authors, and a year, with or without brackets.
CITATION = re.compile(
    r"([A-Z][\w-]+)(?: et\s+al\.?,?| and [A-Z][\w-]+,?|(?:, [A-Z][\w-]+)+)\s+\(?((?:19|20)\d\d)(?![\d-])"
)
SOURCES = [
    *(path for folder in ("flatprobe", "analyses") for path in sorted((ROOT / folder).rglob("*.py"))),
    *sorted((ROOT / "docs").rglob("*.md")),
]


def plain(text: str) -> str:
    """Without accents: Sokolic."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def cited() -> set[tuple[str, str]]:
    text = "\n".join(re.sub(r"\s+", " ", plain(path.read_text(encoding="utf-8"))) for path in SOURCES)
    return set(CITATION.findall(text))


def paragraphs() -> list[str]:
    return [" ".join(entry.split()) for entry in plain(REFERENCES).split("\n\n")]


@pytest.mark.parametrize("key", ["t3", "s17", "n20", "o20", "b19"])
def test_each_source_key_has_a_target_closed_form(key: str) -> None:
    assert f"ref-{key}" in TARGETS
    assert f"**{key.upper()}.**" in REFERENCES


def test_each_citation_is_expanded_property() -> None:
    found = cited()
    assert ("Dinh", "2017") in found  # the pattern finds what it should
    assert len(found) > 30
    missing = [
        f"{author} {year}" for author, year in sorted(found) if not any(author in p and year in p for p in paragraphs())
    ]
    assert missing == []


def test_each_link_to_a_reference_has_its_target_property() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    assert set(re.findall(r"#(ref-[\w-]+)", pages)) <= TARGETS
