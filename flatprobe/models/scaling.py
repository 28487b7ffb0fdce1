"""Networks with scaled initial weights."""

import torch
from torch import nn

from flatprobe.network.copies import structural_copy
from flatprobe.utils.arguments import positive


def scaled(network: nn.Module, factor: float) -> nn.Module:
    """A copy with W -> factor * W for all parameters with two or more axes.

    Biases, and BatchNorm's scale and shift, are unchanged, since the usual initializers determine only the scale of the
    other parameters. A ReLU network with L layers and no biases is positively homogeneous of degree L in its weights,
    so its logits become factor^L times as large.

    Args:
        network: any module, in its initial state; it is not changed.
        factor: positive.

    Returns:
        The copy, with the recipe of the original, so that its checkpoints load as usual.

    Raises:
        ValueError: for a factor that is not positive and finite.

    Source: T3 Fig. 17 compares margins and norms over initial weights of different sizes.

    >>> network = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False))
    >>> x = torch.ones(1, 2)
    >>> bool(torch.allclose(scaled(network, 2.0)(x), 4 * network(x)))
    True
    """
    positive(factor=factor)
    result = structural_copy(network)
    with torch.no_grad():
        for parameter in result.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(factor)
    return result
