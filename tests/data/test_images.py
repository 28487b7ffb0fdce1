"""load_data: pictures of every mode, the columns that hold pictures and labels, and what is refused of them."""

import io
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

import flatprobe as fp
from tests.helpers.picture_folders import COLOUR, GREY, RNG, Pixels, assert_same, encoded, folder_of, offline  # noqa: F401

pytestmark = pytest.mark.usefixtures("offline")

# Pictures: every mode, against NumPy.


def _sixteen() -> Image.Image:
    return Image.fromarray(RNG.integers(65536, size=(6, 5), dtype=np.uint16))


def _palette() -> Image.Image:
    return Image.fromarray(COLOUR[0]).convert("P")


def _palette_with_transparency() -> Image.Image:
    image = _palette()
    image.info["transparency"] = bytes(range(256))
    return image


def _rgb(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1) / np.float32(255)


MODES: dict[str, tuple[Callable[[], Image.Image], Callable[[Image.Image], Pixels]]] = {
    "1": (lambda: Image.fromarray(GREY[0] > 100), lambda x: np.asarray(x)[None].astype(np.float32)),
    "L": (lambda: Image.fromarray(GREY[0]), lambda x: np.asarray(x)[None] / np.float32(255)),
    "LA": (
        lambda: Image.fromarray(np.stack(GREY[:2], 2)),
        lambda x: np.asarray(x)[None, :, :, 0] / np.float32(255),
    ),
    "16 bits": (_sixteen, lambda x: np.asarray(x)[None].astype(np.float32) / 65535),
    "RGB": (lambda: Image.fromarray(COLOUR[0]), lambda x: np.asarray(x).transpose(2, 0, 1) / np.float32(255)),
    "RGBA": (
        lambda: Image.fromarray(np.concatenate([COLOUR[0], GREY[0][:, :, None]], 2)),
        lambda x: np.asarray(x)[:, :, :3].transpose(2, 0, 1) / np.float32(255),
    ),
    "P": (_palette, _rgb),
    "P, transparent": (_palette_with_transparency, lambda x: _rgb(x.convert("RGBA"))),
    "CMYK": (lambda: Image.fromarray(COLOUR[0]).convert("CMYK"), _rgb),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_floats_in_the_unit_interval(name: str, tmp_path: Path) -> None:
    make, reference = MODES[name]
    image = make()
    folder = folder_of(tmp_path / "set", [encoded(image, "TIFF" if name == "CMYK" else "PNG")], [0])
    data = fp.load_data(folder)
    assert isinstance(data.inputs, Tensor)
    np.testing.assert_array_equal(data.inputs[0].numpy(), reference(image))
    assert 0 <= float(data.inputs.min()) < float(data.inputs.max()) <= 1
    assert_same(data, fp.load_data(folder, stream=True))


def test_jpeg_is_recorded_and_its_orientation_is_followed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    buffer = io.BytesIO()
    Image.fromarray(GREY[0]).save(buffer, "JPEG", exif=exif)
    data = fp.load_data(folder_of(tmp_path / "set", [{"bytes": buffer.getvalue(), "path": None}], [0]))
    assert data.source["encoding"] == "jpeg"
    stored = np.asarray(Image.open(buffer))
    np.testing.assert_array_equal(data.inputs[0, 0].numpy(), np.rot90(stored, -1) / np.float32(255))
    lossy = folder_of(tmp_path / "webp", [encoded(Image.fromarray(COLOUR[0]), "WEBP")], [0])
    assert fp.load_data(lossy).source["encoding"] == "webp"


@pytest.mark.parametrize("stream", [False, True])
def test_bad_pictures_are_refused_by_their_position(stream: bool, tmp_path: Path) -> None:
    good = encoded(Image.fromarray(GREY[0]))
    small, colour = encoded(Image.fromarray(GREY[0][:4])), encoded(Image.fromarray(COLOUR[0]))
    damaged = {"bytes": encoded(Image.fromarray(RNG.integers(256, size=(64, 64), dtype=np.uint8)))["bytes"][:2000]}  # type: ignore[index]
    floating = encoded(Image.fromarray(GREY[0].astype(np.float32)), "TIFF")
    deep = encoded(Image.fromarray(GREY[0].astype(np.int32) + 70000), "TIFF")
    cases: list[tuple[Any, str]] = [
        (
            small,
            r"image 2 must have the shape of the first one read, \(1, 6, 5\) .*got \(1, 4, 5\). Give resize= or crop=",
        ),
        (colour, r"image 2 must have the shape .*got \(3, 6, 5\). Give greyscale=True, or colour=True for"),
        ({**damaged, "path": None}, "image 2 cannot be decoded .*. Replace it if it is damaged"),
        ({"bytes": b"words", "path": None}, "image 2 cannot be decoded"),
        (None, "image 2 must be the bytes of an image file, got None"),
        (floating, "image 2 must have 8 or 16 bits per channel, got floating-point pixels, whose scale is unknown"),
        (deep, "image 2 must have 8 or 16 bits per channel, got 32-bit pixels outside 0 to 65535"),
    ]
    for index, (bad, message) in enumerate(cases):
        folder = folder_of(tmp_path / f"{index}", [good, good, bad, good], [0, 1, 0, 1])
        with pytest.raises(ValueError, match=message):
            fp.load_data(folder, stream=stream)
    mixed = folder_of(tmp_path / "mixed", [good, small, good, good], [0, 1, 0, 1])
    assert fp.load_data(mixed, crop=4, stream=stream).input_shape == (1, 4, 4)


# Columns.


def test_words_are_numbered_alike_in_all_splits(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder_of(folder, [encoded(Image.fromarray(x)) for x in GREY[:3]], ["b", "c", "a"], label=datasets.Value("string"))
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    rows = {"image": [encoded(Image.fromarray(x)) for x in GREY[:2]], "label": ["c", "b"]}
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(folder / "data" / "test-00000-of-00001.parquet")
    train, test = fp.load_data(folder), fp.load_data(folder, split="test")
    assert train.labels.tolist() == [1, 2, 0]
    assert test.labels.tolist() == [2, 1]
    assert (test.classes, test.source["class_names"]) == (3, ["a", "b", "c"])


def _table(path: Path, **columns: tuple[Any, list[Any]]) -> Path:
    kinds = datasets.Features({name: kind for name, (kind, _) in columns.items()})
    rows = {name: values for name, (_, values) in columns.items()}
    (path / "data").mkdir(parents=True)
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(path / "data" / "train-00000-of-00001.parquet")
    return path


PICTURE = (datasets.Image(), [encoded(Image.fromarray(x)) for x in GREY[:2]])
OTHER = (datasets.Image(), [encoded(Image.fromarray(x)) for x in GREY[2:4]])
NUMBER, FLOAT = (datasets.Value("int64"), [1, 0]), (datasets.Value("float32"), [0.5, 1.0])
COARSE_NUMBER = (datasets.Value("int64"), [0, 0])
KIND, COARSE = (datasets.ClassLabel(names=["x", "y"]), [0, 1]), (datasets.ClassLabel(names=["u"]), [0, 0])


def test_columns_are_found_by_type_then_by_name_or_given(tmp_path: Path) -> None:
    typed = fp.load_data(_table(tmp_path / "typed", digit=KIND, label=NUMBER, img=PICTURE))
    assert (typed.source["image_column"], typed.source["label_column"]) == ("img", "digit")
    both = _table(tmp_path / "both", img=PICTURE, coarse_label=COARSE, fine_label=KIND)
    assert fp.load_data(both).source["label_column"] == "fine_label"
    assert fp.load_data(both, label_column="coarse_label").labels.tolist() == [0, 0]
    usual = _table(tmp_path / "usual", image=PICTURE, labels=COARSE_NUMBER, label=NUMBER)
    assert fp.load_data(usual).source["label_column"] == "label"
    named = _table(tmp_path / "named", depth=OTHER, image=PICTURE, weight=NUMBER, labels=NUMBER)
    data = fp.load_data(named, image_column="image")
    assert data.source["label_column"] == "labels"
    assert torch.equal(data.inputs, torch.from_numpy(np.stack(GREY[:2])).float()[:, None] / 255)


def test_columns_that_cannot_be_told_are_refused(tmp_path: Path) -> None:
    folder = _table(tmp_path / "set", image=PICTURE, depth=OTHER, first=NUMBER, score=FLOAT)

    def refused(message: str, **arguments: str) -> None:
        with pytest.raises(ValueError, match=message):
            fp.load_data(folder, **arguments)

    columns = r"\('image', 'depth', 'first', 'score'\)"
    refused(rf"more than one column holds images \(image, depth\); expected image_column=.*{columns}")
    refused(rf"image_column is 'img'; expected one of the data set's columns {columns}", image_column="img")
    refused(rf"image_column 'first' has the type .*int64.*expected images {columns}", image_column="first")
    refused(rf"no column is known to hold labels; expected label_column=.*{columns}", image_column="image")
    refused(rf"label_column is 'y'; expected one of .*{columns}", image_column="image", label_column="y")
    refused("label_column 'score' has the type .*float32", image_column="image", label_column="score")
    words = _table(tmp_path / "words", text=(datasets.Value("string"), ["a", "b"]), label=NUMBER)
    with pytest.raises(ValueError, match=r"no column holds images; expected image_column=.*\('text', 'label'\)"):
        fp.load_data(words)
    gaps = _table(tmp_path / "gaps", image=PICTURE, label=(datasets.Value("int64"), [0, None]))
    with pytest.raises(ValueError, match="'label' of row 1 is missing; expected a label in every row of 'train'"):
        fp.load_data(gaps)
    hidden = _table(tmp_path / "hidden", image=PICTURE, label=(datasets.ClassLabel(names=["x"]), [0, -1]))
    with pytest.raises(ValueError, match="label of sample 1 is -1; expected 0 to 0"):
        fp.load_data(hidden)


def test_splits_that_list_the_classes_in_other_orders_are_numbered_alike(tmp_path: Path) -> None:
    def kinds(*names: str) -> datasets.Features:
        return datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=[*names])})

    pictures = [encoded(Image.fromarray(x)) for x in GREY[:3]]
    rows = {"image": pictures, "label": [0, 1, 2]}
    train = datasets.Dataset.from_dict(rows, features=kinds("cat", "cow", "dog"))
    fewer = datasets.Dataset.from_dict({"image": pictures[:2], "label": [0, 1]}, features=kinds("cow", "dog"))
    other = datasets.Dataset.from_dict(rows, features=kinds("ape", "cow", "dog"))
    for test, labels in (
        (fewer, [1, 2]),
        (datasets.Dataset.from_dict(rows, features=kinds("dog", "cat", "cow")), [2, 0, 1]),
    ):
        splits = datasets.DatasetDict(test=test, train=train)
        data = fp.load_data(splits, split="test")
        assert (data.labels.tolist(), data.classes, data.source["class_names"]) == (labels, 3, ["cat", "cow", "dog"])
        assert fp.load_data(splits).labels.tolist() == [0, 1, 2]
    with pytest.raises(
        ValueError, match=r"classes of 'label' differ between the splits, and none has all .*ClassLabel"
    ):
        fp.load_data(datasets.DatasetDict(test=other, train=train))


