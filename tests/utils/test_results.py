"""Records on disk: atomic, typed, readable by any tool, refused when they are something else."""

import importlib
import pkgutil
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import flatprobe as fp
from flatprobe.probes.directional import Directed
from flatprobe.utils.result_classes import HOMES
from flatprobe.utils.results import _subclasses
from flatprobe.utils.tables import read_table, write_table
from tests.helpers import cases


@pytest.fixture
def margins():
    return fp.functional_margins(cases.mlp(), cases.data_for((1, 8, 8)))


def test_any_tool_reads_the_table_and_its_settings(margins, tmp_path) -> None:
    path = fp.save(margins, tmp_path / "deep" / "margins.parquet")
    assert pd.read_parquet(path)["value"].tolist() == margins.values.tolist()
    assert b"fingerprint" in pq.read_schema(path).metadata[b"flatprobe"]
    assert {"versions", "threads", "machine"} <= set(margins.settings["environment"])
    assert [file.name for file in path.parent.iterdir()] == ["margins.parquet"]  # nothing left beside it


def test_numpy_scalars_in_the_settings_are_as_good_as_pythons(tmp_path) -> None:
    settings = {"seed": np.int64(3), "epsilon": np.float32(0.5), "rate": torch.tensor(2.0)}
    path = write_table(pd.DataFrame({"a": [1]}), tmp_path / "table.parquet", settings)
    assert read_table(path)[1] == {"seed": 3, "epsilon": 0.5, "rate": 2.0}


def test_a_failed_write_leaves_the_old_record(margins, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fp.save(margins, tmp_path / "margins.parquet")
    before = path.read_bytes()

    def broken(table, where) -> None:
        where.write_bytes(b"half")
        msg = "disk full"
        raise OSError(msg)

    monkeypatch.setattr(pq, "write_table", broken)
    with pytest.raises(OSError, match="disk full"):
        fp.save(margins, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["margins.parquet"]


def test_refusals(margins, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"path must end in \.parquet"):
        fp.save(margins, tmp_path / "margins.csv")
    with pytest.raises(FileNotFoundError, match="there is no record at"):
        fp.load(tmp_path / "nothing.parquet")
    foreign = tmp_path / "foreign.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(foreign)
    with pytest.raises(ValueError, match="without flatprobe's metadata"):
        fp.load(foreign)
    truncated = tmp_path / "truncated.parquet"
    truncated.write_bytes(fp.save(margins, tmp_path / "whole.parquet").read_bytes()[:200])
    with pytest.raises(ValueError, match="not a readable parquet file"):
        fp.load(truncated)


@pytest.mark.parametrize(
    "kind", ["os:system", "flatprobe.utils.results:write_table", "flatprobe.utils.results:nothing", ""]
)
def test_a_record_cannot_name_what_is_run(kind: str, tmp_path) -> None:
    path = write_table(pd.DataFrame({"a": [1]}), tmp_path / "table.parquet", {"kind": kind, "settings": {}})
    with pytest.raises(ValueError, match="must be the record of a flatprobe result"):
        fp.load(path)
    frame, metadata = read_table(path)
    assert frame["a"].tolist() == [1]
    assert metadata["kind"] == kind


def test_a_record_names_its_class_and_no_module(margins, tmp_path) -> None:
    """So that a module can be renamed and its records still be read."""
    path = fp.save(margins, tmp_path / "margins.parquet")
    frame, metadata = read_table(path)
    assert metadata["kind"] == "Margins"
    for kind in ("flatprobe.probes.margins:Margins", "flatprobe.where.it.was.once:Margins"):  # as 0.1 wrote it
        old = write_table(frame, tmp_path / "old.parquet", {**metadata, "kind": kind})
        assert isinstance(fp.load(old), type(margins))
        assert fp.load(old).values.equal(margins.values)


def test_every_result_class_is_in_the_table() -> None:
    for module in pkgutil.walk_packages(fp.__path__, "flatprobe."):
        if module.name.rpartition(".")[2] not in {"lightning", "transformers"}:
            importlib.import_module(module.name)
    own = {kind for kind in _subclasses(fp.Result) if kind.__module__.startswith("flatprobe.")}
    assert {kind.__name__: kind.__module__ for kind in own - {Directed}} == HOMES


def test_a_user_defined_result_is_saved_and_loaded(tmp_path) -> None:
    @dataclass(frozen=True, kw_only=True, repr=False)
    class Depth(fp.Result):
        depth: int

        def to_frame(self) -> pd.DataFrame:
            return pd.DataFrame({"depth": [self.depth]})

        @classmethod
        def from_frame(cls, frame: pd.DataFrame, settings) -> "Depth":
            return cls(depth=int(frame["depth"][0]), settings=settings)

        def summary(self) -> dict[str, float]:
            return {"depth": self.depth}

    found = fp.load(fp.save(Depth(depth=7, settings={"probe": "depth"}), tmp_path / "depth.parquet"))
    assert isinstance(found, Depth)
    assert found.depth == 7
    twin = type("Margins", (Depth,), {})(depth=7, settings={})
    with pytest.raises(ValueError, match=r"Margins must not have the name of flatprobe's own Margins\. Rename"):
        fp.save(twin, tmp_path / "twin.parquet")
