"""Normalization as a layer, so that probes report pixel units."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flatprobe.models.recipes import recipe_of
from flatprobe.network.sequential import know


class Normalise(nn.Module):
    """x -> (x - mean) / std, channel by channel (dimension 1).

    Args:
        mean: one number, or one per channel, in the units of the inputs (pixels in [0, 1]).
        std: the same; positive.
        dtype: dtype of the stored numbers; None for torch's default.

    Raises:
        ValueError: if a value is not finite, a std is not positive, or the two have different lengths.

    >>> Normalise(0.5, 0.25)(torch.tensor([[0.5, 1.0]]))
    tensor([[0., 2.]])
    """

    mean: Tensor
    std: Tensor
    affine_in_inputs = True  # lets input-space probes share the first linear layer's outputs over noise levels

    def __init__(
        self,
        mean: float | Sequence[float] | Tensor,
        std: float | Sequence[float] | Tensor,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        means, stds = (torch.as_tensor(value, dtype=torch.float64, device="cpu").flatten() for value in (mean, std))
        if not bool(means.isfinite().all()) or not bool(stds.isfinite().all()) or not bool((stds > 0).all()):
            msg = f"mean is {means.tolist()} and std {stds.tolist()}; expected finite numbers, std above 0"
            raise ValueError(msg)
        lengths = {len(means), len(stds)}
        if 0 in lengths or len(lengths - {1}) > 1:
            msg = f"mean has {len(means)} entries and std {len(stds)}; expected one, or one per channel, in both"
            raise ValueError(msg)
        self.register_buffer("mean", means.to(dtype or torch.get_default_dtype()))
        self.register_buffer("std", stds.to(dtype or torch.get_default_dtype()))

    def forward(self, x: Float[Tensor, "samples *shape"]) -> Float[Tensor, "samples *shape"]:
        """The normalized inputs.

        Raises:
            ValueError: if there are several means or stds and the inputs have another number of channels.
        """
        return _normalise(self, x, self.mean, self.std)


def _normalise(_layer: nn.Module, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    channels = max(len(mean), len(std))
    if channels > 1 and x.shape[1] != channels:
        msg = (
            f"the inputs have shape {tuple(x.shape)}, which is {x.shape[1]} channels; expected "
            f"{channels}, one for each of Normalise's mean and std"
        )
        raise ValueError(msg)
    trailing = (1,) * (x.ndim - 2)
    return (x - mean.reshape(-1, *trailing)) / std.reshape(-1, *trailing)


know(Normalise, _normalise, "mean", "std")


class Normalised(nn.Sequential):
    """`Normalise(mean, std)` followed by the network itself, which is not copied.

    Args:
        network: any module whose input is one tensor. The new layer has the dtype and device of its weights, and the
            whole has its mode.
        mean: one number, or one per channel, in pixel units.
        std: the same; positive.

    >>> Normalised(nn.Flatten(), 0.5, [0.25, 0.5])(torch.ones(1, 2, 1, 1))
    tensor([[2., 1.]])
    """

    def __init__(
        self,
        network: nn.Module,
        mean: float | Sequence[float] | Tensor,
        std: float | Sequence[float] | Tensor,
    ) -> None:
        anchor = next(
            (weight for weight in network.parameters() if weight.is_floating_point()), torch.empty(0, device="cpu")
        )
        layer = Normalise(mean, std, anchor.dtype).to(anchor.device)
        super().__init__(OrderedDict(normalise=layer, network=network))
        self.recipe = None
        if (inner := recipe_of(network)) is not None:
            values = {name: _numbers(value) for name, value in (("mean", mean), ("std", std))}
            self.recipe = {"name": "normalised", "arguments": {"network": inner, **values}}
        self.training = layer.training = network.training


def _numbers(value: float | Sequence[float] | Tensor) -> list[float]:
    numbers: list[float] = torch.as_tensor(value, dtype=torch.float64, device="cpu").flatten().tolist()
    return numbers
