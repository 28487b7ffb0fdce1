"""Random shifts and reflections of images (He et al. 2016)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from flatprobe.training.forward import ForwardPass
from flatprobe.training.forward.labels import Labels
from flatprobe.training.transforms.images import check_images, windows
from flatprobe.utils.arguments import Flag, Whole, at_least, flag, given, one_of

_MODES = {"zero": "constant", "reflect": "reflect"}


@dataclass(frozen=True)
class CropAndFlip:
    """x' = a window of the size of x in x padded on all sides, mirrored left to right with probability 1/2; y' = y.

    The window's place is uniform over the (2 p + 1)^2 possible places. Place and reflection are drawn anew for each
    sample and step. No forward or backward pass.

    Args:
        padding: p in pixels; 4 is He et al.'s on CIFAR-10. 0 leaves only the reflection.
        mode: `"zero"` (theirs) pads with 0 in the inputs' units; `"reflect"` with the mirror image.
        flip: True: images are mirrored with probability 1/2, as theirs; False suits digits.

    Raises:
        ValueError: for a negative padding or another mode.
        ValueError: when called, for inputs that are no images (samples, channels, height, width).
        ValueError: when called, for a reflected padding that is not smaller than the images.

    Source: He, Zhang, Ren and Sun (2016), "Deep residual learning for image recognition", section 4.2.

    >>> passed = ForwardPass(torch.nn.Flatten(), torch.eye(2)[None, None], torch.tensor([0]), key=(0,))
    >>> CropAndFlip(padding=0)(passed)[0].sum((1, 2, 3))
    tensor([2.])
    """

    padding: Whole = 4
    mode: str = "zero"
    flip: Flag = True

    def __post_init__(self) -> None:
        flag(flip=self.flip)
        given(padding=self.padding)
        at_least(0, padding=self.padding)
        one_of("mode", self.mode, _MODES)

    def __call__(self, passed: ForwardPass, /) -> tuple[Float[Tensor, "samples channels height width"], Labels]:
        """The cropped images, and the unchanged labels.

        Raises:
            ValueError: for inputs that are not (samples, channels, height, width).
            ValueError: for a reflected padding of the image size or more.
        """
        inputs = check_images(passed, "crop_and_flip")
        if self.mode == "reflect" and self.padding >= min(inputs.shape[2:]):
            msg = (
                f"padding is {self.padding} and the images are {inputs.shape[2]} x {inputs.shape[3]}; expected less "
                "than both with mode='reflect': lower it, or take mode='zero'"
            )
            raise ValueError(msg)
        padded = F.pad(inputs, 4 * (self.padding,), mode=_MODES[self.mode])
        rows, columns = (
            torch.arange(length, device=inputs.device)
            + passed.integers(2 * self.padding + 1, (len(inputs), 1), "crop_and_flip", axis)
            for axis, length in (("rows", inputs.shape[2]), ("columns", inputs.shape[3]))
        )
        if self.flip:
            mirrored = passed.integers(2, (len(inputs), 1), "crop_and_flip", "flip") == 1
            columns = torch.where(mirrored, columns.flip(1), columns)
        return windows(padded, rows, columns), passed.labels
