"""What results along random directions say of the weights that these move."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flatprobe.risk.inactive import Inactive
from flatprobe.utils.results import Result


@dataclass(frozen=True, kw_only=True, repr=False)
class Directed(Result):
    """A result along random directions.

    Attributes:
        frozen: selected parameters that the law does not move: of one dimension, or zero throughout.
        inactive: name -> how many of its entries do not act on the first `settings["inactive_samples"]` samples (see
            `flatprobe.risk.inactive`); None where this is not known. They are part of the directions unless they were
            held.
    """

    frozen: tuple[str, ...]
    inactive: dict[str, int] | None = None

    @property
    def parametrised(self) -> tuple[str, ...]:
        """Weights that layers compute: what moves are the parameters that they are computed from."""
        return tuple(self.settings.get("subject", {}).get("network", {}).get("parametrised", ()))

    @classmethod
    def _from_settings(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        return super()._from_settings(settings) | {"frozen": tuple(settings["frozen"])}

    def __repr__(self) -> str:
        """The headline figures on one line, and what does not move, does not act or is computed."""
        told = {
            "frozen": self.frozen,
            "inactive": [f"{count} of {name}" for name, count in (self.inactive or {}).items()],
            "parametrised": self.parametrised,
        }
        notes = "; ".join(f"{what}: {', '.join(names)}" for what, names in told.items() if names)
        figures = super().__repr__()
        return f"{figures[:-1]}, {notes})" if notes else figures


def recorded(frozen: tuple[str, ...], inactive: Inactive | None) -> dict[str, object]:
    """What the settings say of them."""
    counts, samples = (None, 0) if inactive is None else (inactive.counts, inactive.samples)
    return {"frozen": list(frozen), "inactive": counts, "inactive_samples": samples}
