"""Weight normalization without a gain: rows of unit length."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from flatprobe.training.constraints.trained import trained_layers
from flatprobe.training.forward import Layer


@dataclass(frozen=True)
class UnitRows:
    """W = diag(V V^T)^(-1/2) V of every layer: rows of length 1, without a gain; biases do not change.

    The rows are divided by their lengths at the beginning and after each step, so that the network keeps its
    parameters. S17 trains V by gradients through the normalization. There the gradient of a row is
    (1 - w w^T) g / ||v||, tangential to the sphere. Here it is g, whose radial part the division removes. From
    ||v|| = 1 the two agree to first order in the learning rate. Beyond first order they differ: V grows with every
    tangential step, which slows down S17's training, and the momentum here keeps radial parts. At S17's learning rate
    of 0.1 the order of its Fig. 4c appears with the former (`fp.models.unit_rows`) and fails with this projection.

    A filter of a convolution is a row of the kernel reshaped to (out, in / groups * taps), not a row of the operator's
    matrix, which repeats the filter at every pixel. A row of zeros has no direction and does not change.

    Raises:
        ValueError: when called, for a layer that is neither linear nor a convolution, or no layer.
        ValueError: when called, for a layer whose weight is computed from other parameters.

    Source: Sokolić et al. (2017), eq. 45, with a square root and for rows (docs, Definitions) [S17]; Salimans and
    Kingma (2016), "Weight normalization", without the gain.

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
