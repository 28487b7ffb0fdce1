"""Gaussian noise in the inputs."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flatprobe.training.forward import ForwardPass
from flatprobe.training.forward.labels import Labels
from flatprobe.utils.arguments import Number, given, positive


@dataclass(frozen=True)
class GaussianNoise:
    """x' = x + e with e from N(0, lambda^2 I), drawn anew in each step; y' = y.

    No forward or backward pass. The noise is not clipped.

    Args:
        deviation: lambda, the standard deviation of every entry of e, in the units of the data, before the
            scaling of a `Normalised` network.

    Raises:
        ValueError: for a deviation that is not positive and finite.

    Source: Thumwanit (2020), eq. 57, with the covariance lambda^2 I (docs, Definitions) [N20].

    >>> import torch
    >>> passed = ForwardPass(torch.nn.Identity(), torch.zeros(2, 3), torch.tensor([0, 1]), key=(0,))
    >>> GaussianNoise(0.1)(passed)[0].shape
    torch.Size([2, 3])
    """

    deviation: Number

    def __post_init__(self) -> None:
        given(deviation=self.deviation)
        positive(deviation=self.deviation)

    def __call__(self, passed: ForwardPass, /) -> tuple[Float[Tensor, "samples ..."], Labels]:
        """The noisy inputs, and the unchanged labels."""
        inputs = passed.inputs.detach()
        noise = passed.normal(tuple(inputs.shape), "gaussian_noise")
        return inputs + self.deviation * noise, passed.labels