def test_booleans_are_labels_and_other_types_are_refused_with_the_type(tmp_path: Path) -> None:
    flags = _table(tmp_path / "flags", image=PICTURE, label=(datasets.Value("bool"), [True, False]))
    data = fp.load_data(flags)
    assert (data.labels.tolist(), data.classes, data.source["class_names"]) == ([1, 0], 2, ["False", "True"])
    lists = datasets.Sequence(datasets.Value("int64")), [[0], [1]]
    for number, (column, kind) in enumerate(((FLOAT, "float32"), (lists, "int64"))):
        folder = _table(tmp_path / f"{number}", image=PICTURE, label=column)
        with pytest.raises(
            ValueError, match=rf"the column 'label' has the type .*{kind}.*expected class labels, integers"
        ):
            fp.load_data(folder)


@pytest.mark.parametrize("kind", ["binary", "struct"])
def test_bytes_of_pictures_are_pictures_whoever_wrote_the_table(kind: str, tmp_path: Path) -> None:
    stored = [encoded(Image.fromarray(x)) for x in GREY[:2]]
    column = stored if kind == "struct" else [picture["bytes"] for picture in stored]
    (tmp_path / "set" / "data").mkdir(parents=True)
    pd.DataFrame({"picture": column, "label": [0, 1]}).to_parquet(tmp_path / "set" / "data" / "train.parquet")
    for given in (None, "picture"):
        data = fp.load_data(tmp_path / "set", image_column=given)
        assert torch.equal(data.inputs, torch.from_numpy(np.stack(GREY[:2])).float()[:, None] / 255)


