"""Bounds from algorithmic robustness: the loss hardly varies within the cells of a partition."""

import math
from typing import Literal

from flatprobe.bounds.bound import Bound, check, confidence, exponential, summed
from flatprobe.bounds.covering import Covering
from flatprobe.utils.arguments import Checked, one_of, positive

FORMS = ("joint", "split", "leading")


def robustness(
    *,
    samples: int,
    empirical: float,
    delta: float = 0.05,
    maximum: float = 1.0,
    epsilon: float = 0.0,
    partitions: float | None = None,
    margin: float | None = None,
    classes: int | None = None,
    covering: Covering | None = None,
    prior: float | None = None,
    form: Checked[Literal["joint", "split", "leading"]] = "joint",
) -> Bound:
    """gap <= epsilon + M sqrt((2 K ln 2 + 2 ln(1 / delta)) / n) (S17 eq. 8, T3 eq. 21; O20 eq. 6.3 is the same).

    K cells partition the samples' space so that the loss of a sample differs by at most epsilon from that of any other
    point of its cell. Either K and epsilon are given, or the margin gamma of a classifier: for the 0-1 loss one whose
    samples all have a geometric margin above gamma is robust with epsilon = 0 and K = N_y N(X; gamma / 2) (S17 Theorem
    2), `classes` times the `covering` number. Use a *certified lower* margin.

    - `joint`: the formula above.
    - `split`: the root taken term by term, epsilon + M sqrt(2 K ln 2 / n) + M sqrt(2 ln(1 / delta) / n), which is no
      smaller; with `manifold` S17's eq. 13, `sqrt(ln 2 N_y 2^(k+1) C_M^k / (gamma^k n)) + sqrt(2 ln(1 / delta) / n)`.
    - `leading`: S17's eq. 12, `sqrt(2 ln 2 N_y N(gamma / 2) / n)`; it drops the term in delta, so it is no theorem.

    Args:
        samples: n, on which the loss was measured; drawn independently.
        empirical: mean loss on them, in [0, maximum]; a margin above 0 of every sample means 0.
        delta: how often the bound may fail over draws of the samples; 0.05 by convention.
        maximum: M; 1 for the 0-1 loss.
        epsilon: largest variation of the loss within a cell, in the loss's units.
        partitions: K, at least 1.
        margin: gamma, below every sample's margin, in the inputs' units.
        classes: N_y, with a margin.
        covering: of the inputs, with a margin: `manifold(...)`, `sparse(...)` or `gaussian_mixture(...)`. Its constants
            are assumptions about the data that no measurement here checks.
        prior: probability that a prior, fixed before the data were seen, gives this partition or margin: ln(1 / delta)
            becomes ln(1 / (prior delta)) (T3 eq. 22). 1 for one chosen beforehand; None (default) for one chosen
            afterwards without a prior, which is flagged. `dyadic` makes one for a margin.
        form: which of the three.

    Returns:
        `Bound`, with ln K among its details.

    Raises:
        ValueError: for arguments outside their ranges; for neither or both of `partitions` and `margin`; for a margin
            without classes or covering, or with an epsilon, a maximum or an empirical loss that contradicts it.

    >>> round(robustness(samples=10_000, empirical=0.0, partitions=100, prior=1).value, 6)
    0.120258
    """
    check(samples=samples, empirical=empirical, delta=delta, maximum=maximum)
    one_of("form", form, FORMS)
    if not 0 <= epsilon < math.inf:
        msg = f"epsilon is {epsilon}; expected a finite variation of the loss >= 0"
        raise ValueError(msg)
    if (partitions is None) == (margin is None):
        msg = f"partitions is {partitions} and margin is {margin}; expected exactly one of them"
        raise ValueError(msg)
    if margin is not None:
        log_partitions = _log_cells(margin, classes, covering, empirical, epsilon, maximum)
    else:
        assert partitions is not None
        log_partitions = _log_given(partitions, classes, covering)
    cells = 2 * math.log(2) * exponential(log_partitions) / samples
    doubt = 2 * confidence(delta, prior) / samples
    roots = {
        "joint": {"partition": maximum * math.sqrt(cells + doubt)},
        "split": {"partition": maximum * math.sqrt(cells), "confidence": maximum * math.sqrt(doubt)},
        "leading": {"partition": maximum * math.sqrt(cells)},
    }[form]
    choice = "margin" if partitions is None else "partitions"
    given = {"partitions": partitions, "margin": margin, "classes": classes, "form": form, "prior": prior}
    return summed(
        "robustness",
        {"epsilon": epsilon, **roots},
        empirical=empirical,
        maximum=maximum,
        details={"log_partitions": log_partitions},
        chosen=(choice,) if prior is None else (),
        proven=form != "leading",
        arguments={
            "samples": samples,
            "delta": delta,
            **given,
            "covering": None if covering is None else vars(covering),
        },
    )


def _log_given(partitions: float, classes: int | None, covering: Covering | None) -> float:
    if not 1 <= partitions < math.inf:
        msg = f"partitions is {partitions}; expected a finite number of cells, at least 1"
        raise ValueError(msg)
    if classes is not None or covering is not None:
        msg = "classes and covering count the cells of a margin; expected neither of them beside partitions"
        raise ValueError(msg)
    return math.log(partitions)


def _log_cells(
    margin: float, classes: int | None, covering: Covering | None, empirical: float, epsilon: float, maximum: float
) -> float:
    positive(margin=margin)
    if classes is None or classes < 2 or covering is None:
        msg = (
            f"a margin is given with classes {classes} and covering {covering}; expected at least 2 classes and the "
            "covering of the inputs, such as manifold(constant=..., dimension=...)"
        )
        raise ValueError(msg)
    if (empirical, epsilon, maximum) != (0, 0, 1):
        msg = (
            f"with a margin, empirical is {empirical}, epsilon {epsilon} and maximum {maximum}; expected 0, 0 and 1: a "
            "margin above 0 of every sample means that none is misclassified, and it bounds the 0-1 loss"
        )
        raise ValueError(msg)
    return math.log(classes) + covering.log_number(margin / 2)
