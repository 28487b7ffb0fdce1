"""Checkpoints: what is written comes back (property), foreign files, and refusals."""

import json
import os
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from flatprobe.models import Normalised, mlp, resnet
from flatprobe.models.checkpoints import load_checkpoint, save_checkpoint
from flatprobe.utils.tensor_files import read_tensors, write_tensors
from tests.helpers.properties import assert_same_state


class Tied(nn.Module):
    """A decoder that shares the encoder's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight


class Leaves:
    """A pickle of it makes the file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def network() -> nn.Module:
    return resnet((1, 8, 8), depth=10, width=2, classes=3, seed=4)


@pytest.fixture
def other() -> nn.Module:
    return resnet((1, 8, 8), depth=10, width=2, classes=3, seed=5)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth", "bin"])
@pytest.mark.parametrize("nest", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_round_trip_and_architecture_untouched(tmp_path, network, other, suffix, nest, prefix):
    path = tmp_path / f"weights.{suffix}"
    state = {prefix + name: value for name, value in network.state_dict().items()}
    if suffix == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state if nest is None else {nest: state, "epoch": 3}, path)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    loaded = load_checkpoint(path, other)
    assert_same_state(loaded, network)
    assert not any(layer.training for layer in loaded.modules())
    assert other.training
    for name, value in other.state_dict().items():
        assert torch.equal(value, before[name])


def test_legacy_torch_format(tmp_path, network, other):
    torch.save(network.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert_same_state(load_checkpoint(tmp_path / "old.pt", other), network)


def test_save_then_load_by_the_recipe_in_the_checkpoints_dtype(tmp_path):
    network = Normalised(mlp((4,), widths=(3,), seed=7).double(), 0.1, 0.3)
    save_checkpoint(network, tmp_path / "a.safetensors", {"note": "x"})
    assert read_tensors(tmp_path / "a.safetensors")[1] == {"note": "x"}
    (tmp_path / "config.json").write_text(json.dumps({"network": {"recipe": network.recipe}}))
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert_same_state(loaded, network)
    assert next(loaded.parameters()).dtype == torch.float64
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".tmp"] == []


