"""Two small convolutional networks: S17 section VI-B and N20 section 7.1.1."""

from collections.abc import Sequence

from torch import nn

from flatprobe.models.recipes import (
    Modules,
    add_dropout,
    assemble,
    class_count,
    dropout_layers,
    dropout_rate,
    image_shape,
)


def sokolic_cnn(input_shape: Sequence[int], *, classes: int = 10, dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    """Small CNN of S17: (32,5,5)-conv, 2x2 max-pool, twice, then linear.

    A ReLU follows each convolution, as in all networks of S17. The paper does not give the padding: zero padding of 2
    keeps the size of the map, so that the network also takes the 8 x 8 digits (42,154 parameters on MNIST).

    Args:
        input_shape: (channels, height, width), at least 4 x 4 pixels.
        classes: number of outputs; the default is that of MNIST, CIFAR-10 and the digits.
        dropout: probability with which an input of the linear layer is set to zero in training (the others are scaled
            up); 0 by default, since dropout is one of the regularizers under study.
        seed: of the initial weights, torch's default laws.

    Returns:
        The network.

    It raises `ValueError` for inputs that are not images or too small, and for a dropout outside [0, 1).

    Source: S17 section VI-B1.
    """
    channels, height, width = image_shape(input_shape, "sokolic_cnn", smallest=4)
    outputs, rate = class_count(classes), dropout_rate(dropout)

    def layers() -> Modules:
        return [
            ("conv1", nn.Conv2d(channels, 32, 5, padding=2)),
            ("relu1", nn.ReLU()),
            ("pool1", nn.MaxPool2d(2)),
            ("conv2", nn.Conv2d(32, 32, 5, padding=2)),
            ("relu2", nn.ReLU()),
            ("pool2", nn.MaxPool2d(2)),
            ("flatten", nn.Flatten()),
            *dropout_layers("dropout", rate),
            ("linear", nn.Linear(32 * (height // 4) * (width // 4), outputs)),
        ]

    arguments = {"input_shape": [channels, height, width], "classes": outputs}
    return assemble("sokolic_cnn", seed, layers, add_dropout(arguments, rate))


def thumwanit_cnn(
    input_shape: Sequence[int], *, classes: int = 10, dropout: float = 0.0, seed: int = 0
) -> nn.Sequential:
    """Small CNN of N20.

    3x3 convolutions of 32, 64 and 64 filters, 2x2 max-pools after the first two, 64 hidden units, linear.

    A ReLU follows each convolution and the hidden layer. The paper does not give the padding; 0
    is assumed, the Keras default.

    Args:
        input_shape: (channels, height, width), at least 18 x 18 pixels.
        classes: number of outputs; the default is that of MNIST and CIFAR-10.
        dropout: probability with which a hidden unit is set to zero in training (the others are scaled up); 0 by
            default, since dropout is one of the regularizers under study.
        seed: of the initial weights, torch's default laws.

    Returns:
        The network: 93,322 parameters on MNIST, 122,570 on CIFAR-10.

    It raises `ValueError` for inputs that are not images or too small, and for a dropout outside [0, 1).

    Source: N20 section 7.1.1 ("small model").
    """
    channels, height, width = image_shape(input_shape, "thumwanit_cnn", smallest=18)
    outputs, rate = class_count(classes), dropout_rate(dropout)
    rows, columns = (((length - 2) // 2 - 2) // 2 - 2 for length in (height, width))

    def layers() -> Modules:
        return [
            ("conv1", nn.Conv2d(channels, 32, 3)),
            ("relu1", nn.ReLU()),
            ("pool1", nn.MaxPool2d(2)),
            ("conv2", nn.Conv2d(32, 64, 3)),
            ("relu2", nn.ReLU()),
            ("pool2", nn.MaxPool2d(2)),
            ("conv3", nn.Conv2d(64, 64, 3)),
            ("relu3", nn.ReLU()),
            ("flatten", nn.Flatten()),
            ("linear1", nn.Linear(64 * rows * columns, 64)),
            ("relu4", nn.ReLU()),
            *dropout_layers("dropout", rate),
            ("linear2", nn.Linear(64, outputs)),
        ]

    arguments = {"input_shape": [channels, height, width], "classes": outputs}
    return assemble("thumwanit_cnn", seed, layers, add_dropout(arguments, rate))
