"""Extreme eigenpairs of a symmetric operator by thick-restart Lanczos."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

Vector = Float[Tensor, " size"]
Vectors = Float[Tensor, "vectors size"]
Known = Float[Tensor, "known size"]
Values = Float64[Tensor, " values"]

# End of the spectrum -> function of the eigenvalues that is largest there.
ENDS: dict[str, Callable[[Values], Values]] = {
    "largest": lambda values: values,
    "smallest": lambda values: -values,
    "magnitude": lambda values: values.abs(),
}
# A tolerance is relative to the eigenvalue, or to this share of the largest one where the eigenvalue is smaller: near
# 0 a relative tolerance could never be met.
_SHARE = 0.1
# A search beyond the found values ends once its residual is this share of the distance to the last of them.
_CLEARLY = 0.1
# Rounding units of the largest value: a remainder of a product below them is rounding and no direction.
_ROUNDING = 16.0


@dataclass
class _Search:
    """Operator, tolerance and scale of all searches for one end of the spectrum."""

    operator: Callable[[Vector], Vector]
    draw: Callable[[], Vector]
    end: Callable[[Values], Values]
    tolerance: float
    budget: int
    scale: float = 0.0  # the largest magnitude of a Ritz value, a lower bound of the operator's norm

    def allowed(self, values: Values) -> Values:
        """The largest residual allowed for each value."""
        return self.tolerance * values.abs().clamp_min(_SHARE * self.scale)


def extreme_pairs(
    operator: Callable[[Vector], Vector],
    draw: Callable[[], Vector],
    *,
    count: int,
    which: str,
    tolerance: float,
    space: int,
    budget: int,
) -> tuple[Vectors, bool]:
    """Orthonormal approximate eigenvectors of the `count` eigenvalues at one end.

    Lanczos with full orthogonalization and thick restarts finds the outermost pairs in which a random start has a
    component, and one pair per set of equal eigenvalues. Converged pairs are set aside. Another random start,
    orthogonal to them, finds the outermost remaining pair: an equal eigenvalue or a skipped one. The search ends once
    that pair is no further out than the last of the `count`. Vectors stay on the device of the drawn ones; the small
    projected matrix is on the CPU.

    Args:
        operator: v -> A v.
        draw: a standard normal vector, anew at each call.
        count: number of eigenvalues.
        which: `"largest"`, `"smallest"` or `"magnitude"`.
        tolerance: largest residual relative to the eigenvalue, or to a tenth of the largest one if that is more.
        space: dimension of the Krylov space, at least `count` + 2; beside it `count` vectors are kept.
        budget: products per search, after which it gives up; at least one space is filled.

    Returns:
        The vectors, outermost first, and whether all searches converged; if not, only the converged vectors.

    Source: Wu and Simon 2000, "Thick-restart Lanczos method for large symmetric eigenvalue problems".
    """
    search = _Search(operator, draw, ENDS[which], tolerance, budget)
    found, values = draw()[None][:0].clone(), torch.empty(0, dtype=torch.float64, device="cpu")
    while True:
        missing = count - len(values)
        beyond = values[-1:] if missing == 0 else None
        pairs = _find_pairs(search, found, max(missing, 1), space, beyond)
        if pairs is None:
            return found, False
        outermost = pairs[0][0]
        found, values = torch.cat([found, pairs[1]]), torch.cat([values, pairs[0]])
        order = search.end(values).argsort(descending=True)[:count]
        found, values = found[order], values[order]
        last = values[-1:]
        if len(values) == count and bool(search.end(outermost[None]) <= search.end(last) + search.allowed(last)):
            return found, True


def _find_pairs(
    search: _Search, known: Known, wanted: int, space: int, beyond: Values | None
) -> tuple[Values, Vectors] | None:
    """The outermost pairs orthogonal to the known vectors, at most `wanted`.

    Args:
        search: operator, end and tolerance.
        known: orthonormal vectors set aside.
        wanted: largest number of pairs.
        space: dimension of the Krylov space.
        beyond: if given, the search only decides whether a pair is beyond this value.

    Returns:
        Values and vectors of the pairs that met the tolerance; None if no pair met it within the budget.
    """
    start = search.draw()
    basis = start.new_empty(space + 1, len(start))
    matrix = torch.zeros(space, space, dtype=torch.float64, device="cpu")  # the operator, projected onto the basis
    _insert(basis, 0, start, known)
    kept, spent, first = 0, 0, 0
    while spent == 0 or spent + space - kept <= search.budget:
        spent += space - kept
        left = _fill(search, basis, matrix, kept, known)
        values, rotation = torch.linalg.eigh(matrix)
        search.scale = max(search.scale, float(values.abs().max()))
        order = search.end(values).argsort(descending=True)
        values, rotation = values[order], rotation[:, order]
        residuals = left * rotation[-1].abs()
        met = (residuals <= search.allowed(values))[:wanted].long().cumprod(0).sum()
        if beyond is not None and float(residuals[0]) <= _CLEARLY * float(search.end(beyond) - search.end(values[:1])):
            met = met.clamp_min(1)
        first = first or (spent if met else 0)
        # Further pairs may converge soon, unless their eigenvalues equal the first one's, which one start cannot show.
        if met == wanted or (met and spent + space - kept > 2 * first):
            return values[:met], rotation[:, :met].mT.to(basis) @ basis[:-1]
        kept = space // 2  # the half at the other end of the spectrum is dropped
        _rotate(basis, rotation[:, :kept])
        basis[kept] = basis[space]
        matrix.zero_()
        matrix[:kept, :kept] = values[:kept].diag()
    return None


def _fill(search: _Search, basis: Vectors, matrix: Tensor, kept: int, known: Known) -> float:
    """Fill the Krylov space from `kept` vectors on; return the last remainder's norm.

    A product within the space gives no new direction: a new one is drawn.
    """
    left = 0.0
    for place in range(kept, len(basis) - 1):
        product = search.operator(basis[place])
        basis[place + 1] = product
        overlaps = _orthogonalize(basis, place + 1, known)
        matrix[place, : place + 1] = matrix[: place + 1, place] = overlaps
        left = float(torch.linalg.vector_norm(basis[place + 1], dtype=torch.float64))
        rounding = _ROUNDING * torch.finfo(basis.dtype).eps * max(search.scale, float(matrix.abs().max()))
        if left <= rounding:
            left = 0.0
            _insert(basis, place + 1, search.draw(), known)
        else:
            basis[place + 1] /= left
    return left


def _insert(basis: Vectors, place: int, vector: Vector, known: Known) -> None:
    """Write to basis[place] a vector, orthogonalized and normalized."""
    basis[place] = vector
    _orthogonalize(basis, place, known)
    basis[place] /= torch.linalg.vector_norm(basis[place])


def _orthogonalize(basis: Vectors, place: int, known: Known) -> Values:
    """Orthogonalize basis[place] against earlier and known vectors, twice.

    Returns:
        The projections onto the earlier vectors.
    """
    own, earlier = basis[place], basis[:place]
    found = [own.new_zeros(place)]
    for _ in range(2):
        if len(known):
            own.addmv_(known.mT, known @ own, alpha=-1)
        if place:
            overlaps = earlier @ own
            own.addmv_(earlier.mT, overlaps, alpha=-1)
            found.append(overlaps)
    return torch.stack(found).cpu().double().sum(0)  # from the device once


def _rotate(basis: Vectors, rotation: Tensor) -> None:
    """Rotate the first vectors in place, piece by piece to save the memory of a basis."""
    turned = rotation.mT.to(basis)
    for piece in torch.split(basis, 2**16, dim=1):
        piece[: len(turned)] = turned @ piece[:-1]
