"""Multilayer perceptrons (T3 Table 2)."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from flatprobe.models.recipes import Modules, add_dropout, assemble, class_count, dropout_layers, dropout_rate

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def mlp(
    input_shape: Sequence[int],
    *,
    widths: Sequence[int] = (512,),
    classes: int = 10,
    activation: str = "relu",
    dropout: float = 0.0,
    seed: int = 0,
) -> nn.Sequential:
    """MLP: z = W_L s(... s(W_1 x + b_1) ...) + b_L on the flattened input.

    Args:
        input_shape: shape of one input; it is flattened.
        widths: units per hidden layer; `()` is the affine classifier. The default is T3's MLP 1 x 512.
        classes: number of outputs; the default is that of MNIST, CIFAR-10 and the digits.
        activation: `"relu"` (as in T3), `"tanh"` or `"sigmoid"`.
        dropout: probability with which a hidden unit is set to zero in training (the others are scaled up), after each
            hidden layer; 0 by default, since dropout is one of the regularizers under study.
        seed: of the initial weights, torch's default law for linear layers.

    Returns:
        Flatten, Linear, activation, (Dropout,) ..., Linear. The weights do not depend on the dropout.

    Raises:
        ValueError: if a width, a length or the number of classes is too small, the activation is unknown, or dropout
            is not in [0, 1).

    Source: T3 Table 2, MLP 1 x 512 on 28 x 28 x 3: 1,209,866 parameters.

    >>> sum(parameter.numel() for parameter in mlp((3, 28, 28)).parameters())
    1209866
    """
    if activation not in ACTIVATIONS:
        msg = f"the activation {activation!r} is unknown; expected one of {', '.join(ACTIVATIONS)}"
        raise ValueError(msg)
    shape, hidden = [int(length) for length in input_shape], [int(width) for width in widths]
    if min(shape, default=0) < 1:
        msg = f"input_shape is {tuple(shape)}; expected the shape of one input, all lengths at least 1"
        raise ValueError(msg)
    if min(hidden, default=1) < 1:
        msg = f"widths is {tuple(hidden)}; expected at least 1 unit in each hidden layer"
        raise ValueError(msg)
    sizes, rate = [math.prod(shape), *hidden, class_count(classes)], dropout_rate(dropout)

    def layers() -> Modules:
        modules: list[tuple[str, nn.Module]] = [("flatten", nn.Flatten())]
        for index, (inputs, outputs) in enumerate(pairwise(sizes[:-1]), start=1):
            modules += [
                (f"linear{index}", nn.Linear(inputs, outputs)),
                (f"{activation}{index}", ACTIVATIONS[activation]()),
                *dropout_layers(f"dropout{index}", rate),
            ]
        return [*modules, (f"linear{len(sizes) - 1}", nn.Linear(sizes[-2], sizes[-1]))]

    arguments = {"input_shape": shape, "widths": hidden, "classes": int(classes), "activation": activation}
    return assemble("mlp", seed, layers, add_dropout(arguments, rate))
