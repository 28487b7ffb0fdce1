"""Comparison: results by measurement and network, with groups, an axis, refusals, and facts of the networks."""

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatprobe.probes.generalization import Generalization
from flatprobe.probes.interpolation import Interpolation
from flatprobe.studies.differences import LEVEL, Difference, differences_of, group_differences_of
from flatprobe.studies.facts import check_alike, facts_of, measured_on
from flatprobe.studies.headlines import headline
from flatprobe.studies.records import groups_by_name, load_records, read_state, save_record, write_state
from flatprobe.studies.written import write_frame
from flatprobe.utils.confidence import check_level
from flatprobe.utils.natural import natural
from flatprobe.utils.results import Result

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

_FACTS = ("class", "parameters", "dtype", "samples", "fingerprint", "weights_hash", "checkpoint_hash")


@dataclass(frozen=True)
class Refusal:
    """One measurement of one network that was refused.

    Attributes:
        measurement: name of the measurement; "" where the network could not be loaded or measured at all.
        network: name of the network, or of the group of a landscape.
        reason: the error's message.
    """

    measurement: str
    network: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """Results by measurement and network, landscapes by group.

    Attributes:
        results: measurement -> network (or group) -> result.
        groups: network -> group.
        along: network -> place on an axis such as the epoch; None without one.
        along_name: name of the axis.
        refusals: measurements that were refused, with their reasons.
        facts: network -> `class`, `parameters`, `norm`, `dtype`, `batch_norm`, `samples`, `seed`, `fingerprint`,
            `weights_hash`, `checkpoint_hash`, `checks_not_made`, ...
        notes: warnings about networks and data, from their loading.
        seconds: wall time by phase, of `flatprobe demo` only.
    """

    results: dict[str, dict[str, Any]]
    groups: dict[str, str]
    along: dict[str, float] | None = None
    along_name: str | None = None
    refusals: tuple[Refusal, ...] = ()
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict, compare=False)

    @property
    def networks(self) -> list[str]:
        """The networks in their order; along an axis, in that of their places."""
        names = list(self.groups)
        return names if self.along is None else sorted(names, key=lambda name: (self.along or {}).get(name, math.inf))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notes, and a sentence per reason for which figures must not be compared or averaged as they are."""
        return (*self.notes, *check_alike(self.results, self.groups, self.facts))

    def to_frame(self) -> "pandas.DataFrame":
        """One row per measurement, network and figure of its summary, and one per refusal.

        Columns: `measurement`, `network`, `group`, the axis where there is one, `figure`, `value`, the ends `lower` and
        `upper` of the 95 % interval where one is known, the `seed`, the `batch_norm` policy, what the facts say of the
        network and its data, and the reason of a `refusal`.
        """
        import pandas as pd

        axis = [] if self.along is None else [self.along_name or "along"]
        columns = [
            "measurement", "network", "group", *axis, "figure", "value", "lower", "upper", "seed", "batch_norm",
            *_FACTS, "refusal",
        ]  # fmt: skip
        frame = pd.DataFrame(list(self._rows(axis)), columns=columns)
        return frame.astype(dict.fromkeys(("seed", "parameters", "samples"), "Int64"))

    def _rows(self, axis: list[str]) -> Iterator[dict[str, Any]]:
        for measurement, results in self.results.items():
            for name, result in results.items():
                lead = self._lead(measurement, name, axis) | measured_on(result)
                for figure, value in result.summary().items():
                    lower, upper = _ends(result, figure)
                    yield lead | {"figure": figure, "value": value, "lower": lower, "upper": upper}
        for refusal in self.refusals:
            lead = self._lead(refusal.measurement, refusal.network, axis)
            yield lead | {"figure": "", "value": math.nan, "refusal": refusal.reason}

    def _lead(self, measurement: str, name: str, axis: list[str]) -> dict[str, Any]:
        facts = self.facts.get(name, {})
        place = {own: (self.along or {}).get(name, math.nan) for own in axis}
        known = {key: facts.get(key) for key in _FACTS}
        return {"measurement": measurement, "network": name, "group": self.groups.get(name, name), **place, **known}

    def headline(self) -> "pandas.DataFrame":
        """One row per measurement and group: mean and standard deviation (ddof 1) of the first figure over networks.

        Networks at other places of the axis are never averaged: each place has its own row. Neither are networks of a
        group that were measured on other data averaged without a word: see `warnings`.
        """
        frame = self.to_frame()
        frame = frame[frame["refusal"].isna()]
        keys = ["measurement", "group", *([] if self.along is None else [self.along_name or "along"])]
        first = frame.drop_duplicates([*keys, "network"])  # GroupBy.first would skip NaN
        cells = first.groupby([*keys, "figure"], sort=False)["value"].agg(["mean", "std", "count"])
        return cells.reset_index()

    def differences(self, level: float = LEVEL) -> "pandas.DataFrame":
        """One row per measurement and network: the difference of its headline figure from the best network's.

        The same directions and noise serve all networks, so differences are paired over samples, directions or draws
        where two networks share them. The intervals hold together with probability `level` (Bonferroni over all pairs),
        since the best network is chosen from the same values. Rows of kind "group" compare the means of groups over
        their networks. Measurements without a better direction, and landscapes, have no rows.

        Args:
            level: confidence of all intervals of a measurement together; 0.95 by convention.

        Returns:
            Columns `kind` ("network" or "group") and those of `Difference`.

        Raises:
            ValueError: for a level outside (0, 1).
        """
        import pandas as pd

        check_level(level)
        rows = [asdict(row) | {"kind": "network"} for row in self._differences(level)]
        for measurement, results in self.results.items():
            groups = self.groups if self.along is None else {}
            rows += [
                asdict(row) | {"kind": "group"} for row in group_differences_of(measurement, results, groups, level)
            ]
        return pd.DataFrame(rows, columns=["kind", *(entry.name for entry in fields(Difference))])

    def _differences(self, level: float) -> list[Difference]:
        return [
            row
            for measurement, results in self.results.items()
            for row in differences_of(measurement, results, self.facts, level)
        ]

    def trajectory(self) -> "pandas.DataFrame":
        """The headline figures along the axis: `measurement`, the axis, `network`, `group`, `figure`, `value`, ends.

        Generalization has one row per figure of its summary, such as training and test accuracy.

        Raises:
            ValueError: for a comparison without an axis.
        """
        if self.along is None:
            msg = "the comparison must have an axis for a trajectory, got none. Compare with along={network: number}"
            raise ValueError(msg)
        axis = self.along_name or "along"
        frame = self.to_frame()
        frame = frame[frame["refusal"].isna() & frame[axis].notna()]
        all_of = [key for key, own in self.results.items() if isinstance(next(iter(own.values())), Generalization)]
        first = frame.drop_duplicates(["measurement", "network"]).index
        chosen = frame[frame.index.isin(first) | frame["measurement"].isin(all_of)]
        columns = ["measurement", axis, "network", "group", "figure", "value", "lower", "upper"]
        return chosen[columns].sort_values(axis, kind="stable").reset_index(drop=True)

    def write(self, path: str | Path) -> Path:
        """Write `to_frame` as parquet, CSV, Markdown or LaTeX (booktabs), by the ending of the path.

        Raises:
            FileExistsError: if the path holds something that flatprobe did not write, in place of a parquet file.
            OSError: if the file cannot be written.
            ValueError: for another ending.
        """
        return write_frame(self.to_frame(), Path(path))

    def __repr__(self) -> str:
        """The numbers of measurements, networks and refusals."""
        numbers = {"measurement": len(self.results), "network": len(self.groups)}
        counted = " of ".join(f"{number} {what}{'s' * (number != 1)}" for what, number in numbers.items())
        return f"Comparison({counted}, {len(self.refusals)} refused)"

    def _repr_html_(self) -> str:
        """The headline figures as a table, for notebooks."""
        html: str = self.headline().to_html(index=False, float_format="{:.4g}".format, na_rep="")
        return html

    def plot(self) -> "matplotlib.figure.Figure":
        """Every headline figure against the axis; without one, a row per network, coloured by rank."""
        picture = importlib.import_module(f"flatprobe.plotting.{'trajectory' if self.along else 'heatmap'}")
        figure: matplotlib.figure.Figure = picture.draw(self)
        return figure

    def save(self, folder: str | Path) -> Path:
        """Write each result to `folder/measurement/network.parquet`, and the rest to `folder/comparison.json`.

        A slash in a name is written as %2F.

        Returns:
            The folder.
        """
        for measurement, results in self.results.items():
            for name, result in results.items():
                save_record(result, folder, measurement, name)
        self.save_state(folder)
        return Path(folder)

    def save_state(self, folder: str | Path) -> None:
        """Write `folder/comparison.json` alone: groups, axis, refusals, facts and notes."""
        state = {
            "measurements": list(self.results),
            "groups": self.groups,
            "along": self.along,
            "along_name": self.along_name,
            "refusals": [asdict(refusal) for refusal in self.refusals],
            "facts": self.facts,
            "notes": list(self.notes),
        }
        write_state(folder, state)

    @classmethod
    def load(cls, folder: str | Path) -> "Comparison":
        """Read a folder that `save`, `fp.compare(..., out=)` or a command wrote.

        Networks without a group there, as in folders of earlier versions, are grouped by name: names that differ only
        in consecutive numbers at their end are replicates, unless these count epochs, steps or the like.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: if the folder holds no records, a file that is no record, or a file of another version.
        """
        state = read_state(folder)
        results = load_records(folder)
        own = dict(state.get("groups", {}))
        measured = {
            name
            for found in results.values()
            for name, result in found.items()
            if not isinstance(result, Interpolation)
        }
        names = [*(name for name in own if name in measured), *sorted(measured - {*own}, key=natural)]
        order = [key for key in state.get("measurements", []) if key in results]
        results = {key: in_order(results[key], names) for key in dict.fromkeys([*order, *results])}
        return cls(
            results=results,
            groups=groups_by_name(names) | {name: own[name] for name in names if name in own},
            along=state.get("along"),
            along_name=state.get("along_name"),
            refusals=tuple(Refusal(**refusal) for refusal in state.get("refusals", [])),
            facts={name: state.get("facts", {}).get(name) or facts_of(name, results) for name in names},
            notes=tuple(state.get("notes", [])),
        )


def in_order(results: Mapping[str, Result], names: Sequence[str]) -> dict[str, Result]:
    """The results in the order of the names, and others after them."""
    return {name: results[name] for name in dict.fromkeys([*names, *results]) if name in results}


def _ends(result: Result, figure: str) -> tuple[float, float]:
    if isinstance(result, Generalization):
        return result.interval(figure)
    found = headline(result)
    return (found.lower, found.upper) if found is not None and found.figure == figure else (math.nan, math.nan)
