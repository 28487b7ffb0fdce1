"""Decoding of stored images to tensors."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.utils.data import Dataset

from flatprobe.data.preparation import Preparation

_GREY = {"1", "L", "LA", "La"}
_SIXTEEN_BITS = {"I", "I;16", "I;16L", "I;16B", "I;16N"}  # Pillow opens 16-bit grey PNGs as "I" before 11.3
_FLOATING = {"F"}
_EXACT = {"PNG", "BMP", "DIB", "PPM"}
# The decoded formats, by Pillow's names: for others (EPS, WMF) Pillow would start a program on the file.
_FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "PPM", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000", "TGA")
# The endings of such files.
_PNG_AND_JPEG = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k")
_OTHERS = (".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".gif", ".tif", ".tiff", ".webp", ".avif", ".tga")
ENDINGS = frozenset(_PNG_AND_JPEG + _OTHERS)
# Exceptions of Pillow's decoders on damaged files.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


class Images(Dataset[tuple[Tensor, int]]):
    """Map-style data set of (image, label) pairs, decoded on reading.

    Args:
        rows: a table of the `datasets` library with undecoded images.
        column: the image column.
        labels: one per row.
        prepare: size, crop and number of channels.
    """

    def __init__(self, rows: Any, column: str, labels: Tensor, prepare: Preparation) -> None:
        from datasets import Image

        self._rows = rows.select_columns([column]).cast_column(column, Image(decode=False))
        self._column, self._labels, self._prepare = column, labels, prepare
        self._shape: torch.Size | None = None
        self._encodings: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._decode(self._rows[index][self._column], index), int(self._labels[index])

    @property
    def encoding(self) -> str:
        """Encoding of the images read so far: `exact`, or the names of the other formats."""
        return ", ".join(sorted(self._encodings))

    def decode(self) -> Float32[Tensor, "samples channels height width"]:
        """All images, read a thousand at a time."""
        first = self[0][0]
        whole = torch.empty((len(self), *first.shape), dtype=torch.float32, device="cpu")  # torch's defaults may differ
        index = 0
        for block in self._rows.iter(batch_size=1000):
            for stored in block[self._column]:
                whole[index] = self._decode(stored, index)
                index += 1
        return whole

    def _decode(self, stored: Any, index: int) -> Tensor:
        opened, encoding = _open(stored, index)
        self._encodings.add(encoding)
        picture = self._prepare(pixels_of(opened, f"image {index}"), f"image {index}")
        self._shape = self._shape or picture.shape
        if picture.shape != self._shape:
            one_size = len(picture) == self._shape[0]
            fix = "Give resize= or crop=" if one_size else "Give greyscale=True, or colour=True for grey images"
            msg = (
                f"image {index} must have the shape of the first one read, {tuple(self._shape)} (channels, height, "
                f"width), got {tuple(picture.shape)}. {fix}"
            )
            raise ValueError(msg)
        return picture


def _encoding(picture: Any, stored: object) -> str:
    """Encoding of the pixels, from Pillow's arguments for the decoder."""
    kind = str(picture.format)
    largest = stored[-1] if kind == "PPM" and isinstance(stored, tuple) else 0
    if (";16" in str(stored) or largest > 255) and picture.mode not in _SIXTEEN_BITS:
        return f"{kind.lower()} of 16 bits a channel, read as 8"  # Pillow has no mode for it
    return "exact" if kind in _EXACT else {"MPO": "jpeg"}.get(kind, kind.lower())


def _open(stored: Any, index: int) -> tuple[Any, str]:
    """The image and the encoding of its pixels.

    Raises:
        ValueError: if the image is missing or cannot be decoded.
    """
    from PIL import Image

    if not isinstance(stored, dict) or (stored.get("bytes") is None and stored.get("path") is None):
        msg = f"image {index} must be the bytes of an image file, got {stored!r}"
        raise ValueError(msg)
    Image.init()
    formats = [kind for kind in _FORMATS if kind in Image.OPEN]
    try:
        content = Path(stored["path"]).read_bytes() if stored["bytes"] is None else stored["bytes"]
        picture = Image.open(io.BytesIO(content), formats=formats)
        arguments = picture.tile[0][3] if picture.tile else ""
        picture.load()
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        name = f" ({stored['path']})" if stored.get("path") else ""
        msg = (
            f"image {index}{name} cannot be decoded ({error}). Replace it if it is damaged, or convert it if its "
            f"format is not among {', '.join(formats)}"
        )
        raise ValueError(msg) from error
    return picture, _encoding(picture, arguments)


def pixels_of(picture: Any, name: str) -> Float32[Tensor, "channels height width"]:
    """Pixels in [0, 1] of an image of Pillow: 1 channel for grey modes, 3 (RGB) for all others.

    Args:
        picture: an opened image, which is not changed.
        name: name of the image in errors.

    Raises:
        ValueError: for floating-point or 32-bit pixels, whose scale is unknown.
    """
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode in _FLOATING:
        msg = f"{name} must have 8 or 16 bits per channel, got floating-point pixels, whose scale is unknown"
        raise ValueError(msg)
    if picture.mode in _SIXTEEN_BITS:
        array = np.asarray(picture, dtype=np.float32) / 65535
        if array.max() > 1 or array.min() < 0:
            msg = f"{name} must have 8 or 16 bits per channel, got 32-bit pixels outside 0 to 65535"
            raise ValueError(msg)
        return torch.from_numpy(array)[None]
    mode = "L" if picture.mode in _GREY else "RGB"
    if picture.mode == "P":  # Pillow warns when a palette with transparency is converted to RGB directly
        picture = picture.convert("RGBA")
    try:
        converted = picture if picture.mode == mode else picture.convert(mode)
    except ValueError as error:  # a mode that Pillow cannot convert
        msg = f"{name} must be grey or convertible to RGB, got the mode {picture.mode} ({error}). Convert it yourself"
        raise ValueError(msg) from error
    array = np.asarray(converted, dtype=np.float32) / 255
    return torch.from_numpy(array)[None] if mode == "L" else torch.from_numpy(array).permute(2, 0, 1)
