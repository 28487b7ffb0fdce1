"""The result of a bound: its value, its terms and its validity."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flatprobe.utils.arguments import at_least, positive
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, repr=False)
class Bound(Result):
    """expected loss <= empirical + value, with probability at least 1 - delta where `proven` and nothing is `chosen`.

    Attributes:
        value: bound on the gap between expected and empirical loss, in the loss's units; inf where it overflows.
        empirical: empirical loss.
        maximum: M, the largest possible loss.
        terms: summands of the value, by name.
        details: intermediate quantities, by name.
        chosen: quantities chosen after seeing the data, without a prior or union bound for the choice (T3, eq. 22). The
            probability 1 - delta does not hold unless this is empty.
        proven: True for the value of a theorem, False for a rate that leaves out terms or constants.
    """

    value: float
    empirical: float
    maximum: float
    terms: dict[str, float]
    details: dict[str, float]
    chosen: tuple[str, ...]
    proven: bool

    @property
    def expected(self) -> float:
        """Bound on the expected loss: empirical + value."""
        return self.empirical + self.value

    @property
    def vacuous(self) -> bool:
        """True where empirical + value >= M, so that the bound says nothing."""
        return self.expected >= self.maximum

    def summary(self) -> dict[str, float]:
        """Bounds on the gap and on the expected loss, 1 where vacuous or else 0, and the terms."""
        return {"value": self.value, "expected": self.expected, "vacuous": float(self.vacuous)} | self.terms

    def to_frame(self) -> "pandas.DataFrame":
        """One row per number: kind (result, term or detail), name, value."""
        import pandas as pd

        results = {"value": self.value, "empirical": self.empirical, "maximum": self.maximum}
        parts = {"result": results, "term": self.terms, "detail": self.details}
        rows = [(kind, name, float(value)) for kind, part in parts.items() for name, value in part.items()]
        return pd.DataFrame(rows, columns=["kind", "name", "value"])

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "Bound":
        """The inverse of `to_frame`."""
        parts: dict[str, dict[str, float]] = {"result": {}, "term": {}, "detail": {}}
        for kind, name, value in zip(frame["kind"], frame["name"], frame["value"], strict=True):
            parts[kind][name] = float(value)
        return cls(
            **parts["result"],
            terms=parts["term"],
            details=parts["detail"],
            chosen=tuple(settings["chosen"]),
            proven=settings["proven"],
            settings=settings,
        )


def add_terms(
    name: str,
    terms: Mapping[str, float],
    *,
    empirical: float,
    maximum: float = 1.0,
    details: Mapping[str, float] | None = None,
    chosen: Sequence[str] = (),
    proven: bool = True,
    arguments: Mapping[str, object],
) -> Bound:
    """The bound whose value is the sum of the terms, with its settings."""
    recorded = settings(f"bounds.{name}", {}, **arguments) | {"chosen": list(chosen), "proven": proven}
    return Bound(
        value=math.fsum(terms.values()),
        empirical=float(empirical),
        maximum=float(maximum),
        terms=dict(terms),
        details=dict(details or {}),
        chosen=tuple(chosen),
        proven=proven,
        settings=recorded,
    )


def check(*, samples: int, empirical: float, delta: float | None = None, maximum: float = 1.0) -> None:
    """Check the arguments that all bounds share.

    Raises:
        ValueError: for fewer than 1 sample, or a maximum that is not positive.
        ValueError: for an empirical loss outside [0, maximum], or a delta outside (0, 1).
    """
    at_least(1, samples=samples)
    positive(maximum=maximum)
    if not 0 <= empirical <= maximum:
        msg = f"empirical must be a mean loss in [0, {maximum:g}], the range of the loss, got {empirical}"
        raise ValueError(msg)
    if delta is not None and not 0 < delta < 1:
        msg = f"delta must be a probability of failure in (0, 1), got {delta}"
        raise ValueError(msg)


def confidence(delta: float, prior: float | None) -> float:
    """ln(1 / (pi delta)) for a choice of prior probability pi (T3, eq. 22); ln(1 / delta) without a prior.

    Raises:
        ValueError: for a prior probability outside (0, 1].
    """
    if prior is not None and not 0 < prior <= 1:
        msg = (
            f"prior must be a probability in (0, 1], got {prior}. Give 1 for a choice made before seeing the data, "
            "None for a later choice without a prior"
        )
        raise ValueError(msg)
    return -math.log(delta) - math.log(1 if prior is None else prior)


def exponential(x: float) -> float:
    """exp(x), inf where it overflows."""
    return math.exp(x) if x < 709 else math.inf
