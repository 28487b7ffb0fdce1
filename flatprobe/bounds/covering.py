"""Covering numbers of structured data as natural logarithms, since the numbers overflow.

Source: Sokolic et al. (2017), section II-B [S17]. The prior of `dyadic`: Poggio et al. (2017), below eq. 22 [T3].
"""

import math
from dataclasses import dataclass

from flatprobe.utils.arguments import at_least, positive


@dataclass(frozen=True)
class Covering:
    """N(rho) = count * (offset + scale / rho)^dimension, the number of l2 balls of radius rho that cover the data.

    Attributes:
        name: name of the family.
        log_count: ln count.
        offset: 1 for data in the unit ball, 0 for a manifold.
        scale: 2 for data in the unit ball, C_M for a manifold.
        dimension: k.
    """

    name: str
    log_count: float
    offset: float
    scale: float
    dimension: int

    def log_number(self, radius: float) -> float:
        """ln N(radius), at least 0, since a cover has at least one ball.

        Raises:
            ValueError: if the radius is not positive and finite.
        """
        positive(radius=radius)
        return max(0.0, self.log_count + self.dimension * math.log(self.offset + self.scale / radius))


def gaussian_mixture(*, components: int, rank: int) -> Covering:
    """N(rho) = L (1 + 2 / rho)^k: L Gaussians with covariances of rank at most k, in the unit ball.

    >>> gaussian_mixture(components=3, rank=2).log_number(1.0) == math.log(3 * 3**2)
    True
    """
    at_least(1, components=components, rank=rank)
    return Covering("gaussian_mixture", math.log(components), 1.0, 2.0, rank)


def sparse(*, atoms: int, sparsity: int) -> Covering:
    """N(rho) = binom(L, k) (1 + 2 / rho)^k: k-sparse signals in a dictionary of L atoms, in the unit ball.

    Raises:
        ValueError: for fewer atoms than the sparsity.
    """
    at_least(1, sparsity=sparsity)
    if atoms < sparsity:
        msg = f"atoms must be at least the sparsity, {sparsity}, got {atoms}"
        raise ValueError(msg)
    return Covering("sparse", math.log(math.comb(atoms, sparsity)), 1.0, 2.0, sparsity)


def manifold(*, constant: float, dimension: int) -> Covering:
    """N(rho) = (C_M / rho)^k, at least 1: a C_M-regular manifold of dimension k."""
    positive(constant=constant)
    at_least(1, dimension=dimension)
    return Covering("manifold", 0.0, 0.0, float(constant), dimension)


def dyadic(margin: float) -> tuple[float, float]:
    """The largest 2^-k <= margin, k >= 1, and its prior probability 6 / (pi k)^2.

    Rounding a measured margin down to 2^-k and giving this prior to `robustness` accounts for the choice of the margin.

    Args:
        margin: measured margin, in the inputs' units.

    Returns:
        The rounded margin, at most 1/2, and its prior.

    Raises:
        ValueError: if the margin is not positive and finite.

    >>> margin, prior = dyadic(0.3)
    >>> margin, prior == 6 / (2 * math.pi) ** 2
    (0.25, True)
    """
    positive(margin=margin)
    k = max(1, 1 - math.frexp(margin)[1])  # margin = m 2^e with 1/2 <= m < 1, so 2^(e - 1) <= margin
    return math.ldexp(1.0, -k), 6 / (math.pi * k) ** 2
