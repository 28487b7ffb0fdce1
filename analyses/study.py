"""The surroundings of one reproduction: where networks are kept, who trains them, and which were used."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

import flatprobe as fp
from flatprobe.studies.sweep import rows


@dataclass(kw_only=True)
class Study:
    """Root folder, executor and device of a run, and the keys of the experiments that it used.

    Attributes:
        root: folder of trained networks and measurements, shared by all items.
        executor: as in `fp.sweep`.
        workers: as in `fp.sweep`.
        device: as in `fp.sweep`.
        progress: as in `fp.sweep`.
        keys: the experiments so far.
        units: the table of `fp.sweep` of each call.
    """

    root: Path
    executor: Executor | Callable[[], Executor] | str | None = None
    workers: int = 1
    device: str | None = None
    progress: bool | None = None
    keys: list[str] = field(default_factory=list)
    units: list[pd.DataFrame] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The seconds that the trainings and measurements took when they were computed, now or in an earlier run."""
        if not self.units:
            return 0.0
        table = pd.concat(self.units, ignore_index=True)
        alone = table[table["experiment"].isin(self.keys)].drop_duplicates("experiment")
        return float(table.drop_duplicates("record")["seconds"].sum() + alone["training_seconds"].sum())

    def sweep(
        self, experiments: Sequence[fp.Experiment], measurements: Sequence[fp.Measurement]
    ) -> dict[str, pd.DataFrame]:
        """Train and measure what is not complete, and return the raw rows of each measurement by its name.

        The rows of a measurement of single experiments begin with the experiment's settings by dotted name, such as
        `data.samples`, `network.scale` or `seeds.network`; see `flatprobe.studies.sweep.rows`.

        Raises:
            RuntimeError: if a unit failed, with the first message.
        """
        table = fp.sweep(
            experiments,
            measurements,
            self.root,
            executor=self.executor,
            workers=self.workers,
            device=self.device,
            progress=self.progress,
        )
        used = dict.fromkeys(key for joined in table["experiment"] for key in joined.split("+"))
        self.keys += [key for key in used if key not in self.keys]
        self.units.append(table)
        failed = table[table["state"] == "failed"]
        if len(failed):
            msg = f"{len(failed)} of {len(table)} measurements failed, the first with: {failed['failure'].iloc[0]}"
            raise RuntimeError(msg)
        return {name: rows(table, name) for name in dict.fromkeys(table["measurement"].dropna()) if name}
