"""Audit: the dependence of measured numbers on the parametrization of the network's function."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from flatprobe.data import LabelledData, check_classes
from flatprobe.graph.reparametrize import CHANGES
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.studies.probes_by_name import NAMED, measure_named
from flatprobe.studies.reparametrized import make_copies
from flatprobe.studies.significance import same_law, spread_of, stays
from flatprobe.utils.arguments import at_least, one_of, positive
from flatprobe.utils.progress import reporting
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas

Probe = Callable[[nn.Module, LabelledData, int], Result]

# The measurements of `compare`, as functions of model, data and seed.
AUDITED: dict[str, Probe] = {name: partial(measure_named, name) for name in NAMED}
# The cheap probes: some hundreds of forward passes per network in total.
DEFAULT = (
    "flatness_radius",
    "flatness_radius_adaptive",
    "functional_margins",
    "scores",
    "jacobian_norms",
    "gaussian_robustness",
)
# Directions are drawn entry by entry, so the same seed on permuted weights is another draw of the same law.
REDRAWN = frozenset(("permutation",))
PARAMETRISATION, SCALE, NEITHER = "depends on the parametrisation", "follows the logits' scale", "neither"


@dataclass(frozen=True)
class Row:
    """One figure of one probe, before and after one change.

    Attributes:
        change: one of `flatprobe.graph.reparametrize.CHANGES`.
        probe: name of the probe.
        figure: name of one of the probe's headline figures.
        before: value for the network as given.
        after: value for the changed copy, with the same seed.
        spread: standard deviation over the seeds, pooled before and after; nan where one seed was enough.
        moves: True where after differs from before by more than the tolerance, and under a permutation by more than
            other draws explain.
    """

    change: str
    probe: str
    figure: str
    before: float
    after: float
    spread: float
    moves: bool

    @property
    def relative_change(self) -> float:
        """after / before - 1; 0 for equal values, infinite where only before is 0."""
        if self.after == self.before:
            return 0.0
        return self.after / self.before - 1 if self.before else float("inf")


@dataclass(frozen=True, kw_only=True, repr=False)
class Audit(Result):
    """Every figure of every probe, before and after every applicable change. One row per change, probe and figure.

    Attributes:
        rows: ordered by change, then probe, then figure.
    """

    rows: tuple[Row, ...]

    @property
    def applied(self) -> dict[str, dict[str, Any]]:
        """Change -> what it `keeps`, its `places`, the layers `left_out`, the measured `deviation` of the logits."""
        applied: dict[str, dict[str, Any]] = self.settings["applied"]
        return applied

    @property
    def missing(self) -> dict[str, str]:
        """Change without a copy -> the reason."""
        missing: dict[str, str] = self.settings["missing"]
        return missing

    def headline(self) -> tuple[Row, ...]:
        """The rows of each probe's first figure."""
        first: dict[tuple[str, str], Row] = {}
        for row in self.rows:
            first.setdefault((row.change, row.probe), row)
        return tuple(first.values())

    def others(self) -> tuple[Row, ...]:
        """The first other figure that moves, per probe and change whose first figure stays."""
        stays = {(row.change, row.probe) for row in self.headline() if not row.moves}
        first: dict[tuple[str, str], Row] = {}
        for row in self.rows:
            if row.moves and (row.change, row.probe) in stays:
                first.setdefault((row.change, row.probe), row)
        return tuple(first.values())

    def verdicts(self) -> dict[str, str]:
        """Probe -> `PARAMETRISATION`, `SCALE` or `NEITHER`.

        `PARAMETRISATION` if a figure moves although the function stays; `SCALE` if figures move only where the
        decisions alone stay.
        """
        kept: dict[str, set[str]] = {}
        for row in self.rows:
            kept.setdefault(row.probe, set()).update({CHANGES[row.change].keeps} if row.moves else ())
        return {
            probe: PARAMETRISATION if "function" in moved else SCALE if moved else NEITHER
            for probe, moved in kept.items()
        }

    def summary(self) -> dict[str, float]:
        """Number of first figures that each change moves, and number of probes."""
        rows = self.headline()
        moved = {
            f"moved by {change}": sum(row.moves for row in rows if row.change == change) for change in self.applied
        }
        return {**moved, "probes": len({row.probe for row in rows})}

    def __repr__(self) -> str:
        """Probes by verdict, and what moved."""
        verdicts = self.verdicts()
        groups = [
            f"{verdict}: {', '.join(probe for probe, own in verdicts.items() if own == verdict)}"
            for verdict in dict.fromkeys(verdicts.values())
        ]
        return f"Audit({'; '.join(groups)})"

    def _html_rows(self) -> list[tuple[object, ...]]:
        """Probe, first figure, value as given, relative change under each change, and verdict."""
        verdicts, by_probe = self.verdicts(), dict[str, dict[str, Row]]()
        for row in self.headline():
            by_probe.setdefault(row.probe, {})[row.change] = row
        rows: list[tuple[object, ...]] = [("probe", "figure", "as given", *self.applied, "verdict")]
        for probe, own in by_probe.items():
            first = next(iter(own.values()))
            changes = [
                f"{own[change].relative_change:+.1%}" if own[change].moves else "stays" for change in self.applied
            ]
            rows.append((probe, first.figure, first.before, *changes, verdicts[probe]))
        return rows

    def to_frame(self) -> "pandas.DataFrame":
        """One row per change, probe and figure."""
        import pandas as pd

        return pd.DataFrame([asdict(row) | {"relative_change": row.relative_change} for row in self.rows])

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "Audit":
        """The inverse of `to_frame`."""
        records = frame.drop(columns="relative_change").to_dict("records")
        return cls(
            rows=tuple(Row(**{str(name): value for name, value in row.items()}) for row in records), settings=settings
        )


