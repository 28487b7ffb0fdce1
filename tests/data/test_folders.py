"""load_data: folders of pictures; what their levels say, what is left out, and paths that look like patterns."""

import warnings
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import flatprobe as fp
from tests.helpers.picture_folders import COLOUR, GREY, assert_same, greys, offline  # noqa: F401 (a fixture)

pytestmark = pytest.mark.usefixtures("offline")


def tree(root: Path, **places: int) -> Path:
    """So many pictures in each place, "__" in whose name stands for a slash."""
    for place, count in places.items():
        folder = root / place.replace("__", "/")
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            Image.fromarray(COLOUR[index]).save(folder / f"{index}.png")
    return root


def labelled(folder: Path, split: str = "train") -> tuple[list[int], list[str]]:
    data = fp.load_data(folder, split=split)
    return data.labels.tolist(), data.source["class_names"]


# The first level says the split, or nothing does.


def test_a_class_with_a_splits_name_stays_a_class(tmp_path: Path) -> None:
    places = {"train__apple": 3, "train__train": 2, "train__test_tube": 1, "test__apple": 1, "test__train": 2}
    folder = tree(tmp_path / "set", **places)
    names = ["apple", "test_tube", "train"]
    assert labelled(folder) == ([0, 0, 0, 1, 2, 2], names)
    assert labelled(folder, "test") == ([0, 2, 2], names)
    with pytest.raises(ValueError, match="has no split 'validation'; expected one of 'test', 'train'"):
        fp.load_data(folder, split="validation")


@pytest.mark.parametrize(
    "names", [("bus", "car", "train"), ("dress", "training_pants", "training_shoes"), ("eval_a", "eval_b", "normal")]
)
def test_without_splits_every_folder_is_a_class(names: tuple[str, ...], tmp_path: Path) -> None:
    assert labelled(tree(tmp_path / "set", **dict.fromkeys(names, 2))) == ([0, 0, 1, 1, 2, 2], [*names])


