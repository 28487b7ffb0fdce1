"""Convolutions with derivatives of any order, all by the kernels of a first derivative.

Torch forms the second derivative of a convolution by a convolution with batch and channels swapped, for which its CPU
kernels are slow. Here the kernels are y = A(x, W), x' = A^T(y, W), and the weight's gradient G(x, y). Each is linear in
both arguments, and its derivatives are the other two.
"""

from typing import Any

import torch
from torch import Tensor

from flatprobe.graph.operators.geometry import Geometry


def convolve(inputs: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, owner: Any) -> Tensor:
    """A(x, W) + b, differentiable to any order; W and b have no gradient while `owner.inputs_only`."""
    result: Tensor = _Apply.apply(inputs, weight, bias, geometry, owner)  # type: ignore[no-untyped-call]
    return result


def transpose(outputs: Tensor, weight: Tensor, geometry: Geometry, owner: Any) -> Tensor:
    """A^T(y, W), differentiable in the same way."""
    result: Tensor = _Adjoint.apply(outputs, weight, geometry, owner)  # type: ignore[no-untyped-call]
    return result


def _gather(inputs: Tensor, outputs: Tensor, geometry: Geometry, owner: Any) -> Tensor:
    result: Tensor = _Gather.apply(inputs, outputs, geometry, owner)  # type: ignore[no-untyped-call]
    return result


def _leads_on(ctx: Any) -> bool:
    """True if the backward pass needs the gradient in the input, unlike that of the first layer in a training step.

    `needs_input_grad` is exact for torch's own functions. For Python's it only says that a gradient could be formed.
    """
    if not ctx.needs_input_grad[0]:
        return False
    node = ctx.next_functions[0][0]
    return node is None or bool(torch._C._will_engine_execute_node(node))  # noqa: SLF001


class _Apply(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, owner: Any
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.geometry, ctx.owner = geometry, owner
        return geometry.convolve(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight = ctx.saved_tensors
        own = ctx.geometry, ctx.owner
        _, by_weight, by_bias = (wanted and not ctx.owner.inputs_only for wanted in ctx.needs_input_grad[:3])
        return (
            transpose(above, weight, *own) if _leads_on(ctx) else None,
            _gather(inputs, above, *own) if by_weight else None,
            above.sum([0, *range(2, above.ndim)]) if by_bias else None,
            None,
            None,
        )


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, outputs: Tensor, weight: Tensor, geometry: Geometry, owner: Any) -> Tensor:
        ctx.save_for_backward(outputs, weight)
        ctx.geometry, ctx.owner = geometry, owner
        return geometry.transpose(outputs, weight)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        outputs, weight = ctx.saved_tensors
        by_outputs = convolve(above, weight, None, ctx.geometry, ctx.owner) if ctx.needs_input_grad[0] else None
        needed = ctx.needs_input_grad[1] and not ctx.owner.inputs_only
        return by_outputs, _gather(above, outputs, ctx.geometry, ctx.owner) if needed else None, None, None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, outputs: Tensor, geometry: Geometry, owner: Any) -> Tensor:
        ctx.save_for_backward(inputs, outputs)
        ctx.geometry, ctx.owner = geometry, owner
        return geometry.gather(inputs, outputs)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        inputs, outputs = ctx.saved_tensors
        by_inputs = transpose(outputs, above, ctx.geometry, ctx.owner) if ctx.needs_input_grad[0] else None
        by_outputs = convolve(inputs, above, None, ctx.geometry, ctx.owner) if ctx.needs_input_grad[1] else None
        return by_inputs, by_outputs, None, None
