"""Torch's fast kernels set aside where they compute another function, or have no right second derivative.

By a mode of the thread: torch's own switches are of the whole process, and other threads may be measuring too.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import signature
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

# Functions with options that change their gradient and not their values, and those options: the row of an embedding's
# padding gets no gradient. (A bag leaves its padding out of the values too.)
_EMBEDDINGS: dict[Any, tuple[list[str], tuple[str, ...]]] = {
    F.embedding: ([*signature(F.embedding).parameters], ("padding_idx", "scale_grad_by_freq", "sparse")),
    F.embedding_bag: ([*signature(F.embedding_bag).parameters], ("scale_grad_by_freq", "sparse")),
}

_TWICE: ContextVar[bool] = ContextVar("twice", default=False)


class PlainFunctions(TorchFunctionMode):
    """Torch's functions as they are defined, whether gradients are asked for or not, or by their plain formulas.

    `nn.TransformerEncoder`'s fast path, taken in eval mode without gradients, cuts the padded tokens off: it returns
    zeros there, and as many tokens as the batch's longest sample has. Such a network would be one function under a
    gradient and another without one, and would depend on the batch. Torch does not take it under a function mode.

    `nn.Embedding(padding_idx=...)` reads its padding row and hands it no gradient, which is then another function's;
    it is differentiated as it is computed, like one with `sparse` or `scale_grad_by_freq`.

    Attributes:
        seen: whether a pass in it has called a function that is another one here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = False
        self._plain = _TWICE.get()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _EMBEDDINGS:
            names, dropped = _EMBEDDINGS[func]
            options = dict(zip(names, args, strict=False)) | (kwargs or {})
            found = [options.pop(name, None) for name in dropped]
            self.seen |= any(value is not None and value is not False for value in found)  # a padding row may be 0
            return func(**options)
        if func in _PLAIN:
            self.seen = True
            func = plainly(func) if self._plain else func
        return func(*args, **(kwargs or {}))


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
) -> Tensor:
    """`scaled_dot_product_attention` by its plain formula: the fused kernels' backward passes have no derivative."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, -torch.inf)
    names = ("dropout_p", "is_causal")
    options = {**dict(zip(names, args, strict=False)), **kwargs}
    dropout, causal = options.pop("dropout_p", 0.0), options.pop("is_causal", False)
    result: Tensor = torch.ops.aten._scaled_dot_product_attention_math(  # noqa: SLF001 - torch's own plain kernel
        query, key, value, attn_mask, dropout, causal, **options
    )[0]
    return result


def plain_weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v / ||v||, the norm over all axes but one; the second derivative of torch 2.13's fused kernel is wrong."""
    result: Tensor = v * (g / torch.norm_except_dim(v, 2, dim))
    return result


def _with_plain_attention(function: Any) -> Callable[..., Any]:
    """One of torch's functions with the plain formula where it calls attention; torch's own is left as it is."""
    space = {**function.__globals__, "scaled_dot_product_attention": plain_attention}
    copied = FunctionType(function.__code__, space, function.__name__, function.__defaults__, function.__closure__)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied


_PLAIN: dict[Any, Callable[..., Any]] = {
    F.scaled_dot_product_attention: plain_attention,
    torch._weight_norm: plain_weight_norm,  # noqa: SLF001 - what torch's weight_norm calls
    # Under a function mode, torch hands this one over whole: what it calls is seen no more.
    F.multi_head_attention_forward: _with_plain_attention(F.multi_head_attention_forward),
}


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that stands in for one of torch's where second derivatives are needed; others as they are."""
    return _PLAIN.get(function, function)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Networks that run in the block, in this thread, take the plain formulas."""
    token = _TWICE.set(True)
    try:
        yield
    finally:
        _TWICE.reset(token)
