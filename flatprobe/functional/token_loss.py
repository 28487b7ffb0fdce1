"""Cross-entropy of many tokens over a large vocabulary, in the memory of a few tokens."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from flatprobe.functional.outputs import at_least_single

# Bytes of the logits that are worked on at once, in float32.
_BYTES = 2**24


def negative_log_likelihood(
    logits: Float[Tensor, "samples tokens classes"], labels: Int64[Tensor, "samples tokens"]
) -> Float[Tensor, "samples tokens"]:
    """log sum_c exp(z_c) - z_y per token, with its first and second derivative, in float32 at least.

    Beside the logits, memory holds a few tokens at a time: autograd saves the logits themselves in place of a second
    tensor of log-probabilities. The gradient, of the size of the logits, is made anew.

    Args:
        logits: z.
        labels: y, 0 to classes - 1.

    Raises:
        ValueError: for a label outside of the classes.
    """
    rows, flat = logits.flatten(0, 1), labels.flatten()
    if logits.device.type == "cpu" and len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < logits.shape[2]:
        wrong = int(flat[(flat < 0) | (flat >= logits.shape[2])][0])
        msg = (
            f"the labels must be 0 to {logits.shape[2] - 1}, the classes of the outputs, got {wrong}. Give the loss "
            "ignore_index for tokens that do not count"
        )
        raise ValueError(msg)
    found: Tensor = _Likelihood.apply(rows, flat)  # type: ignore[no-untyped-call]
    return found.view(labels.shape)


def _pieces(logits: Tensor) -> Iterator[slice]:
    size = max(1, _BYTES // (4 * logits.shape[1]))
    return (slice(start, start + size) for start in range(0, len(logits), size))


class _Likelihood(torch.autograd.Function):
    """l = log sum_c exp(z_c) - z_y, with the gradient of `_Slope`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        sums = torch.cat([at_least_single(logits[part]).logsumexp(1) for part in _pieces(logits)])
        ctx.save_for_backward(logits, labels, sums)
        return sums - logits.gather(1, labels[:, None]).squeeze(1)

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None]:
        logits, labels, sums = ctx.saved_tensors
        return _Slope.apply(logits, labels, sums.detach(), weights), None  # type: ignore[no-untyped-call]


class _Slope(torch.autograd.Function):
    """w (p - e_y) with p = softmax(z), and its derivative in z and w."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, sums: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(logits, labels, sums, weights)
        found = torch.empty_like(logits)
        for part in _pieces(logits):
            w = weights[part, None]
            own = (at_least_single(logits[part]) - sums[part, None]).exp_().mul_(w)
            found[part] = own.scatter_add_(1, labels[part, None], -w)
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor, None, None, Tensor]:
        """Derivative along u: w p (u - <p, u>) in z, and <p - e_y, u> in w."""
        logits, labels, sums, weights = ctx.saved_tensors
        found, slopes = torch.empty_like(logits), torch.empty_like(weights)
        for part in _pieces(logits):
            u = at_least_single(direction[part])
            p = (at_least_single(logits[part]) - sums[part, None]).exp_()
            mean = (p * u).sum(1)
            slopes[part] = mean - u.gather(1, labels[part, None]).squeeze(1)
            found[part] = p.mul_(u - mean[:, None]).mul_(weights[part, None])
        return found, None, None, slopes
