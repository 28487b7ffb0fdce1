"""load_data: the bundled digits, folders of every layout, names on the hub, and what is not there."""

import logging
import warnings
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.utils
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import flatprobe as fp
from flatprobe.data import load
from tests.helpers.picture_folders import COLOUR, GREY, assert_same, greys, offline  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("offline")

# The digits.


def test_the_digits_are_scikit_learns_divided_by_16_in_two_disjoint_splits() -> None:
    train, test = fp.load_data("digits"), fp.load_data("digits", split="test")
    assert (len(train), len(test), train.classes, test.classes) == (1500, 297, 10, 10)
    assert train.inputs.dtype == torch.float32
    assert train.input_shape == (1, 8, 8)
    bunch = load_digits()
    ours = torch.cat([train.inputs, test.inputs]).reshape(1797, 64) * 16
    labelled = torch.cat([ours, torch.cat([train.labels, test.labels])[:, None]], 1).tolist()
    theirs = np.concatenate([bunch.data, bunch.target[:, None]], 1).tolist()
    assert sorted(labelled) == sorted(theirs)


def test_the_digits_pinned_values() -> None:
    assert fp.load_data("digits").labels[:12].tolist() == [3, 9, 4, 6, 7, 3, 7, 2, 1, 3, 1, 7]
    assert fp.load_data("digits").fingerprint == "fceeca9e5588ead3356a213f243313d0"
    assert fp.load_data("digits", split="test").fingerprint == "6479efcfdf0d52ee521146696e899953"


def test_the_digits_take_limit_crop_and_stream() -> None:
    whole = fp.load_data("digits")
    part = fp.load_data("digits", limit=100, crop=5)
    assert torch.equal(part.inputs, whole.inputs[:100, :, 1:6, 1:6])
    assert part.source == {"name": "digits", "split": "train", "limit": 100, "crop": 5, "encoding": "exact"}
    assert_same(part, fp.load_data("digits", limit=100, crop=5, stream=True))
    assert whole.head(100).describe() == fp.load_data("digits", limit=100).describe()


def test_the_digits_refuse_what_they_lack() -> None:
    with pytest.raises(ValueError, match=r"split must be one of 'train', 'test'.*, got 'valid'"):
        fp.load_data("digits", split="valid")
    with pytest.raises(ValueError, match="limit must be at most 297, the number of samples of the split, got 298"):
        fp.load_data("digits", split="test", limit=298)
    with pytest.raises(ValueError, match="crop is 9, and each digit is 8 high and 8 wide; expected at most 8"):
        fp.load_data("digits", crop=9)
    for argument in ("limit", "crop"):
        with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
            fp.load_data("digits", **{argument: 0})
    for argument in ("image_column", "label_column"):
        with pytest.raises(ValueError, match=f"{argument} must be None for the bundled digits, .*got 'x'"):
            fp.load_data("digits", **{argument: "x"})


@pytest.mark.parametrize("package", [None, ModuleSpec("sklearn", None)], ids=["missing", "without the file"])
def test_the_digits_name_the_package_that_holds_them(
    package: ModuleSpec | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "find_spec", lambda _: package)
    found = "no package" if package is None else "a package without datasets/data/digits.csv.gz"
    with pytest.raises(ImportError, match=f"must find scikit-learn.*, got {found}. Run pip install scikit-learn"):
        fp.load_data("digits")


# Folders: slow obvious reference, the arrays that the files were made of.


def test_a_parquet_folder_gives_its_pixels_and_labels(tmp_path: Path) -> None:
    folder = greys(tmp_path / "set", label=datasets.ClassLabel(names=["a", "b", "c", "d"]))
    data = fp.load_data(folder, split="test")
    assert torch.equal(data.inputs, torch.from_numpy(np.stack(GREY)).float()[:, None] / 255)
    assert data.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert data.classes == 4
    source = dict(data.source)
    assert isinstance(source.pop("datasets_fingerprint"), str)
    assert source == {
        "name": str(folder),
        "folder": str(folder.resolve()),
        "split": "test",
        "limit": None,
        "crop": None,
        "image_column": "image",
        "label_column": "label",
        "encoding": "exact",
        "class_names": ["a", "b", "c", "d"],
    }
    streamed = fp.load_data(folder, split="test", stream=True)
    assert_same(data, streamed)
    assert streamed.describe()["fingerprint_of"] == "labels and 7 samples"
    assert streamed.source == data.source


