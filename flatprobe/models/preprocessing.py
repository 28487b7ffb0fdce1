"""Normalization and size of the images that a checkpoint's folder asks for."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flatprobe.models.architectures import CONFIG, config_of
from flatprobe.utils.arguments import is_number, is_whole
from flatprobe.utils.tensor_files import read_json

_PROCESSOR = "preprocessor_config.json"
_FIX = "correct it, or remove it"


class Preprocessing(NamedTuple):
    """Preprocessing of images that a folder names.

    Args:
        normalisation: mean and std of each channel, for pixels in [0, 1].
        size: height and width.
    """

    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    size: tuple[int, int] | None = None


def preprocessing(folder: Path) -> Preprocessing:
    """The normalization and size in the folder's image processor of transformers, or in its `pretrained_cfg` of timm.

    An image processor of transformers multiplies pixels of 0 to 255 by f (`rescale_factor`) before it normalizes them.
    For pixels in [0, 1] the mean is image_mean / (255 f), and the std is image_std / (255 f).

    Args:
        folder: folder of a checkpoint.

    Raises:
        ValueError: if such a file is there and cannot be read, or its numbers are none.
    """
    if (folder / _PROCESSOR).is_file():
        return _of_processor(read_json(folder / _PROCESSOR, _FIX), folder / _PROCESSOR)
    config = config_of(folder)
    timm = config.get("pretrained_cfg")
    return _of_timm(timm, folder / CONFIG) if isinstance(timm, dict) and "architecture" in config else Preprocessing()


def _of_processor(config: Mapping[str, Any], file: Path) -> Preprocessing:
    size = config.get("crop_size" if config.get("do_center_crop") else "size")
    found = _size(size) if config.get("do_resize", True) or config.get("do_center_crop") else None
    mean, std = config.get("image_mean"), config.get("image_std")
    rescale = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    if not config.get("do_normalize", True) or mean is None or std is None:
        mean, std = 0.0, 1.0
    scale = 255 * rescale if is_number(rescale) else math.nan
    normalisation = _numbers(mean, std, scale, file)
    return Preprocessing(None if normalisation == ((0.0,), (1.0,)) else normalisation, found)


def _of_timm(config: Mapping[str, Any], file: Path) -> Preprocessing:
    shape = config.get("input_size")
    found = _size(shape[1:]) if isinstance(shape, list) and len(shape) == 3 else None
    if config.get("mean") is None or config.get("std") is None:
        return Preprocessing(None, found)
    return Preprocessing(_numbers(config["mean"], config["std"], 1.0, file), found)


def _numbers(mean: object, std: object, scale: float, file: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Both as numbers, divided by the scale.

    Raises:
        ValueError: if they are no finite numbers, or a std is not above 0.
    """
    both: list[list[Any]] = [[*value] if isinstance(value, list) else [value] for value in (mean, std)]
    sound = all(is_number(value) and math.isfinite(value) for values in both for value in values)
    if not sound or not scale > 0 or not min(both[1], default=0) > 0 or len({len(values) for values in both} - {1}) > 1:
        msg = (
            f"the mean and std in {file} must be finite numbers, one or one per channel, std above 0, got {mean!r} and "
            f"{std!r}; {_FIX}"
        )
        raise ValueError(msg)
    means, stds = (tuple(round(float(value) / scale, 12) for value in values) for values in both)
    return means, stds


def _size(size: object) -> tuple[int, int] | None:
    """Height and width of one number, two numbers, or a dictionary of them."""
    if isinstance(size, dict):
        size = [size["height"], size["width"]] if {"height", "width"} <= size.keys() else size.get("shortest_edge")
    sides: list[Any] = size if isinstance(size, list) else [size, size]
    if len(sides) == 2 and all(is_whole(side) and 0 < side <= 10_000 for side in sides):
        return int(sides[0]), int(sides[1])
    return None