@standalone
def audit(
    model: nn.Module,
    data: LabelledData,
    *,
    probes: Sequence[str | Probe] | Mapping[str, Probe] | None = None,
    changes: Sequence[str] | None = None,
    factor: float = 4.0,
    tolerance: float = 0.01,
    seeds: int = 5,
    seed: int = 0,
    progress: bool | None = False,
) -> Audit:
    """P(w') / P(w) - 1 for probes P and other weights w' of the same function, f_w' = f_w.

    `flatprobe.graph.reparametrize.reparametrize` changes copies of the network. `rescaling` of ReLU units,
    `batch_norm` scale absorption and `permutation` of units keep the function; `logit_scale` keeps the decisions. A
    number that moves is a property of the weights, not of the function that they compute.

    Each copy is checked first on all data. Its logits must equal those of the network up to the square root of the
    precision, relative to the largest logit. Under `logit_scale` they must equal `factor` times those logits, with the
    same classes. `missing` names the changes that do not apply or fail this check.

    On permuted weights a seed draws other directions of the same law. A figure that a permutation moves by more than
    the tolerance is therefore measured at `seeds` seeds before and after. It moves only if the two sets are not draws
    of one law, by Student's t test at 1e-3.

    Cost: each probe once for the network and once per copy, and `2 (seeds - 1)` times more where a permutation draws
    anew.

    Args:
        model: a classifier in eval mode that takes one tensor; never changed.
        data: inputs and labels.
        probes: names in `AUDITED`, functions (model, data, seed) -> `Result`, or such functions by name; None for the
            names in `DEFAULT`.
        changes: names in `flatprobe.graph.reparametrize.CHANGES`; None for all.
        factor: factor of every second unit, and of the logits, above 1. 4 is our choice: multiplying by a power of two
            does not round.
        tolerance: relative change up to which a figure stays; 0.01 is the rtol of the radius, the least exact of the
            default probes.
        seeds: number of seeds for the spread; 5 is our choice, which detects a move of 3.2 spreads.
        seed: of the directions, the noise and the order of the units; the spread takes the next seeds too.
        progress: True: a bar on a terminal, else plain lines, on stderr; None: a bar on a terminal only.

    Returns:
        `Audit`.

    Raises:
        ValueError: for an unknown probe or change, no probes, two probes of one name, or an argument out of range.
        ValueError: if the network cannot be probed or traced, or no change applies to it.
        TypeError: if a probe does not return a `Result`, or the samples are not one tensor.

    Source: Dinh et al. (2017): flatness is not a property of the function. Poggio et al. (2017), section 1.1 [T3], hold
    that isotropic flat minima cannot be made sharp in this way; the isotropic radius falls as `factor` grows.
    """
    positive(tolerance=tolerance)
    at_least(2, seeds=seeds)
    chosen = _by_name(DEFAULT if probes is None else probes)
    network, data = Network(model), check_classes(data)
    copies = make_copies(network, data, tuple(CHANGES if changes is None else changes), factor, seed)
    rows: list[Row] = []
    with reporting(len(chosen) * (1 + len(copies.networks)), progress) as step:
        for probe, measure in chosen.items():
            given = _Figures(probe, measure, model, data)
            step(f"{probe} as given")
            before = given.at(seed)
            for change, changed in copies.networks.items():
                step(f"{probe} after {change}")
                other = _Figures(probe, measure, changed, data)
                after = {name: other.at(seed).get(name, math.nan) for name in before}
                moved = [name for name, value in before.items() if not stays(value, after[name], tolerance)]
                draws = range(seed, seed + seeds) if change in REDRAWN and moved else ()
                for name, value in before.items():
                    sets = [[figures.at(draw).get(name, math.nan) for draw in draws] for figures in (given, other)]
                    moves = name in moved and not same_law(*sets)
                    rows.append(Row(change, probe, name, value, after[name], spread_of(*sets), moves))
    rows.sort(key=lambda row: list(copies.networks).index(row.change))
    arguments = {
        "probes": list(chosen), "changes": [*copies.applied, *copies.missing], "factor": factor,
        "tolerance": tolerance, "seeds": seeds, "seed": seed,
    }  # fmt: skip
    subject = {"network": network.describe(), "data": data.describe()}
    recorded = settings("audit", subject, **arguments) | {"applied": copies.applied, "missing": copies.missing}
    return Audit(rows=tuple(rows), settings=recorded)


