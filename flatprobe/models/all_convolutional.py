"""All-convolutional networks, with strides in place of pooling."""

from collections.abc import Callable, Sequence

from torch import nn

from flatprobe.models.polynomial import PolynomialReLU
from flatprobe.models.recipes import Modules, assemble, class_count, image_shape
from flatprobe.utils.arguments import at_least

LAYERS = 5


def all_convolutional(
    input_shape: Sequence[int],
    *,
    channels: int = 16,
    layers: int = LAYERS,
    activation: str = "relu",
    interval: float = 5.0,
    classes: int = 10,
    seed: int = 0,
) -> nn.Sequential:
    """All-convolutional network: 3x3 convolutions of stride 2, then linear.

    The papers give the number of layers and channels, no pooling and about 10,000 weights. Stride 2, padding 1 and the
    linear layer are our choice. With 5 layers they give 9,898 parameters on CIFAR-10, where the last map is one pixel.

    Args:
        input_shape: (channels, height, width), any size.
        channels: k, filters per layer; 16 as in T3 Figs 1-2.
        layers: number of convolutions; 5 as in T3 Figs 1-4, and 4 in its Fig. 15.
        activation: `"relu"`, or `"polynomial"`: the degree-10 least-squares fit of ReLU, whose error
            `PolynomialReLU` shows.
        interval: a; ReLU is fitted on [-a, a]. T3 does not give it. The default is wide compared with the inputs of the
            layers of an untrained network on pixels in [0, 1] (at most about 1.4), which leaves room for training. Used
            by `"polynomial"` only.
        classes: number of outputs; the default is that of CIFAR-10.
        seed: of the initial weights, torch's default laws.

    Returns:
        The network: 9,898 parameters on CIFAR-10 at 16 channels and 5 layers.

    Raises:
        ValueError: if the activation is unknown, or the channels, the layers or the interval are not above 0.

    Source: T3 Figs 1-4 (ReLU), Figs 21-24 and section 9.10 (polynomial).

    >>> sum(parameter.numel() for parameter in all_convolutional((3, 32, 32)).parameters())
    9898
    """
    inputs, height, width = image_shape(input_shape, "all_convolutional", smallest=1)
    outputs = class_count(classes)
    at_least(1, channels=channels, layers=layers)
    activations: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "polynomial": lambda: PolynomialReLU(interval)}
    if activation not in activations:
        msg = f"the activation {activation!r} is unknown; expected one of {', '.join(activations)}"
        raise ValueError(msg)
    rows, columns = (-(-length // 2**layers) for length in (height, width))

    def modules_of() -> Modules:
        modules: list[tuple[str, nn.Module]] = []
        for index in range(1, layers + 1):
            filters = inputs if index == 1 else channels
            modules += [
                (f"conv{index}", nn.Conv2d(filters, channels, 3, stride=2, padding=1)),
                (f"{activation}{index}", activations[activation]()),
            ]
        return [*modules, ("flatten", nn.Flatten()), ("linear", nn.Linear(channels * rows * columns, outputs))]

    arguments: dict[str, object] = {
        "input_shape": [inputs, height, width],
        "channels": int(channels),
        "activation": activation,
        "classes": outputs,
    }
    if activation == "polynomial":
        arguments["interval"] = float(interval)
    if layers != LAYERS:  # Recipes of older checkpoints have no such entry.
        arguments["layers"] = int(layers)
    return assemble("all_convolutional", seed, modules_of, arguments)


def all_cnn_c(input_shape: Sequence[int], *, classes: int = 10, seed: int = 0) -> nn.Sequential:
    """All-CNN-C with BatchNorm: 3 x 96, 3 x 192, 192, 192 and `classes` filters.

    The convolutions are 3x3 except for the last two, which are 1x1. The third and the sixth have stride 2, the first
    six are padded by 1 and the seventh is not. BatchNorm and a ReLU follow each of the nine, which therefore have no
    bias. S17's softmax layer has weights (they are weight-normalized), so a linear layer from `classes` averages to
    `classes` logits follows the pool; Springenberg et al. have none. Their dropout, which S17 does not mention, is left
    out.

    Args:
        input_shape: (channels, height, width), at least 9 x 9 pixels.
        classes: number of outputs; the default is that of CIFAR-10.
        seed: of the initial weights, torch's default laws.

    Returns:
        The network: 1,371,106 parameters on CIFAR-10, of which 1,368,480 are the convolutions' (Springenberg et al.:
        1.3 million).

    It raises `ValueError` for inputs that are not images or too small.

    Source: S17 section VI-B2; Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for Simplicity: The All
    Convolutional Net", ICLR workshop 2015, Table 1.
    """
    channels, height, width = image_shape(input_shape, "all_cnn_c", smallest=9)
    outputs = class_count(classes)
    #        filters, kernel, stride, padding
    table = [
        *[(96, 3, 1, 1), (96, 3, 1, 1), (96, 3, 2, 1)],
        *[(192, 3, 1, 1), (192, 3, 1, 1), (192, 3, 2, 1)],
        *[(192, 3, 1, 0), (192, 1, 1, 0), (outputs, 1, 1, 0)],
    ]

    def layers() -> Modules:
        modules: list[tuple[str, nn.Module]] = []
        inputs = channels
        for index, (filters, kernel, stride, padding) in enumerate(table, start=1):
            modules += [
                (f"conv{index}", nn.Conv2d(inputs, filters, kernel, stride=stride, padding=padding, bias=False)),
                (f"norm{index}", nn.BatchNorm2d(filters)),
                (f"relu{index}", nn.ReLU()),
            ]
            inputs = filters
        return [
            *modules,
            ("pool", nn.AdaptiveAvgPool2d(1)),
            ("flatten", nn.Flatten()),
            ("linear", nn.Linear(outputs, outputs)),
        ]

    return assemble("all_cnn_c", seed, layers, {"input_shape": [channels, height, width], "classes": outputs})
