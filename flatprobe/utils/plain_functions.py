"""Plain formulas in place of torch's fast kernels.

Some kernels compute another function without gradients, or have no right second derivative.

A function mode holds for one thread. The switches of torch hold for the process, where other threads may measure too.
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

# Functions and their options that change the gradient and not the values: the padding row of an embedding gets no
# gradient. (A bag leaves its padding out of the values too.)
_EMBEDDINGS: dict[Any, tuple[list[str], tuple[str, ...]]] = {
    F.embedding: ([*signature(F.embedding).parameters], ("padding_idx", "scale_grad_by_freq", "sparse")),
    F.embedding_bag: ([*signature(F.embedding_bag).parameters], ("scale_grad_by_freq", "sparse")),
}

_TWICE: ContextVar[bool] = ContextVar("twice", default=False)


class PlainFunctions(TorchFunctionMode):
    """Function mode that makes a network one function with and without gradients.

    In eval mode without gradients, the fast path of `nn.TransformerEncoder` cuts padded tokens off. It returns zeros
    there, and as many tokens as the longest sample of the batch has. The network would be another function than under a
    gradient, and would depend on the batch. Torch does not take the fast path under a function mode.

    `nn.Embedding(padding_idx=...)` reads its padding row but gives it no gradient: the gradient is that of another
    function. Here an embedding is differentiated as it is computed, also with `sparse` or `scale_grad_by_freq`.

    Attributes:
        seen: whether a pass in the mode has called a function that the mode replaces.
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
            func = plain_form(func) if self._plain else func
        return func(*args, **(kwargs or {}))


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **kwargs: Any
) -> Tensor:
    """Attention by its plain formula: fused backward passes have no derivative."""
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
    """g v / ||v||; the second derivative of torch 2.13's fused kernel is wrong."""
    result: Tensor = v * (g / torch.norm_except_dim(v, 2, dim))
    return result


def _with_plain_attention(function: Any) -> Callable[..., Any]:
    """A copy of a torch function that calls the plain attention."""
    space = {**function.__globals__, "scaled_dot_product_attention": plain_attention}
    copied = FunctionType(function.__code__, space, function.__name__, function.__defaults__, function.__closure__)
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied


_PLAIN: dict[Any, Callable[..., Any]] = {
    F.scaled_dot_product_attention: plain_attention,
    torch._weight_norm: plain_weight_norm,  # noqa: SLF001 - what torch's weight_norm calls
    # Under a function mode torch passes this function as a whole: the calls within it are not seen.
    F.multi_head_attention_forward: _with_plain_attention(F.multi_head_attention_forward),
}


def plain_form(function: Callable[..., Any]) -> Callable[..., Any]:
    """The plain form of a torch function, or the function itself."""
    return _PLAIN.get(function, function)


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Let networks that run in the block, in this thread, use the plain formulas."""
    token = _TWICE.set(True)
    try:
        yield
    finally:
        _TWICE.reset(token)
