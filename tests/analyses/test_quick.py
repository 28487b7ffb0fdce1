"""Every reproduction at its quick preset, once, with one root: a table, outcomes, a record and a figure."""

from pathlib import Path

import numpy as np
import pytest
import torch

from analyses.__main__ import run
from analyses.record import read_record
from analyses.registry import registry
from analyses.reproduction import VERDICTS, Reproduction
from analyses.study import Study
from figures.__main__ import draw
from figures.items import figures

RUNNABLE = {name: item for name, item in registry().items() if isinstance(item, Reproduction)}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all items keep their networks (`runs`), and where their records are."""
    return tmp_path_factory.mktemp("quick")


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_quick_preset_gives_a_table_outcomes_a_record_and_a_figure(name: str, folder: Path) -> None:
    state = torch.get_rng_state()
    run(RUNNABLE[name], "quick", Study(root=folder / "runs"), folder)
    assert torch.equal(torch.get_rng_state(), state)
    frame, metadata = read_record(name, "quick", folder)
    assert len(frame) > 0
    assert not frame.columns.duplicated().any()
    assert metadata["outcomes"]
    assert metadata["verdict"] in VERDICTS
    assert len({outcome["rule"] for outcome in metadata["outcomes"]}) == len(metadata["outcomes"])
    assert all(np.isfinite(float(outcome["effect"])) for outcome in metadata["outcomes"])
    assert any(not outcome["beside"] for outcome in metadata["outcomes"])
    if name in figures():
        assert draw(name, "quick", folder, folder).read_bytes().startswith(b"\x89PNG")


def test_every_figure_is_of_an_item_property() -> None:
    assert set(figures()) <= set(RUNNABLE)
