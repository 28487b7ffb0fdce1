"""Corrupt and hostile checkpoints: each is refused in one clear paragraph, and no code in them runs."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.cli.networks import NetworkOptions, load_networks
from tests.helpers import zoo
from tests.helpers.hostile import CANARY, FILES, FOLDERS, Payload, exported, saved, scripted, state


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    CANARY[:] = [tmp_path / "canary"]
    return CANARY[0]


def test_there_are_forty_kinds() -> None:
    assert len(FILES) + len(FOLDERS) >= 40


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_refused_and_runs_nothing(name: str, tmp_path: Path, canary: Path) -> None:
    make, message = FILES[name]
    path = tmp_path / name
    path.write_bytes(make())
    canary.unlink(missing_ok=True)
    known = {*sys.modules}
    with pytest.raises((ValueError, OSError), match=message) as caught:
        fp.load_checkpoint(path, zoo.Net)
    assert not canary.exists()
    assert "antigravity" not in {*sys.modules} - known
    words, *converting = str(caught.value).split("\n")
    assert name in words
    assert len(words) < 900
    assert all(line.startswith("    ") for line in converting)
    assert len(converting) in {0, 3}


def test_the_payloads_would_have_run(tmp_path: Path, canary: Path) -> None:
    """Each is a real attack: torch.load without weights_only makes the canary."""
    for name in ("eval.pt", "exec.pt", "legacy.pt", "living.pt", "born.pt", "key.pt"):
        (tmp_path / name).write_bytes(FILES[name][0]())
        canary.unlink(missing_ok=True)
        torch.load(tmp_path / name, weights_only=False)
        assert canary.exists(), name


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_refused_and_runs_nothing(name: str, tmp_path: Path, canary: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    make, message = FOLDERS[name]
    make(folder)
    model = None if (folder / "config.json").is_file() else zoo.Net
    with pytest.raises((ValueError, OSError), match=message):
        fp.load_checkpoint(folder, model)
    assert not canary.exists()


def test_a_folder_of_them_loads_what_is_sound(tmp_path: Path, canary: Path) -> None:
    for name, (make, _) in FILES.items():
        (tmp_path / f"bad-{name}").write_bytes(make())
    canary.unlink(missing_ok=True)
    torch.save(state(), tmp_path / "good.pt")
    loaded = load_networks([tmp_path], NetworkOptions(model="tests.helpers.zoo:Net"))
    assert [one.name for one in loaded if one.network is not None] == ["good"]
    refused = [one for one in loaded if one.network is None]
    assert len(refused) >= 45  # the endings .pkl, .h5 and .gguf are of other programs
    assert all(one.refusal for one in refused)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("name", "make", "model"),
    [
        ("module.pt", lambda: saved(zoo.network()), zoo.Net),
        ("under_a_key.pt", lambda: saved({"model": zoo.network(), "epoch": 3}), zoo.Net),
        ("script.pt", scripted, lambda: nn.Linear(2, 3)),
        ("export.pt2", exported, lambda: nn.Linear(2, 3)),
        ("code.pt", lambda: saved({"state_dict": state(), "x": Payload(int, 3)}), zoo.Net),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_three_lines_convert(
    name: str, make: Callable[[], bytes], model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(make())
    with pytest.raises(ValueError, match="these three lines") as caught:
        fp.load_checkpoint(name, model)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert len(lines) == 3
    exec("\n".join(lines), vars(SimpleNamespace()))
    [new] = {path.name for path in Path().iterdir()} - {name}
    assert next(fp.load_checkpoint(new, model).parameters()).isfinite().all()
