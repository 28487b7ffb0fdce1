"""Random squares of constant value in images (DeVries and Taylor 2017)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.training.forward import ForwardPass
from flatprobe.training.forward.labels import Labels
from flatprobe.training.transforms.images import check_images
from flatprobe.utils.arguments import Number, Whole, at_least, given, is_number


@dataclass(frozen=True)
class Cutout:
    """x' = x with a square of size x size pixels, in all channels, replaced by one value; y' = y.

    The centre of the square is uniform over the pixels, drawn anew for each sample and step. The square is cut at the
    border. No forward or backward pass.

    Args:
        size: side of the square in pixels; DeVries and Taylor take 16 on CIFAR-10 and 8 on CIFAR-100.
        fill: the value, in the inputs' units. 0 is theirs, the mean of normalized images; for pixels in [0, 1] it is
            black.

    Raises:
        ValueError: for a size below 1, or a fill that is not finite.
        ValueError: when called, for inputs that are no images (samples, channels, height, width).

    Source: DeVries and Taylor (2017), "Improved regularization of convolutional neural networks with cutout".

    >>> passed = ForwardPass(torch.nn.Flatten(), torch.ones(1, 1, 3, 3), torch.tensor([0]), key=(0,))
    >>> int(Cutout(1)(passed)[0].sum())
    8
    """

    size: Whole
    fill: Number = 0.0

    def __post_init__(self) -> None:
        given(size=self.size)
        at_least(1, size=self.size)
        if not is_number(self.fill) or not math.isfinite(self.fill):
            msg = f"fill is {self.fill!r}; expected a finite number"
            raise ValueError(msg)

    def __call__(self, passed: ForwardPass, /) -> tuple[Float[Tensor, "samples channels height width"], Labels]:
        """The images with squares, and the unchanged labels."""
        inputs = check_images(passed, "cutout")
        axes = []
        for axis, length in (("rows", inputs.shape[2]), ("columns", inputs.shape[3])):
            first = passed.integers(length, (len(inputs), 1), "cutout", axis) - self.size // 2
            place = torch.arange(length, device=inputs.device)
            axes.append((place >= first) & (place < first + self.size))
        rows, columns = axes
        return inputs.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], self.fill), passed.labels
