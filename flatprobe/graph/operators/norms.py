"""Norms of a layer as a linear operator: estimates, proven upper bounds, and norms of the reshaped weight."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flatprobe.graph.operators.certificates import (
    UNIT,
    eigenvalue_bound,
    gram_and_error,
    lanczos,
    lanczos_vector,
    rounded_up,
    scale_of,
    scaled,
)
from flatprobe.graph.operators.convolution import Convolution
from flatprobe.graph.operators.torus import torus_bound
from flatprobe.utils.arguments import positive

Operator = Convolution | Tensor

# Largest smaller side of a matrix whose singular values are all computed; above it Lanczos is faster.
_DENSE_ESTIMATE = 512

# Largest smaller side and number of entries for a certificate by the dense matrix: in general, and on small maps
# (narrower than 6 (k - 1)), where the torus bound is loose and a longer run pays (4096: about 10 s and 0.6 GB).
_DENSE_CERTIFICATE = (1024, 2**22)
_DENSE_SMALL_MAP = (4096, 2**24)


def spectral_norm(op: Operator, *, tolerance: float = 1e-8) -> float:
    """||A||_2 = max ||A x|| / ||x||, an estimate without proof; for a bound see `certified_spectral_norm`.

    All singular values where the smaller side (of one group) is at most 512; otherwise Lanczos on A A^T or A^T A, some
    tens of products with the layer and its adjoint, which approaches the norm from below.

    Args:
        op: a `Convolution`, or a matrix (rows, columns).
        tolerance: residual at which Lanczos stops, relative to ||A||^2. The default 1e-8 keeps the relative error below
            1e-6 (tested).

    Returns:
        The norm, in output units per input unit; inf beyond float64.

    Raises:
        ValueError: for anything but a finite real matrix, or a tolerance that is not positive.

    >>> round(spectral_norm(Convolution(torch.ones(1, 1, 3, 3), (16, 16), (1, 1), (1, 1), (1, 1), 1)), 3)
    8.797
    """
    positive(tolerance=tolerance)
    op, scale = _scaled(op)
    if _takes_dense_estimate(op):
        blocks = op.blocks() if isinstance(op, Convolution) else op[None]
        return scale * float(torch.linalg.svdvals(blocks).amax())
    if not bool((op.kernel if isinstance(op, Convolution) else op).any()):
        return 0.0
    return scale * _lanczos_norm(op, tolerance)


def leading_input(op: Operator, *, tolerance: float = 1e-8) -> Tensor:
    """A unit x with ||A x|| = ||A||_2, computed as in `spectral_norm` and as exact; 0 for A = 0.

    Args:
        op: a `Convolution`, or a matrix (rows, columns).
        tolerance: residual at which Lanczos stops, relative to ||A||^2.

    Returns:
        Float64 on the CPU: a convolution's (in, *input_size), a matrix' (columns,).

    Raises:
        ValueError: for anything but a finite real matrix, or a tolerance that is not positive.

    >>> leading_input(torch.tensor([[3.0, 0.0], [0.0, 4.0]])).abs()
    tensor([0., 1.], dtype=torch.float64)
    """
    positive(tolerance=tolerance)
    op, _ = _scaled(op)
    shape = op.input_shape if isinstance(op, Convolution) else (op.shape[1],)
    if not bool((op.kernel if isinstance(op, Convolution) else op).any()):
        return torch.zeros(shape, dtype=torch.float64, device="cpu")
    if not _takes_dense_estimate(op):
        return _lanczos_input(op, tolerance).view(shape)
    blocks = op.blocks() if isinstance(op, Convolution) else op[None]
    _, values, rows = torch.linalg.svd(blocks, full_matrices=False)
    block = int(values[:, 0].argmax())
    found = torch.zeros(len(blocks), blocks.shape[2], dtype=torch.float64, device="cpu")
    found[block] = rows[block, 0]  # channels come group by group
    return found.view(shape)


def certified_spectral_norm(op: Operator) -> float:
    """A proven upper bound of ||A||_2: never below it, rounding included.

    Of a matrix, and of a convolution with a small matrix: the square root of the largest eigenvalue of the Gram matrix,
    verified by a Cholesky factorization (`certificates`), within 1e-6 of the norm. Of other convolutions: the torus
    bound with windows (`torus`). The dense matrix is used up to 1024 for the smaller side of one group and 2^22 entries
    in all groups; on maps narrower than 6 d (k - 1) along some axis up to 4096 and 2^24. Its norm is exact but for
    rounding, so the torus bound could not be smaller.

    On maps at least 6 d (k - 1) wide the torus bound was at most 2 % above the norm in the tests' random layers; no
    such figure is proven. 512 -> 512 channels, 3 x 3, on 32 x 32 take about a minute and less than 1 GB.

    Args:
        op: a `Convolution`, or a matrix (rows, columns).

    Returns:
        The bound, in output units per input unit.

    Raises:
        ValueError: for anything but a finite real matrix.

    Source: docs, Definitions (certified convolution norm); the windows are ours.

    >>> norm = certified_spectral_norm(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> 4 <= norm <= 4 * (1 + 1e-12)
    True
    """
    if isinstance(op, Convolution) and not _takes_dense(op):
        return torus_bound(op)
    _check_matrix(op)
    values = op.kernel if isinstance(op, Convolution) else op
    if not bool(values.any()):
        return 0.0
    scale = scale_of(values)
    gram, error = _scaled_gram(op, scale)
    square = (eigenvalue_bound(gram, lambda: _scaled_gram(op, scale)[0]) + error).amax()
    return rounded_up(scale * rounded_up(math.sqrt(float(square))))


def frobenius_norm(op: Operator) -> float:
    """||A||_F = sqrt(sum_t count(t) ||w_t||_F^2), count(t) the number of outputs whose tap t is in the image.

    Exact but for rounding. Cost: 1 pass over the weight. The norm of the kernel leaves the counts out.

    Args:
        op: a `Convolution`, or a matrix.

    Returns:
        The norm.

    Raises:
        ValueError: for anything but a finite real matrix.

    Source: Sokolić et al. (2017), eq. 37 [S17], the operator's norm.

    >>> frobenius_norm(Convolution(torch.ones(1, 1, 3, 3), (16, 16), (1, 1), (1, 1), (1, 1), 1))
    46.0
    """
    op, scale = _scaled(op)
    if not isinstance(op, Convolution):
        return scale * float(op.norm())
    squares = op.kernel.square().sum((0, 1))
    for axis in range(squares.ndim):
        counts = torch.tensor([len(i) for i, _ in op.meetings(axis)], dtype=torch.float64, device="cpu")
        squares = squares * counts.view(-1, *(1 for _ in range(squares.ndim - axis - 1)))
    return scale * math.sqrt(float(squares.sum()))


def certified_frobenius_norm(op: Operator) -> float:
    """`frobenius_norm` and its rounding: a sum of K positive terms errs by at most 8 (K + 4) u of itself."""
    terms = op.kernel.numel() if isinstance(op, Convolution) else op.numel()
    norm = frobenius_norm(op)
    return rounded_up(norm * (1 + 8 * (terms + 4) * UNIT)) if norm else 0.0


def reshaped_spectral_norm(weight: Tensor) -> float:
    """||W||_2 of the weight reshaped to (out, rest), as torch's parametrization reports it for a convolution.

    This is no bound of the operator's norm: a 3 x 3 kernel of ones has 3, and the norm 8.8 on a 16 x 16 image.
    """
    return spectral_norm(_reshaped(weight))


def reshaped_frobenius_norm(weight: Tensor) -> float:
    """||W||_F of the weight's entries, each counted once."""
    return frobenius_norm(_reshaped(weight))


def stable_rank(op: Operator) -> float:
    """||A||_F^2 / ||A||_2^2, between 1 and the rank; an estimate, like the spectral norm.

    Raises:
        ValueError: for the zero operator, which has no stable rank.
    """
    op, _ = _scaled(op)
    spectral = spectral_norm(op)
    if spectral == 0.0:
        msg = "the operator is zero: its stable rank is 0 / 0; expected one that is not"
        raise ValueError(msg)
    return (frobenius_norm(op) / spectral) ** 2


def _reshaped(weight: Tensor) -> Tensor:
    return weight.reshape(len(weight), -1)


def _scaled_gram(op: Operator, scale: float) -> tuple[Tensor, Tensor]:
    """`gram_and_error` of the operator over a power of two, without a copy of the matrix where that is safe."""
    if isinstance(op, Convolution) or not 1e-100 < scale < 1e100:  # squares would overflow or vanish
        op, _ = _scaled(op)
        return gram_and_error(op.blocks() if isinstance(op, Convolution) else op[None])
    gram, error = gram_and_error(op.detach().to("cpu", torch.float64)[None])
    return gram.div_(scale**2), error / scale**2


def _scaled(op: Operator) -> tuple[Operator, float]:
    """The operator with its largest entry in [1, 2), and the power of two that it was divided by.

    Raises:
        ValueError: for anything but a finite real matrix.
    """
    _check_matrix(op)
    if isinstance(op, Convolution):
        kernel, scale = scaled(op.kernel)
        return Convolution(kernel, op.input_size, op.stride, op.padding, op.dilation, op.groups), scale
    return scaled(op.detach().to("cpu", torch.float64))


def _check_matrix(op: Operator) -> None:
    if isinstance(op, Convolution):
        return
    if op.ndim != 2 or not op.numel() or not op.is_floating_point() or not bool(op.isfinite().all()):
        msg = (
            f"the operator is a {op.dtype} tensor of shape {tuple(op.shape)}; expected a Convolution, or a matrix "
            "(rows, columns) of finite real floating numbers"
        )
        raise ValueError(msg)


def _block_shape(op: Operator) -> tuple[int, int]:
    return op.block_shape if isinstance(op, Convolution) else (len(op), op.shape[1])


def _entries(op: Operator) -> int:
    return (op.groups if isinstance(op, Convolution) else 1) * math.prod(_block_shape(op))


def _takes_dense_estimate(op: Operator) -> bool:
    return min(_block_shape(op)) <= _DENSE_ESTIMATE and _entries(op) <= _DENSE_CERTIFICATE[1]


def _takes_dense(op: Convolution) -> bool:
    narrow = any(n < 6 * reach for n, reach in zip(op.input_size, op.reach, strict=True))
    side, entries = _DENSE_SMALL_MAP if narrow else _DENSE_CERTIFICATE
    return min(op.block_shape) <= side and _entries(op) <= entries


def _lanczos_norm(op: Operator, tolerance: float) -> float:
    return math.sqrt(lanczos(*_gram(op)[:2], tolerance))


def _lanczos_input(op: Operator, tolerance: float) -> Tensor:
    product, size, to_input = _gram(op)
    found = to_input(lanczos_vector(product, size, tolerance)).flatten()
    length: Tensor = torch.linalg.vector_norm(found)
    return found / length


def _gram(op: Operator) -> tuple[Callable[[Tensor], Tensor], int, Callable[[Tensor], Tensor]]:
    """The product with the smaller of A A^T and A^T A, its size, and the map from its eigenvectors to inputs."""
    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor], Tensor]
    if isinstance(op, Convolution):
        forward, backward = op.apply, op.adjoint
        inputs, outputs = op.input_shape, op.output_shape
    else:
        forward, backward = op.mv, op.mT.mv
        inputs, outputs = (op.shape[1],), (len(op),)
    if math.prod(outputs) < math.prod(inputs):
        return lambda y: forward(backward(y.view(outputs))), math.prod(outputs), lambda y: backward(y.view(outputs))
    return lambda x: backward(forward(x.view(inputs))), math.prod(inputs), lambda x: x
