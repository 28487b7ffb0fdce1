"""Largest input gradients of the logits, a lower bound of the RKHS norm."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.training.forward import ForwardPass
from flatprobe.training.penalties.classes import check_classes, draw_classes, group_rows
from flatprobe.utils.arguments import Whole


@dataclass(frozen=True)
class RKHSGradient:
    """P = sum_k max_i ||grad_x f_k(x_i)||_2^2, f_k the logits: ||f||_H^2 is at least the supremum over all x.

    Exact on the batch; sampled if classes are drawn.

    Cost: 1 backward pass to the inputs per class without a graph, which finds the sample of each maximum. Only these
    samples are differentiated again: 1 backward pass with a graph for all classes, or as many as classes share a
    sample.

    BatchNorm: the batch's statistics, detached in the derivative (`ForwardPass`).

    P is no mean but a sum over classes of maxima over the batch, which grow with its size.

    Args:
        classes: `"all"`, or the number of classes drawn in each pass, without repetition: their sum times C / classes
            is unbiased, in value and in gradient.

    Raises:
        ValueError: for another word, or fewer than 1 class.
        ValueError: when called, if the logits do not depend differentiably on the inputs.

    Source: Bietti et al. (2019), the gradient penalty, summed over classes [B19].

    >>> network = torch.nn.Linear(2, 2, bias=False)
    >>> _ = network.weight.data.copy_(torch.tensor([[0.0, 1.0], [3.0, 4.0]]))
    >>> RKHSGradient()(ForwardPass(network, torch.ones(1, 2), torch.tensor([0]))).item()
    26.0
    """

    classes: str | Whole = "all"

    def __post_init__(self) -> None:
        check_classes(self.classes)

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """P on one batch, differentiable in the weights."""
        summed, factor = draw_classes(passed, self.classes, "rkhs_gradient")
        logits = passed.logits
        gradients = (passed.derivative(logits[:, k], create_graph=False) for k in summed)
        own = torch.stack([gradient.flatten(1).square().sum(1).argmax() for gradient in gradients])
        total = logits.new_zeros(())
        for group in group_rows(own.tolist()):
            along = torch.zeros_like(logits)
            along[own[group], [summed[position] for position in group]] = 1
            total = total + passed.derivative(logits, along).square().sum()
        return factor * total
