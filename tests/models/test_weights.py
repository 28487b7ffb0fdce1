"""Which tensors of a checkpoint a network receives: keys, prefixes both ways, parts, and what is said (property)."""

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.models import differences
from tests.helpers import zoo
from tests.helpers.properties import assert_same_state

OTHER = zoo.network(seed=1)


def load(tmp_path: Path, content: Any, model: Any = zoo.Net, key: str | None = None) -> nn.Module:
    torch.save(content, tmp_path / "a.pt")
    return fp.load_checkpoint(tmp_path / "a.pt", model, key)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "network.", "net.", "backbone.", "a.b."])
def test_prefixes_are_removed_and_added(prefix: str, tmp_path: Path) -> None:
    loaded = load(tmp_path, zoo.prefixed(prefix))
    assert_same_state(loaded, zoo.network())
    assert loaded.loaded == ((f"prefix {prefix} removed from the names",) if prefix else ())
    if prefix in {"module.", "_orig_mod."}:  # of wrappers, which copies leave out
        return
    names = [*filter(None, prefix.split("."))]
    wrapper: nn.Module = zoo.Net()
    for name in reversed(names):
        outer = nn.Module()
        outer.add_module(name, wrapper)
        wrapper = outer
    loaded = load(tmp_path, zoo.network().state_dict(), wrapper)
    assert_same_state(loaded.get_submodule(prefix.rstrip(".")), zoo.network())
    assert loaded.loaded == ((f"prefix {prefix} added to the names",) if prefix else ())


def test_one_prefix_for_another(tmp_path: Path) -> None:
    model = fp.Normalised(zoo.Net(), 0.1307, 0.3081)
    for prefix in ("", "model.", "module.model.", "network."):
        loaded = load(tmp_path, zoo.prefixed(prefix), model)
        assert_same_state(loaded.network, zoo.network())
        assert loaded.loaded[-1] == "normalise.mean, normalise.std kept from the model"
        assert float(loaded.normalise.mean) == pytest.approx(0.1307)
    whole = fp.Normalised(zoo.network(), 0.5, 0.25).state_dict()
    loaded = load(tmp_path, whole, model)
    assert float(loaded.normalise.mean) == 0.5  # the checkpoint's own
    assert loaded.loaded == ()


def test_other_parts_are_left_out_only_where_all_is_found(tmp_path: Path) -> None:
    state = zoo.lightning()["state_dict"]
    assert load(tmp_path, state).loaded[-1] == "2 tensors of other parts left out: criterion.weight, val_acc.correct"
    del state["model.conv.bias"]
    with pytest.raises(ValueError, match=r"1 missing: conv\.bias; 2 unexpected: criterion\.weight"):
        load(tmp_path, state)
    with pytest.raises(ValueError, match=r"unexpected: extra\.weight"):  # no prefix tells it from the network
        load(tmp_path, {**zoo.network().state_dict(), "extra.weight": torch.ones(1)})
    with pytest.raises(ValueError, match="another network"):  # the smaller part of the file
        load(tmp_path, {**zoo.prefixed("model."), "decoder.weight": torch.zeros(10**4)})
    large = {**zoo.prefixed("model."), "decoder.weight": torch.zeros(10**4)}
    assert_same_state(load(tmp_path, large, key="model"), zoo.network())


def test_of_two_parts_the_customary_one_or_the_key(tmp_path: Path) -> None:
    both = {**zoo.prefixed("model."), **zoo.prefixed("ema_model.", OTHER.state_dict())}
    assert_same_state(load(tmp_path, both), zoo.network())
    assert_same_state(load(tmp_path, both, key="ema_model"), OTHER)
    both = {**zoo.prefixed("student."), **zoo.prefixed("teacher.", OTHER.state_dict())}
    with pytest.raises(ValueError, match=r"a\.pt has several parts that fit the network: student, teacher\. Choose"):
        load(tmp_path, both)
    loaded = load(tmp_path, both, key="teacher")
    assert_same_state(loaded, OTHER)
    assert loaded.loaded[0] == "weights read from the key 'teacher'"


