"""The layers' operator norms, an upper bound of the RKHS norm through their product (B19)."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from flatprobe.training.forward import ForwardPass, Layer
from flatprobe.training.forward.layers import check_layers, distinct
from flatprobe.training.forward.operator_norms import find_exact_image, iterate_power
from flatprobe.utils.arguments import Flag, Whole, at_least, flag, given


@dataclass(frozen=True)
class SpectralNorm:
    """P = sum_l ||A_l||_2^2, A_l the linear map of layer l between a sample's features at their real sizes.

    A convolution's A_l has its stride, padding, dilation and groups; its norm is not that of the reshaped kernel. A
    layer that is applied twice to inputs of one shape counts once; one whose weight is computed in each application
    (`torch.nn.utils.parametrizations`) counts at each of them. What a padding mode other than zeros adds belongs to no
    A_l. P depends on the weights alone, not on the batch.

    Exact: all singular values, or Lanczos to 1e-6, in float64 on the CPU in each step: for tests and small layers.

    Sampled: power iteration from the vectors that the step before ended with, so ||A_l v|| <= ||A_l|| follows the norm
    from below while the weights move; the gradient is that of ||A_l v||^2, v held constant.

    Cost: no pass of the batch; two products with each layer an iteration, each of a single sample's size.

    BatchNorm: its scale belongs to no A_l.

    The vectors lie in `memory` by the layer's place, name and input shape; a run's folder keeps them. One object for
    two networks takes turns on the vectors of layers that are alike in all three: P is still a lower bound, and a poor
    one until the vectors turn round; give each network its own.

    Args:
        iterations: of each step; 1, as is usual for weights that move little in a step.
        exact: whether the norms are exact; iterations then does not matter.

    Raises:
        ValueError: for fewer than 1 iteration; when it is called, for a product of another kind with a parameter, by
            its name, or if there is no layer.

    Source: B19, the upper bound by spectral norms; Miyato et al. 2018 for the iteration from step to step.

    >>> network = torch.nn.Linear(2, 2, bias=False)
    >>> _ = network.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> round(SpectralNorm(exact=True)(ForwardPass(network, torch.ones(1, 2), torch.tensor([0]))).item(), 4)
    16.0
    """

    iterations: Whole = 1
    exact: Flag = False
    memory: dict[str, Tensor] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        flag(exact=self.exact)
        given(iterations=self.iterations)
        at_least(1, iterations=self.iterations)

    def __call__(self, passed: ForwardPass, /) -> Float[Tensor, ""]:
        """P at the weights of this pass, differentiable in them."""
        found = distinct(check_layers(passed.layers, "the penalty 'spectral_norm'", _CURE))
        images = [
            find_exact_image(layer) if self.exact else self._stretched(passed, place, layer)
            for place, layer in found.items()
        ]
        return torch.stack([image.square().sum() for image in images]).sum()

    def _stretched(self, passed: ForwardPass, place: str, layer: Layer) -> Tensor:
        """A v after this step's iterations; the memory then holds its direction."""
        u = self.memory.get(place)
        if u is None:
            u = passed.normal((1, *layer.image_shape), "spectral_norm", place)
        image, self.memory[place] = iterate_power(layer, u.to(layer.weight), self.iterations)
        return image


_CURE = (
    "take a penalty on the derivatives in the inputs, such as jacobian_spectral; train a network on integers from its "
    "embedding (fp.at_embedding)"
)
