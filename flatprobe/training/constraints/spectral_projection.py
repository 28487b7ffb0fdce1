"""Projection of every layer's operator norm below a bound."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from flatprobe.training.constraints.trained import trained_layers
from flatprobe.training.forward import Layer
from flatprobe.training.forward.layers import distinct
from flatprobe.training.forward.operator_norms import converge_norm, search_krylov
from flatprobe.utils import rng
from flatprobe.utils.arguments import Number, Whole, at_least, given, one_of, positive

# The rounding of W W^T in float32. A matrix far outside K needs a second clip, as rounding hides its small values.
_SLACK = 1e-5
_CLIPS = 3


@dataclass(frozen=True)
class SpectralProjection:
    """K = {w : ||A_l||_2 <= bound for every layer l}, A_l the layer as an operator at its real input size.

    A_l of a convolution has its stride, padding, dilation and groups; its norm is not that of the reshaped kernel. A
    layer outside K is scaled, W <- bound / ||A_l|| W, as in Gouk et al. With `matrices="clip"` a linear layer is
    projected to the nearest matrix of K, W = U min(S, bound) V^T. Scaling shrinks all singular values by the excess of
    the largest, step after step: under a tight bound the network learns far less than with clipping. A convolution with
    clipped singular values would have a larger kernel, so convolutions are scaled with either word. B19's slides do not
    say which they mean.

    The norm of a scaled layer is the largest one in a Krylov space of the previous step's vectors
    (`forward.operator_norms.search_krylov`). It converges before the first step and again at the end of each epoch,
    where the tests' norms are within 0.5 % of the bound. Between these it is tracked from below, so the true norm
    exceeds the bound while the weights change fast. Cost per step: 2 k + (k + 1) products with each layer, k the
    iterations, for as many samples as there are vectors.

    Clipping tests W in K by a Cholesky factorization of bound^2 - W W^T, and outside K takes all eigenvectors of W W^T
    (the smaller side): the time of several training steps for 512 units. It is exact to 1e-5.

    BatchNorm's scale belongs to no A_l.

    Args:
        bound: of every layer's norm, in output units per input unit.
        matrices: `"scale"` or `"clip"`, for linear layers.
        iterations: k; 4 and 3 vectors are ours, cheap compared with a step of a convolutional network.
        vectors: start vectors of each layer's space; one is random, the others are tracked.

    Raises:
        ValueError: for a bound that is not positive and finite, another word for `matrices`, or fewer than 1 iteration
            or vector.
        ValueError: when called, for a layer that is neither linear nor a zero-padded convolution, or no layer.
        ValueError: when called, for a layer whose weight is computed from other parameters.

    Source: Bietti et al. (2019), upper bounds by constraints on the spectral norms [B19]; Gouk, Frank, Pfahringer and
    Cree (2018), "Regularisation of neural networks by enforcing Lipschitz continuity", for the scaling.

    >>> from flatprobe.training import ForwardPass
    >>> network = nn.Linear(2, 2, bias=False)
    >>> _ = network.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> SpectralProjection(2.0)(network, ForwardPass(network, torch.ones(1, 2), torch.tensor([0])).layers)
    >>> network.weight.detach().diag()
    tensor([1.5000, 2.0000])
    """

    bound: Number
    matrices: str = "scale"
    iterations: Whole = 4
    vectors: Whole = 3
    memory: dict[str, Tensor] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        given(bound=self.bound, iterations=self.iterations, vectors=self.vectors)
        positive(bound=self.bound)
        one_of("matrices", self.matrices, ("scale", "clip"))
        at_least(1, iterations=self.iterations, vectors=self.vectors)

    @torch.no_grad()
    def __call__(self, module: nn.Module, layers: Sequence[Layer], /) -> None:
        """Project the layers' weights onto K, in place."""
        for place, layer in distinct(trained_layers(module, layers, "spectral_projection")).items():
            if layer.kind == "linear" and self.matrices == "clip":
                _clip(layer.weight, self.bound)
                continue
            vectors = self.memory.get(place)
            if vectors is None:
                norm, self.memory[place] = converge_norm(
                    layer, self.vectors, rng.generator("spectral_projection", place)
                )
            else:
                norm, self.memory[place] = search_krylov(layer, vectors, self.iterations)
            layer.weight.mul_((self.bound / norm).clamp(max=1))

    def settle(self, module: nn.Module, layers: Sequence[Layer], /) -> None:
        """Project with norms that converge again, so that the saved and measured network is in K."""
        self.memory.clear()
        self(module, layers)


def _clip(weight: Tensor, bound: float) -> None:
    """Clip the singular values; a matrix within the bound does not change by a bit."""
    short = weight if weight.shape[0] <= weight.shape[1] else weight.mT
    for _ in range(_CLIPS):
        gram = short @ short.mT
        most = (bound * (1 + _SLACK)) ** 2 * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        outside = torch.linalg.cholesky_ex(most - gram).info != 0
        if not bool(outside) or not bool(gram.isfinite().all()):  # The loss reports values that are not finite.
            return
        values, vectors = torch.linalg.eigh(gram)
        excess = 1 - bound / values.clamp(min=bound**2).sqrt()
        short.sub_((vectors * excess) @ (vectors.mT @ short))
