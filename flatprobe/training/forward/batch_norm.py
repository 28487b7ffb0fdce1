"""BatchNorm whose batch statistics can be detached while the inputs are differentiated."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class DetachFlag:
    """Flag for gradients in the inputs only, with the batch statistics detached.

    Autograd's graph keeps this flag and not the `Statistics`, which hold tensors of the graph: Python's garbage
    collector cannot see such a cycle, and would never free it.
    """

    inputs_only = False


class Statistics:
    """Batch means and deviations of the BatchNorm layers in one pass.

    In training mode the logits of a sample depend on the other samples of the batch through these statistics, so the
    gradient of a sum over the batch is no per-sample gradient. Within `detached()` no gradient flows through the
    statistics: the differentiated network has them as constants, and its samples are independent. Outside, in the
    backward pass to the weights, gradients flow through the statistics, also those of derivatives formed within.

    Args:
        updates: True: update the running statistics of the layers, as in training.
    """

    def __init__(self, *, updates: bool) -> None:
        self.updates, self.flag = updates, DetachFlag()
        self._taken: list[tuple[Tensor, Tensor]] = []
        self._replay: Iterator[tuple[Tensor, Tensor]] | None = None

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Form gradients in the block with respect to the inputs only, with the statistics as constants."""
        before, self.flag.inputs_only = self.flag.inputs_only, True
        try:
            yield
        finally:
            self.flag.inputs_only = before

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Normalize passes in the block with the statistics of the first pass, layer by layer, without updates."""
        before, self._replay = self._replay, iter(self._taken)
        try:
            yield
        finally:
            self._replay = before

    def normalize(
        self,
        inputs: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """`torch.nn.functional.batch_norm`, with these statistics in training.

        Raises:
            ValueError: for a single value per channel, which has no variance.
        """
        if not training:
            return F.batch_norm(inputs, running_mean, running_var, weight, bias, training, momentum, eps)
        if _count(inputs) < 2:
            msg = (
                f"BatchNorm met inputs of shape {tuple(inputs.shape)} in training mode; expected two values per channel"
            )
            raise ValueError(msg)
        result: Tensor
        if self._replay is not None:
            mean, inverse = next(self._replay, (None, None))
            if mean is None:
                msg = (
                    "a pass at other points met more BatchNorm layers than the first pass; expected a network that "
                    "applies the same layers each time: random depth, drawn outside torch, is not repeated"
                )
                raise ValueError(msg)
            result = _Affine.apply(inputs, mean, inverse, weight, bias, self.flag)  # type: ignore[no-untyped-call]
            return result
        averages = (running_mean, running_var) if self.updates else (None, None)
        result, mean, inverse = _Normalise.apply(inputs, weight, bias, averages, momentum, eps, self.flag)  # type: ignore[no-untyped-call]
        self._taken.append((mean, inverse))
        return result


def _count(inputs: Tensor) -> int:
    """Number of values per channel."""
    return inputs.numel() // inputs.shape[1]


def _axes(inputs: Tensor) -> list[int]:
    """All axes except the channels."""
    return [0, *range(2, inputs.ndim)]


def _channels(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *(1,) * (like.ndim - 2))


def _scale(above: Tensor, inverse: Tensor, weight: Tensor | None) -> Tensor:
    """The gradient in the inputs with constant statistics."""
    return above * _channels(inverse if weight is None else inverse * weight, above)


def _add_affine(to: Tensor | None, inputs: Tensor, slope: Tensor, shift: Tensor) -> Tensor:
    """to + slope * x + shift, in place unless it is differentiated, since these tensors are the largest."""
    if to is None:
        return torch.addcmul(shift, inputs, slope)
    if torch.is_grad_enabled():
        return to.addcmul(inputs, slope) + shift
    return to.addcmul_(inputs, slope).add_(shift)


def _differentiable_backward(
    above: Tensor, inputs: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, mask: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The result of torch's kernel, which has no derivative in the mean and the deviation."""
    axes, count = _axes(inputs), _count(inputs)
    standard = (inputs - _channels(mean, inputs)) * _channels(inverse, inputs)
    by_bias, by_weight = above.sum(axes), (above * standard).sum(axes)
    rest = _channels(by_bias / count, inputs) + standard * _channels(by_weight / count, inputs)
    below = _scale(above - rest, inverse, weight)
    return below, by_weight if mask[1] else None, by_bias if mask[2] else None


class _Normalise(torch.autograd.Function):
    """BatchNorm by torch's kernel -> the outputs, the mean m and the inverse deviation r = (var + eps)^(-1/2).

    m and r are outputs because the gradient in the inputs depends on r: a penalty on that gradient reaches the weights
    through them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        averages: tuple[Tensor | None, Tensor | None],
        momentum: float,
        eps: float,
        owner: DetachFlag,
    ) -> tuple[Tensor, Tensor, Tensor]:
        outputs, mean, inverse = torch.native_batch_norm(inputs, weight, bias, *averages, True, momentum, eps)
        ctx.save_for_backward(inputs, weight, mean, inverse)
        ctx.eps, ctx.owner, ctx.mask = eps, owner, (True, weight is not None, bias is not None)
        ctx.set_materialize_grads(False)
        return outputs, mean, inverse

    @staticmethod
    def backward(
        ctx: Any, above: Tensor | None, by_mean: Tensor | None, by_inverse: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        inputs, weight, mean, inverse = ctx.saved_tensors
        rest = (None,) * 4
        if ctx.owner.inputs_only:
            return None if above is None else _scale(above, inverse, weight), None, None, *rest
        found: tuple[Tensor | None, ...] = (None, None, None)
        if above is not None and torch.is_grad_enabled():
            found = _differentiable_backward(above, inputs, weight, mean, inverse, ctx.mask)
        elif above is not None:
            found = torch.ops.aten.native_batch_norm_backward(
                above, inputs, weight, None, None, mean, inverse, True, ctx.eps, ctx.mask
            )
        if by_mean is not None or by_inverse is not None:
            # dm/dx = 1/N and dr/dx = -r^3 (x - m) / N
            slope = torch.zeros_like(mean) if by_inverse is None else -by_inverse * inverse**3
            shift = (0 if by_mean is None else by_mean) - slope * mean
            shift, slope = _channels(shift / _count(inputs), inputs), _channels(slope / _count(inputs), inputs)
            found = (_add_affine(found[0], inputs, slope, shift), *found[1:])
        return *found, *rest


class _Affine(torch.autograd.Function):
    """BatchNorm with a given mean and inverse deviation; while detached, only the inputs have a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        mean: Tensor,
        inverse: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        owner: DetachFlag,
    ) -> Tensor:
        ctx.save_for_backward(inputs, mean, inverse, weight)
        ctx.owner, ctx.biased = owner, bias is not None
        scale = inverse if weight is None else inverse * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        return torch.addcmul(_channels(shift, inputs), inputs, _channels(scale, inputs))

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        inputs, mean, inverse, weight = ctx.saved_tensors
        below = _scale(above, inverse, weight)
        if ctx.owner.inputs_only:
            return below, None, None, None, None, None
        scale = inverse if weight is None else inverse * weight
        by_shift = above.sum(_axes(inputs))
        by_scale = (above * inputs).sum(_axes(inputs)) - mean * by_shift
        by_weight = None if weight is None else by_scale * inverse
        by_inverse = by_scale if weight is None else by_scale * weight
        return below, -scale * by_shift, by_inverse, by_weight, by_shift if ctx.biased else None, None
