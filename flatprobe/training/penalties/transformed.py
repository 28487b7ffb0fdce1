"""Rise of the loss under an input transformation (Oberman 2020, eq. RT)."""

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from flatprobe.training.forward import ForwardPass
from flatprobe.training.registry import build
from flatprobe.training.transforms import TRANSFORMS


@dataclass(frozen=True)
class Transformed:
    """R_T = (1/b) sum_i [l(f(x'_i), y'_i) - l(f(x_i), y_i)] with (x', y') = T(x, y), l the objective's loss.

    With strength 1 the objective and R_T add up to l(f(x'), y'): plain training on T (`transforms=[T]`), which draws
    its random numbers under another key. Other strengths weigh implicit regularization as an explicit penalty. R_T may
    be negative, and with a strength s above 1 the loss at x itself has the weight 1 - s: nothing keeps it from growing.

    Exact for a T that draws nothing, else sampled: one draw per step. x' is detached: the gradient in the
    weights does not go through T.

    Cost: one forward pass at x', and what T costs on the shared pass, where an attack takes its gradient
    (`ForwardPass.gradient`).

    BatchNorm and dropout: f(x') has the statistics and the mask of x, so that R_T compares two points of one network.
    The gradient goes through these statistics, and the running statistics are those of x. Training on T instead
    normalizes x' with its own statistics, and averages those.

    Args:
        transform: T, one of `fp.transforms`, its name, `{"name": ..., argument: value}`, or any such function.

    Raises:
        ValueError: for an unknown name, or arguments that the transform does not have.
        TypeError: for something that cannot be called.

    Source: Oberman (2020), eq. RT [O20].

    >>> import torch
    >>> passed = ForwardPass(torch.nn.Identity(), torch.zeros(1, 2), torch.tensor([0]), loss="maximum")
    >>> Transformed({"name": "fgsm", "budget": 0.5})(passed).item()
    1.0
    """

    transform: object = field(metadata={"registry": TRANSFORMS})

    def __post_init__(self) -> None:
        object.__setattr__(self, "transform", build("transform", self.transform, TRANSFORMS))

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """R_T on one batch, differentiable in the weights."""
        assert callable(self.transform)
        points, labels = self.transform(passed)
        return passed.losses_at(points.detach(), labels).mean() - passed.loss
