"""Squared Jacobian of each layer separately."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from flatprobe.functional.losses import softmax_product
from flatprobe.training.forward import ForwardPass, Layer
from flatprobe.utils.arguments import one_of


@dataclass(frozen=True)
class JacobianPerLayer:
    """P = (1/b) sum_i sum_l ||g_l W_l||^2, g_l = d f_pi(i) / d zhat_l at layer l's pre-activation zhat_l = W_l x + b_l.

    f is the softmax or the logits, and pi(i) one uniform class per sample, without a factor C. The layers are the
    linear layers and the convolutions. g_l W_l is the layer's adjoint (a transposed convolution), through the layer
    alone and not through a skip connection. Activations and other entrywise layers enter only by g_l. A weight that
    several layers share counts at each use. A computed weight (`torch.nn.utils.parametrizations`) passes its gradient
    on.

    Sampled: pi is drawn anew in every step. Value and gradient are unbiased for the mean over the classes.

    Cost: 1 backward pass, which gives g_l and g_l W_l at all layers. With `held` the pass needs no graph, and the
    gradient in the weights costs the weights' part of another backward pass.

    BatchNorm: enters only by g_l, with the batch's statistics detached (`ForwardPass`).

    With `held`, as in S17, the gradient in W_l is 2 g_l^T (g_l W_l) at constant g_l, without a second pass through the
    activations. For the logits of a ReLU network without batch statistics this is the exact derivative of each term in
    W_l. For the softmax it neglects the dependence of the slope of f on W_l. In both cases it neglects the dependence
    of the terms on the layers above. Without `held` the gradient is that of P, through g_l to all weights.

    Args:
        outputs: `"softmax"` (default, as in S17) or `"logits"`.
        held: True (default, as in S17): g_l is detached in the gradient; False: differentiated.

    Raises:
        ValueError: for other words.
        ValueError: when called, for a product of another kind with a parameter (an embedding of the inputs, attention,
            a recurrent layer, a transposed convolution), or for no layer.
        ValueError: when called, if the logits do not depend differentiably on the inputs.

    Source: Sokolić et al. (2017), eq. 52 and Table VI [S17].

    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
    >>> for layer in network:
    ...     _ = torch.nn.init.eye_(layer.weight)
    >>> passed = ForwardPass(network, torch.zeros(3, 2), torch.tensor([0, 1, 0]), key=(0,))
    >>> float(JacobianPerLayer(outputs="logits")(passed).detach())
    2.0
    """

    outputs: str = "softmax"
    held: object = True

    def __post_init__(self) -> None:
        one_of("outputs", self.outputs, ("logits", "softmax"))
        one_of("held", self.held, (True, False))

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """P on one batch, with the gradient according to `held`."""
        held, logits = bool(self.held), passed.logits
        samples, classes = logits.shape
        chosen = F.one_hot(passed.integers(classes, (samples,), "jacobian_per_layer"), classes).to(logits)
        along = softmax_product(logits, chosen) if self.outputs == "softmax" else chosen
        found = passed.layer_gradients(logits, along, create_graph=not held)
        terms = [_detached(*entry) if held else entry[1].square().sum() for entry in found]
        return torch.stack(terms).sum() / samples


def _detached(layer: Layer, pulled: Tensor, above: Tensor) -> Tensor:
    result: Tensor = _Detached.apply(layer.weight, pulled, above, layer)  # type: ignore[no-untyped-call]
    return result


class _Detached(torch.autograd.Function):
    """||g W||^2 as a function of W, from the known g W."""

    @staticmethod
    def forward(ctx: Any, _weight: Tensor, pulled: Tensor, above: Tensor, layer: Layer) -> Tensor:
        ctx.save_for_backward(pulled, above)
        ctx.layer = layer
        return pulled.square().sum()

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor, None, None, None]:
        pulled, above = ctx.saved_tensors
        return ctx.layer.gathered(pulled, 2 * by * above), None, None, None
