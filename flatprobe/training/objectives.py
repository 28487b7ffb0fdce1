"""Objectives: the mean over the batch of the same losses that the probes measure."""

from collections.abc import Callable

from jaxtyping import Float, Int64
from torch import Tensor

from flatprobe.kernels import per_sample_loss

Objective = Callable[[Tensor, Tensor], Tensor]


def objective(name: str) -> Objective:
    """The objective (logits, labels) -> (1/b) sum_i l(z_i, y_i) over a batch of b samples.

    Args:
        name: `"cross_entropy"`, `"squared"` (sum over classes of (z - onehot)^2) or `"hinge"`.

    Returns:
        A differentiable function of the logits. An unknown name is a `ValueError` that lists the known ones.

    >>> import torch
    >>> objective("squared")(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    tensor(0.5000)
    """
    loss = per_sample_loss(name)

    def mean(logits: Float[Tensor, "samples classes"], labels: Int64[Tensor, " samples"]) -> Float[Tensor, ""]:
        return loss(logits, labels).mean()

    return mean
