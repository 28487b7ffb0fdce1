"""Results whose table is made of their fields: the layout, the way back through a record, and what is refused."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
import torch
from torch import Tensor

import flatprobe as fp


@dataclass(frozen=True, kw_only=True, repr=False)
class Depths(fp.Result):
    """As a user writes it: fields alone."""

    layer: tuple[str, ...]
    depth: Tensor
    width: Tensor
    total: int
    note: str | None = None


DEPTHS = Depths(
    layer=("in", "out"),
    depth=torch.tensor([1, 2]),
    width=torch.tensor([0.5, 2.5], dtype=torch.float32),
    total=3,
    settings={"probe": "depth", "total": 3, "note": None},
)


@dataclass(frozen=True, kw_only=True, repr=False)
class Grid(fp.Result):
    """A value per pair of entries of two axes of different lengths."""

    _columns: ClassVar = {"level": "levels", "draw": "", "word": "words", "value": "values", "positive": "positive"}
    _axes: ClassVar = {"level": 0, "draw": 1, "word": 1}

    levels: Tensor
    words: tuple[str, ...]
    values: Tensor

    @property
    def positive(self) -> Tensor:
        return self.values > 0


GRID = Grid(
    levels=torch.tensor([0.5, 0.25]),
    words=("a", "b", "c"),
    values=torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]], dtype=torch.float64),
    settings={},
)


def test_fields_alone_make_a_result_that_is_saved_and_loaded(tmp_path: Path) -> None:
    frame = pd.DataFrame({"layer": ["in", "out"], "depth": [1, 2], "width": pd.Series([0.5, 2.5], dtype="float32")})
    pd.testing.assert_frame_equal(DEPTHS.to_frame(), frame)
    found = fp.load(fp.save(DEPTHS, tmp_path / "depths.parquet"))
    assert type(found) is Depths
    assert (found.layer, found.total, found.note, found.settings) == (DEPTHS.layer, 3, None, DEPTHS.settings)
    assert found.depth.equal(DEPTHS.depth)
    assert found.depth.dtype == torch.int64
    assert found.width.equal(DEPTHS.width)
    assert found.width.dtype == torch.float32
    assert str(found) == "Depths(depth=1.5, width=1.5, total=3)"


def test_a_record_without_a_single_value_takes_the_fields_default(tmp_path: Path) -> None:
    old = type(DEPTHS).from_frame(DEPTHS.to_frame(), {"total": 3})
    assert old.note is None  # type: ignore[attr-defined]
    path = fp.save(replace(DEPTHS, settings={**DEPTHS.settings}), tmp_path / "depths.parquet")
    assert fp.load(path).note is None


def test_a_grid_repeats_what_depends_on_one_axis(tmp_path: Path) -> None:
    expected = pd.DataFrame(
        {
            "level": pd.Series([0.5] * 3 + [0.25] * 3, dtype="float32"),
            "draw": [0, 1, 2, 0, 1, 2],
            "word": list("abcabc"),
            "value": [1.0, -2.0, 3.0, 4.0, 5.0, -6.0],
            "positive": [True, False, True, True, True, False],
        }
    )
    pd.testing.assert_frame_equal(GRID.to_frame(), expected)
    found = fp.load(fp.save(GRID, tmp_path / "grid.parquet"))
    assert found.levels.equal(GRID.levels)
    assert found.words == GRID.words
    assert found.values.equal(GRID.values)


def test_what_a_table_cannot_hold_is_refused_and_not_lost() -> None:
    with pytest.raises(
        TypeError, match=r"total of Depths must be a column, .*, got int. Put the same value into settings"
    ):
        replace(DEPTHS, settings={"note": None}).to_frame()
    with pytest.raises(TypeError, match="total of Depths must be a column"):  # the settings say otherwise
        replace(DEPTHS, total=4).to_frame()
    with pytest.raises(ValueError, match=r"width of Depths must have shape \(2,\), one entry per row, got \(3,\)"):
        replace(DEPTHS, width=torch.ones(3)).to_frame()
    with pytest.raises(ValueError, match=r"depth of Depths must have shape \(2,\), one entry per row, got \(2, 2\)"):
        replace(DEPTHS, depth=torch.ones(2, 2)).to_frame()
    with pytest.raises(TypeError, match=r"depth of Depths must be a column, .*, got Tensor"):
        replace(DEPTHS, depth=torch.tensor(1)).to_frame()


def test_a_result_of_single_values_alone_has_an_empty_table(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True, repr=False)
    class Count(fp.Result):
        count: int

    found = fp.load(fp.save(Count(count=7, settings={"count": 7}), tmp_path / "count.parquet"))
    assert found.count == 7
    assert found.to_frame().empty


def test_a_tensor_is_a_column_even_where_the_settings_have_its_name() -> None:
    assert "depth" in replace(DEPTHS, settings={**DEPTHS.settings, "depth": "metres"}).to_frame()