def test_limit_and_crop_cut_rows_and_centres(tmp_path: Path) -> None:
    folder = greys(tmp_path / "set")
    data = fp.load_data(folder, limit=5, crop=2)
    expected = np.stack(
        [pixels[2:4, 1:3] for pixels in GREY[:5]]
    )  # 6 x 5: two rows above and below, one left, two right
    assert torch.equal(data.inputs, torch.from_numpy(expected).float()[:, None] / 255)
    assert (data.source["limit"], data.source["crop"]) == (5, 2)
    assert fp.load_data(folder, limit=2).classes == 2
    assert_same(data, fp.load_data(folder, limit=5, crop=2, stream=True))
    with pytest.raises(ValueError, match="limit must be at most 7, the number of samples of the split, got 8"):
        fp.load_data(folder, limit=8)
    for stream in (False, True):
        with pytest.raises(ValueError, match="crop is 6, and image 0 is 6 high and 5 wide; expected at most 5"):
            fp.load_data(folder, crop=6, stream=stream)


def test_class_folders_of_pictures(tmp_path: Path) -> None:
    for index, pixels in enumerate(COLOUR):
        place = tmp_path / "set" / ("cat" if index % 2 else "ant")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{index}.png")
    data = fp.load_data(str(tmp_path / "set"))
    expected = [COLOUR[i] for i in (0, 2, 4, 6, 1, 3, 5)]
    assert torch.equal(data.inputs, torch.from_numpy(np.stack(expected)).permute(0, 3, 1, 2).float() / 255)
    assert data.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert data.source["class_names"] == ["ant", "cat"]
    assert_same(data, fp.load_data(tmp_path / "set", stream=True))


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    greys(tmp_path / "set")
    both = datasets.load_dataset(str(tmp_path / "set"))
    both.save_to_disk(tmp_path / "both")
    both["test"].with_format("arrow").save_to_disk(tmp_path / "one")
    expected = fp.load_data(tmp_path / "set")
    assert_same(expected, fp.load_data(tmp_path / "both", split="train"))
    assert_same(expected, fp.load_data(tmp_path / "one", split="test"))
    assert_same(expected, fp.load_data(tmp_path / "one", split="test", stream=True))
    with pytest.raises(ValueError, match="one has no split 'train'; expected one of 'test'"):
        fp.load_data(tmp_path / "one")


def test_names_on_the_hub_are_read_from_the_folder_that_stands_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    greys(tmp_path / "sets" / "mnist")
    monkeypatch.setenv("FLATPROBE_DATASETS", str(tmp_path / "sets"))
    for name in ("ylecun/mnist", "mnist"):
        data = fp.load_data(name)
        assert data.source["name"] == name
        assert data.source["folder"] == str((tmp_path / "sets" / "mnist").resolve())
        assert "hub" not in data.source


def test_an_old_copy_that_stands_for_the_hub_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = datasets.load_dataset(str(greys(tmp_path / "set")))

    def cached(name: str) -> Any:
        log = datasets.logging.get_logger("datasets.packaged_modules.cache.cache")
        log.warning("Found the latest cached dataset configuration 'default' at %s", "/some/where")
        return {"images": local, "others": local}[name]

    monkeypatch.setattr(datasets, "load_dataset", cached)
    handlers = datasets.logging.get_logger("datasets").handlers
    with pytest.warns(UserWarning, match=r"hub cannot be reached, and 'images' is read from the cache.*at /some/where"):
        fp.load_data("images")
    assert datasets.logging.get_logger("datasets").handlers == handlers


def test_other_names_go_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = datasets.load_dataset(str(greys(tmp_path / "set")))
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name: (asked.append(name), local)[1])
    data = fp.load_data("someone/pictures")
    assert asked == ["someone/pictures"]
    assert data.source["hub"] == "someone/pictures"
    assert "folder" not in data.source


# What is not there.


