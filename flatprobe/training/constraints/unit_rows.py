"""Weight normalization without a gain: rows of unit length (S17 eq. 45 as meant)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from flatprobe.training.constraints.trained import trained_layers
from flatprobe.training.forward import Layer


@dataclass(frozen=True)
class UnitRows:
    """W = diag(V V^T)^(-1/2) V of every layer: its rows have length 1, without a gain; biases are left as they are.

    As a projection: the rows are divided by their lengths at the beginning and after each step, so that the network
    keeps its parameters' names and its number of them. S17 trains V by gradients through the normalisation. There a
    row's gradient is (1 - w w^T) g / ||v||, tangential to the sphere; here it is g, whose radial part the division
    takes away again. From ||v|| = 1 the two agree to first order in the learning rate. Beyond that they differ: V
    grows with every tangential step, which slows S17's training down, and the momentum here keeps radial parts.

    A filter of a convolution is a row: the kernel reshaped to (out, in / groups * taps), not a row of the operator's
    matrix, in which it stands once for every pixel. A row of zeros has no direction and stays.

    Raises:
        ValueError: when called: for a layer that is neither linear nor a convolution, or whose weight is computed from
            other parameters, by its name; if there is none.

    Source: S17 eq. 45, with the square root and the rows that it means (SPEC section 5); Salimans and Kingma 2016,
    "Weight normalization", whose gain is left out.

    >>> from flatprobe.training import ForwardPass
    >>> network = nn.Linear(2, 2, bias=False)
    >>> _ = network.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    >>> UnitRows()(network, ForwardPass(network, torch.ones(1, 2), torch.tensor([0])).layers)
    >>> network.weight.detach()
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    """

    @torch.no_grad()
    def __call__(self, module: nn.Module, layers: Sequence[Layer], /) -> None:
        """Divide the rows by their lengths, in place."""
        for layer in trained_layers(module, layers, "unit_rows", rows=True):
            rows = layer.weight.flatten(1)
            lengths = rows.norm(dim=1).view(-1, *(1,) * (layer.weight.ndim - 1))
            layer.weight.div_(torch.where(lengths > 0, lengths, 1))