def test_a_given_model_keeps_its_dtype(tmp_path):
    network = nn.Linear(2, 3)
    save_checkpoint(network, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors", nn.Linear(2, 3).double())
    assert torch.equal(loaded.weight, network.weight.double())


@pytest.mark.parametrize("drop", [False, True])
def test_tied_weights_come_back_tied(tmp_path, drop):
    network, architecture = Tied(), Tied()
    if drop:
        safetensors.torch.save_model(network, str(tmp_path / "a.safetensors"))
    else:
        save_checkpoint(network, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors", architecture)
    assert_same_state(loaded, network)
    assert loaded.decoder.weight is loaded.encoder.weight


def test_values_of_one_weight_that_differ_are_refused(tmp_path):
    state = Tied().state_dict()
    names = [name for name in state if name.endswith("weight")]
    state[names[-1]] = state[names[-1]] + 1
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"1 tied to another name here, and of other values: ({names[-1]}|{names[0]})"):
        load_checkpoint(tmp_path / "a.pt", Tied())


def test_channels_last_weights_are_stored_contiguous(tmp_path):
    network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    save_checkpoint(network, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors", nn.Conv2d(3, 4, 3))
    assert torch.equal(loaded.weight, network.weight)
    assert loaded.weight.is_contiguous()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write_tensors({"w": torch.ones(2)}, path)

    def half(self, content):
        with self.open("wb") as opened:
            opened.write(content[:4])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        write_tensors({"w": torch.zeros(2)}, path)
    assert torch.equal(read_tensors(path)[0]["w"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_as_readable_as_any_other(tmp_path):
    write_tensors({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_replacing_a_file_does_not_reach_tensors_read_from_it(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors({"w": torch.ones(2)}, path)
    tensors = read_tensors(path)[0]
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(tensors["w"], torch.ones(2))


@pytest.mark.parametrize("save", [lambda content, path: torch.save(content, path), "protocol 2", "protocol 4"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, save):
    path, made = tmp_path / "evil.pt", tmp_path / "made"
    content = {"w": Leaves(made)}
    if callable(save):
        save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=int(save[-1])))
    with pytest.raises(ValueError, match=r"evil\.pt was refused, since reading it could execute code"):
        load_checkpoint(path, nn.Linear(2, 3))
    assert not made.exists()
    pickle.loads(pickle.dumps(content))
    assert made.exists()  # it would have been made


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 3), tmp_path / "whole.pt")
    with pytest.raises(
        ValueError, match=r"module \(torch\.nn\.modules\.linear\.Linear\) and was refused.*to safetensors"
    ):
        load_checkpoint(tmp_path / "whole.pt", nn.Linear(2, 3))


def test_torch_export_archives_are_refused_whatever_their_name(tmp_path):
    program = torch.export.export(nn.Linear(2, 3), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "a.pt2")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt2").read_bytes())
    with pytest.raises(ValueError, match=r"a\.pt2 is a torch\.export archive and was refused"):
        load_checkpoint(tmp_path / "a.pt2", nn.Linear(2, 3))
    with pytest.raises(ValueError, match=r"a\.pt is a torch\.export archive and was refused"):
        load_checkpoint(tmp_path / "a.pt", nn.Linear(2, 3))


@pytest.mark.parametrize("kept", [4, 100, -1])
def test_truncated_safetensors(tmp_path, network, kept):
    path = tmp_path / "a.safetensors"
    save_checkpoint(network, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"a\.safetensors \(\d+ bytes\) is truncated or corrupt"):
        load_checkpoint(path, network)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_state_dict(tmp_path, network, zipped, share):
    path = tmp_path / "a.pt"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"a\.pt .*(truncated or corrupt|damaged|empty)"):
        load_checkpoint(path, network)


def test_checkpoint_of_another_network_names_the_keys(tmp_path):
    save_checkpoint(mlp((4,), widths=(3, 3, 3, 3, 3, 3)), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"10 unexpected: linear3\.bias, .*; 4 of another shape: ") as caught:
        load_checkpoint(tmp_path / "a.safetensors", mlp((4,), widths=(5,)))
    assert "linear1.weight (3, 4) instead of (5, 4)" in str(caught.value)
    save_checkpoint(mlp((4,), widths=()), tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"2 missing: linear2\.weight, linear2\.bias; 2 of another shape"):
        load_checkpoint(tmp_path / "b.safetensors", mlp((4,), widths=(5,)))


def test_other_refusals(tmp_path):
    linear = nn.Linear(2, 3)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors", linear)
    with pytest.raises(FileNotFoundError, match=r"holds no last\.safetensors; expected a flatprobe run folder"):
        load_checkpoint(tmp_path, linear)
    with pytest.raises(ValueError, match="which is 'first'; expected"):
        load_checkpoint(tmp_path, linear, which="first")
    save_checkpoint(linear, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"architecture of the checkpoint .* is not known.*model="):
        load_checkpoint(tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON.*model="):
        load_checkpoint(tmp_path / "a.safetensors")
    with pytest.raises(TypeError, match=r"model is OrderedDict; expected a torch\.nn\.Module .* class or function"):
        load_checkpoint(tmp_path / "a.safetensors", linear.state_dict())
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list; expected a state_dict"):
        load_checkpoint(tmp_path / "list.pt", linear)
    torch.save({"lr": 0.1}, tmp_path / "dict.pt")
    with pytest.raises(ValueError, match="holds a dict with the keys lr; expected a state_dict"):
        load_checkpoint(tmp_path / "dict.pt", linear)
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(
        ValueError, match=r"a\.onnx \(1 bytes\) was refused: it is neither a safetensors file nor a file of torch"
    ):
        load_checkpoint(tmp_path / "a.onnx", linear)
