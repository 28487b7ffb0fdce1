"""Records on disk: atomic, typed, readable by any tool, refused when they are something else."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

import flatprobe as fp
from flatprobe.results import read_table, write_table
from tests import cases


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
    with pytest.raises(ValueError, match=r"expected it to end in \.parquet"):
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


@pytest.mark.parametrize("kind", ["os:system", "flatprobe.results:write_table", "flatprobe.results:nothing", ""])
def test_a_record_cannot_name_what_is_run(kind: str, tmp_path) -> None:
    path = write_table(pd.DataFrame({"a": [1]}), tmp_path / "table.parquet", {"kind": kind, "settings": {}})
    with pytest.raises(ValueError, match="expected the record of a flatprobe result"):
        fp.load(path)
    frame, metadata = read_table(path)
    assert frame["a"].tolist() == [1]
    assert metadata["kind"] == kind
