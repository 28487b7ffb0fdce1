"""Hessian-scaled penalty with double backpropagation, as pairs for `train(penalties=...)`."""

from flatprobe.training.penalties.double_backpropagation import DoubleBackpropagation
from flatprobe.training.penalties.hessian_scaled import HessianScaled

Pairs = list[tuple[float, HessianScaled | DoubleBackpropagation]]


def hsfob_db(strength: float, own: float, *, projections: int | None = None) -> Pairs:
    """strength * Tr(J^T H J) + own * ||grad_x l||^2.

    Args:
        strength: lambda_1.
        own: lambda_2, of double backpropagation.
        projections: as in `HessianScaled`; None (default): exact.

    Returns:
        (strength, penalty) pairs, named `hessian_scaled` and `double_backpropagation` in the history.

    Source: Thumwanit (2020), eq. 64 [N20].

    >>> [strength for strength, _ in hsfob_db(0.1, 0.2)]
    [0.1, 0.2]
    """
    return [(strength, HessianScaled(projections)), (own, DoubleBackpropagation())]


def hsfob_db1(strength: float, *, projections: int | None = None) -> Pairs:
    """strength * (Tr(J^T H J) + ||grad_x l||^2): `hsfob_db` with both strengths the same.

    Args:
        strength: lambda.
        projections: as in `HessianScaled`; None (default): exact.

    Returns:
        (strength, penalty) pairs.

    Source: Thumwanit (2020), eq. 65 [N20].
    """
    return hsfob_db(strength, strength, projections=projections)


def hsfob_db2(strength: float, *, projections: int | None = None) -> Pairs:
    """strength * (Tr(J^T H J)^2 + ||grad_x l||^2), the trace squared sample by sample.

    Args:
        strength: lambda.
        projections: as in `HessianScaled`, at least 2; None (default): exact.

    Returns:
        (strength, penalty) pairs.

    Source: Thumwanit (2020), eq. 66 [N20].
    """
    return [(strength, HessianScaled(projections, power=2)), (strength, DoubleBackpropagation())]
