"""Differences between the networks and groups of a page."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flatprobe.probes.interpolation import Interpolation
from flatprobe.report.figures import Figure
from flatprobe.studies.differences import Difference, differences_of, group_differences_of, marks_of
from flatprobe.utils.results import Result


@dataclass(frozen=True)
class Differences:
    """Differences by measurement, figure, and pair of networks or groups; one of each pair is the best.

    Attributes:
        networks: differences between networks.
        groups: differences between the means of groups.
        marked: measurement and figure -> network -> "best" or "worst".
    """

    networks: Mapping[tuple[str, str, str, str], Difference]
    groups: Mapping[tuple[str, str, str, str], Difference]
    marked: Mapping[tuple[str, str], Mapping[str, str]]

    @classmethod
    def of(
        cls,
        records: Mapping[str, Mapping[str, Result]],
        groups: Mapping[str, str] | None,
        facts: Mapping[str, Mapping[str, Any]],
    ) -> "Differences":
        """The differences of all measurements but the landscapes."""
        single = {
            key: own for key, own in records.items() if not any(isinstance(r, Interpolation) for r in own.values())
        }
        networks = [found for key, own in single.items() for found in differences_of(key, own, facts)]
        between = [found for key, own in single.items() for found in group_differences_of(key, own, groups or {})]
        heads = {(found.measurement, found.figure) for found in networks}
        marked = {(key, figure): marks_of(key, single[key], facts) for key, figure in heads}
        return cls({_key(own): own for own in networks}, {_key(own): own for own in between}, marked)

    def between(self, figure: Figure, one: str, two: str, *, groups: bool = False) -> Difference | None:
        """One network or group minus another; None where neither is the best, or nothing is known."""
        found = self.groups if groups else self.networks
        if own := found.get((figure.measurement, figure.figure, one, two)):
            return own
        if own := found.get((figure.measurement, figure.figure, two, one)):
            turned = {"network": own.reference, "reference": own.network, "difference": -own.difference}
            return replace(own, **turned, lower=-own.upper, upper=-own.lower)  # type: ignore[arg-type]
        return None

    def marks(self, figure: Figure) -> Mapping[str, str]:
        """The best and the worst network, each only if it is separated from all others."""
        return self.marked.get((figure.measurement, figure.figure), {})


def _key(found: Difference) -> tuple[str, str, str, str]:
    return found.measurement, found.figure, found.network, found.reference
