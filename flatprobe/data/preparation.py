"""Preparation of images for a network: size, central crop and number of channels."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from flatprobe.utils.arguments import at_least

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode "L"
_BLOCK = 1000  # images resized at a time


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Changes of images on reading, in this order: channels, resize, crop.

    Args:
        resize: height and width, or one side of a square; None leaves the size.
        crop: side of the central square; None leaves the images whole.
        greyscale: whether 3 channels become one, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, as Pillow's).
        colour: whether 1 channel is repeated three times.

    Raises:
        ValueError: for a size below 1, or both `greyscale` and `colour`.

    >>> Preparation(resize=4, crop=2)(torch.zeros(3, 8, 8), "image 0").shape
    torch.Size([3, 2, 2])
    """

    resize: int | tuple[int, int] | None = None
    crop: int | None = None
    greyscale: bool = False
    colour: bool = False

    def __post_init__(self) -> None:
        sides = self.sides or (None, None)
        at_least(1, resize=sides[0], crop=self.crop)
        at_least(1, resize=sides[1])
        if self.greyscale and self.colour:
            msg = "greyscale and colour must not both be True. Give the one that the network takes"
            raise ValueError(msg)

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width after resizing."""
        if self.resize is None or isinstance(self.resize, tuple | list):
            return None if self.resize is None else (self.resize[0], self.resize[1])
        return self.resize, self.resize

    def __bool__(self) -> bool:
        """True if images are changed at all."""
        return bool(self.describe())

    def describe(self) -> dict[str, Any]:
        """The changes for records; without those that are left out."""
        named = {"resize": None if self.sides is None else [*self.sides], "crop": self.crop}
        named |= {"greyscale": self.greyscale or None, "colour": self.colour or None}
        return {name: value for name, value in named.items() if value is not None}

    def __call__(self, images: Tensor, name: str) -> Tensor:
        """The changed images.

        Args:
            images: floating (..., channels, height, width).
            name: name of the images in errors.

        Returns:
            (..., channels, height, width).

        Raises:
            ValueError: for anything but images, or a crop that is larger than they are.
        """
        if not self:
            return images
        if images.ndim < 3 or not images.is_floating_point():
            changes = ", ".join(self.describe())
            msg = (
                f"{changes} must be given for floating images (channels, height, width) only, and {name} has the shape "
                f"{tuple(images.shape)} and {images.dtype}. Leave it out, or change the data yourself"
            )
            raise ValueError(msg)
        channels = images.shape[-3]
        if self.greyscale and channels == 3:
            images = (images * images.new_tensor(_LUMA)[:, None, None]).sum(-3, keepdim=True)
        if self.colour and channels == 1:
            images = images.expand(*images.shape[:-3], 3, *images.shape[-2:])
        return crop_center(resized(images, self.sides), self.crop, name)


def resized(images: Tensor, sides: tuple[int, int] | None) -> Tensor:
    """Images of another size, by bilinear interpolation with antialiasing.

    The filter is Pillow's `BILINEAR`, a triangle as wide as the shrinking factor, computed in floating point: Pillow
    rounds 8-bit images to multiples of 1/255, which changes a pixel by up to 1/255.

    Args:
        images: (..., channels, height, width).
        sides: height and width; None leaves the images as they are.

    Returns:
        (..., channels, *sides).
    """
    if sides is None or tuple(images.shape[-2:]) == sides:
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    blocks = torch.split(flat, _BLOCK)
    parts = [F.interpolate(part, sides, mode="bilinear", antialias=True, align_corners=False) for part in blocks]
    return torch.cat(parts).reshape(*images.shape[:-2], *sides)


def crop_center(images: Tensor, side: int | None, name: str) -> Tensor:
    """Central square of the last two dimensions.

    Args:
        images: (..., height, width).
        side: length of the square's side in pixels; None leaves the images whole.
        name: name of the images in errors.

    Returns:
        A view (..., side, side).

    Raises:
        ValueError: if the square is larger than the image.
    """
    if side is None:
        return images
    height, width = images.shape[-2:]
    if side > min(height, width):
        msg = f"crop is {side}, and {name} is {height} high and {width} wide; expected at most {min(height, width)}"
        raise ValueError(msg)
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]
