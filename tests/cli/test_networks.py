"""Checkpoints on the command line: folders of all formats, the architecture's options, refusals."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.cli.networks import LoadedNetwork, NetworkOptions, architecture, arguments_of, load_networks, tell
from tests.helpers import foreign, zoo
from tests.helpers.properties import assert_same_state

NET = NetworkOptions(model="tests.helpers.zoo:Net")
SAID = {  # checkpoint -> what loading says
    "bare": (),
    "net_and_ema": ("weights read from the key 'net'", "ema would fit too (key=, or --key)"),
    "ddp": ("prefix module. removed from the names",),
    "compiled": ("prefix _orig_mod. removed from the names",),
    "network_prefix": ("prefix network. removed from the names",),
    "two_keys": (
        "weights read from the key 'model.state_dict'",
        "objects beside the weights left out: best_acc (numpy._core.multiarray.scalar)",
    ),
    "lightning": (
        "weights read from the key 'state_dict'",
        "prefix model. removed from the names",
        "2 tensors of other parts left out: criterion.weight, val_acc.correct",
        "objects beside the weights left out: hyper_parameters (argparse.Namespace)",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    zoo.write(tmp_path)
    return tmp_path


def by_name(loaded: list[LoadedNetwork]) -> dict[str, LoadedNetwork]:
    return {one.name: one for one in loaded}


def test_a_folder_of_every_format_is_one_argument(folder: Path) -> None:
    """Own runs and folders of transformers keep their architecture; `--model` is for the others."""
    data = fp.LabelledData(torch.rand(8, 1, 8, 8), torch.arange(8))
    run = fp.train(fp.models.mlp((1, 8, 8), widths=(4,)), data, epochs=1, out=folder / "own")
    vit = foreign.vit().float()
    vit.save_pretrained(folder / "vit")
    processor = {"image_mean": [0.5], "image_std": [0.25], "size": {"height": 8, "width": 8}}
    (folder / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    loaded = by_name(load_networks([folder], NET))
    assert len(loaded) == 23
    assert not [one for one in loaded.values() if one.refusal]
    assert_same_state(loaded["own"].network, run.model)
    assert_same_state(loaded["vit"].network, vit)
    assert (loaded["vit"].normalisation, loaded["vit"].size) == (((0.5,), (0.25,)), (8, 8))
    assert loaded["timm"].normalisation == ((0.13,), (0.31,))
    for name in loaded.keys() - {"own", "vit"}:
        assert type(loaded[name].network) is zoo.Net, name
        assert not loaded[name].network.training
        counters = {"num_batches_tracked"}
        for key, value in zoo.network().state_dict().items():
            assert key.split(".")[-1] in counters or torch.equal(loaded[name].network.state_dict()[key], value), name
    for name, words in SAID.items():
        assert loaded[name].said == words, name


def test_the_hash_is_that_of_the_file(folder: Path) -> None:
    import hashlib

    [one] = load_networks([folder / "bare.pt"], NET)
    assert one.checkpoint_hash == hashlib.sha256((folder / "bare.pt").read_bytes()).hexdigest()
    hashes = {one.checkpoint_hash for one in load_networks([folder], NET)}
    [sharded] = load_networks([folder / "sharded"], NET)
    assert sharded.checkpoint_hash in hashes
    shard = folder / "sharded" / "model-00001-of-00002.safetensors"
    state = zoo.network(seed=3).state_dict()
    import safetensors.torch

    safetensors.torch.save_file({name: state[name] for name in safetensors.torch.load_file(shard)}, shard)
    assert load_networks([folder / "sharded"], NET)[0].checkpoint_hash != sharded.checkpoint_hash


def test_a_key_chooses_among_several(folder: Path) -> None:
    [one] = load_networks([folder / "net_and_ema.pt"], NetworkOptions(model="tests.helpers.zoo:Net", key="ema"))
    assert_same_state(one.network, zoo.network(seed=1))
    assert one.said == ("weights read from the key 'ema'",)


def test_what_cannot_be_loaded_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(zoo.network().state_dict(), tmp_path / "good.pt")
    torch.save(zoo.prefixed("model."), tmp_path / "prefixed.pt")
    torch.save(nn.Linear(2, 3), tmp_path / "module.pt")
    (tmp_path / "broken.pt").write_bytes(b"")
    loaded = load_networks([tmp_path], NET)
    assert [one.name for one in loaded] == ["broken", "good", "module", "prefixed"]
    assert [one.network is None for one in loaded] == [True, False, True, False]
    assert [one.checkpoint_hash is None for one in loaded] == [True, False, True, False]
    tell(loaded)
    printed = capsys.readouterr().err.splitlines()
    assert printed[0].startswith("broken: not loaded: the checkpoint")
    assert "good" not in "".join(line.partition(":")[0] for line in printed)
    assert printed[-1] == "prefixed: prefix model. removed from the names"
    assert len(printed) == 6  # three of them convert the module


def test_nothing_loaded_is_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        torch.save(nn.Linear(2, 3).state_dict(), tmp_path / f"{name}.pt")
    with pytest.raises(ValueError, match=r"^2 checkpoints \(a, b\): the checkpoint .*a\.pt is of another net.*closest"):
        load_networks([tmp_path], NET)
    with pytest.raises(ValueError, match=r"architecture of the checkpoint .* is not known.*--model"):
        load_networks([tmp_path / "a.pt"], NetworkOptions())
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_networks([tmp_path / "nope.pt"], NET)
    with pytest.raises(ValueError, match="device must be one that this machine has"):
        load_networks([tmp_path / "a.pt"], NetworkOptions(model="tests.helpers.zoo:Net", device="cuda:99"))


def test_a_list_that_the_shell_sorted_becomes_natural(tmp_path: Path) -> None:
    paths = [tmp_path / f"epoch_{k}.pt" for k in (1, 2, 10)]
    for path in paths:
        torch.save(zoo.network().state_dict(), path)
    names = ["epoch_1", "epoch_2", "epoch_10"]
    assert [one.name for one in load_networks(sorted(paths, key=str), NET)] == names
    assert [one.name for one in load_networks(paths[::-1], NET)] == names[::-1]  # an order that someone chose


def test_arguments_of_the_architecture(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    torch.save(zoo.network(width=6).state_dict(), "wide.pt")
    options = NetworkOptions(model="tests.helpers.zoo:Net", model_arg=("width=6",))
    assert load_networks([Path("wide.pt")], options)[0].network.conv.out_channels == 6
    assert arguments_of(("a=[1, 2]", "b=true", "c=resnet18", 'd="7"')) == {
        "a": [1, 2], "b": True, "c": "resnet18", "d": "7",
    }  # fmt: skip
    for word in ("width", "=3", "a-b=3"):
        with pytest.raises(ValueError, match=r"--model-arg must be name=value .*, got "):
            arguments_of((word,))
    with pytest.raises(ValueError, match=r"--model-arg must be name=value with different names"):
        arguments_of(("a=1", "a=2"))
    with pytest.raises(ValueError, match="--model-arg must come with --model"):
        architecture(NetworkOptions(model_arg=("width=6",)))
    with pytest.raises(ValueError, match=r"--model must name a function that takes the arguments depth, got .*Net"):
        architecture(NetworkOptions(model="tests.helpers.zoo:Net", model_arg=("depth=6",)))


def test_one_function_serves_several_architectures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for width in (3, 5):
        torch.save(zoo.network(width=width).state_dict(), f"width-{width}.pt")
    Path("by_path.py").write_text(
        "from tests.helpers.zoo import Net\ndef build(path): return Net(int(path.stem.split('-')[1]))\n"
    )
    loaded = load_networks([Path()], NetworkOptions(model="by_path.py:build"))
    assert {one.name: one.network.conv.out_channels for one in loaded} == {"width-3": 3, "width-5": 5}
    assert [one.said for one in loaded] == [(), ()]


def test_a_hub_folder_gives_the_arguments_of_its_class(folder: Path) -> None:
    zoo.HubNet(width=6).save_pretrained(folder / "hub6")
    options = NetworkOptions(model="tests.helpers.zoo:HubNet")
    one, other = load_networks([folder / "hub", folder / "hub6"], options)
    assert (one.network.conv.out_channels, other.network.conv.out_channels) == (4, 6)
    assert other.said == ("width read from config.json",)
    with pytest.raises(ValueError, match=r"takes no arguments, got 'tests\.helpers\.zoo:HubNet', which is HubNet"):
        load_networks([folder / "bare.pt"], options)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.py:number", r"got 'net\.py:number', which is an object of type int"),
        ("net.py:nothing", r"a torch\.nn\.Module, got net\.py:nothing, which returned a NoneType. Return the network"),
        ("net.py:fails", r"got 'net\.py:fails', which raised ZeroDivisionError"),
        ("net.py:missing", r"has no missing\. Its functions and classes: nothing, fails"),
        ("nope.py:f", r"'nope\.py', which raised FileNotFoundError"),
        ("nope:f", "'nope', which raised ModuleNotFoundError"),
        ("broken.py:f", "which raised SyntaxError"),
        ("net.py", r"be package\.module:name or path/to/file\.py:name"),
    ],
)
def test_models_that_are_none(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("number = 3\ndef nothing(): pass\ndef fails(): 1 / 0\n")
    Path("broken.py").write_text("def f(:\n")
    with pytest.raises(ValueError, match=f"--model must .*{message}"):
        architecture(NetworkOptions(model=name))
