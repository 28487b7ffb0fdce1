"""Operator norms of the layers, whose product is an upper bound of the RKHS norm."""

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
    layer that is applied twice to inputs of one shape counts once. A layer whose weight is computed in each application
    (`torch.nn.utils.parametrizations`) counts at each application. Padding modes other than zeros belong to no A_l. P
    depends only on the weights, not on the batch.

    Exact: all singular values, or Lanczos to 1e-6, in float64 on the CPU in each step, for tests and small layers.

    Sampled: power iteration from the vectors of the previous step. ||A_l v|| <= ||A_l|| tracks the norm from below
    while the weights change. The gradient is that of ||A_l v||^2 with v detached.

    Cost: no pass of the batch; 2 products with each layer per iteration, each for one sample.

    BatchNorm: its scale belongs to no A_l.

    `memory` holds the vectors by the layer's place, name and input shape, and run folders store it. Use one object per
    network: layers of two networks that agree in all three would share vectors, and P would be a poor lower bound until
    the iteration recovers.

    Args:
        iterations: power iterations per step; 1 is usual for weights that change little in a step.
        exact: True: exact norms, without power iteration.

    Raises:
        ValueError: for fewer than 1 iteration.
        ValueError: when called, for a product of another kind with a parameter, or for no layer.

    Source: Bietti et al. (2019), the upper bound by spectral norms [B19]; Miyato et al. (2018), the iteration between
    steps.

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
        found = distinct(check_layers(passed.layers, "the penalty 'spectral_norm'", _FIX))
        images = [
            find_exact_image(layer) if self.exact else self._iterate(passed, place, layer)
            for place, layer in found.items()
        ]
        return torch.stack([image.square().sum() for image in images]).sum()

    def _iterate(self, passed: ForwardPass, place: str, layer: Layer) -> Tensor:
        """A v after the iterations of this step; its direction goes to the memory."""
        u = self.memory.get(place)
        if u is None:
            u = passed.normal((1, *layer.image_shape), "spectral_norm", place)
        image, self.memory[place] = iterate_power(layer, u.to(layer.weight), self.iterations)
        return image


_FIX = (
    "take a penalty on the derivatives in the inputs, such as jacobian_spectral; train a network on integers from its "
    "embedding (fp.at_embedding)"
)
