"""S17's Table II and the penalties' effects: acceptance rules (closed form), the records (pinned), a small run."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analyses.penalties import effects
from analyses.sokolic2017 import table2
from flatprobe.utils.tables import read_table

RECORDS = Path(table2.ROOT) / "records"


def test_table_2_closed_form() -> None:
    accuracies = {(10, "weight decay"): (90.0, 92.0), (10, "jacobian"): (94.0, 96.0)}
    accuracies |= {(20, "weight decay"): (97.0, 98.0), (20, "jacobian"): (98.0, 98.0)}
    rows = [
        {"n": n, "method": method, "stage": "final", "strength": 1.0, "draw": draw, "accuracy": value}
        for (n, method), values in accuracies.items()
        for draw, value in enumerate(values)
    ]
    frame = pd.DataFrame(rows).assign(train_accuracy=100.0)
    leads = table2.leads(frame).set_index("n")["mean"]
    assert leads.to_dict() == {10: 4.0, 20: 0.5}
    assert all(table2.check_claims(frame).values())
    frame.loc[frame["method"] == "jacobian", "accuracy"] -= 1
    assert not table2.check_claims(frame)["the Jacobian penalty ahead at every n"]


def test_table_2_takes_the_strength_that_validation_prefers_and_of_equals_the_smallest() -> None:
    rows = [("jacobian", 10.0, 95.0), ("jacobian", 1.0, 95.0), ("jacobian", 0.1, 94.0), ("weight decay", 0.1, 90.0)]
    frame = pd.DataFrame(rows, columns=["method", "strength", "accuracy"]).assign(stage="search")
    assert table2.choose_strengths(frame) == {"jacobian": 1.0, "weight decay": 0.1}


def test_table_2_pinned() -> None:
    frame, metadata = read_table(RECORDS / "sokolic2017" / "table2-cpu.parquet")
    means = table2.table(frame).set_index(["n", "method"])["mean"].round(2).to_dict()
    assert means == {
        (1000, "jacobian"): 96.23,
        (1000, "weight decay"): 94.05,
        (5000, "jacobian"): 97.99,
        (5000, "weight decay"): 97.67,
    }
    assert all(table2.check_claims(frame).values())
    assert metadata["command"] == "python -m analyses.sokolic2017.table2 --preset cpu"


def test_table_2_trains_with_each_method(tmp_path: Path) -> None:
    preset = replace(table2.PRESETS["quick"], epochs=3, sizes=(40,), draws=1)
    frame, subject = table2.measure(preset, tmp_path)
    assert len(frame) == 4 + 2
    assert frame["accuracy"].between(0, 100).all()
    assert subject["validation"]["samples"] == preset.validation


def test_effects_closed_form() -> None:
    """Differences -1, -2, -3: mean -2, and t = 4.3027 times 1 / sqrt(3) about it."""
    values = {False: (5.0, 6.0, 7.0), True: (4.0, 4.0, 4.0)}
    common = {
        "data": "x",
        "case": "c",
        "quantity": "q",
        "on": "training",
        "train_loss": 0.1,
        "test_accuracy": 0.9,
        "met": True,
    }
    rows = [
        common | {"penalised": penalised, "seed": seed, "value": value}
        for penalised, entries in values.items()
        for seed, value in enumerate(entries)
    ]
    row = effects.table(pd.DataFrame(rows)).iloc[0]
    half = 4.302652729749464 / 3**0.5
    assert (row["low"], row["high"]) == (pytest.approx(-2 - half), pytest.approx(-2 + half))
    assert not effects.check_claims(pd.DataFrame(rows))["x: c lowers q on training samples"]
    rows[0]["value"] = 6.0
    assert effects.check_claims(pd.DataFrame(rows))["x: c lowers q on training samples"]


def test_effects_measure_every_quantity() -> None:
    preset = replace(effects.PRESETS["quick"], train=40, test=20, target_loss=2.0)
    rows = effects.Cell(preset, "digits", None, 0).rows()
    assert [row["case"] for row in rows[::2]] == list(effects.cases())
    assert all(0 <= row["value"] < float("inf") for row in rows)
    own, _ = effects.Cell(preset, "digits", "spectral norms", 0).rows()
    assert own["penalised"]


@pytest.mark.parametrize("preset", ["digits", "mnist"])
def test_effects_pinned(preset: str) -> None:
    """All rules hold; on test samples the two that README names are raised on MNIST."""
    frame, metadata = read_table(RECORDS / "penalties" / f"effects-{preset}.parquet")
    claims = effects.check_claims(frame)
    assert all(claims.values())
    assert len(claims) == len(effects.cases())
    assert metadata["command"] == f"python -m analyses.penalties.effects --preset {preset}"
    test = effects.table(frame).query("on == 'test'").set_index("case")
    assert (test["high"] < 0).sum() == {"digits": 17, "mnist": 13}[preset]
    raised = {"digits": [], "mnist": ["Frobenius, softmax", "per layer, softmax, held"]}[preset]
    assert list(test.index[test["low"] > 0]) == raised
