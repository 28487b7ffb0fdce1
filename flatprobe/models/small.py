"""Small AlexNet and Inception of Zhang et al. (2017) for T3 Table 2."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flatprobe.models.recipes import Modules, assemble, class_count, image_shape

# Filters of the two branches of an Inception module, or of the convolution of a downsampling module.
INCEPTION: tuple[tuple[int, int] | int, ...] = (
    *((32, 32), (32, 48), 80),
    *((112, 48), (96, 64), (80, 80), (48, 96), 96),
    *((176, 160), (176, 160)),
)


class Concatenated(nn.Module):
    """x -> the outputs of both branches, concatenated along the channels.

    Args:
        first: the branch whose channels come first.
        second: the other branch.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Float[Tensor, "samples *shape"]) -> Float[Tensor, "samples *output"]:
        """The channels of both branches."""
        return torch.cat([self.first(x), self.second(x)], dim=1)


def small_alexnet(input_shape: Sequence[int], *, classes: int = 10, seed: int = 0) -> nn.Sequential:
    """Small AlexNet of Zhang et al. (2017).

    Twice a 5x5 convolution of 64 filters and a 3x3 max-pool of stride 2; 384 and 192 hidden units, linear.

    A ReLU follows each convolution and hidden layer; convolutions are padded by 2 and pools by 1, so that the map is
    halved twice. Zhang et al. use local response normalization after each pool; T3's parameter count does not show
    whether T3 does, and it is left out.

    Args:
        input_shape: (channels, height, width), any size.
        classes: number of outputs; the default is that of CIFAR-10.
        seed: of the initial weights, torch's default laws.

    Returns:
        The network: 1,387,786 parameters on (3, 28, 28) (T3 Table 2).

    It raises `ValueError` for inputs that are not images.

    Source: T3 Table 2, "Alexnet"; Zhang, Bengio, Hardt, Recht, Vinyals, "Understanding deep learning requires
    rethinking generalization", ICLR 2017, appendix A.
    """
    channels, height, width = image_shape(input_shape, "small_alexnet", smallest=1)
    rows, columns = (-(-length // 4) for length in (height, width))
    sizes = [64 * rows * columns, 384, 192, class_count(classes)]

    def layers() -> Modules:
        modules: list[tuple[str, nn.Module]] = []
        for index, filters in enumerate((channels, 64), start=1):
            modules += [
                (f"conv{index}", nn.Conv2d(filters, 64, 5, padding=2)),
                (f"relu{index}", nn.ReLU()),
                (f"pool{index}", nn.MaxPool2d(3, stride=2, padding=1)),
            ]
        modules.append(("flatten", nn.Flatten()))
        for index, (inputs, outputs) in enumerate(pairwise(sizes[:-1]), start=1):
            modules += [(f"linear{index}", nn.Linear(inputs, outputs)), (f"relu{index + 2}", nn.ReLU())]
        return [*modules, ("linear3", nn.Linear(sizes[-2], sizes[-1]))]

    return assemble("small_alexnet", seed, layers, {"input_shape": [channels, height, width], "classes": sizes[-1]})


def small_inception(input_shape: Sequence[int], *, classes: int = 10, seed: int = 0) -> nn.Sequential:
    """Small Inception network of Zhang et al. (2017).

    3x3 convolution of 96, eight Inception and two downsampling modules, average pool over the map, linear.

    An Inception module joins the channels of a 1x1 and a 3x3 convolution; a downsampling module those of a 3x3
    convolution and a 3x3 max-pool, both of stride 2. A convolution has its bias and is followed by BatchNorm without
    scale and shift (it undoes the bias; T3's parameter count has the biases and no scales) and a ReLU; 3x3 windows
    are padded by 1.

    Args:
        input_shape: (channels, height, width), any size.
        classes: number of outputs; the default is that of CIFAR-10.
        seed: of the initial weights, torch's default laws.

    Returns:
        The network: 1,649,402 parameters with three channels and 10 classes (T3 Table 2).

    It raises `ValueError` for inputs that are not images.

    Source: T3 Table 2, "Inception"; Zhang et al. 2017 (see `small_alexnet`), Fig. 3.
    """
    channels, height, width = image_shape(input_shape, "small_inception", smallest=1)
    outputs = class_count(classes)

    def layers() -> Modules:
        modules: list[tuple[str, nn.Module]] = [("conv1", _convolution(channels, 96, 3))]
        inputs = 96
        branches: tuple[nn.Module, nn.Module]
        for index, filters in enumerate(INCEPTION, start=1):
            if isinstance(filters, int):
                branches = _convolution(inputs, filters, 3, stride=2), nn.MaxPool2d(3, stride=2, padding=1)
                inputs += filters
            else:
                branches = _convolution(inputs, filters[0], 1), _convolution(inputs, filters[1], 3)
                inputs = sum(filters)
            modules.append((f"module{index}", Concatenated(*branches)))
        return [
            *modules,
            ("pool", nn.AdaptiveAvgPool2d(1)),
            ("flatten", nn.Flatten()),
            ("linear", nn.Linear(inputs, outputs)),
        ]

    return assemble("small_inception", seed, layers, {"input_shape": [channels, height, width], "classes": outputs})


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2),
        nn.BatchNorm2d(outputs, affine=False),
        nn.ReLU(),
    )
