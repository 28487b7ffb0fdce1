"""Mixtures of two samples and their labels (Zhang et al. 2018)."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flatprobe.attacks.points import per_sample
from flatprobe.training.forward import ForwardPass, Mixture
from flatprobe.training.forward.labels import weighted_labels
from flatprobe.utils.arguments import Number, given, one_of, positive


@dataclass(frozen=True)
class Mixup:
    """x' = c x_i + (1 - c) x_j and y' the mixture of y_i and y_j with the same weights; c from Beta(alpha, alpha).

    j runs over a random permutation of the batch, so that every sample is once the first and once the second. The loss
    is c l(f(x'), y_i) + (1 - c) l(f(x'), y_j); for the cross-entropy this is the loss on the mixed one-hot target.
    Mixtures as labels are mixed again. No forward or backward pass.

    Args:
        alpha: 1, Zhang et al.'s on CIFAR-10 (section 3.2), makes c uniform; near 0 the samples are hardly mixed.
        each: `"batch"`: one c per batch, as in the program of their Fig. 1a; `"sample"`: one per sample.

    Raises:
        ValueError: for an alpha that is not positive and finite, or another word for `each`.

    Source: Zhang, Cisse, Dauphin and Lopez-Paz (2018), "mixup: beyond empirical risk minimization".

    >>> import torch
    >>> passed = ForwardPass(torch.nn.Identity(), torch.eye(3), torch.arange(3), key=(0,))
    >>> points, labels = Mixup()(passed)
    >>> points.sum(1), len(labels.parts)
    (tensor([1., 1., 1.]), 2)
    """

    alpha: Number = 1.0
    each: str = "batch"

    def __post_init__(self) -> None:
        given(alpha=self.alpha)
        positive(alpha=self.alpha)
        one_of("each", self.each, ("batch", "sample"))

    def __call__(self, passed: ForwardPass, /) -> tuple[Float[Tensor, "samples ..."], Mixture]:
        """The mixed inputs, and the mixed labels."""
        inputs = passed.inputs.detach()
        count = len(inputs)
        order = passed.uniform((count,), "mixup", "order").argsort()
        first = passed.beta(self.alpha, (count if self.each == "sample" else 1,), "mixup", "weights").expand(count)
        weight = per_sample(first, inputs)
        pairs = weighted_labels(passed.labels, inputs)
        mixed = [(first * share, labels) for share, labels in pairs]
        mixed += [((1 - first) * share[order], labels[order]) for share, labels in pairs]
        return weight * inputs + (1 - weight) * inputs[order], Mixture(tuple(mixed))