def test_unknown_splits_are_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set has no split 'valid'; expected one of 'train', 'test'"):
        fp.load_data(greys(tmp_path / "set"), split="valid")


def test_missing_folders_are_refused_without_asking_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLATPROBE_DATASETS", "")
    (tmp_path / "mnist").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in (tmp_path / "none", str(tmp_path / "none"), "./none", "some/where/none", "", Path("ylecun/mnist")):
        with pytest.raises(
            FileNotFoundError, match=r"there is no data set .*no folder .*; FLATPROBE_DATASETS is not set; a"
        ):
            fp.load_data(name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"empty is no data set that `datasets` can read.*expected parquet files"
    ):
        fp.load_data(tmp_path / "empty")
    (tmp_path / "bad" / "data").mkdir(parents=True)
    (tmp_path / "bad" / "data" / "train-00000-of-00001.parquet").write_bytes(b"words")
    with pytest.raises(FileNotFoundError, match="bad is no data set that `datasets` can read"):
        fp.load_data(tmp_path / "bad")


def test_a_hub_out_of_reach_names_every_place_looked_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str) -> None:
        msg = f"Couldn't reach {name!r} on the Hub"
        raise ConnectionError(msg)

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setenv("FLATPROBE_DATASETS", str(tmp_path))
    message = (
        rf"no data set 'ylecun/mnist': no folder .*ylecun/mnist; FLATPROBE_DATASETS is '{tmp_path}' \(looked for its "
        r"'mnist'\); the Hugging Face hub says: Couldn't reach .* Give the path of a folder, set FLATPROBE"
    )
    with pytest.raises(FileNotFoundError, match=message):
        fp.load_data("ylecun/mnist")


# The user's own settings.


@pytest.mark.parametrize("bars", [True, False])
def test_loading_is_quiet_and_leaves_the_settings_of_datasets(
    bars: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = greys(tmp_path / "set")
    read = datasets.load_dataset
    loggers = (datasets.logging, huggingface_hub.utils.logging)

    def noisy(name: str) -> Any:
        warnings.warn("a notice", FutureWarning, stacklevel=1)
        assert [logger.get_verbosity() for logger in loggers] == [logging.WARNING, logging.ERROR]
        datasets.logging.get_logger("datasets.load").warning("a remark")  # kept, and not shown
        return read(name)

    monkeypatch.setattr(datasets, "load_dataset", noisy)
    before = [logger.get_verbosity() for logger in loggers]
    disabled = datasets.are_progress_bars_disabled()
    try:
        for logger in loggers:
            logger.set_verbosity(logging.INFO)
        (datasets.enable_progress_bars if bars else datasets.disable_progress_bars)()
        capfd.readouterr()
        fp.load_data(folder)
        assert capfd.readouterr() == ("", "")
        assert datasets.are_progress_bars_disabled() is not bars
        assert [logger.get_verbosity() for logger in loggers] == [logging.INFO, logging.INFO]
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.set_verbosity(level)
        (datasets.disable_progress_bars if disabled else datasets.enable_progress_bars)()


# The real ones.


@pytest.mark.datasets
def test_mnist_is_what_its_makers_published(datasets_folder: Path) -> None:
    data = fp.load_data("ylecun/mnist", split="test")
    assert (len(data), data.classes, data.input_shape) == (10_000, 10, (1, 28, 28))
    assert data.source["encoding"] == "exact"
    assert data.source["folder"] == str((datasets_folder / "mnist").resolve())
    # The published test labels' counts, whatever the order of the rows.
    assert data.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert_same(data.head(130), fp.load_data("mnist", split="test", limit=130, stream=True))


@pytest.mark.datasets
def test_cifar10_is_balanced_and_says_that_it_is_jpeg(datasets_folder: Path) -> None:
    data = fp.load_data(datasets_folder / "cifar10", split="test", crop=28)
    assert (len(data), data.classes, data.input_shape) == (10_000, 10, (3, 28, 28))
    assert data.source["encoding"] == "jpeg"
    assert data.labels.bincount().tolist() == [1000] * 10
    whole = fp.load_data("uoft-cs/cifar10", split="test", limit=20)
    assert torch.equal(data.inputs[:20], whole.inputs[:, :, 2:30, 2:30])
