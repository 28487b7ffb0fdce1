"""Data options: parsing, normalization, test data, references, and warnings for each network."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from cyclopts import App
from torch import nn

import flatprobe as fp
from flatprobe.cli import main
from flatprobe.cli.networks import LoadedNetwork
from flatprobe.cli.reading import _load, data_of
from flatprobe.cli.samples import DataOptions, loss_of, samples_for, scale_of, size_of
from tests.helpers.picture_folders import greys

DIGITS = fp.load_data("digits")
PLAIN = fp.models.mlp(DIGITS.input_shape, widths=(8,)).eval()
SCALE = ((0.3,), (0.4,))


def loaded(network: nn.Module = PLAIN, **fields: Any) -> LoadedNetwork:
    return LoadedNetwork("net", Path("net.pt"), network, **fields)


def test_options_on_the_command_line() -> None:
    app, found = App(), []

    @app.default
    def command(name: str, *, options: DataOptions | None = None) -> None:
        found.append((name, options))

    words = "x --data digits --normalise 0.1307 0.3081 --resize 32x16 --greyscale --test none"
    app(words.split(), result_action="return_value")
    app(["x"], result_action="return_value")
    expected = DataOptions(data="digits", normalise=("0.1307", "0.3081"), resize="32x16", greyscale=True, test="none")
    assert found == [("x", expected), ("x", None)]


def test_closed_form_scales_and_sizes() -> None:
    assert scale_of(["0.1307", "0.3081"]) == ((0.1307,), (0.3081,))
    assert scale_of(["[0.1, 0.2, 0.3]", "0.5"]) == ((0.1, 0.2, 0.3), (0.5,))
    assert [scale_of(words) for words in ([], ["none"], ["auto"])] == [None] * 3
    assert size_of(None) is None
    for words in (["0.5"], ["0.5", "0"], ["nan", "1"], ["0.5", "0.5", "run.pt"], ["1,2", "1,2,3"], ["imagenet", "a"]):
        with pytest.raises(ValueError, match=r"--normalise must be MEAN STD such as .*Put checkpoints before the opt"):
            scale_of(words)
    for text in ("0", "3x", "x3", "3.5", "-1"):
        with pytest.raises(ValueError, match="--resize must be a side such as 32, or height x width"):
            size_of(text)


def test_the_normalization_is_the_options_the_folders_or_none() -> None:
    given = samples_for(loaded(), DataOptions(data="digits", normalise=("0.3", "0.4")))
    assert isinstance(given.network, fp.Normalised)
    assert given.said == ("inputs are normalized by mean 0.3 and std 0.4, as --normalise says",)
    of_folder = samples_for(loaded(normalisation=SCALE), DataOptions(data="digits"))
    assert isinstance(of_folder.network, fp.Normalised)
    assert of_folder.said == ("inputs are normalized by mean 0.3 and std 0.4, as its folder says",)
    x = DIGITS.inputs
    assert isinstance(x, torch.Tensor)
    assert torch.allclose(given.network(x), PLAIN((x - 0.3) / 0.4), atol=1e-5)
    assert samples_for(loaded(normalisation=SCALE), DataOptions(data="digits", normalise=("none",))).network is PLAIN
    assert samples_for(loaded(), DataOptions(data="digits", normalise=("auto",))).network is PLAIN
    own = fp.Normalised(PLAIN, 0.5, 0.5)
    twice = samples_for(loaded(own), DataOptions(data="digits", normalise=("0.3", "0.4")))
    assert twice.network is own
    assert twice.said == ("the network normalizes its inputs itself, and no further normalization is added",)


def test_a_checkpoint_that_says_its_own_normalization_keeps_it_beside_others() -> None:
    options = DataOptions(data="digits", normalise=("0.1", "0.2"))
    of_folder = samples_for(loaded(normalisation=SCALE), options)
    assert of_folder.said == ("inputs are normalized by mean 0.3 and std 0.4, as its folder says",)
    trained = fp.train(PLAIN, DIGITS, epochs=1).model
    assert samples_for(loaded(trained), options).network is trained


def test_images_take_the_size_of_the_folder_or_of_the_option() -> None:
    network = fp.models.mlp((1, 6, 6), widths=(8,)).eval()
    found = samples_for(loaded(network, size=(6, 6)), DataOptions(data="digits"))
    assert found.data.input_shape == (1, 6, 6)
    assert found.said == ("images are resized to 6x6, as its folder says",)
    assert samples_for(loaded(size=(8, 8)), DataOptions(data="digits")).said == ()
    assert samples_for(loaded(network), DataOptions(data="digits", resize="6")).data.input_shape == (1, 6, 6)
    assert samples_for(loaded(network), DataOptions(data="digits", crop=6)).data.input_shape == (1, 6, 6)


def test_networks_of_one_command_share_their_data() -> None:
    options = DataOptions(data="digits", limit=100)
    first, second = samples_for(loaded(), options), samples_for(loaded(fp.Normalised(PLAIN, 0.5, 0.5)), options)
    assert first.data is second.data


def test_test_data_are_the_split_test_unless_another_is_named() -> None:
    found = samples_for(loaded(), DataOptions(data="digits", limit=100))
    assert found.test is not None
    assert (len(found.test), found.test.source["split"]) == (100, "test")
    assert len(samples_for(loaded(), DataOptions(data="digits")).test or ()) == 297
    assert samples_for(loaded(), DataOptions(data="digits", split="test")).test is None
    assert samples_for(loaded(), DataOptions(data="digits", test="none")).test is None
    turned = samples_for(loaded(), DataOptions(data="digits", split="test", test="train", limit=50)).test
    assert turned is not None
    assert turned.source["split"] == "train"
    with pytest.raises(ValueError, match="split must be one of 'train', 'test'"):
        samples_for(loaded(), DataOptions(data="digits", test="valid"))


FACTORY = """
import flatprobe as fp
import numpy as np

