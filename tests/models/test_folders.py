"""Folders of checkpoints: what counts in them, in which order, under which names."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import flatprobe as fp
from flatprobe.models import folders
from flatprobe.models.folders import find_checkpoints, names_of, weight_files
from flatprobe.utils.natural import natural
from tests.helpers import foreign, zoo

STATE = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}


def save(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(STATE, path)


def found(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_checkpoints(folder)]


def test_epochs_come_in_natural_order(tmp_path: Path) -> None:
    save(*(tmp_path / f"epoch_{k}.pt" for k in (10, 2, 1, 100)))
    assert found(tmp_path) == ["epoch_1.pt", "epoch_2.pt", "epoch_10.pt", "epoch_100.pt"]
    assert [*names_of(find_checkpoints(tmp_path))] == ["epoch_1", "epoch_2", "epoch_10", "epoch_100"]
    assert sorted(map(Path, ["b", "2", "a10", "a9", "10"]), key=natural) == [*map(Path, ["2", "10", "a9", "a10", "b"])]


def test_a_run_counts_once_and_so_do_shards_and_folders_of_other_programs(tmp_path: Path) -> None:
    data = fp.LabelledData(torch.eye(4), torch.arange(4))
    for name in ("natural-0", "natural-1"):
        fp.train(nn.Linear(4, 4), data, validation=data, epochs=1, out=tmp_path / name)
    assert (tmp_path / "natural-0" / "best.safetensors").is_file()
    foreign.vit().save_pretrained(tmp_path / "vit")
    for name in ("sharded", "sharded_bin", "hub"):
        (tmp_path / name).mkdir()
    zoo.shards(tmp_path / "sharded", "safetensors")
    zoo.shards(tmp_path / "sharded_bin", "bin")
    zoo.HubNet(4).save_pretrained(tmp_path / "hub")
    assert found(tmp_path) == ["hub", "natural-0", "natural-1", "sharded", "sharded_bin", "vit"]
    assert find_checkpoints(tmp_path / "natural-0") == [tmp_path / "natural-0"]
    assert found(tmp_path / "sharded") == ["."]


def test_files_of_other_kinds_do_not_count(tmp_path: Path) -> None:
    save(tmp_path / "a" / "net.pt", tmp_path / "b" / "deep" / "net.ckpt")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "scaler.pt", "optimizer_1.bin",
                 "random_states_0.pkl", ".hidden.pt", "my_optimizer.pt"):  # fmt: skip
        save(tmp_path / "a" / name)
    save(tmp_path / ".git" / "x.pt", tmp_path / "__pycache__" / "x.pt")
    for name in ("records.parquet", "a.png", "log.txt", "history.json", "vocabulary.bin"):
        (tmp_path / "a" / name).write_bytes(b"no weights")
    assert found(tmp_path) == ["a/net.pt", "b/deep/net.ckpt"]


def test_one_checkpoint_in_two_formats_counts_once(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save(tmp_path / "pytorch_model.bin")
    assert [path.name for path in weight_files(tmp_path)] == ["pytorch_model.bin"]
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    assert [path.name for path in weight_files(tmp_path)] == ["model.safetensors"]
    assert find_checkpoints(tmp_path) == [tmp_path]
    save(tmp_path / "epoch_1.pt")
    assert found(tmp_path) == ["epoch_1.pt", "model.safetensors"]


def test_links_neither_repeat_nor_hang(tmp_path: Path) -> None:
    save(tmp_path / "runs" / "epoch_3.pt")
    (tmp_path / "runs" / "best.pt").symlink_to("epoch_3.pt")
    for k in range(9):  # followed, they would be 9^8 folders
        (tmp_path / "runs" / f"self-{k}").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "gone.pt").symlink_to("nowhere.pt")
    assert found(tmp_path / "runs") == ["epoch_3.pt"]


def test_what_is_found_nowhere_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*nope"):
        find_checkpoints(tmp_path / "nope")
    with pytest.raises(FileNotFoundError, match=r"holds no checkpoint; expected run folders .*\.ckpt"):
        find_checkpoints(tmp_path)
    save(tmp_path / "a.pt", tmp_path / "b.pt")
    monkeypatch.setattr(folders, "_MOST", 1)
    with pytest.raises(ValueError, match="holds more than 1 files; give the folder of the checkpoints"):
        find_checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["run_a/model.pt", "run_b/model.pt"], ["run_a", "run_b"]),
        (["a/x/model.pt", "b/x/model.pt"], ["a", "b"]),
        (["a/x/model.pt", "a/y/model.pt", "b/x/model.pt"], ["a/x", "a/y", "b/x"]),
        (["a/epoch_1.pt", "a/epoch_2.pt", "b/epoch_1.pt"], ["a/epoch_1", "a/epoch_2", "b/epoch_1"]),
        (["a/epoch_1.pt", "a/epoch_2.pt", "b/epoch_1.pt", "b/epoch_2.pt"],
         ["a/epoch_1", "a/epoch_2", "b/epoch_1", "b/epoch_2"]),
        (["net.pt", "other.pth.tar", "x/run_a/model.pt", "y/run_b/model.pt"], ["net", "other", "run_a", "run_b"]),
        (["runs/best.pt", "runs/last.pt"], ["best", "last"]),
        (["m.safetensors.index.json"], ["m"]),
        (["epoch=3-step=10.ckpt"], ["epoch=3-step=10"]),
        (["v1.5.pt"], ["v1.5"]),
        (["./a.pt", "sub/../b.pt"], ["a", "b"]),
        (["a.pt", "a.safetensors"], ["a.pt", "a.safetensors"]),
    ],
)  # fmt: skip
def test_names_say_what_differs(paths: list[str], names: list[str], tmp_path: Path) -> None:
    assert [*names_of([tmp_path / path for path in paths])] == names


def test_a_file_of_a_run_is_named_after_the_run(tmp_path: Path) -> None:
    (tmp_path / "natural-1").mkdir()
    (tmp_path / "natural-1" / "config.json").write_text(json.dumps({"network": {}}))
    assert [*names_of([tmp_path / "natural-0", tmp_path / "natural-1" / "best.safetensors"])] == [
        "natural-0", "natural-1/best",
    ]  # fmt: skip


def test_a_checkpoint_given_twice_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "a.pt")
    (tmp_path / "b.pt").symlink_to("a.pt")
    with pytest.raises(ValueError, match=r"must be given once, got .*a\.pt\. Leave one out"):
        names_of([tmp_path / "a.pt", tmp_path / "a.pt"])
    with pytest.raises(ValueError, match=r"got .*a\.pt and .*b\.pt, which are the same"):
        names_of([tmp_path / "a.pt", tmp_path / "b.pt"])
