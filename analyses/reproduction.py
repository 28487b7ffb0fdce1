"""Reproduction of one published table, figure or statement: claim, published numbers, presets, table, rules."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analyses.study import Study

REPRODUCED = "reproduced"
DIRECTION = "direction only"
REFUTED = "not reproduced"
UNTESTED = "not tested at this scale"
VERDICTS = (REPRODUCED, DIRECTION, UNTESTED, REFUTED)  # from the strongest; the item's verdict is its weakest rule's


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one rule finds in a table.

    Attributes:
        rule: the published claim, in one line.
        holds: True or False; None where the interval of the effect includes both, or where the reduced run differs in
            kind from the published one.
        effect: the measured size.
        interval: its 95 % interval (lower, upper); None for an exact statement.
        published: the published size; None if the source prints none.
        band: effects (lower, upper) that count as the published size; None if the source prints none.
        seeds: number of repetitions, or of problems of an exact statement.
        exact: True for a statement that holds at every scale, such as an identity.
        beside: True for our observation beside the claim, which does not count in the item's verdict.
        unit: of the effect and the published size.
    """

    rule: str
    holds: bool | None
    effect: float
    interval: tuple[float, float] | None = None
    published: float | None = None
    band: tuple[float, float] | None = None
    seeds: int = 1
    exact: bool = False
    beside: bool = False
    unit: str = ""

    def verdict(self, *, published_scale: bool) -> str:
        """The verdict on the rule.

        Args:
            published_scale: whether network, data and training are those of the source.

        Returns:
            One of `VERDICTS`.
        """
        if self.holds is None:
            return UNTESTED
        if not self.holds:
            return REFUTED
        sized = self.band is None or self.band[0] <= self.effect <= self.band[1]
        return REPRODUCED if self.exact or (published_scale and sized) else DIRECTION


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """One published item.

    Attributes:
        id: such as "T3-F12": the source's key, and F, T or S for figure, table, section.
        source: the item in the source, such as "Poggio et al. (2017), Fig. 12".
        claim: what the source states, in one or two sentences.
        published: the published numbers, one dictionary per number or row; empty if the source prints none.
        presets: settings by preset, frozen dataclasses or dictionaries: "quick" (seconds, on bundled data), "cpu"
            (minutes) and "paper" (the published scale, for a GPU).
        table: (settings, study) -> tidy table. `study.sweep` trains and measures; see `analyses.study.Study`.
        rules: table -> outcomes.
        reasons: by rule, of an outcome that does not hold: the likeliest reason, and the experiment that tested it.
        differs: what the reduced presets change against the source, and what the source leaves open; in one paragraph.
        at_scale: presets at the published scale.
        cost: CPU time of the cpu preset on one core, such as "5 min".
    """

    id: str
    source: str
    claim: str
    presets: Mapping[str, Any]
    table: Callable[[Any, Study], pd.DataFrame]
    rules: Callable[[pd.DataFrame], Sequence[Outcome]]
    published: Sequence[Mapping[str, Any]] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    differs: str = ""
    at_scale: tuple[str, ...] = ("paper",)
    cost: str = ""


@dataclass(frozen=True, kw_only=True)
class Unavailable:
    """A published item that is not run, with the reason.

    Attributes:
        id: as in `Reproduction`.
        source: the item in the source.
        claim: what the source states.
        reason: why it is not run: "no data", "a diagram", ...; of an open item, what it needs.
        state: "unavailable", or "open" for an item that nobody has written yet.
    """

    id: str
    source: str
    claim: str
    reason: str
    state: str = "unavailable"


def overall(outcomes: Sequence[Outcome], *, published_scale: bool) -> str:
    """The verdict of an item: the weakest of its rules, without the observations beside the claim."""
    found = [outcome.verdict(published_scale=published_scale) for outcome in outcomes if not outcome.beside]
    return max(found, key=VERDICTS.index, default=UNTESTED)
