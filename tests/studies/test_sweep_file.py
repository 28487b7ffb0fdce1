"""Sweeps from a JSON file, and the command that runs one."""

import json
from pathlib import Path

import pytest

import flatprobe as fp
from flatprobe.cli import main
from flatprobe.studies.sweep_file import read_sweep
from flatprobe.utils.tables import read_table
from tests.helpers.sweeps import base, comparable

CONTENT = {
    "base": base().as_json(),
    "grid": {"data.samples": [40, 60], "seeds.network, seeds.order": [[0, 0], [1, 1]]},
    "measurements": [
        {"probe": "risk", "on": "test"},
        {"probe": "interpolate", "over": ["seeds.network", "seeds.order"], "arguments": {"steps": 3}},
    ],
}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "study.json"
    path.write_text(json.dumps({name: value for name, value in (CONTENT | changes).items() if value is not None}))
    return path


def test_slow_reference_the_file_is_the_call_written_out(tmp_path: Path) -> None:
    experiments, measurements = read_sweep(written(tmp_path))
    grid = base().vary({"data.samples": (40, 60), ("seeds.network", "seeds.order"): [(0, 0), (1, 1)]})
    assert experiments == grid
    lines = [fp.Measurement("interpolate", experiments=e, arguments={"steps": 3}) for e in (grid[:2], grid[2:])]
    assert measurements == [fp.Measurement("risk", on="test"), *lines]
    listed = written(tmp_path, base=None, grid=None, experiments=[experiment.as_json() for experiment in grid])
    assert read_sweep(listed) == (experiments, measurements)


def test_the_command_runs_the_file_and_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    for _ in range(2):
        with pytest.raises(SystemExit) as done:
            main(["sweep", str(path), "--root", str(tmp_path / "root")])
        assert done.value.code in {0, None}
        assert "6 of 6 complete" in capsys.readouterr().out
    table = read_table(tmp_path / "root" / "table.parquet")[0]
    assert comparable(table).equals(comparable(fp.sweep(*read_sweep(path), tmp_path / "other")))


def test_the_command_names_a_failure_and_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, measurements=[{"probe": "tests.helpers.sweeps:fail"}], grid={})
    with pytest.raises(SystemExit) as done:
        main(["sweep", str(path), "--root", str(tmp_path / "root")])
    assert done.value.code == 1
    printed = capsys.readouterr()
    assert "flatprobe: fail failed: ArithmeticError: the probe's own words" in printed.err
    assert "0 of 1 complete" in printed.out
    assert str(tmp_path / "root" / "failures") in printed.out


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"grids": {}}, "must hold base or experiments, and measurements, got .*grids"),
        ({"base": None}, "must hold base or experiments"),
        ({"measurements": ["risk"]}, 'must be an object such as {"probe": "flatness_radius"}, got .risk.'),
        ({"measurements": [{"probe": "risk", "split": "test"}]}, "must have fields among .* and over, got split"),
        ({"base": None, "grid": None, "experiments": {}}, "must be a list, got {}"),
        ({"measurements": [{"probe": "interpolate", "over": "seeds.network"}]}, "over must be a list of dotted names"),
        ({"measurements": [{"probe": "interpolate", "over": ["seeds.net"]}]}, "over must be a list of dotted names"),
        ({"grid": {"data.sample.x": [1]}}, "must be a dotted name"),
    ],
)
def test_a_wrong_file_is_named(changes: dict[str, object], match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match):
        read_sweep(written(tmp_path, **changes))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Write one such as"):
        read_sweep(tmp_path / "none.json")
