"""Run folders: resuming to the last bit (property), what is on disk, refusals."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flatprobe.models import mlp, sokolic_cnn
from flatprobe.models.checkpoints import load_checkpoint
from flatprobe.training import TrainingRun, train
from flatprobe.training import trainer as module
from flatprobe.training.run_folder import differences, hash_state
from tests.helpers.properties import assert_same_state
from tests.helpers.small_data import clusters, noisy_network


def interrupted_after(monkeypatch, epochs: int, train_it) -> None:
    """Call it, and break off like Ctrl-C in the midst of the epoch that follows."""
    original, done = module.train_epoch, []

    def breaking(*args, **kwargs):
        means = original(*args, **kwargs)
        if len(done) == epochs:
            raise KeyboardInterrupt
        done.append(1)
        return means

    with monkeypatch.context() as patch:
        patch.setattr(module, "train_epoch", breaking)
        with pytest.raises(KeyboardInterrupt):
            train_it()


def without_seconds(run: TrainingRun) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


SGDL = {"name": "sgdl", "noise": 0.01}


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam", SGDL], ids=str)
@pytest.mark.parametrize("kind", ["noisy", "convolutional"])
@pytest.mark.parametrize("stops", [(0,), (1,), (2, 1)])
def test_property_resumed_equals_uninterrupted_to_the_last_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: Any, kind: Any, stops: Any
) -> None:
    network = noisy_network() if kind == "noisy" else sokolic_cnn((1, 4, 4), classes=3)
    shape = (4,) if kind == "noisy" else (1, 4, 4)
    data, validation = clusters(shape=shape), clusters(11, shape=shape, key="validation")

    def train_it(out):
        schedule = {"name": "inverse", "decay": 0.1} if optimizer == SGDL else "cosine"
        settings = {"epochs": 5, "batch_size": 8, "optimizer": optimizer, "schedule": schedule, "seed": 3}
        return train(network, data, validation=validation, out=out, save_every=0, **settings)

    whole = train_it(None)
    for stop in stops:
        interrupted_after(monkeypatch, stop, lambda: train_it(tmp_path / "run"))
        torch.rand(7)  # the global random state differs between the two parts
    run = train_it(tmp_path / "run")
    assert_same_state(run.model, whole.model)
    assert without_seconds(run) == without_seconds(whole)


def test_property_best_weights_survive_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best epoch lies before the interruption, and no later one may replace it."""
    network, data = mlp((4,), widths=(16,), classes=3), clusters()
    validation = clusters(11, key="validation").with_random_labels(seed=1)

    def train_it(out, epochs=8):
        return train(network, data, validation=validation, epochs=epochs, learning_rate=0.3, out=out, save_every=0)

    losses = [row["validation_loss"] for row in train_it(None).history]
    best = losses.index(min(losses)) + 1
    assert best < 7
    interrupted_after(monkeypatch, 7, lambda: train_it(tmp_path / "run"))
    train_it(tmp_path / "run")
    expected = train_it(None, best).model
    assert_same_state(load_checkpoint(tmp_path / "run", which="best"), expected)


@pytest.mark.parametrize("stop", [None, 3])
def test_closed_form_best_is_the_lowest_loss_not_the_last_dip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: Any
) -> None:
    network, data = mlp((4,), classes=3), clusters()

    def train_it(out, epochs=5):
        return train(network, data, epochs=epochs, out=out, save_every=0)

    expected = train_it(None, 2).model
    original, losses = module.Trainer.measure, [3.0, 1.0, 2.0, 1.5, 1.25]

    def scripted(self, name, risk):
        return original(self, name, risk) | {"train_loss": losses[len(self.history)]}

    monkeypatch.setattr(module.Trainer, "measure", scripted)
    if stop is not None:
        interrupted_after(monkeypatch, stop, lambda: train_it(tmp_path / "run"))
    train_it(tmp_path / "run")
    assert_same_state(load_checkpoint(tmp_path / "run", which="best"), expected)


def test_property_saves_are_rare_by_default_but_the_end_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, data = mlp((4,), classes=3), clusters()
    interrupted_after(monkeypatch, 2, lambda: train(network, data, epochs=4, out=tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]
    run = train(network, data, epochs=4, out=tmp_path / "run")
    assert_same_state(load_checkpoint(run.path), run.model)


def test_closed_form_what_is_on_disk(tmp_path: Path) -> None:
    network, data = mlp((4,), widths=(5,), classes=3, seed=2), clusters()
    run = train(network, data, epochs=3, out=tmp_path / "a" / "run", threads=1, save_every=0)
    assert run.path == tmp_path / "a" / "run"
    files = sorted(path.name for path in run.path.iterdir())
    assert files == ["best.safetensors", "config.json", "history.json", "last.safetensors"]
    config = json.loads((run.path / "config.json").read_text())
    assert config == run.settings
    assert config["network"]["recipe"] == network.recipe
    assert config["network"]["initial_weights"] == hash_state(network)
    assert config["data"] == json.loads(json.dumps(data.describe()))
    assert config["environment"]["threads"] == 1
    assert config["environment"]["device"] == "cpu"
    assert_same_state(load_checkpoint(run.path), run.model)


def test_property_load_and_a_finished_run_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = mlp((4,), classes=3), clusters()
    run = train(network, data, epochs=3, out=tmp_path / "run")
    monkeypatch.setattr(module, "train_epoch", None)  # nothing is trained any more
    for again in (TrainingRun.load(tmp_path / "run"), train(network, data, epochs=3, out=tmp_path / "run")):
        assert_same_state(again.model, run.model)
        assert again.history == run.history
        assert again.settings == run.settings
        assert (again.epochs, again.reached, again.path) == (3, True, run.path)
        assert not again.model.training


def test_load_of_a_foreign_network_needs_the_architecture(tmp_path: Path) -> None:
    network = noisy_network()
    run = train(network, clusters(), epochs=1, out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"architecture of the checkpoint .* is not known"):
        TrainingRun.load(tmp_path / "run")
    assert_same_state(TrainingRun.load(tmp_path / "run", network).model, run.model)
    assert network.training


@pytest.mark.filterwarnings("ignore:the outputs of")
def test_property_a_run_that_failed_stays_failed(tmp_path: Path) -> None:
    data = clusters().with_random_labels(seed=1)

    def train_it(**more):
        return train(
            mlp((4,), widths=(2,), classes=3), data, epochs=2, until="interpolation", out=tmp_path / "r", **more
        )

    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"did not reach 100 % .* is in .*r$"):
            train_it()
    assert not train_it(on_failure="flag").reached
    assert not TrainingRun.load(tmp_path / "r").reached