# Tables that were read already.


def test_tables_of_datasets_are_taken_as_they_are(tmp_path: Path) -> None:
    splits = datasets.load_dataset(str(_table(tmp_path / "set", image=PICTURE, label=NUMBER)))
    expected = fp.load_data(tmp_path / "set")
    for table in (splits, splits["train"]):
        for stream in (False, True):
            data = fp.load_data(table, stream=stream)
            assert_same(data, expected)
            assert "name" not in data.source
    with pytest.raises(TypeError, match="item 0 of the TensorDataset is a tuple; expected a pair"):
        fp.load_data(torch.utils.data.TensorDataset(torch.ones(3)))
    for other in (None, 3):
        with pytest.raises(TypeError, match=rf"the data are a {type(other).__name__}; expected a name, a folder"):
            fp.load_data(other)


def test_the_readers_of_datasets_are_no_data_sets() -> None:
    with pytest.raises(
        FileNotFoundError, match="'pandas' is a reader of `datasets`, which would read the files of the cu"
    ):
        fp.load_data("pandas")


# What is decoded, and what is said of it.


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in the place of Ghostscript; the file that tells whether it was started."""
    program, log = tmp_path / "bin" / "gs", tmp_path / "started"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo 10.0 && exit 0\necho "$@" >> {log}\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", str(program))
    return log


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["folder", "parquet", "saved", "table"])
def test_no_picture_starts_a_program(kind: str, stream: bool, tmp_path: Path, ghostscript: Path) -> None:
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(a program) print\n%%EOF\n"
    with pytest.raises(subprocess.CalledProcessError):
        Image.open(io.BytesIO(content)).load()
    ghostscript.unlink()
    folder: Any = tmp_path / "set"
    if kind == "folder":
        for name in "ab":
            (folder / name).mkdir(parents=True)
            (folder / name / "0.png").write_bytes(content)
    else:
        folder_of(folder, [{"bytes": content, "path": "0.png"}] * 2, [0, 1])
        table = datasets.load_dataset(str(folder))["train"]
        if kind == "saved":
            table.save_to_disk(folder := tmp_path / "saved")
        folder = table if kind == "table" else folder
    with pytest.raises(ValueError, match=r"image 0 \(.*0.png\) cannot be decoded .*format is not among PNG, JPEG, .*"):
        fp.load_data(folder, stream=stream)
    assert not ghostscript.exists()


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(GREY[0]).save(tmp_path / "set" / name / "0.png")
    whole = (tmp_path / "set" / "b" / "0.png").read_bytes()
    for damaged in (b"", whole[:40], whole[:30] + b"\xff" + whole[31:]):
        (tmp_path / "set" / "b" / "0.png").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"image 1 \(.*/set/b/0.png\) cannot be decoded"):
            fp.load_data(tmp_path / "set")


def test_the_encoding_names_all_formats_that_were_read(tmp_path: Path) -> None:
    pictures = [encoded(Image.fromarray(GREY[0]), kind) for kind in ("PNG", "JPEG", "BMP", "WEBP")]
    pictures[3] = encoded(Image.fromarray(GREY[0]), "TIFF")
    assert fp.load_data(folder_of(tmp_path / "few", pictures, [0, 1, 0, 1])).source["encoding"] == "exact, jpeg, tiff"
    many = [*pictures[:1] * 40]
    many[1] = pictures[1]  # not among the sixteen of a stream
    folder = folder_of(tmp_path / "many", many, [0, 1] * 20)
    assert fp.load_data(folder).source["encoding"] == "exact, jpeg"
    assert fp.load_data(folder, stream=True).source["encoding"] == "exact (of 16 pictures)"


def test_sixteen_bits_of_colour_are_said_to_be_read_as_eight(tmp_path: Path) -> None:
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress((b"\0" + b"\x12\x34" * 6) * 2)),
        (b"IEND", b""),
    ]
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    png = b"\x89PNG\r\n\x1a\n" + b"".join(packed)
    ppm = b"P6 2 2 65535\n" + b"\x12\x34" * 12
    for kind, content in (("png", png), ("ppm", ppm)):
        data = fp.load_data(folder_of(tmp_path / kind, [{"bytes": content, "path": None}] * 2, [0, 1]))
        assert data.source["encoding"] == f"{kind} of 16 bits a channel, read as 8"
        assert torch.equal(data.inputs, torch.full((2, 3, 2, 2), 0x12 / 255))