def pair():
    return np.zeros((30, 8, 8), dtype=np.uint8), np.arange(30) % 10

def by_split(split):
    if split not in ("train", "test"):
        raise KeyError(split)
    return fp.load_data("digits", split, limit=40)

def only_train(split):
    return {"train": fp.load_data("digits", limit=20)}[split]

def both():
    return {name: fp.load_data("digits", name, limit=25) for name in ("train", "test")}

HELD = fp.load_data("digits", limit=15)
"""


@pytest.mark.parametrize(
    ("name", "samples", "test_samples"),
    [("pair", 30, 0), ("by_split", 40, 40), ("only_train", 20, 0), ("both", 25, 25), ("HELD", 15, 0)],
)
def test_functions_of_a_file_give_data(
    name: str, samples: int, test_samples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    reference = f"{tmp_path / 'own.py'}:{name}"
    found = samples_for(loaded(), DataOptions(data=reference))
    assert (len(found.data), len(found.test or ())) == (samples, test_samples)
    if name == "pair":
        assert found.data.source["name"] == reference
        assert "hardly better than guessing" in found.warnings[0]


def test_a_run_on_the_data_of_a_function_needs_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    words = "train --data own.py:by_split --validation test --network mlp --epochs 1 --out run"
    with suppress(SystemExit):
        main(words.split())
    path = tmp_path / "run"
    run = LoadedNetwork("run", path, fp.load_checkpoint(path))
    with pytest.raises(ValueError, match=r"names a function.*if you trust it, give --data own\.py:by_split"):
        samples_for(run, DataOptions())
    found = samples_for(run, DataOptions(data="own.py:by_split"))
    assert found.data.source["name"] == "own.py:by_split"
    assert len(found.data) == len(found.test or ()) == 40


def test_no_code_runs_that_a_config_json_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.py").write_text("open('ran', 'w').close()\n\ndef load(): return None\n")
    (tmp_path / "run").mkdir()
    source = {"name": "hostile.py:load", "split": "train"}
    (tmp_path / "run" / "config.json").write_text(json.dumps({"data": {"source": source}}))
    for options in (DataOptions(), DataOptions(split="test"), DataOptions(test="valid")):
        with pytest.raises(ValueError, match=r"if you trust it, give --data hostile\.py:load"):
            samples_for(LoadedNetwork("run", tmp_path / "run", nn.Linear(4, 2).eval()), options)
    assert not (tmp_path / "ran").exists()


def test_a_function_that_fails_is_refused_by_the_name_of_the_option(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FACTORY)
    with pytest.raises(ValueError, match=r"--data must name a function that works, got .*KeyError"):
        samples_for(loaded(), DataOptions(data=f"{tmp_path / 'own.py'}:by_split", split="valid"))
    with pytest.raises(ValueError, match=r"--data must name something in .*has no nothing"):
        samples_for(loaded(), DataOptions(data=f"{tmp_path / 'own.py'}:nothing"))


def test_a_run_is_measured_on_its_training_data_and_compared_with_its_history(tmp_path: Path) -> None:
    run = fp.train(PLAIN, DIGITS, epochs=2, out=tmp_path / "run")
    assert run.path is not None
    network = fp.load_checkpoint(run.path)
    found = samples_for(LoadedNetwork("run", run.path, network), DataOptions())
    assert found.data.fingerprint == DIGITS.fingerprint
    assert found.test is not None
    assert found.warnings == ()
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    (guess, below) = samples_for(LoadedNetwork("run", run.path, network), DataOptions()).warnings
    assert "hardly better than guessing" in guess
    assert f"and {100 * run.history[-1]['train_accuracy']:.1f} % at the end of its training" in below
    with pytest.raises(ValueError, match="--data must name the data where --resize is given"):
        samples_for(LoadedNetwork("run", run.path, network), DataOptions(resize="4"))


def test_warnings_of_the_data_are_returned_for_every_network(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_text(
        "import torch\ndef load():\n    return torch.randint(0, 256, (64, 1, 8, 8)).float(), torch.arange(64) % 10\n"
    )
    options = DataOptions(data=f"{tmp_path / 'large.py'}:load")
    for _ in range(2):
        assert any("look like pixels from 0 to 255" in said for said in samples_for(loaded(), options).warnings)


def test_losses_are_names_or_references() -> None:
    assert loss_of(DataOptions()) == "cross_entropy"
    assert loss_of(DataOptions(loss="squared")) == "squared"
    assert loss_of(DataOptions(loss="torch.nn.functional:mse_loss")) is torch.nn.functional.mse_loss


def test_a_refused_checkpoint_has_no_samples() -> None:
    with pytest.raises(ValueError, match="net must be a network, got a refusal: damaged"):
        samples_for(LoadedNetwork("net", Path("net.pt"), refusal="damaged"), DataOptions(data="digits"))


def test_images_that_fill_the_memory_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = greys(tmp_path / "set")  # 7 images of 120 bytes
    for most, place in ((840, "in memory"), (839, "streamed")):
        monkeypatch.setattr("flatprobe.utils.memory.DATA_BYTES", most)
        _load.cache_clear()
        assert data_of(None, str(folder), None, None).store.place == place
    _load.cache_clear()


def test_images_that_do_not_fit_name_the_options_that_change_them() -> None:
    for network in (fp.models.mlp((1, 9, 9), widths=(4,)).eval(), fp.Normalised(PLAIN, [0.1, 0.2, 0.3], 0.5)):
        with pytest.raises(ValueError, match=r"\. --colour, --greyscale, --resize and --crop change images"):
            samples_for(loaded(network), DataOptions(data="digits"))
