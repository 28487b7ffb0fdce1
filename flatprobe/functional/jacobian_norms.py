"""Spectral and Frobenius norms of the input Jacobian dz/dx per sample."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from flatprobe.functional.jacobian_rows import (
    each_relative_row,
    each_row,
    finite,
    gram_of_softmax,
    likeliest_first,
    precise_gram,
    stacked,
)
from flatprobe.functional.losses import softmax_product
from flatprobe.utils.plain_functions import twice_differentiable

Forward = Callable[[Tensor], Tensor]
Norms = Float64[Tensor, " samples"]

# Number of classes from which on Lanczos is faster, by architecture: its time crosses that of C backward passes in
# `python -m tests.benchmarks jacobian` (between 100 and 1,000 classes on an MLP, 40 and 100 on a CNN and a ResNet).
LANCZOS_CLASSES = {"dense": 128, "convolutional": 56}


def method_for(norm: str, classes: int, architecture: str) -> str:
    """The faster of `"lanczos"` and `"gram"` for a `Network.architecture`."""
    many = classes >= LANCZOS_CLASSES.get(architecture, LANCZOS_CLASSES["dense"])
    return "lanczos" if norm == "spectral" and many else "gram"


def norms(
    forward: Forward, inputs: Float[Tensor, "samples ..."], *, norm: str, softmax: bool, start: Tensor | None
) -> Norms:
    """Spectral or Frobenius norm of the Jacobian per sample.

    Args:
        forward: inputs -> logits.
        inputs: the batch.
        norm: `"spectral"` or `"frobenius"`.
        softmax: whether the Jacobian is dp/dx in place of dz/dx.
        start: (samples, classes) random start vectors for Lanczos; None for the Gram matrix.

    Returns:
        The norms, float64.
    """
    if norm == "frobenius":
        return gram_frobenius(forward, inputs, softmax=softmax)
    if start is None:
        return gram_spectral(forward, inputs, softmax=softmax)
    return lanczos_spectral(forward, inputs, start, softmax=softmax)


def jacobians(
    forward: Forward, inputs: Float[Tensor, "samples ..."]
) -> tuple[Tensor, Float[Tensor, "samples classes dimension"]]:
    """Logits and J = dz/dx per sample, one class at a time.

    Cost: 1 forward and C backward passes. The logits of a class are summed over the batch before differentiating; since
    the logits of a sample do not depend on other samples, each sample receives its own gradient. A loop over classes
    keeps one set of activations, which `vmap` over the classes would expand C times.

    Args:
        forward: inputs -> logits.
        inputs: the batch; its first dimension counts the samples.

    Returns:
        Logits (samples, classes), detached, and J, in the type of the inputs.

    Raises:
        ValueError: if the logits do not depend differentiably on the inputs.
    """
    with _differentiate(forward, inputs) as (logits, derivative):
        return logits.detach(), stacked(each_row(logits, derivative), logits.shape[1], inputs)


@contextmanager
def _differentiate(forward: Forward, inputs: Tensor) -> Iterator[tuple[Tensor, Forward]]:
    """The logits, and u -> J^T u."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        variable = inputs.detach().clone().requires_grad_()
        logits = _differentiable(forward(variable))

        def derivative(along: Tensor) -> Tensor:
            (found,) = torch.autograd.grad(logits, variable, along, retain_graph=True)
            return found

        yield logits, derivative


def gram_spectral(forward: Forward, inputs: Tensor, *, softmax: bool = False) -> Norms:
    """||J||_2 as the square root of the largest eigenvalue of J J^T (C x C).

    The Gram matrix squares the condition number of J, which costs the *small* singular values their digits. The largest
    one is safe: the products are summed in float64, so its relative error is that of the entries of J. For the softmax,
    dp/dx = S J with S = diag(p) - p p^T, and S J J^T S is formed in float64 from C - 1 relative rows.
    """
    if softmax:
        return _largest_root(_softmax_gram(forward, inputs))
    return _largest_root(precise_gram(jacobians(forward, inputs)[1]))


def gram_frobenius(forward: Forward, inputs: Tensor, *, softmax: bool = False) -> Norms:
    """||J||_F, exact.

    Cost: 1 forward and C backward passes, C - 1 for the softmax, in the memory of one row.

    Row k of dp/dx is p_k (R_k - m). R_k is row k of J less the row of the likeliest class, and m = sum_j p_j R_j. So
    ||dp/dx||_F^2 = sum_k p_k^2 ||R_k||^2 - 2 m . sum_k p_k^2 R_k + sum_k p_k^2 ||m||^2, summed in float64. The result
    contains p_max^2 ||m||^2, and p_k <= p_max, so no term exceeds the result by more than a factor of C.
    """
    with _differentiate(forward, inputs) as (logits, derivative):
        if not softmax:
            squares = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
            for row in each_row(logits, derivative):
                squares += row.double().square().sum(1)
            return squares.sqrt()
        p = logits.detach().double().softmax(1).gather(1, likeliest_first(logits))
        squares = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
        mean, weighted = (torch.zeros_like(inputs.flatten(1), dtype=torch.float64) for _ in range(2))
        for k, row in enumerate(each_relative_row(logits, derivative), start=1):
            own, row = p[:, k : k + 1], row.double()
            mean.addcmul_(own, row)
            weighted.addcmul_(own.square(), row)
            squares += own.squeeze(1).square() * row.square().sum(1)
        last = p.square().sum(1) * mean.square().sum(1)
        return (squares - 2 * (mean * weighted).sum(1) + last).clamp_min(0).sqrt()


