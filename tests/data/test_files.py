"""Files of arrays: each form, and damaged or hostile files, none of which executes code."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import flatprobe as fp
from tests.helpers.picture_folders import COLOUR, assert_same

X, Y = np.stack(COLOUR), np.array([0, 1, 2, 0, 1, 2, 0])
EXPECTED = fp.LabelledData(torch.from_numpy(X).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(Y))


def test_each_form_gives_the_same_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=X, y_train=Y, x_test=X[:2], y_test=Y[:2])
    np.savez_compressed(tmp_path / "b.npz", images=X, labels=Y)
    torch.save((torch.from_numpy(X), torch.from_numpy(Y)), tmp_path / "c.pt")
    torch.save({"train": {"x": torch.from_numpy(X), "y": torch.from_numpy(Y)}}, tmp_path / "d.pth")
    for name in ("a.npz", "b.npz", "c.pt"):
        data = fp.load_data(tmp_path / name)
        assert_same(data, EXPECTED)
        assert data.source["name"] == str(tmp_path / name)
    assert len(fp.load_data(tmp_path / "a.npz", split="test")) == 2


class _Runs:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.place), "w")


def test_damaged_and_hostile_files_are_refused_and_run_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.save((torch.ones(2), _Runs(canary)), tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(_Runs(canary)))
    np.savez(tmp_path / "c.npz", x=np.array([_Runs(canary)], dtype=object), y=Y)
    (tmp_path / "d.npz").write_bytes(b"PK half a file")
    (tmp_path / "e.pt").write_bytes(b"")
    for name in ("a.pt", "b.pt", "c.npz", "d.npz", "e.pt"):
        with pytest.raises(ValueError, match=rf"{name} must hold arrays without other objects, and cannot be read"):
            fp.load_data(tmp_path / name)
    assert not canary.exists()


def test_other_files_name_the_function_to_write(tmp_path: Path) -> None:
    for name in ("a.csv", "a.npy", "a.txt"):
        (tmp_path / name).write_text("1,2\n")
        with pytest.raises(FileNotFoundError, match=r"got the file .*def load\(split\):.*--data data.py:load"):
            fp.load_data(tmp_path / name)
