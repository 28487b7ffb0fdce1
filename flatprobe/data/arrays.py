"""Arrays of other libraries as inputs and labels."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatprobe.data.columns import numbered
from flatprobe.data.images import pixels_of

_CHANNELS = (1, 3)


def as_inputs(values: Any, name: str) -> Tensor:
    """Inputs of an array, by rules that depend on its dtype and shape alone.

    - uint8 of shape (n, height, width), (n, channels, height, width) or (n, height, width, channels) with 1 or 3
      channels: images, divided by 255, of shape (n, channels, height, width);
    - float64 of NumPy: float32, torch's default, since NumPy's default is no choice;
    - other whole numbers of NumPy: int64, as identifiers of tokens;
    - all others, and all tensors except uint8 images: unchanged.

    Args:
        values: a tensor, or anything that `numpy.asarray` takes.
        name: name of the inputs in errors.

    Returns:
        The tensor; memory is shared where nothing is converted.

    Raises:
        TypeError: for an array of objects, such as rows of different lengths.
        ValueError: for uint8 images whose channels are not known.

    >>> as_inputs(np.full((2, 4, 4, 3), 255, dtype=np.uint8), "x").shape
    torch.Size([2, 3, 4, 4])
    """
    if not isinstance(values, Tensor):
        array = np.asarray(values)
        if array.dtype.kind not in "biufc":
            msg = (
                f"{name} must be an array of numbers, got {array.dtype} of shape {array.shape}. Give all rows one "
                "length and numbers as their values"
            )
            raise TypeError(msg)
        whole = array.dtype.kind in "iu" and array.dtype != np.uint8
        kind = np.dtype(np.int64 if whole else np.float32 if array.dtype == np.float64 else array.dtype)
        values = torch.from_numpy(np.require(array, dtype=kind.newbyteorder("="), requirements=["C", "W"]))
    inputs: Tensor = values
    if inputs.dtype != torch.uint8 or inputs.ndim not in {3, 4}:
        return inputs
    return channels_first(inputs, name).float() / 255


def as_sample(value: Any, name: str) -> Any:
    """The input of one item as a tensor, where it is an image of Pillow or an array; all else unchanged.

    Args:
        value: the input.
        name: name of the input in errors.
    """
    if hasattr(value, "getbands") and hasattr(value, "mode"):  # an image of Pillow
        return pixels_of(value, name)
    return as_inputs(value[None], name)[0] if isinstance(value, np.ndarray) else value


def channels_first(images: Tensor, name: str) -> Tensor:
    """Images of shape (n, channels, height, width), where their shape says where the channels are.

    Raises:
        ValueError: if neither or both of the possible dimensions have 1 or 3 entries.
    """
    if images.ndim == 3:
        return images[:, None]
    first, last = images.shape[1] in _CHANNELS, images.shape[3] in _CHANNELS
    if first == last:
        msg = (
            f"{name} must be images of 1 or 3 channels at the second or the last dimension, got the shape "
            f"{tuple(images.shape)}. Give floating (n, channels, height, width), such as x.permute(0, 3, 1, 2) / 255"
        )
        raise ValueError(msg)
    return images if first else images.permute(0, 3, 1, 2)


def as_targets(values: Any, name: str) -> tuple[Tensor, list[str] | None]:
    """Targets of an array, and class names where they are words, numbered in alphabetical order.

    Args:
        values: a tensor, or anything that `numpy.asarray` takes.
        name: name of the targets in errors.

    Raises:
        TypeError: for an array of other objects.
    """
    if isinstance(values, Tensor):
        return values, None
    array = np.asarray(values)
    if array.dtype.kind in "biuf":
        # Boolean labels are classes, and float64 targets become those of a float32 network.
        kind = {"f": np.float32}.get(array.dtype.kind, np.int64)
        return torch.from_numpy(np.require(array, dtype=kind, requirements=["C", "W"])), None
    words = array.tolist()
    if array.ndim != 1 or not all(isinstance(word, str) for word in words):
        msg = f"{name} must be numbers or words, one per sample, got {array.dtype} of shape {array.shape}. Number them"
        raise TypeError(msg)
    numbers, names = numbered(words, words)
    return torch.tensor(numbers, dtype=torch.int64, device="cpu"), names
