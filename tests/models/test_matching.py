"""Checkpoints under other names: what is inside decides, and every weight comes back right (property)."""

import collections
import json

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from flatprobe.models.checkpoints import load_checkpoint
from tests.helpers.properties import assert_same_state


def network() -> nn.Module:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    net = nn.Sequential(collections.OrderedDict(features=features, flat=nn.Flatten(), head=nn.Linear(144, 3)))
    net(torch.rand(5, 1, 8, 8))
    return net.eval()


def blank() -> nn.Module:
    net = network()
    for value in net.state_dict().values():
        value.zero_()
    return net


def assert_loads(content, path, architecture=None) -> None:
    torch.save(content, path)
    assert_same_state(load_checkpoint(path, architecture or blank()), network())


@pytest.mark.parametrize("name", ["x.pth.tar", "x.ckpt", "checkpoint", "x.t7", "x.pkl", "x.safetensor"])
def test_any_ending(tmp_path, name):
    state = network().state_dict()
    assert_loads({"state_dict": state, "epoch": 1}, tmp_path / name)
    safetensors.torch.save_file(state, tmp_path / name)
    assert_same_state(load_checkpoint(tmp_path / name, blank()), network())


@pytest.mark.parametrize("key", ["net", "params", "model_state", "model_ema", "ema", "last", "network", "mine"])
def test_any_key(tmp_path, key):
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    assert_loads({key: network().state_dict(), "acc": 93.1, "optimizer": optimizer}, tmp_path / "a.pt")
    assert_loads({"outer": {key: network().state_dict()}, "step": torch.tensor(3)}, tmp_path / "a.pt")


def test_entries_beside_the_tensors_are_left_out(tmp_path):
    state = network().state_dict()
    beside = {"epoch": 3, "_extra_state": None, "classes": ["cat"], "total_ops": torch.zeros(1), "note": {"by": "me"}}
    assert_loads({**state, **beside}, tmp_path / "a.pt")


def test_the_network_goes_before_its_averaged_copy(tmp_path):
    state = network().state_dict()
    other = {name: value + 1 for name, value in state.items()}
    assert_loads({"model_ema": other, "model": state}, tmp_path / "a.pt")
    torch.save({"teacher": state, "student": other}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"several state_dicts: teacher, student; choose one .*--key teacher"):
        load_checkpoint(tmp_path / "a.pt", blank())


@pytest.mark.parametrize(
    "prefix", ["model.", "net.", "module.", "_forward_module.", "_fsdp_wrapped_module.", "a.b.", "net._orig_mod."]
)
def test_a_prefix_of_all_names(tmp_path, prefix):
    assert_loads({prefix + name: value for name, value in network().state_dict().items()}, tmp_path / "a.pt")


def test_a_prefix_of_the_architecture(tmp_path):
    torch.save(network().state_dict(), tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt", nn.Sequential(collections.OrderedDict(inner=blank())))
    assert_same_state(loaded.inner, network())
    loaded = load_checkpoint(tmp_path / "a.pt", nn.DataParallel(blank()))
    assert_same_state(getattr(loaded, "module", loaded), network())


def test_wrappers_inside_and_averages(tmp_path):
    for wrapped in ("features.module.", "features._orig_mod.", "features._checkpoint_wrapped_module."):
        state = {name.replace("features.", wrapped): value for name, value in network().state_dict().items()}
        assert_loads(state, tmp_path / "a.pt")
    assert_loads(AveragedModel(network()).state_dict(), tmp_path / "a.pt")


def test_a_module_that_is_really_called_module_keeps_its_place(tmp_path):
    both = nn.Sequential(collections.OrderedDict(module=nn.Linear(2, 2), weight=nn.Identity()))
    both.register_parameter("bias", nn.Parameter(torch.ones(2)))  # beside module.bias
    torch.save(both.state_dict(), tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt", both)
    assert_same_state(loaded, both)
    assert not torch.equal(loaded.bias, loaded.module.bias)


def test_counters_may_be_missing_or_too_many(tmp_path):
    state = network().state_dict()
    torch.save({name: value for name, value in state.items() if "num_batches" not in name}, tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt", blank()).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items() if "num_batches" not in name)
    torch.save({**nn.Linear(2, 2).state_dict(), "num_batches_tracked": torch.tensor(1)}, tmp_path / "b.pt")
    load_checkpoint(tmp_path / "b.pt", nn.Linear(2, 2))
    del state["head.bias"]
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"1 missing: head\.bias"):
        load_checkpoint(tmp_path / "c.pt", blank())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
def test_earlier_parametrizations(tmp_path):
    earlier = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3)))
    torch.save(earlier.state_dict(), tmp_path / "a.pt")
    now = load_checkpoint(tmp_path / "a.pt", nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))))
    x = torch.rand(5, 4)
    assert torch.allclose(now(x), earlier(x))
    earlier = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 3))).eval()
    torch.save(earlier.state_dict(), tmp_path / "a.pt")
    now = load_checkpoint(tmp_path / "a.pt", nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))))
    assert torch.allclose(now(x), earlier(x), atol=1e-5)


def shard(folder, files) -> None:
    keys = list(network().state_dict())
    state, halves = network().state_dict(), (keys[:3], keys[3:])
    for file, names in zip(files, halves, strict=True):
        if file.endswith(".safetensors") and "/" not in file:
            safetensors.torch.save_file({name: state[name] for name in names}, folder / file)
    places = {name: file for file, names in zip(files, halves, strict=True) for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_folders_of_safetensors(tmp_path):
    shard(tmp_path, ["model-1.safetensors", "model-2.safetensors"])
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        assert_same_state(load_checkpoint(path, blank()), network())
    safetensors.torch.save_file(network().state_dict(), tmp_path / "model.safetensors")
    assert_same_state(load_checkpoint(tmp_path, blank()), network())


@pytest.mark.parametrize(
    "elsewhere", ["../b.safetensors", "/etc/b.safetensors", "b.bin", "link.safetensors", "none.safetensors"]
)
def test_an_index_stays_in_its_folder(tmp_path, elsewhere):
    folder = tmp_path / "model"
    folder.mkdir()
    safetensors.torch.save_file(network().state_dict(), tmp_path / "b.safetensors")
    torch.save(network().state_dict(), folder / "b.bin")
    shard(folder, ["a.safetensors", elsewhere])
    if elsewhere in {"link.safetensors", "none.safetensors"}:
        (folder / elsewhere).unlink()
    if elsewhere == "link.safetensors":
        (folder / elsewhere).symlink_to(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="as a file of weights; expected a safetensors file in the folder itself"):
        load_checkpoint(folder, blank())


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_other_kinds_of_numbers_are_not_cast(tmp_path, dtype):
    state = {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in network().state_dict().items()
    }
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(
        ValueError, match=rf"8 of another kind of number: features\.0\.weight {dtype} instead of torch\.float32"
    ):
        load_checkpoint(tmp_path / "a.pt", blank())


def test_tensors_without_dense_values_are_named(tmp_path):
    state = network().state_dict()
    for value, word in ((state["head.weight"].to_sparse(), "sparse_coo"), (state["head.weight"].to("meta"), "meta")):
        torch.save({**state, "head.weight": value}, tmp_path / "a.pt")
        with pytest.raises(ValueError, match=rf"head\.weight of the checkpoint .*{word}.*expected a dense tensor"):
            load_checkpoint(tmp_path / "a.pt", blank())
