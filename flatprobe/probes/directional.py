"""The part that results along random directions share: the weights that do not move, or do not act."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flatprobe.risk.inactive import Inactive
from flatprobe.utils.results import Result


@dataclass(frozen=True, kw_only=True, repr=False)
class Directed(Result):
    """A result along random directions.

    Attributes:
        frozen: selected parameters that the law does not move, being one-dimensional or zero throughout.
        inactive: parameter -> number of its entries that do not act on the first `settings["inactive_samples"]` samples
            (see `flatprobe.risk.inactive`); None where unknown. The directions include these entries, unless
            `inactive="hold"`.
    """

    frozen: tuple[str, ...]
    inactive: dict[str, int] | None = None

    @property
    def parametrised(self) -> tuple[str, ...]:
        """Weights that layers compute from parameters; the directions move those parameters."""
        return tuple(self.settings.get("subject", {}).get("network", {}).get("parametrised", ()))

    @classmethod
    def _from_settings(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        return super()._from_settings(settings) | {"frozen": tuple(settings["frozen"])}

    def __repr__(self) -> str:
        """The headline figures on one line, with the parameters that do not move, do not act or are computed from."""
        groups = {
            "frozen": self.frozen,
            "inactive": [f"{count} of {name}" for name, count in (self.inactive or {}).items()],
            "parametrised": self.parametrised,
        }
        notes = "; ".join(f"{what}: {', '.join(names)}" for what, names in groups.items() if names)
        figures = super().__repr__()
        return f"{figures[:-1]}, {notes})" if notes else figures


def describe_directions(frozen: tuple[str, ...], inactive: Inactive | None) -> dict[str, object]:
    """The entries of the settings for the frozen and the inactive weights."""
    counts, samples = (None, 0) if inactive is None else (inactive.counts, inactive.samples)
    return {"frozen": list(frozen), "inactive": counts, "inactive_samples": samples}