@pytest.mark.parametrize(("word", "split"), [("Training", "train"), ("val", "validation"), ("Eval", "test")])
def test_the_first_level_may_say_the_split_in_other_words(word: str, split: str, tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", **{f"{word}__a": 2, f"{word}__b": 1, "extra__b": 1})
    assert labelled(folder, split) == ([0, 0, 1], ["a", "b"])
    assert labelled(folder, "extra") == ([1], ["a", "b"])


def test_the_names_of_files_say_nothing(tmp_path: Path) -> None:
    for index, name in enumerate(("a/train_0", "a/test_1", "b/val_2")):
        place = tmp_path / "set" / f"{name}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLOUR[index]).save(place)
    assert labelled(tmp_path / "set") == ([0, 0, 1], ["a", "b"])


def test_the_class_is_the_pictures_own_folder_below_another_level(tmp_path: Path) -> None:
    assert labelled(tree(tmp_path / "set", animals__cat=1, animals__dog=1, vehicles__car=1))[1] == ["car", "cat", "dog"]


def test_an_empty_class_folder_is_a_class(tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", ant=2, cat=2)
    (folder / "bee").mkdir()
    assert labelled(folder) == ([0, 0, 2, 2], ["ant", "bee", "cat"])


def test_folders_that_do_not_tell_the_classes_are_refused(tmp_path: Path) -> None:
    for number, (places, message) in enumerate(
        [
            ({"train": 2, "test": 2}, r"images of .*/train are in no class folders \('train/0.png'.*metadata.csv"),
            ({"": 2}, r"are in no class folders \('0.png', '1.png'\); expected one folder per class"),
            ({"cat": 2}, "has one class folder, 'cat'; expected at least two classes"),
            ({"a__x": 1, "b": 1}, r"are at different depths \('a/x/0.png', 'b/0.png'\); expected each in a class"),
            ({"images__train__a": 1, "images__test__b": 1}, "'images/test/b/0.png' in .* is in 'test', which may be"),
            ({"train2017__a": 1, "val2017__b": 1}, "is in 'train2017', which may be a split .*rename it"),
            ({"val__a": 1, "valid__b": 1}, "holds 'va.*/' and 'va.*/', both the split 'validation'"),
        ]
    ):
        with pytest.raises(ValueError, match=message):
            fp.load_data(tree(tmp_path / f"{number}", **places))


def test_pictures_without_labels_beside_the_splits_cost_those_nothing(tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", train__cat=2, train__dog=1, test=3)
    Image.fromarray(COLOUR[0]).save(folder / "figure.png")
    with pytest.warns(UserWarning, match=r"1 of the entries of .* are left out \('figure.png'\)"):
        assert labelled(folder) == ([0, 0, 1], ["cat", "dog"])
    with pytest.raises(ValueError, match=r"images of .*/test are in no class folders"):
        fp.load_data(folder, split="test")


def test_a_class_that_the_training_split_lacks_is_told(tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", train__cat=2, train__dog=1, test__cow=1)
    with pytest.warns(UserWarning, match=r"classes without images in its training split \('cow'\); they are num"):
        assert labelled(folder) == ([0, 0, 2], ["cat", "cow", "dog"])


# What the metadata file says.


def test_class_folders_stand_beside_a_metadata_file_without_labels(tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", cat=2, dog=1)
    rows = {"file_name": ["cat/0.png", "cat/1.png", "dog/0.png"], "quality": [3, 1, 2]}
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    assert labelled(folder) == ([0, 0, 1], ["cat", "dog"])
    assert fp.load_data(folder, label_column="quality").labels.tolist() == [3, 1, 2]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_come_from_a_metadata_file_of_each_split(kind: str, tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", train=3, test=1)
    for split, words in (("train", ["b", "c"]), ("test", ["a"])):
        frame = pd.DataFrame({"file_name": [f"{k}.png" for k in range(len(words))], "label": words})
        file = folder / split / f"metadata.{kind}"
        if kind == "csv":
            frame.to_csv(file, index=False)
        elif kind == "jsonl":
            frame.to_json(file, orient="records", lines=True)
        else:
            frame.to_parquet(file)
    with pytest.warns(UserWarning, match=r"1 of the entries of .* are left out \('train/2.png'\)"):
        assert labelled(folder) == ([1, 2], ["a", "b", "c"])


def test_bad_metadata_files_are_refused_by_name(tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", cat=1, dog=1)
    for content, message in (
        ("file_name,label\ncat/9.png,1\n", r"metadata.csv names the image 'cat/9.png', which .* does not hold"),
        ("name,label\ncat/0.png,1\n", "metadata.csv has the columns name, label; expected 'file_name' among them"),
        ("", "metadata.csv cannot be read .*repair or remove it"),
    ):
        (folder / "metadata.csv").write_text(content)
        with pytest.raises(ValueError, match=message):
            fp.load_data(folder)


# Nothing is left out without a word.


def test_files_that_are_left_out_are_counted(tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", a=2, b=2)
    for name in ("b/x.img", "b/x.png.bak", "a/notes"):
        (folder / name).write_bytes(b"")
    (folder / "README.md").write_text("of the whole")
    tree(folder, **{".c": 1, ".ipynb_checkpoints": 1, "__MACOSX": 1})
    (folder / "a" / "gone.png").symlink_to(folder / "nowhere.png")
    with pytest.warns(UserWarning, match="left out") as caught:
        assert labelled(folder)[0] == [0, 0, 1, 1]
    (warning,) = caught
    left_out = "'.c/', 'a/gone.png', 'a/notes', 'b/x.img', 'b/x.png.bak'"
    assert str(warning.message).startswith(f"5 of the entries of {folder.resolve()} are left out ({left_out})")


def test_endings_are_read_whatever_their_case(tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", a=2, b=1)
    for name, kind in (("x.AVIF", "AVIF"), ("y.PnG", "PNG"), ("z.jfif", "JPEG"), ("t.tif", "TIFF")):
        Image.fromarray(COLOUR[0]).save(folder / "b" / name, format=kind)
    assert labelled(folder)[0] == [0, 0, 1, 1, 1, 1, 1]
    assert fp.load_data(folder).source["encoding"] == "avif, exact, jpeg, tiff"


def test_links_are_followed(tmp_path: Path) -> None:
    there = tree(tmp_path / "there", train__a=1, train__b=2, test__a=1)
    folder = tree(tmp_path / "set", train__a=1)
    Path(folder / "train" / "b").symlink_to(there / "train" / "b")
    Path(folder / "test").symlink_to(there / "test")
    Path(folder / "train" / "a" / "round").symlink_to(folder)
    assert labelled(folder) == ([0, 1, 1], ["a", "b"])
    assert labelled(folder, "test") == ([0], ["a", "b"])
    Path(tmp_path / "whole").symlink_to(folder)
    assert_same(fp.load_data(folder), fp.load_data(tmp_path / "whole"))


# Paths are taken literally.


@pytest.mark.parametrize("name", ["run[1]", "set*", "v?", "new [v2]", "x::y", "{a,b}", "a b%20"])
@pytest.mark.parametrize("kind", ["pictures", "parquet", "saved"])
def test_paths_are_literal(kind: str, name: str, tmp_path: Path) -> None:
    for neighbour in ("run1", "set2", "v1"):
        tree(tmp_path / neighbour, a=1, b=1, c=1)
    plain = tmp_path / "plain"
    if kind == "pictures":
        tree(plain, a=3, b=2)
    else:
        greys(plain)
    if kind == "saved":
        datasets.load_dataset(str(plain)).save_to_disk(tmp_path / "written")
        (tmp_path / "written").rename(plain := tmp_path / "plain saved")
    expected = fp.load_data(plain)
    plain.rename(tmp_path / name)
    found = fp.load_data(tmp_path / name)
    assert_same(found, expected)
    assert found.source["folder"] == str((tmp_path / name).resolve())


# Other contents.


def test_archives_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(tmp_path / "set" / "data.zip", "w") as archive:
        archive.writestr("a/0.png", b"")
    with pytest.raises(FileNotFoundError, match=r"holds 'data.zip', an archive, and no images; expected .*unpack it"):
        fp.load_data(tmp_path / "set")


def test_no_script_of_a_data_set_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = f"open({str(tmp_path / 'ran')!r}, 'w').close()"
    for folder in (greys(tmp_path / "tables"), tmp_path / "alone"):
        folder.mkdir(exist_ok=True)
        (folder / f"{folder.name}.py").write_text(code)
        with pytest.raises(
            FileNotFoundError, match=r"no data set that `datasets` can read \(Dataset scripts are no longer"
        ):
            fp.load_data(folder)
    (tree(tmp_path / "pictures", a=1, b=1) / "pictures.py").write_text(code)
    assert len(fp.load_data(tmp_path / "pictures")) == 2
    (tmp_path / "script.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"got the file script.py. Write a function in a file of"):
        fp.load_data("script.py")
    assert not (tmp_path / "ran").exists()


def test_tables_win_over_a_picture_beside_them(tmp_path: Path) -> None:
    folder = greys(tmp_path / "set")
    Image.fromarray(GREY[0]).save(folder / "figure.png")
    assert len(fp.load_data(folder)) == len(GREY)


# A limit on a sorted set.


@pytest.mark.parametrize(("limit", "held"), [(20, 1), (40, 2)])
def test_a_limit_that_misses_classes_of_a_sorted_set_is_told(limit: int, held: int, tmp_path: Path) -> None:
    labels = np.repeat([0, 1, 2], 20).tolist()
    pictures = [Image.fromarray(GREY[0])] * 60
    table = datasets.Dataset.from_dict({"image": pictures, "label": labels})
    message = f"the first {limit} of the 60 samples hold {held} of the 3 classes, so the set is not in random order"
    with pytest.warns(UserWarning, match=message):
        assert len(fp.load_data(table, limit=limit)) == limit
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fp.load_data(table, limit=60)
        fp.load_data(table.shuffle(seed=0), limit=limit)
        fp.load_data(table, limit=3)  # too few to tell
