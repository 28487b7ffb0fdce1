"""Extreme eigenpairs of a symmetric operator, equal eigenvalues among them, in the memory of a small Krylov space."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

Vector = Float[Tensor, " size"]
Vectors = Float[Tensor, "vectors size"]
Known = Float[Tensor, "known size"]
Values = Float64[Tensor, " values"]

# An end of the spectrum -> what is largest there.
ENDS: dict[str, Callable[[Values], Values]] = {
    "largest": lambda values: values,
    "smallest": lambda values: -values,
    "magnitude": lambda values: values.abs(),
}
# A tolerance is relative to an eigenvalue, and to this share of the largest where the eigenvalue is smaller: near 0 a
# relative one could never be met.
_SHARE = 0.1
# A search past what was found ends once its residual is this share of the distance that its value falls short by.
_CLEARLY = 0.1
# Rounding units of the largest value: what is left of a product below them is rounding, no direction.
_ROUNDING = 16.0


@dataclass
class _Search:
    """What the searches for one end share."""

    operator: Callable[[Vector], Vector]
    draw: Callable[[], Vector]
    end: Callable[[Values], Values]
    tolerance: float
    budget: int
    scale: float = 0.0  # the largest magnitude of a Ritz value, a lower bound of the operator's norm

    def allowed(self, values: Values) -> Values:
        """The residual that each of the values may have."""
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
    """Orthonormal approximate eigenvectors of the `count` eigenvalues at one end, counted with their multiplicity.

    Lanczos with full orthogonalisation and thick restarts finds the outermost pairs that a random start has a part of,
    and one of each set of equal ones. Those that converge are set aside, and another random start, orthogonal to them,
    finds the outermost of what is left: an equal or a skipped one. It ends once that lies no further out than the last
    of the `count`.

    Args:
        operator: v -> A v.
        draw: a standard normal vector, anew at each call.
        count: how many.
        which: `"largest"`, `"smallest"` or `"magnitude"`.
        tolerance: of the residual, relative to the eigenvalue, or to a tenth of the largest where that is more.
        space: vectors that a search works in, more than `count` by at least 2; beside them `count` are kept.
        budget: products after which a search gives up; at least one space is filled.

    Returns:
        The vectors, outermost first, and whether all searches converged; if not, those that did.

    Source: Wu and Simon 2000, "Thick-restart Lanczos method for large symmetric eigenvalue problems".
    """
    search = _Search(operator, draw, ENDS[which], tolerance, budget)
    found, values = draw()[None][:0].clone(), torch.empty(0, dtype=torch.float64, device="cpu")
    while True:
        missing = count - len(values)
        beyond = values[-1:] if missing == 0 else None
        pairs = _converged(search, found, max(missing, 1), space, beyond)
        if pairs is None:
            return found, False
        outermost = pairs[0][0]
        found, values = torch.cat([found, pairs[1]]), torch.cat([values, pairs[0]])
        order = search.end(values).argsort(descending=True)[:count]
        found, values = found[order], values[order]
        last = values[-1:]
        if len(values) == count and bool(search.end(outermost[None]) <= search.end(last) + search.allowed(last)):
            return found, True


def _converged(
    search: _Search, known: Known, wanted: int, space: int, beyond: Values | None
) -> tuple[Values, Vectors] | None:
    """The outermost pairs among the vectors orthogonal to the known ones: the first, and up to `wanted` with it.

    Args:
        search: what is sought.
        known: orthonormal vectors that are set aside.
        wanted: how many pairs at most.
        space: of the Krylov space.
        beyond: where given, whether anything lies beyond this value is all that is asked.

    Returns:
        Values and vectors of those that met the tolerance; None where none did in time.
    """
    start = search.draw()
    basis = start.new_empty(space + 1, len(start))
    matrix = torch.zeros(space, space, dtype=torch.float64, device="cpu")  # the operator, projected onto the basis
    _into(basis, 0, start, known)
    kept, spent, first = 0, 0, 0
    while spent == 0 or spent + space - kept <= search.budget:
        spent += space - kept
        left = _filled(search, basis, matrix, kept, known)
        values, rotation = torch.linalg.eigh(matrix)
        search.scale = max(search.scale, float(values.abs().max()))
        order = search.end(values).argsort(descending=True)
        values, rotation = values[order], rotation[:, order]
        residuals = left * rotation[-1].abs()
        met = (residuals <= search.allowed(values))[:wanted].long().cumprod(0).sum()
        if beyond is not None and float(residuals[0]) <= _CLEARLY * float(search.end(beyond) - search.end(values[:1])):
            met = met.clamp_min(1)
        first = first or (spent if met else 0)
        # Others may follow soon, unless they are equal to the first, which this start never shows: as long again.
        if met == wanted or (met and spent + space - kept > 2 * first):
            return values[:met], rotation[:, :met].mT.to(basis) @ basis[:-1]
        kept = space // 2  # the other half, at the far end, is filtered out
        _rotate(basis, rotation[:, :kept])
        basis[kept] = basis[space]
        matrix.zero_()
        matrix[:kept, :kept] = values[:kept].diag()
    return None


def _filled(search: _Search, basis: Vectors, matrix: Tensor, kept: int, known: Known) -> float:
    """Extend the basis and the projected matrix from `kept` vectors to the whole space; the last product's remainder.

    A product that lies in the space leaves no direction to go on in: a fresh one is drawn.
    """
    left = 0.0
    for place in range(kept, len(basis) - 1):
        product = search.operator(basis[place])
        basis[place + 1] = product
        overlaps = _orthogonalised(basis, place + 1, known)
        matrix[place, : place + 1] = matrix[: place + 1, place] = overlaps
        left = float(torch.linalg.vector_norm(basis[place + 1], dtype=torch.float64))
        rounding = _ROUNDING * torch.finfo(basis.dtype).eps * max(search.scale, float(matrix.abs().max()))
        if left <= rounding:
            left = 0.0
            _into(basis, place + 1, search.draw(), known)
        else:
            basis[place + 1] /= left
    return left


def _into(basis: Vectors, place: int, vector: Vector, known: Known) -> None:
    """The part of a vector that is orthogonal to the earlier and the known ones, with length 1, at this place."""
    basis[place] = vector
    _orthogonalised(basis, place, known)
    basis[place] /= torch.linalg.vector_norm(basis[place])


def _orthogonalised(basis: Vectors, place: int, known: Known) -> Values:
    """Take from basis[place] what lies along the earlier and the known vectors: twice, since once leaves rounding.

    Returns:
        What lay along the earlier ones.
    """
    own, earlier = basis[place], basis[:place]
    total = torch.zeros(place, dtype=torch.float64, device="cpu")
    for _ in range(2):
        if len(known):
            own.addmv_(known.mT, known @ own, alpha=-1)
        if place:
            overlaps = earlier @ own
            own.addmv_(earlier.mT, overlaps, alpha=-1)
            total += overlaps.double()
    return total


def _rotate(basis: Vectors, rotation: Tensor) -> None:
    """The first vectors replaced by combinations of all but the last, in pieces, since a second basis takes memory."""
    turned = rotation.mT.to(basis)
    for piece in torch.split(basis, 2**16, dim=1):
        piece[: len(turned)] = turned @ piece[:-1]
