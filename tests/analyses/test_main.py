"""The main, the records and the list, on an item without a training."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest

from analyses import registry as registry_module
from analyses import rules
from analyses.__main__ import main
from analyses.listing import counts, rows
from analyses.record import describe, read_outcomes, read_record, unexplained
from analyses.registry import registry
from analyses.reproduction import DIRECTION, REFUTED, UNTESTED, Outcome, Reproduction, Unavailable
from analyses.study import Study


@dataclass(frozen=True)
class Preset:
    count: int


def _table(preset: Preset, study: Study) -> pd.DataFrame:
    return pd.DataFrame({"value": [1.0 + i / preset.count for i in range(preset.count)]})


def _rules(frame: pd.DataFrame) -> list[Outcome]:
    return [
        rules.difference("it rises", frame["value"], published=2.0, band=(1.0, 3.0), unit="points"),
        rules.difference("it falls", -frame["value"]),
        rules.difference("one seed", frame["value"].head(1), beside=True),
    ]


TOY = Reproduction(
    id="T3-toy",
    source="A paper, Fig. 1",
    claim="It rises.",
    published=({"rise": 2.0},),
    presets={"quick": Preset(3), "cpu": Preset(30)},
    table=_table,
    rules=_rules,
    reasons={"it falls": "it rises; measured", "of another rule": "unused"},
    differs="everything",
    cost="1 s",
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Reproduction:
    monkeypatch.setattr(registry_module, "registry", lambda: {"T3-toy": TOY})
    return TOY


def test_a_run_writes_a_record_with_everything(
    toy: Reproduction, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [path] = main(["T3-toy", "--out", str(tmp_path), "--root", str(tmp_path / "runs")])
    assert path == tmp_path / "T3-toy-quick.parquet"
    frame, metadata = read_record("T3-toy", "quick", tmp_path)
    assert frame["value"].tolist() == [1.0, 1 + 1 / 3, 1 + 2 / 3]
    assert metadata["outcomes"][0]["verdict"] == DIRECTION
    assert {**metadata, "environment": 0, "outcomes": 0, "seconds": 0} == {
        "kind": "reproduction",
        "id": "T3-toy",
        "source": "A paper, Fig. 1",
        "claim": "It rises.",
        "published": [{"rise": 2.0}],
        "preset": "quick",
        "settings": {"count": 3},
        "published_scale": False,
        "outcomes": 0,
        "verdict": REFUTED,
        "reasons": {"it falls": "it rises; measured"},
        "differs": "everything",
        "cost": "1 s",
        "environment": 0,
        "command": "python -m analyses T3-toy --preset quick",
        "seconds": 0,
        "experiments": [],
    }
    assert "torch" in metadata["environment"]["versions"]
    assert set(metadata["seconds"]) == {"wall", "units"}
    printed = capsys.readouterr()
    assert "it rises" in printed.out
    assert "not reproduced" in printed.out
    assert printed.err == ""


def test_outcomes_survive_a_record_property(toy: Reproduction, tmp_path: Path) -> None:
    main(["T3-toy", "--out", str(tmp_path)])
    frame, metadata = read_record("T3-toy", "quick", tmp_path)
    assert "NaN" not in json.dumps(metadata)
    *given, single = TOY.rules(frame)
    *found, last = read_outcomes(metadata)
    assert found == given
    assert all(math.isnan(bound) for bound in (*single.interval, *last.interval))


def test_a_refuted_rule_without_a_reason_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = replace(TOY, reasons={})
    monkeypatch.setattr(registry_module, "registry", lambda: {"T3-toy": bare})
    main(["T3-toy", "--out", str(tmp_path)])
    assert "no reason is given why this does not hold: it falls" in capsys.readouterr().err
    assert unexplained(read_record("T3-toy", "quick", tmp_path)[1]) == ["it falls"]
    beside = [Outcome(rule="x", holds=False, effect=0.0, beside=True)]
    assert unexplained(describe(bare, "quick", beside)) == []


def test_an_unknown_preset_is_refused(toy: Reproduction, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="preset must be one of quick, cpu for T3-toy, got 'paper'"):
        main(["T3-toy", "--preset", "paper", "--out", str(tmp_path)])


def test_the_list_has_states_and_counts_closed_form(toy: Reproduction, tmp_path: Path) -> None:
    diagram = Unavailable(id="T3-F18", source="s", claim="c", reason="a diagram")
    [ready, other] = rows([TOY, diagram], tmp_path)
    assert (ready["state"], ready["verdict"], ready["cost"]) == ("ready", None, "1 s")
    assert (other["state"], other["reason"]) == ("unavailable", "a diagram")
    main(["T3-toy", "--out", str(tmp_path)])
    [quick] = rows([TOY], tmp_path)
    assert (quick["state"], quick["verdict"], quick["verdicts"]) == ("ready", None, {"quick": REFUTED})
    main(["T3-toy", "--out", str(tmp_path), "--preset", "cpu"])
    listed = rows([TOY, diagram], tmp_path)
    assert (listed[0]["state"], listed[0]["verdict"]) == ("run", REFUTED)
    assert counts(listed) == {REFUTED: 1, "unavailable": 1}
    assert counts([*listed, {"verdict": UNTESTED, "state": "run"}]) == {UNTESTED: 1, REFUTED: 1, "unavailable": 1}


def test_the_list_is_printed_and_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == []
    printed = capsys.readouterr().out
    assert all(name in printed for name in registry())
    main(["list", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in found["items"]] == list(registry())
    assert sum(found["verdicts"].values()) == len(registry())
