"""Bounds from the capacity of a function class: Rademacher complexity, margins, products of norms."""

import math
from collections.abc import Sequence

from flatprobe.bounds.bound import Bound, add_terms, check, confidence
from flatprobe.utils.arguments import at_least, positive


def l1_rademacher(*, norms: Sequence[float], inputs: int, samples: int) -> float:
    """R(F_k) <= prod_{i >= 2} (2 B_i) B_1 sqrt(2 ln(2 d) / n), for networks whose units have fan-in l1 norms <= B_i.

    Assumptions: inputs in [-1, 1]^d, no biases, one output, and activations of Lipschitz constant 1 that are 0 at 0.

    Poggio et al. (2017) [T3], eq. 60, bound the expected uniform deviation by 2 R, hence their product over all i of
    2 B_i. **Correction.** They print ln d in place of ln(2 d). This is not a bound, being 0 for d = 1: the l1 ball in d
    dimensions has 2 d corners.

    Args:
        norms: B_1, ..., B_k: the largest l1 norm of a unit's incoming weights, per layer.
        inputs: d.
        samples: n.

    Returns:
        Bound on the (expected) Rademacher complexity.

    Raises:
        ValueError: for an empty or negative norm, or fewer than 1 input or sample.
    """
    at_least(1, inputs=inputs, samples=samples)
    first, *rest = _check_norms(norms)
    return math.prod([first, *(2 * b for b in rest)]) * math.sqrt(2 * math.log(2 * inputs) / samples)


def margin(
    *,
    samples: int,
    below: float,
    margin: float,
    norms: Sequence[float],
    inputs: int,
    largest: float | None = None,
    delta: float = 0.05,
    prior: float | None = None,
) -> Bound:
    """P(y f <= 0) <= #{y_i f(x_i) < gamma} / n + 4 R / gamma + sqrt(ln log2(4 C / gamma) / n) + sqrt(ln(1/delta) / 2n).

    R is `l1_rademacher`. Assumptions: networks of one output f for labels y = +-1, no biases, inputs in [-1, 1]^d. The
    bound holds for all gamma at once, so it accounts for a margin chosen after seeing the data. It does not account for
    a choice of the norms B_i. The inner logarithm is to base 2, which T3 leaves out.

    Args:
        samples: n training samples, drawn independently.
        below: fraction of the samples with y f(x) < gamma, the empirical margin loss.
        margin: gamma, a functional margin in units of f; at most C.
        norms: B_1, ..., B_k, as in `l1_rademacher`.
        inputs: d.
        largest: C >= sup |f|; None takes the product of the norms, which bounds |f| for inputs in [-1, 1]^d.
        delta: probability that the bound fails; 0.05 by convention.
        prior: probability of these norms under a prior fixed before seeing the data (T3, eq. 22). 1 for norms fixed
            beforehand, as by a constraint of the training. None (default) flags the norms as chosen.

    Returns:
        `Bound` for the 0-1 loss, whose `empirical` is `below`.

    Raises:
        ValueError: for an argument out of range.

    Source: Poggio et al. (2017), Theorem 5 and eq. 63 [T3].
    """
    check(samples=samples, empirical=below, delta=delta)
    positive(margin=margin)
    complexity = l1_rademacher(norms=norms, inputs=inputs, samples=samples)
    bound = math.prod(float(b) for b in norms) if largest is None else largest
    if not margin <= bound:
        msg = f"margin must be at most C = {bound}, the largest output, got {margin}"
        raise ValueError(msg)
    terms = {
        "complexity": 4 * complexity / margin,
        "margins": math.sqrt(math.log(math.log2(4 * bound / margin)) / samples),
        "confidence": math.sqrt(confidence(delta, prior) / (2 * samples)),
    }
    given = {"margin": margin, "norms": list(map(float, norms)), "inputs": inputs, "largest": bound, "prior": prior}
    return add_terms(
        "margin",
        terms,
        empirical=below,
        details={"rademacher": complexity},
        chosen=("norms",) if prior is None else (),
        arguments={"samples": samples, "delta": delta, **given},
    )


def frobenius(*, samples: int, empirical: float, norms: Sequence[float]) -> Bound:
    """gap ~ 2^(L - 1) prod_l ||W_l||_F / sqrt(n): a rate that leaves out constants, for comparison only.

    The rate grows with the depth L even where the product does not.

    Args:
        samples: n.
        empirical: mean 0-1 loss on the samples.
        norms: Frobenius norms of all L weight matrices.

    Returns:
        `Bound` with `proven = False`, its norms flagged as chosen.

    Raises:
        ValueError: for an argument out of range.

    Source: Sokolic et al. (2017), eq. 44 and section VI-A2 [S17].
    """
    check(samples=samples, empirical=empirical)
    checked = _check_norms(norms)
    product = math.prod(checked)
    return add_terms(
        "frobenius",
        {"norms": _double(product, len(checked) - 1) / math.sqrt(samples)},
        empirical=empirical,
        details={"product": product},
        chosen=("norms",),
        proven=False,
        arguments={"samples": samples, "norms": checked},
    )


def rademacher(
    *,
    samples: int,
    empirical: float,
    complexity: float,
    delta: float = 0.05,
    maximum: float = 1.0,
    prior: float | None = None,
) -> Bound:
    """gap <= 2 R_n + M sqrt(ln(1 / delta) / (2 n)), R_n the Rademacher complexity of the *losses*.

    **Correction.** Oberman (2020) [O20], eq. 6.2, has R_n in place of 2 R_n. The factor 1 is right for the 0-1 loss of
    two classes and the complexity of the +-1-valued classifiers, which is twice that of their losses.

    Args:
        samples: n training samples, drawn independently.
        empirical: mean loss on the samples, in [0, maximum].
        complexity: R_n of the class of losses (x, y) -> l(f(x), y).
        delta: probability that the bound fails; 0.05 by convention.
        maximum: M, the largest value of a loss that is at least 0.
        prior: probability of the class, as in `margin`.

    Returns:
        `Bound`.

    Raises:
        ValueError: for an argument out of range.
    """
    check(samples=samples, empirical=empirical, delta=delta, maximum=maximum)
    if not 0 <= complexity < math.inf:
        msg = f"complexity must be a finite Rademacher complexity >= 0, got {complexity}"
        raise ValueError(msg)
    terms = {
        "complexity": 2 * complexity,
        "confidence": maximum * math.sqrt(confidence(delta, prior) / (2 * samples)),
    }
    return add_terms(
        "rademacher",
        terms,
        empirical=empirical,
        maximum=maximum,
        chosen=("class",) if prior is None else (),
        arguments={"samples": samples, "delta": delta, "complexity": complexity, "prior": prior},
    )


def _check_norms(norms: Sequence[float]) -> list[float]:
    values = [float(norm) for norm in norms]
    if not values or not all(0 <= value < math.inf for value in values):
        msg = f"norms must be one or more finite norms >= 0, one per layer, got {values}"
        raise ValueError(msg)
    return values


def _double(value: float, times: int) -> float:
    """value 2^times, inf where it overflows."""
    try:
        return math.ldexp(value, times)
    except OverflowError:
        return math.inf
