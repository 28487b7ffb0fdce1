"""Proven upper bounds of largest eigenvalues and singular values computed in floating point.

Notation of the margins: u = 2^-53. An inner product of K terms, in any order of summation, errs by at most gamma_K =
K u / (1 - K u) times the sum of its terms' moduli (Higham, Accuracy and Stability of Numerical Algorithms, section
3.1); complex arithmetic costs a factor of less than 4 (section 3.6). Every bound below carries 8 in place of it.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatprobe.utils import rng

UNIT = 2.0**-53

# Beyond this size one Lanczos run and the Cholesky test are faster than all eigenvalues (4096: 4 s against 8 s).
_DIRECT = 1024

# Eigenvalues below this are replaced by it: matrices come with their largest entries near 1, where it changes no digit.
_FLOOR = 2.0**-60


def eigenvalue_bound(gram: Tensor, again: Callable[[], Tensor] | None = None) -> Tensor:
    """An upper bound of the largest eigenvalue of each symmetric or Hermitian matrix, (..., n, n) -> (...).

    A candidate c just above the computed eigenvalue is accepted if the Cholesky factorisation of c I - G runs
    through. Then c I - G + E is positive semidefinite with ||E|| <= gamma_{n+1} / (1 - gamma_{n+1}) tr(c I - G)
    (Demmel 1989; Rump 2006, "Verification of positive definiteness", theorem 2.3), so the largest eigenvalue is at
    most c (1 + 8 (n + 4) n u), the rounding of the diagonal c - g_ii included. Nothing is assumed of the eigenvalue
    routine.

    Args:
        gram: positive semidefinite matrices of moderate scale.
        again: computes the real matrices again, so that this function may overwrite them; None: they are kept.

    Returns:
        The bounds, float64.
    """
    n = gram.shape[-1]
    rounding = 8 * (n + 4) * n * UNIT
    estimate = (_largest(gram) if n <= _DIRECT else _largest_by_lanczos(gram)).clamp_min(_FLOOR)
    excess = torch.full_like(estimate, rounding)
    while True:
        candidate = estimate * (1 + excess)
        shifted = gram.neg_().mT if again else -gram  # columns are contiguous, as LAPACK needs them to work in place
        shifted.diagonal(dim1=-2, dim2=-1).add_(candidate[..., None])
        info = torch.empty(gram.shape[:-2], dtype=torch.int32, device="cpu")
        torch.linalg.cholesky_ex(shifted, out=(shifted, info))
        failed = info != 0
        if not bool(failed.any()):
            return candidate * (1 + rounding)
        excess = torch.where(failed, 4 * excess, excess)
        gram = again() if again else gram


def singular_value_bound(matrices: Tensor) -> Tensor:
    """An upper bound of ||B||_2^2 for each of the matrices, (..., rows, columns) -> (...).

    The Gram matrix of the smaller side, of K-term inner products, is off by at most 8 (K + 4) u ||B||_F^2 in norm,
    since || |B| |B|^H ||_2 <= ||B||_F^2. Squaring costs the small singular values their digits, and the largest none.
    """
    gram, error = gram_and_error(matrices)
    return eigenvalue_bound(gram) + error


def gram_and_error(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """The Gram matrices of the smaller side, and the largest excess of ||B||_2^2 over their largest eigenvalues."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    gram = matrices @ matrices.mH if wide else matrices.mH @ matrices
    trace = gram.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    return gram, 8 * (max(matrices.shape[-2:]) + 4) * UNIT * trace


def lanczos(product: Callable[[Tensor], Tensor], size: int, tolerance: float) -> float:
    """The largest eigenvalue of a symmetric positive semidefinite product, from below: an estimate, no certificate.

    Implicitly restarted Lanczos (ARPACK) from a fixed random start, until the residual is `tolerance` times the
    eigenvalue: the error is at most that, and of the order of its square where the eigenvalue is isolated.
    """
    from scipy.sparse.linalg import eigsh

    operator, start = _as_scipys(product, size)
    values = eigsh(operator, k=1, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)
    return float(values[0])


def lanczos_vector(product: Callable[[Tensor], Tensor], size: int, tolerance: float) -> Tensor:
    """A unit eigenvector of the largest eigenvalue, with a residual of `tolerance` times the eigenvalue."""
    from scipy.sparse.linalg import eigsh

    operator, start = _as_scipys(product, size)
    _, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=tolerance)
    return torch.from_numpy(vectors[:, 0].copy())


def _as_scipys(product: Callable[[Tensor], Tensor], size: int) -> tuple[Any, np.ndarray]:
    """The product as a SciPy operator, and a fixed random start."""
    from scipy.sparse.linalg import LinearOperator

    def matvec(x: np.ndarray) -> np.ndarray:
        return product(torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64).reshape(-1))).reshape(-1).numpy()

    operator = LinearOperator((size, size), matvec=matvec, dtype=np.float64)
    return operator, rng.normal((size,), "lanczos").double().numpy()


def scaled(values: Tensor) -> tuple[Tensor, float]:
    """The values divided by a power of two that brings the largest modulus into [1, 2), and that power.

    The division is exact, but for values 2^-1022 below the largest: squares then neither overflow nor vanish.
    """
    scale = scale_of(values)
    return (values, 1.0) if scale == 1.0 else (values / scale, scale)


def scale_of(values: Tensor) -> float:
    """The power of two by which division brings the largest modulus into [1, 2); 1 if all values are 0."""
    largest = max(float(bound.abs()) for bound in values.aminmax()) if values.numel() else 0.0
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest else 1.0


def rounded_up(value: float) -> float:
    """The value and a few units in the last place: square roots and products that follow a bound err by less."""
    return math.nextafter(value * (1 + 16 * UNIT), math.inf)


def _largest(gram: Tensor) -> Tensor:
    if gram.shape[-1] == 1:
        return gram[..., 0, 0].real.clone()
    eigenvalues: Tensor = torch.linalg.eigvalsh(gram)
    return eigenvalues[..., -1]


def _largest_by_lanczos(gram: Tensor) -> Tensor:
    n = gram.shape[-1]
    if gram.is_complex():
        return _largest(gram)
    flat = [lanczos(matrix.mv, n, 1e-9) for matrix in gram.reshape(-1, n, n)]
    return torch.tensor(flat, dtype=torch.float64, device="cpu").reshape(gram.shape[:-2])
