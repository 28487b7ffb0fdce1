"""Bounds from algorithmic robustness: a small variation of the loss within the cells of a partition."""

import math
from typing import Literal

from flatprobe.bounds.bound import Bound, add_terms, check, confidence, exponential
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
    """gap <= epsilon + M sqrt((2 K ln 2 + 2 ln(1 / delta)) / n), for K cells of loss variation at most epsilon.

    K cells partition the sample space so that the loss of a sample differs by at most epsilon from that of any other
    point of its cell. Give either K and epsilon, or the margin gamma of a classifier. For the 0-1 loss, a classifier
    whose samples all have a geometric margin above gamma is robust with epsilon = 0 and K = N_y N(X; gamma / 2) (S17,
    Theorem 2): `classes` times the `covering` number. Use a *certified lower* margin.

    - `joint`: the formula above.
    - `split`: the root taken term by term, epsilon + M sqrt(2 K ln 2 / n) + M sqrt(2 ln(1 / delta) / n), which is at
      least as large. With `manifold` it is S17's eq. 13,
      `sqrt(ln 2 N_y 2^(k+1) C_M^k / (gamma^k n)) + sqrt(2 ln(1 / delta) / n)`.
    - `leading`: S17's eq. 12, `sqrt(2 ln 2 N_y N(gamma / 2) / n)`. It drops the term in delta and is not a theorem.

    Args:
        samples: n samples of the loss, drawn independently.
        empirical: mean loss on the samples, in [0, maximum]; 0 where every margin is above 0.
        delta: probability that the bound fails over draws of the samples; 0.05 by convention.
        maximum: M; 1 for the 0-1 loss.
        epsilon: largest variation of the loss within a cell, in the loss's units.
        partitions: K, at least 1.
        margin: gamma, below every sample's margin, in the inputs' units.
        classes: N_y, with a margin.
        covering: covering of the inputs, with a margin: `manifold(...)`, `sparse(...)` or `gaussian_mixture(...)`. Its
            constants are assumptions about the data, which are not checked.
        prior: probability of this partition or margin under a prior fixed before seeing the data: ln(1 / delta) becomes
            ln(1 / (prior delta)) (T3, eq. 22). 1 for a choice made beforehand. None (default) flags a later choice
            without a prior. `dyadic` gives a prior for a margin.
        form: `"joint"` (default), `"split"` or `"leading"`.

    Returns:
        `Bound`, with ln K in the details.

    Raises:
        ValueError: for an argument out of range, or neither or both of `partitions` and `margin`.
        ValueError: for a margin without classes or covering, or with another loss than a 0-1 loss of 0.

    Source: Sokolic et al. (2017), eq. 8 [S17]; Poggio et al. (2017), eq. 21 [T3]; Oberman (2020), eq. 6.3 [O20].

    >>> round(robustness(samples=10_000, empirical=0.0, partitions=100, prior=1).value, 6)
    0.120258
    """
    check(samples=samples, empirical=empirical, delta=delta, maximum=maximum)
    one_of("form", form, FORMS)
    if not 0 <= epsilon < math.inf:
        msg = f"epsilon must be a finite variation of the loss >= 0, got {epsilon}"
        raise ValueError(msg)
    if (partitions is None) == (margin is None):
        msg = f"exactly one of partitions and margin must be given, got {partitions} and {margin}"
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
    return add_terms(
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
        msg = f"partitions must be a finite number of cells, at least 1, got {partitions}"
        raise ValueError(msg)
    if classes is not None or covering is not None:
        msg = "classes and covering must be left out with partitions, got one of them. They count the cells of a margin"
        raise ValueError(msg)
    return math.log(partitions)


def _log_cells(
    margin: float, classes: int | None, covering: Covering | None, empirical: float, epsilon: float, maximum: float
) -> float:
    positive(margin=margin)
    if classes is None or classes < 2 or covering is None:
        msg = (
            f"a margin must come with at least 2 classes and a covering, got classes {classes} and covering {covering}"
            ". Take a covering such as manifold(constant=..., dimension=...)"
        )
        raise ValueError(msg)
    if (empirical, epsilon, maximum) != (0, 0, 1):
        msg = (
            f"empirical, epsilon and maximum must be 0, 0 and 1 with a margin, got {empirical}, {epsilon} and {maximum}"
            ". The bound is of the 0-1 loss, and a margin above 0 of every sample means no error"
        )
        raise ValueError(msg)
    return math.log(classes) + covering.log_number(margin / 2)
