"""Objectives: the mean over the batch of the same losses that the probes measure."""

from collections.abc import Callable

from jaxtyping import Float, Int64
from torch import Tensor

from flatprobe.checks import Named
from flatprobe.kernels import per_sample_loss

Objective = Callable[[Tensor, Tensor], Tensor]


def objective(loss: Named) -> Objective:
    """The objective (logits, labels) -> (1/b) sum_i l(z_i, y_i) over a batch of b samples.

    Args:
        loss: one of `flatprobe.kernels.LOSSES`, with its arguments where it has any:
            `"cross_entropy"`: log sum_j exp(z_j) - z_y, in nats (T3, S17, N20);
            `"squared"`: sum_j (z_j - 1[j = y])^2 (SPEC section 5);
            `"squared_signs"`: the same with the targets +1 and -1;
            `"hinge"`: max(0, 1 + max_{j != y} z_j - z_y) (SPEC section 5);
            `"maximum"`: max_j z_j - z_y (O20 eq. 2.5), which is 0 as soon as the label's logit is the largest;
            `{"name": "smoothed_maximum", "epsilon": e}`: e log sum_j exp(z_j / e) - z_y (O20 eqs 7.1, 7.2).

    Returns:
        A differentiable function of the logits. An unknown name is a `ValueError` that lists the known ones.

    >>> import torch
    >>> objective("squared")(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    tensor(0.5000)
    """
    kernel = per_sample_loss(loss)

    def mean(logits: Float[Tensor, "samples classes"], labels: Int64[Tensor, " samples"]) -> Float[Tensor, ""]:
        return kernel(logits, labels).mean()

    return mean
