"""Folders of small pictures in the Hugging Face layout, and what their tests share."""

import io
import socket
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import flatprobe as fp

Pixels = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
GREY = [RNG.integers(256, size=(6, 5), dtype=np.uint8) for _ in range(7)]
COLOUR = [RNG.integers(256, size=(6, 5, 3), dtype=np.uint8) for _ in range(7)]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches the network, and what `datasets` caches goes with the test."""

    def refuse(*_: object, **__: object) -> None:
        msg = "a test tried to reach the network"
        raise AssertionError(msg)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def encoded(image: Image.Image, kind: str = "PNG") -> dict[str, object]:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return {"bytes": buffer.getvalue(), "path": None}


def folder_of(path: Path, images: list[Any], labels: list[Any], **features: Any) -> Path:
    """A parquet folder in the Hugging Face layout, train and test alike."""
    kinds = {"image": datasets.Image(), "label": datasets.Value("int64"), **features}
    table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=datasets.Features(kinds))
    for split in ("train", "test"):
        (path / "data").mkdir(parents=True, exist_ok=True)
        table.to_parquet(path / "data" / f"{split}-00000-of-00001.parquet")
    return path


def greys(path: Path, **features: Any) -> Path:
    return folder_of(path, [encoded(Image.fromarray(pixels)) for pixels in GREY], [0, 1, 2, 0, 1, 2, 0], **features)


def assert_same(one: fp.LabelledData, other: fp.LabelledData) -> None:
    """Bit for bit, at batch sizes 1, 7, 64 and n."""
    for size in (1, 7, 64, len(one)):
        for first, second in zip(one.batches(size), other.batches(size), strict=True):
            assert isinstance(first.inputs, Tensor)
            assert torch.equal(first.inputs, second.inputs)
            assert torch.equal(first.labels, second.labels)
