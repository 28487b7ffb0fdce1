"""Input transformations T, one file each: (x, y) -> (x', y') for training on l(f(x'), y').

A transform is any callable `transform(passed) -> (inputs, labels)` on a `ForwardPass` over the untransformed batch,
whose logits are computed only if the transform uses them. Several transforms are applied in order. Random numbers are
functions of the run's seed and the step, drawn for the whole batch at once.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from flatprobe.training.forward import ForwardPass, Mixture
from flatprobe.training.transforms.crop_and_flip import CropAndFlip
from flatprobe.training.transforms.cutout import Cutout
from flatprobe.training.transforms.deformation import Deformation
from flatprobe.training.transforms.fgsm import FGSM
from flatprobe.training.transforms.gaussian_noise import GaussianNoise
from flatprobe.training.transforms.gradient_step import GradientStep
from flatprobe.training.transforms.mixup import Mixup
from flatprobe.training.transforms.pgd import PGD

Transform = Callable[[ForwardPass], tuple[Tensor, Tensor | Mixture]]

TRANSFORMS: dict[str, Callable[..., Any]] = {
    "gaussian_noise": GaussianNoise,
    "fgsm": FGSM,
    "pgd": PGD,
    "gradient_step": GradientStep,
    "mixup": Mixup,
    "cutout": Cutout,
    "crop_and_flip": CropAndFlip,
    "deformation": Deformation,
}

__all__ = [
    "FGSM",
    "PGD",
    "TRANSFORMS",
    "CropAndFlip",
    "Cutout",
    "Deformation",
    "GaussianNoise",
    "GradientStep",
    "Mixup",
    "Transform",
]


def __dir__() -> list[str]:
    return sorted(__all__)
