"""The analyses on their quick presets, and the figures that draw their records."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from analyses.theory3_2017 import table1
from figures import theory3_2017_table1
from flatprobe.utils.tables import read_table


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("records") / "table1.parquet"
    state = torch.get_rng_state()
    assert table1.main(["--preset", "quick", "--out", str(out)]) == out
    assert torch.equal(torch.get_rng_state(), state)
    return out


def test_the_quick_preset_measures_every_cell_and_says_what_it_read(record) -> None:
    frame, metadata = read_table(record)
    preset = table1.PRESETS["quick"]
    cells = len(preset.sizes) * 2 * preset.minimizers * 2 * 2
    assert len(frame) == cells * table1.DIRECTIONS
    assert bool(frame["reached"].all())
    assert bool(frame["met"].all())
    assert bool((frame["upper"] <= frame["lower"] * (1 + table1.RTOL) * (1 + 1e-12)).all())
    assert bool((frame[frame["stage"] == "first 100 %"]["train_accuracy"] == 1).all())
    assert bool((frame[frame["stage"] == "equal loss"]["train_loss"] <= preset.equal_loss).all())
    chance = frame[frame["labels"] == "random"]["test_accuracy"].mean()
    assert chance < 0.25 < 0.8 < frame[frame["labels"] == "natural"]["test_accuracy"].mean()
    assert len(metadata["subject"]["data"]) == len(preset.sizes) * 2
    assert all("fingerprint" in data for data in metadata["subject"]["data"])


def test_property_workers_do_not_change_the_rows(record) -> None:
    frame, _ = read_table(record)
    cell = next(cell for cell in table1.cells(table1.PRESETS["quick"], 0) if (cell.n, cell.minimizer) == (60, 1))
    alone = table1.measure(replace(cell.preset, sizes=(60,), minimizers=1), workers=2)[0]
    same = frame[(frame["n"] == 60) & (frame["minimizer"] == 0)]
    assert alone["radius"].tolist() == same["radius"].tolist()


def test_the_claim_holds_on_the_digits(record) -> None:
    frame, _ = read_table(record)
    assert table1.check_claims(frame)["learning rate 0.05, first 100 %: natural flatter than random at every n"]
    assert table1.check_claims(frame)["learning rate 0.05, equal loss: natural flatter than random at every n"]


def test_closed_form_the_table_averages_minimizers_not_directions() -> None:
    rows = [
        {
            "stage": "s",
            "parameters": "all",
            "n": 1,
            "labels": labels,
            "minimizer": m,
            "radius": r * scale,
            "reached": reached,
        }
        | {
            "met": True,
            "train_loss": 0.0,
            "test_accuracy": 0.0,
            "epochs": 1,
            "weight_norm": scale,
            "learning_rate": 0.1,
        }
        for labels, scale in (("natural", 2.0), ("random", 1.0))
        for m, r, reached in ((0, 1.0, True), (0, 3.0, True), (1, 8.0, True), (1, float("inf"), False))
    ]
    cells = table1.table(pd.DataFrame(rows)).set_index("labels")
    assert cells.loc["random", "mean"] == 5.0  # of the minimizers' means 2 and 8
    assert cells.loc["random", "std"] == pytest.approx(18**0.5)
    assert cells.loc["random", "censored"] == 1
    stuck = [{**row, "minimizer": 2, "met": False, "radius": 1e9} for row in rows[:1]]
    flagged = table1.table(pd.DataFrame(rows + stuck)).set_index("labels")
    assert flagged.loc["natural", "mean"] == cells.loc["natural", "mean"]
    assert flagged["failed"].to_dict() == {"natural": 1, "random": 0}
    assert cells.loc["random", "published_mean"] == 6.9
    ratio = table1.ratios(pd.DataFrame(rows)).iloc[0]
    assert ratio["ratio"] == 2.0
    assert ratio["relative"] == 1.0  # twice the radius at twice the norm
    assert ratio["published"] == pytest.approx(45.4 / 6.9)


def test_the_figure_draws_the_record(record, tmp_path) -> None:
    picture = theory3_2017_table1.main(["--record", str(record), "--out", str(tmp_path / "out" / "table1.png")])
    assert picture.read_bytes().startswith(b"\x89PNG")
    frame, metadata = read_table(record)
    printed = {(row["parameters"], row["labels"]): row["mean"] for row in metadata["published"]}
    figure = theory3_2017_table1.draw(frame, printed, metadata["settings"]["preset"], 0.05)
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[2].lines}
    ratios = table1.ratios(frame)
    expected = ratios[(ratios["stage"] == "first 100 %") & (ratios["parameters"] == "all")]["ratio"].tolist()
    assert drawn["learning rate 0.05, first 100 %"] == pytest.approx(expected)