def test_property_the_recorded_thread_count_is_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data, seen = mlp((4,), classes=3), clusters(), []
    before = torch.get_num_threads()
    interrupted_after(
        monkeypatch, 1, lambda: train(network, data, epochs=3, out=tmp_path / "r", threads=before + 1, save_every=0)
    )
    assert torch.get_num_threads() == before
    original = module.train_epoch

    def watching(*args, **kwargs):
        seen.append(torch.get_num_threads())
        return original(*args, **kwargs)

    monkeypatch.setattr(module, "train_epoch", watching)
    with pytest.raises(ValueError, match=rf"threads is {before + 2}, but the run in .* began with {before + 1}"):
        train(network, data, epochs=3, out=tmp_path / "r", threads=before + 2)
    run = train(network, data, epochs=3, out=tmp_path / "r")
    assert seen == [before + 1] * 2
    assert run.settings["environment"]["threads"] == before + 1
    assert torch.get_num_threads() == before


def test_other_settings_are_named(tmp_path: Path) -> None:
    network, data = mlp((4,), classes=3), clusters()
    train(network, data, epochs=1, out=tmp_path / "r")
    cases = [
        (
            network,
            data,
            {"epochs": 2, "momentum": 0.5},
            r"settings\.epochs was 1, now 2; settings\.momentum was 0\.9, now",
        ),
        (network, data.with_random_labels(seed=0), {"epochs": 1}, r"with other settings: .*data\."),
        (
            mlp((4,), classes=3, seed=1),
            data,
            {"epochs": 1},
            r"network\.recipe\.arguments\.seed was 0, now 1; network\.init",
        ),
        (network, data, {"epochs": 1, "validation": data}, r"validation was null, now"),
    ]
    for other, samples, settings, message in cases:
        with pytest.raises(ValueError, match=message):
            train(other, samples, out=tmp_path / "r", **settings)


def test_other_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = mlp((4,), classes=3), clusters()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("full", "file"):
        with pytest.raises(FileExistsError, match="is no run folder; expected a new or empty folder"):
            train(network, data, epochs=1, out=tmp_path / name)
    interrupted_after(monkeypatch, 1, lambda: train(network, data, epochs=2, out=tmp_path / "r", save_every=0))
    with pytest.raises(FileExistsError, match="holds a run already, and resume is False"):
        train(network, data, epochs=2, out=tmp_path / "r", resume=False)
    with pytest.raises(ValueError, match="is not finished; call train again"):
        TrainingRun.load(tmp_path / "r")
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json; expected the folder of a run"):
        TrainingRun.load(tmp_path / "full")
    path = tmp_path / "r" / "resume.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"resume\.safetensors \(\d+ bytes\) is truncated or corrupt"):
        train(network, data, epochs=2, out=tmp_path / "r")


def test_property_a_run_folder_may_be_moved(tmp_path: Path) -> None:
    run = train(mlp((4,), classes=3), clusters(), epochs=1, out=tmp_path / "r")
    shutil.move(tmp_path / "r", tmp_path / "s")
    assert_same_state(TrainingRun.load(tmp_path / "s").model, run.model)


def test_property_hash_state_sees_values_names_and_dtypes() -> None:
    network = nn.Linear(2, 2)
    prints = {hash_state(network), hash_state(nn.Sequential(network)), hash_state(network.double())}
    with torch.no_grad():
        network.bias[0] += 1e-9
    assert len(prints | {hash_state(network)}) == 4


def test_differences_closed_form() -> None:
    assert differences({"a": 1, "b": [1]}, {"a": 1, "b": [1]}) == []
    assert differences({"a": {"c": 1}}, {"a": None}) == ['a was {"c": 1}, now null']
    assert differences({}, {"x": 1}) == ["x was null, now 1"]
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == ["a.1.b was 2, now 3"]
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a was [1], now [1, 2]"]


def test_an_interruption_says_which_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = []

    def train_it():
        try:
            train(mlp((4,), classes=3), clusters(), epochs=4, out=tmp_path / "r", save_every=0)
        except KeyboardInterrupt as error:
            notes.extend(error.__notes__)
            raise

    for done in (2, 1):
        interrupted_after(monkeypatch, done, train_it)
    assert notes == [
        f"{tmp_path / 'r'} holds epoch {k} of the run, and the same call goes on from there" for k in (2, 3)
    ]
