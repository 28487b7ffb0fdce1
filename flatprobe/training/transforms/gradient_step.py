"""Gradient step on the inputs, without normalization."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flatprobe.training.forward import ForwardPass
from flatprobe.training.forward.labels import Labels
from flatprobe.utils.arguments import Number, given, positive


@dataclass(frozen=True)
class GradientStep:
    """x' = x + lambda grad_x l(f(x), y), without normalization of the gradient; y' = y.

    To first order the loss grows by lambda ||grad_x l||_2^2, so training on T is Tikhonov regularization of the loss.
    l is the objective's loss, as in `FGSM`. Cost: 1 backward pass to the inputs in the pass over x. The step has no
    bound: it is long where the loss is steep.

    Args:
        step: lambda, in squared units of the inputs per unit of the loss.

    Raises:
        ValueError: for a step that is not positive and finite.

    Source: Oberman (2020), section 10.5, T(x) = x + lambda grad L(x) [O20]; Finlay and Oberman (2019).

    >>> import torch
    >>> passed = ForwardPass(torch.nn.Identity(), torch.zeros(1, 2), torch.tensor([0]))
    >>> GradientStep(0.5)(passed)[0]  # the gradient is p - e_y
    tensor([[-0.2500,  0.2500]])
    """

    step: Number

    def __post_init__(self) -> None:
        given(step=self.step)
        positive(step=self.step)

    def __call__(self, passed: ForwardPass, /) -> tuple[Float[Tensor, "samples ..."], Labels]:
        """The moved inputs, and the unchanged labels."""
        return passed.inputs.detach() + self.step * passed.gradient(create_graph=False), passed.labels
