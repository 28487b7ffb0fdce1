"""Folders of records, and names as file names."""

from pathlib import Path
from typing import Any

import flatprobe as fp
from flatprobe.studies.comparison import Comparison
from flatprobe.studies.records import load_records
from tests.plotting.test_plotting import INFINITE, flatness, margins_of


def test_records_of_a_folder_come_back_in_natural_order(tmp_path: Path) -> None:
    for name in ("natural 10", "natural 2", "random 0"):
        fp.save(flatness([1.0, INFINITE]), tmp_path / "flatness_radius" / f"{name}.parquet")
    fp.save(margins_of(0), tmp_path / "functional_margins" / "natural 2.parquet")
    (tmp_path / "notes.txt").write_text("not a record")
    found: Any = load_records(tmp_path)
    assert {key: list(results) for key, results in found.items()} == {
        "flatness_radius": ["natural 2", "natural 10", "random 0"],
        "functional_margins": ["natural 2"],
    }
    assert found["flatness_radius"]["random 0"].radii.tolist() == [1.0, INFINITE]


def test_names_that_look_like_numbers_are_sorted(tmp_path: Path) -> None:
    names = ["\u00b2", "2", "a\u00b3", "a10"]
    results = {"flatness_radius": {name: flatness([1.0]) for name in names}}
    loaded = load_records(Comparison(results=results, groups={}).save(tmp_path))
    assert [*loaded["flatness_radius"]] == ["2", "a10", "a\u00b3", "\u00b2"]


def test_property_names_with_slashes_survive_the_folder_of_records(tmp_path: Path) -> None:
    names = ["google/vit 100%", ".hidden", "a\\b", "a%2Fb", "plain 1.5"]
    results = {"flatness_radius": {name: flatness([float(k + 1)]) for k, name in enumerate(names)}}
    folder = Comparison(results=results, groups={}).save(tmp_path)
    assert len(list(folder.glob("*/*.parquet"))) == len(names)
    loaded: Any = load_records(folder)["flatness_radius"]
    assert {name: loaded[name].radii.tolist() for name in names} == {name: [k + 1.0] for k, name in enumerate(names)}
    assert (folder / "flatness_radius" / "plain 1.5.parquet").is_file()
