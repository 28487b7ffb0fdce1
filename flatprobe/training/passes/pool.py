"""Max pooling whose derivative torch differentiates without a tensor of zeros: where the maxima lie is a constant."""

from typing import Any

import torch
from torch import Tensor


def pooled(inputs: Tensor, *window: Any) -> Tensor:
    """The maxima over windows, differentiable to any order.

    Args:
        inputs: (samples, channels, height, width), or without samples.
        window: kernel size, stride, padding, dilation, and whether the last window may stand out, as
            `torch.nn.functional.max_pool2d` has them.
    """
    result: Tensor = _Pool.apply(inputs, window)[0]  # type: ignore[no-untyped-call]
    return result


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, window: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        outputs, indices = torch.ops.aten.max_pool2d_with_indices(inputs, *window)
        ctx.mark_non_differentiable(indices)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs, indices)
        ctx.window = window
        return outputs, indices

    @staticmethod
    def backward(ctx: Any, above: Tensor, _: None) -> tuple[Tensor, None]:
        inputs, indices = ctx.saved_tensors
        found: Tensor = _Spread.apply(above, inputs.detach(), indices, ctx.window)  # type: ignore[no-untyped-call]
        return found, None


class _Spread(torch.autograd.Function):
    """Each window's number at the place of its maximum: linear, and its transpose picks them up again."""

    @staticmethod
    def forward(ctx: Any, above: Tensor, inputs: Tensor, indices: Tensor, window: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(indices)
        found: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(above, inputs, *window, indices)
        return found

    @staticmethod
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor, None, None, None]:
        (indices,) = ctx.saved_tensors
        return by.flatten(-2).gather(-1, indices.flatten(-2)).view_as(indices), None, None, None
