"""Small smooth random deformations of images."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.points import per_sample
from flatprobe.training.forward import ForwardPass
from flatprobe.training.forward.labels import Labels
from flatprobe.training.transforms.displacement import GRADIENT_WEIGHT, SIZE_WEIGHT, deform, roughness
from flatprobe.training.transforms.images import check_images
from flatprobe.utils.arguments import Number, Whole, at_least, given, positive


@dataclass(frozen=True)
class Deformation:
    """x'(u) = x(u - tau(u)) with a smooth random displacement tau of C(tau) = size; y' = y.

    tau is bilinear between the nodes of a coarse grid, at which it is standard normal before it is scaled to
    C(tau) = c1 sup ||grad tau||_2 + c2 sup ||tau||_2 = size; drawn anew for each sample and step. No forward or
    backward pass. Beyond the border the image repeats its border pixels.

    Args:
        size: C(tau), at most 1, B19's bound; 1 by default.
        grid: nodes along each side, with the corner nodes at the image's corners. More nodes move smaller regions, and
            less far. 4 is ours.
        c1: weight of tau's gradient; see `flatprobe.training.transforms.displacement.roughness` for both.
        c2: weight of tau itself, per pixel.

    Raises:
        ValueError: for a size that is not in (0, 1], a grid below 1, or weights that are not positive and finite.
        ValueError: when called, for inputs that are no images (samples, channels, height, width) of at least 2 x 2
            pixels.

    Source: Bietti et al. (2019), deformations with C(tau) <= 1 [B19].

    >>> import torch
    >>> passed = ForwardPass(torch.nn.Flatten(), torch.ones(2, 1, 6, 6), torch.tensor([0, 1]), key=(0,))
    >>> bool((Deformation()(passed)[0] == 1).all())
    True
    """

    size: Number = 1.0
    grid: Whole = 4
    c1: Number = GRADIENT_WEIGHT
    c2: Number = SIZE_WEIGHT

    def __post_init__(self) -> None:
        given(size=self.size, c1=self.c1, c2=self.c2, grid=self.grid)
        positive(size=self.size, c1=self.c1, c2=self.c2)
        at_least(1, grid=self.grid)
        if self.size > 1:
            msg = f"size is {self.size}; expected at most 1, which is C(tau) <= 1: lower c1 or c2 for larger movements"
            raise ValueError(msg)

    def __call__(self, passed: ForwardPass, /) -> tuple[Float[Tensor, "samples channels height width"], Labels]:
        """The deformed images, and the unchanged labels."""
        inputs = check_images(passed, "deformation")
        drawn = passed.normal((len(inputs), 2, self.grid, self.grid), "deformation")
        rough = roughness(drawn, inputs.shape[2:], c1=self.c1, c2=self.c2)
        return deform(inputs, self.size * drawn / per_sample(rough, drawn)), passed.labels
