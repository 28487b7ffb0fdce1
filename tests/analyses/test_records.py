"""The committed records of reproductions: outcomes are those of the present rules, and refuted ones have reasons."""

from pathlib import Path

import pytest

from analyses.record import RECORDS, read_outcomes, read_record, record_path, unexplained
from analyses.registry import registry
from analyses.reproduction import Reproduction, overall

COMMITTED = {
    (name, preset): item
    for name, item in registry().items()
    if isinstance(item, Reproduction)
    for preset in item.presets
    if record_path(name, preset).exists()
}
LARGEST = 200_000  # bytes
pairs = pytest.mark.parametrize("pair", COMMITTED, ids="-".join)


@pairs
def test_the_outcomes_are_those_of_the_present_rules_slow_reference(pair: tuple[str, str]) -> None:
    frame, metadata = read_record(*pair)
    found, kept = list(COMMITTED[pair].rules(frame)), read_outcomes(metadata)
    assert [outcome.rule for outcome in found] == [outcome.rule for outcome in kept]
    for new, old in zip(found, kept, strict=True):
        assert (new.holds, new.seeds, new.beside, new.exact) == (old.holds, old.seeds, old.beside, old.exact)
        assert new.effect == pytest.approx(old.effect, rel=1e-9, abs=1e-12, nan_ok=True)
        assert new.interval == (
            None if old.interval is None else pytest.approx(old.interval, rel=1e-9, abs=1e-12, nan_ok=True)
        )
    scale = pair[1] in COMMITTED[pair].at_scale
    assert metadata["verdict"] == overall(found, published_scale=scale)
    assert [entry["verdict"] for entry in metadata["outcomes"]] == [o.verdict(published_scale=scale) for o in found]


@pairs
def test_a_refuted_rule_has_a_reason(pair: tuple[str, str]) -> None:
    assert unexplained(read_record(*pair)[1]) == []


@pairs
def test_a_record_says_what_was_run_and_is_small(pair: tuple[str, str]) -> None:
    _, metadata = read_record(*pair)
    assert (metadata["kind"], metadata["id"], metadata["preset"]) == ("reproduction", *pair)
    assert metadata["command"].startswith("python -m analyses")
    assert "torch" in metadata["environment"]["versions"]
    assert record_path(*pair).stat().st_size < LARGEST


def test_every_record_belongs_to_an_item() -> None:
    known = {record_path(name, preset) for name, preset in COMMITTED}
    assert {*Path(RECORDS).glob("*.parquet")} == known