def _softmax_gram(forward: Forward, inputs: Tensor) -> Float64[Tensor, "samples classes classes"]:
    with _differentiate(forward, inputs) as (logits, derivative):
        rows = stacked(each_relative_row(logits, derivative), logits.shape[1] - 1, inputs)
        return gram_of_softmax(logits.detach(), precise_gram(rows))


def _largest_root(products: Tensor) -> Norms:
    # A Jacobian that is not finite is reported as NaN.
    products, bad = finite(products)
    largest: Tensor = torch.linalg.eigvalsh(products)[:, -1]
    return largest.clamp_min(0).sqrt().masked_fill(bad, torch.nan)


def lanczos_spectral(forward: Forward, inputs: Tensor, start: Tensor, *, softmax: bool = False) -> Norms:
    """||J||_2 per sample by Golub-Kahan bidiagonalization.

    Step k multiplies once by J^T (a backward pass) and once by J (a backward pass through that pass). The norm
    ||B_k||_2 of the k x k bidiagonal matrix approaches ||J||_2 from below. It is within the residual of *a* singular
    value of J, which is the largest one unless the random start is almost orthogonal to its vector. A sample stops at
    the first step whose residual is at most sqrt(eps) ||B_k||_2, with eps the precision of the inputs' type. If ||J||_2
    is separated from the next singular value, the error is of the order of the residual *squared*, hence of eps. The
    value of a stopped sample is kept, so that it does not depend on the other samples. After C steps the norm is exact.

    Args:
        forward: inputs -> logits.
        inputs: the batch.
        start: (samples, classes) random start vectors.
        softmax: whether the Jacobian is dp/dx in place of dz/dx.

    Returns:
        The norms, float64.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        variable = inputs.detach().clone().requires_grad_()
        with twice_differentiable():  # the kernel of the forward pass determines the backward passes
            logits = _differentiable(forward(variable))
        dual = torch.zeros_like(logits).requires_grad_()
        (pulled,) = torch.autograd.grad(logits, variable, dual, create_graph=True)
        outer = partial(softmax_product, logits.detach().double()) if softmax else torch.clone

        def transposed(u: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(logits, variable, outer(u).to(logits), retain_graph=True)
            return product.flatten(1).double()

        def product(v: Tensor) -> Tensor:
            (result,) = torch.autograd.grad(pulled, dual, v.to(pulled).view_as(pulled), retain_graph=True)
            return outer(result.double())

        return _bidiagonalise(transposed, product, start.to(variable.device), _tolerance(inputs.dtype))


def _tolerance(dtype: torch.dtype) -> float:
    """sqrt(eps), for half precision that of single, since its own is 3 to 9 %."""
    return float(min(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps) ** 0.5)


def _bidiagonalise(transposed: Forward, product: Forward, start: Tensor, tolerance: float) -> Norms:
    u = start.double()
    left = [u / u.norm(dim=1, keepdim=True)]
    right: list[Tensor] = []
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    norms = torch.zeros(len(u), dtype=torch.float64, device=u.device)
    open_samples = torch.ones(len(u), dtype=torch.bool, device=u.device)
    for step in range(u.shape[1]):
        v = transposed(left[-1])
        alpha, v = _orthonormal(v, right)
        right.append(v)
        alphas.append(alpha)
        u = product(v)
        beta, u = _orthonormal(u, left)
        left.append(u)
        betas.append(beta)
        value, last = _top_singular(alphas, betas)
        residual = beta * last
        done = (residual <= tolerance * value) | (step + 1 == u.shape[1]) | value.isnan()
        norms = torch.where(open_samples, value, norms)
        open_samples = open_samples & ~done
        if not bool(open_samples.any()):
            break
    return norms


def _orthonormal(vector: Tensor, basis: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Norm of the part of a vector orthogonal to the basis, and the unit part."""
    if basis:
        columns = torch.stack(basis, 2)
        for _ in range(2):  # twice is enough (Kahan; Giraud, Langou, Rozloznik 2005)
            vector = vector - (columns @ (columns.mT @ vector[:, :, None])).squeeze(2)
    length = vector.norm(dim=1)
    return length, vector / length.clamp_min(1e-300)[:, None]


def _top_singular(alphas: list[Tensor], betas: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Largest singular value of B_k, and the last entry of its right vector."""
    k = len(alphas)
    matrix = torch.zeros(len(alphas[0]), k, k, dtype=torch.float64, device=alphas[0].device)
    for i in range(k):
        matrix[:, i, i] = alphas[i]
        if i:
            matrix[:, i, i - 1] = betas[i - 1]
    bad = ~matrix.isfinite().all(2).all(1)
    matrix = matrix.masked_fill(bad[:, None, None], 0.0)
    values, vectors = torch.linalg.eigh(matrix.mT @ matrix)
    top = values[:, -1].clamp_min(0).sqrt().masked_fill(bad, torch.nan)
    return top, vectors[:, -1, -1].abs()


def _differentiable(logits: Tensor) -> Tensor:
    if not logits.requires_grad:
        msg = (
            "the logits do not depend differentiably on the inputs; expected a network whose layers have gradients. "
            "Look for .detach(), torch.no_grad() or a rounding inside its forward"
        )
        raise ValueError(msg)
    return logits