def _by_name(probes: Sequence[str | Probe] | Mapping[str, Probe]) -> dict[str, Probe]:
    if isinstance(probes, Mapping):
        chosen = dict(probes)
    else:
        pairs = [(probe, _known(probe)) if isinstance(probe, str) else (probe.__name__, probe) for probe in probes]
        chosen = dict(pairs)
        if len(chosen) < len(pairs):
            names = ", ".join(name for name, _ in pairs)
            msg = f"the names of the probes must differ, got {names}. Give a mapping of names to probes"
            raise ValueError(msg)
    if not chosen:
        msg = "probes must name at least one probe, got none"
        raise ValueError(msg)
    return chosen


def _known(name: str) -> Probe:
    one_of("probe", name, AUDITED)
    return AUDITED[name]


class _Figures:
    """Headline figures of one network by one probe, measured once per seed."""

    def __init__(self, probe: str, measure: Probe, model: nn.Module, data: LabelledData) -> None:
        self.probe, self.measure, self.model, self.data = probe, measure, model, data
        self.known: dict[int, dict[str, float]] = {}

    def at(self, seed: int) -> dict[str, float]:
        if seed not in self.known:
            result: object = self.measure(self.model, self.data, seed)
            if not isinstance(result, Result):
                msg = f"the probe {self.probe!r} must return a flatprobe Result, got a {type(result).__name__}"
                raise TypeError(msg)
            self.known[seed] = {figure: float(value) for figure, value in result.summary().items()}
        return self.known[seed]
