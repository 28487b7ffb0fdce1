"""Flatness radius: distance along random directions to the first change of the training loss by epsilon."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from flatprobe.network.weights import Weights, as_given, move, select
from flatprobe.probes.directional import Directed, describe_directions
from flatprobe.probes.rounding import check_loss, check_weights, float64_risk
from flatprobe.risk.directions import LAWS, direction, scale
from flatprobe.risk.empirical import Risk, RiskFunction, along, describe, explain_start
from flatprobe.risk.function import risk_at, takes_risk
from flatprobe.risk.inactive import find_inactive
from flatprobe.risk.lockstep import points_at_once, risks_at
from flatprobe.risk.recalibration import Recalibration
from flatprobe.utils.arguments import Checked, Number, Selection, Whole, at_least, one_of, positive
from flatprobe.utils.first_exit import Exit, exit_search, first_exits
from flatprobe.utils.results import settings

# The default censoring distance moves the weights by about this many times their norm, which gives another network
# altogether. The search along the first direction starts at a tenth of the norm.
_FURTHEST = 100.0
_START = 0.1
_FINEST = 1e-12


@dataclass(frozen=True, kw_only=True, repr=False)
class FlatnessRadii(Directed):
    """Flatness radii, each inside a bracket of relative width rtol. The table has one row per direction.

    Attributes:
        radii: (directions,) first exits; infinite where none was reached. Units: distance in weight space under
            `isotropic`, relative to the weights under the other laws.
        lower: (directions,) largest radius known to be inside.
        upper: (directions,) smallest radius known to be outside.
        evaluations: (directions,) evaluations of the risk over all data.
        excursions: (directions,) earlier exits that `verify` found.
        probing_ratio: (directions,) largest ratio b / a of an interval [a, b] of [lower / 100, lower] without an
            evaluation inside. The search may have missed an earlier exit there. 100 where nothing below the bracket was
            evaluated, as for most directions without `verify`.
        start: loss and error at the minimizer.
    """

    _columns: ClassVar = {
        "direction": "", "radius": "radii", "lower": "lower", "upper": "upper", "evaluations": "evaluations",
        "excursions": "excursions", "probing_ratio": "probing_ratio", "reached": "reached",
    }  # fmt: skip

    radii: Float64[Tensor, " directions"]
    lower: Float64[Tensor, " directions"]
    upper: Float64[Tensor, " directions"]
    evaluations: Int64[Tensor, " directions"]
    excursions: Int64[Tensor, " directions"]
    probing_ratio: Float64[Tensor, " directions"]
    start: Risk

    @property
    def reached(self) -> Bool[Tensor, " directions"]:
        """(directions,) True where the objective left the band before max_radius."""
        return self.radii.isfinite()

    @property
    def censored(self) -> int:
        """The number of directions without an exit. Mean, standard deviation and median leave these directions out."""
        return int((~self.reached).sum())

    @property
    def mean(self) -> float:
        """Mean radius over the reached directions; nan without any."""
        return float(self.radii[self.reached].mean())

    @property
    def std(self) -> float:
        """Standard deviation across directions (ddof 1) over the reached ones; nan below two."""
        reached = self.radii[self.reached]
        return float(reached.std()) if len(reached) > 1 else float("nan")

    @property
    def median(self) -> float:
        """Median over the reached directions; nan without any."""
        reached = self.radii[self.reached].tolist()
        return median(reached) if reached else float("nan")

    def summary(self) -> dict[str, float]:
        """Mean, standard deviation and median; the numbers of directions and of censored directions."""
        return {
            "mean": self.mean,
            "std": self.std,
            "median": self.median,
            "directions": len(self.radii),
            "censored": self.censored,
        }

    @classmethod
    def _from_settings(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        return super()._from_settings(settings) | {"start": Risk(**settings["start"])}


@takes_risk
def flatness_radius(
    risk: RiskFunction,
    *,
    epsilon: Number = 0.05,
    directions: Whole = 10,
    law: Checked[Literal["isotropic", "layer", "filter", "adaptive"]] = "isotropic",
    parameters: Selection = None,
    objective: Checked[Literal["loss", "error"]] = "loss",
    max_radius: Number | None = None,
    rtol: Number = 1e-2,
    verify: Whole = 0,
    batch_norm: Checked[Literal["frozen", "recalibrate"]] = "frozen",
    inactive: Checked[Literal["move", "hold"]] = "move",
    seed: int = 0,
) -> FlatnessRadii:
    """r(w, u, eps) = sup{ r >= 0 : |I(w + s u) - I(w)| <= eps for all s in [0, r] }, along random directions u.

    `flatprobe.utils.first_exit.exit_search` brackets the first exit along each direction. The search is a secant in
    (log r, log increase), started at the median of the directions already measured. It ends with an inside and an
    outside radius within `rtol`; the reported radius is the crossing interpolated between them. With
    `objective="error"` the risk is a step function, so the bracket is halved. Where the error jumps at the center, the
    radius is 0. Off the CPU, the directions of a small dense network are measured together and start alike
    (`flatprobe.risk.lockstep`): there a radius differs from that of a CPU within `rtol`.

    Cost per direction, one evaluation being one pass over the data:

    - `objective="loss"`: 4 to 6 evaluations (`make bench`),
    - `objective="error"`: about 10 evaluations,
    - 3 more in float64 where epsilon is below 1e-4 times the largest logit, since the loss's rounding could matter.

    Assumption: the increase is monotone up to the exit. Below `lower` the risk is evaluated at few radii, or at none.
    An earlier exit whose interval is shorter than the recorded `probing_ratio` may be missed; `verify` searches for it.

    Args:
        risk: an `EmpiricalRisk`, or any callable of the weights with a `center`.
        epsilon: allowed change of the objective, in its units; 0.05 is that of T3, Table 1.
        directions: number T of independent directions. 10 is our choice, which leaves a standard error of a third of
            the spread; T3 gives no number.
        law: distribution of the directions (`flatprobe.risk.directions.direction`); `isotropic` is T3's. Radii of
            different laws are not comparable.
        parameters: None for all, `"last"` for T3's "top layer", or names or patterns.
        objective: `"loss"` (T3), or `"error"`, the fraction misclassified, of a risk that has one.
        max_radius: censoring distance; None takes 100 times the distance that moves the selected weights by about their
            norm.
        rtol: relative width of the certified bracket; 1e-2 is a tenth of T3's spread across directions.
        verify: points evaluated per direction, evenly over (0, lower), in search of an earlier exit; 0 trusts monotony.
        batch_norm: BatchNorm statistics while the weights move: `"frozen"` (the running statistics of the minimizer),
            or `"recalibrate"` (one more pass over the data at each point).
        inactive: treatment of entries that do not act (unused vocabulary, pruned weights, heads for training only).
            `"move"` moves them too; n of them lengthen r by a factor of about sqrt(1 + n / rest). `"hold"` keeps them,
            after a search on all data.
        seed: of the directions.

    Returns:
        `FlatnessRadii`; a direction without an exit has radius `inf` and `reached == False`.

    Raises:
        ValueError: if epsilon, rtol, directions, max_radius or verify is out of range.
        ValueError: if a word is unknown, the selection matches no parameter, or nothing moves.
        ValueError: if the objective is not finite at the center, or the loss jumps there.
        ValueError: if the precision of the weights or of the loss is too low for epsilon.
        ValueError: if inactive entries are to be held and are unknown, or are all entries.

    Source: Poggio et al. (2017), eq. 16 and Table 1 [T3]; laws: Li et al. (2018), Kwon et al. (2021).
    """
    positive(epsilon=epsilon, rtol=rtol, max_radius=max_radius)
    if rtol < _FINEST:
        msg = f"rtol must be at least {_FINEST}, got {rtol}. Below that, rounding decides"
        raise ValueError(msg)
    at_least(1, directions=directions)
    at_least(0, verify=verify)
    one_of("objective", objective, ("loss", "error"))
    one_of("batch_norm", batch_norm, ("frozen", "recalibrate"))
    one_of("law", law, LAWS)
    one_of("inactive", inactive, ("move", "hold"))
    center = risk.center
    names = select(center, parameters)
    idle, held = find_inactive(risk, names, law, inactive)
    unit = scale(center, names, law, held)
    limit = _FURTHEST * unit if max_radius is None else float(max_radius)
    epsilon, rtol = float(epsilon), float(rtol)  # NumPy's numbers would make the search's arithmetic single precision
    measured = Recalibration(risk) if batch_norm == "recalibrate" else risk
    start = risk_at(measured, center)
    if not math.isfinite(start.loss):
        explain_start(risk)
    base = _finite(start, objective)
    exact = float64_risk(risk, epsilon, recalibrated=batch_norm == "recalibrate") if objective == "loss" else None
    exits: list[Exit] = []
    units: list[Weights] = []
    kept: list[Tensor | None] = []  # first-layer outputs at the center, for all directions
    together = points_at_once(measured)
    for first in range(0, directions, together):
        units.clear()  # frees the last directions before the next ones are drawn
        units.extend(
            direction(center, names, law, seed, index, held)
            for index in range(first, min(first + together, directions))
        )
        begin = _guess([e.radius for e in exits if e.reached and e.lower > 0], _START * unit)
        slope = _guess([e.slope for e in exits if e.slope == e.slope], 2.0)
        smooth = objective == "loss"
        searches = [
            exit_search(epsilon, start=begin, slope=slope, max_radius=limit, rtol=rtol, smooth=smooth, verify=verify)
            for _ in units
        ]
        for place, exit_ in enumerate(first_exits(_increases(measured, units, kept, objective, base), searches)):
            if exit_.reached and exit_.lower == 0:
                exits.append(_at_once(exit_, objective, first + place))
                continue
            exits.append(exit_)
            check_weights([center, units[place]], exit_.radius, rtol)
            if exit_.reached and exact is not None:
                check_loss(exact, exit_, units[place], epsilon, rtol)
    frozen = tuple(name for name in names if name not in units[0] and name not in held)
    arguments = {
        "epsilon": epsilon, "directions": directions, "law": law, "parameters": as_given(parameters), "seed": seed,
        "objective": objective, "max_radius": limit, "rtol": rtol, "verify": verify, "batch_norm": batch_norm,
        "inactive": inactive,
    }  # fmt: skip
    return FlatnessRadii(
        radii=_column(exits, "radius"),
        lower=_column(exits, "lower"),
        upper=_column(exits, "upper"),
        evaluations=_column(exits, "evaluations").long(),
        excursions=_column(exits, "excursions").long(),
        probing_ratio=_column(exits, "probing_ratio"),
        start=start,
        frozen=frozen,
        inactive=None if idle is None else idle.counts,
        settings=settings("flatness_radius", describe(risk), **arguments)
        | {"start": start.figures(), "selected": list(names)}
        | describe_directions(frozen, idle),
    )


def _increases(
    risk: RiskFunction, units: list[Weights], kept: list[Tensor | None], objective: str, base: float
) -> Callable[[Mapping[int, float]], list[float]]:
    """The increases of the objective along directions k at radii r, {k: r}, together if there are several."""
    at = along(risk, [risk.center, *units], kept) if len(units) == 1 else None

    def increases(radii: Mapping[int, float]) -> list[float]:
        if at is not None:
            risks = [at((1.0, radius)) for radius in radii.values()]
        else:
            risks = risks_at(risk, (move(risk.center, units[place], radius) for place, radius in radii.items()))
        return [getattr(value, objective) - base for value in risks]

    return increases


def _at_once(exit_: Exit, objective: str, index: int) -> Exit:
    """The exit at radius 0 of a direction outside at every radius: the error may be a step at the center.

    Raises:
        ValueError: for the loss, whose radius is defined only where the loss is continuous.
    """
    if objective == "loss":
        msg = (
            f"the loss must be continuous at the center, got a change above epsilon, or a value that is not finite, at "
            f"every radius along direction {index} down to {exit_.upper:.3g}, which is near rounding. Look for weights "
            "that jump there (torch's orthogonal parametrization by householder), or for a root or a logarithm at 0"
        )
        raise ValueError(msg)
    return replace(exit_, radius=0.0)


def _guess(earlier: list[float], default: float) -> float:
    return median(earlier) if earlier else default


def _column(exits: list[Exit], name: str) -> Float64[Tensor, " directions"]:
    return torch.tensor([getattr(exit_, name) for exit_ in exits], dtype=torch.float64, device="cpu")


def _finite(start: Risk, objective: str) -> float:
    value: float = getattr(start, objective)
    if objective == "error" and "error" not in start.figures():
        msg = 'objective must be "loss" for a risk without an error, got "error". Targets that are no classes have none'
        raise ValueError(msg)
    if not math.isfinite(value):
        msg = (
            f"the {objective} at the center must be finite, got {value}. Check that the network is trained and its "
            "inputs are scaled"
        )
        raise ValueError(msg)
    return value