def test_the_key_that_fits_is_found_and_said(tmp_path: Path) -> None:
    content = {"generator": nn.Linear(2, 3).state_dict(), "classifier": zoo.network().state_dict()}
    assert load(tmp_path, content).loaded == ("weights read from the key 'classifier'",)
    content = {"net": zoo.network().state_dict(), "ema": {"state_dict": OTHER.state_dict()}, "step": torch.tensor(3)}
    assert load(tmp_path, content).loaded == (
        "weights read from the key 'net'",
        "ema.state_dict would fit too (key=, or --key)",
    )
    assert_same_state(load(tmp_path, content, key="ema"), OTHER)
    assert_same_state(load(tmp_path, content, key="ema.state_dict"), OTHER)
    with pytest.raises(ValueError, match=r"key must be one of .*got 'nope'\. It holds the state_dicts net, ema\.state"):
        load(tmp_path, content, key="nope")


def test_a_class_or_function_is_the_architecture(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    wide = zoo.network(width=6)
    assert_same_state(load(tmp_path, wide.state_dict(), functools.partial(zoo.Net, width=6)), wide)
    assert_same_state(load(tmp_path, wide.state_dict(), lambda: zoo.Net(6)), wide)
    assert torch.equal(torch.get_rng_state(), state)
    for model, message in (
        (lambda: None, r"returns a torch\.nn\.Module, got .*, which returned a NoneType"),
        (zoo.HubNet, r"takes no arguments, got .*HubNet.*missing a required argument: 'width'"),
        (lambda: 1 / 0, "which raised ZeroDivisionError"),
    ):
        with pytest.raises(ValueError, match=f"model must .*{message}"):
            load(tmp_path, wide.state_dict(), model)
    with pytest.raises(ValueError, match=r"weight '0\.weight' of a lazy layer has no shape yet"):
        load(tmp_path, wide.state_dict(), nn.Sequential(nn.LazyLinear(3)))
    assert_same_state(load(tmp_path, zoo.network().state_dict(), "tests.helpers.zoo:Net"), zoo.network())
    with pytest.raises(TypeError, match=r"model is int; expected a torch\.nn\.Module"):
        load(tmp_path, wide.state_dict(), 3)


def test_required_arguments_come_from_the_config_of_the_folder(tmp_path: Path) -> None:
    torch.save(zoo.network(width=6).state_dict(), tmp_path / "weights.pth")
    (tmp_path / "config.json").write_text('{"width": 6, "lr": 0.1}')

    def build(width: int) -> nn.Module:
        return zoo.Net(width)

    loaded = fp.load_checkpoint(tmp_path, build)  # the only file of weights in the folder
    assert loaded.loaded == ("width read from config.json",)
    assert_same_state(loaded, zoo.network(width=6))
    torch.save(zoo.network().state_dict(), tmp_path / "other.pth")
    with pytest.raises(FileNotFoundError, match=r"holds 2 files of weights, other\.pth, weights\.pth; expected"):
        fp.load_checkpoint(tmp_path, build)
    assert_same_state(fp.load_checkpoint(tmp_path / "other.pth", zoo.Net), zoo.network())  # a default stays


def test_a_mistake_is_told_by_ten_names_with_the_closest(tmp_path: Path) -> None:
    first = {f"layers.{k}.weight": torch.zeros(k + 1) for k in range(15)}
    own = {name.replace("layers", "blocks"): value for name, value in first.items()}
    words = differences.differences(first, own)
    missing, unexpected = words.split("; ")
    assert missing.startswith("15 missing: blocks.0.weight (closest: layers.0.weight), blocks.1.weight (closest: ")
    assert unexpected.startswith("15 unexpected: layers.0.weight, ")
    for part in (missing, unexpected):
        assert len(re.findall(r"(?:^|: |, )(?:blocks|layers)\.\d+\.weight(?! \))", part)) >= 10
        assert part.endswith(", ...")
    assert differences.differences(own, own) == ""
    assert "1 of another shape: a (2,) instead of (3,)" in differences.differences(
        {"a": torch.zeros(2)}, {"a": torch.zeros(3)}
    )


def test_lightning_itself(tmp_path: Path) -> None:
    """A checkpoint as lightning's own trainer writes it."""
    import lightning

    class Task(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.save_hyperparameters({"lr": 0.1})
            self.model = zoo.network()
            self.loss = nn.CrossEntropyLoss(weight=torch.ones(10))

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            return self.loss(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=0, logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=False,
    )  # fmt: skip
    trainer.strategy.connect(Task())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = fp.load_checkpoint(tmp_path / "a.ckpt", zoo.Net)
    assert_same_state(loaded, zoo.network())
    assert loaded.loaded[:2] == ("weights read from the key 'state_dict'", "prefix model. removed from the names")
    assert loaded.loaded[2] == "1 tensors of other parts left out: loss.weight"
