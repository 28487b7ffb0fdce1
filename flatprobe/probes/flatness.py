"""Flatness radius: how far the weights move along random directions before the training loss rises by epsilon."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from flatprobe.network.weights import Weights, as_given, select
from flatprobe.probes.directional import Directed, recorded
from flatprobe.probes.rounding import check_loss, check_weights, float64_risk
from flatprobe.risk.directions import direction, scale
from flatprobe.risk.empirical import Risk, RiskFunction, along, describe, explain_start
from flatprobe.risk.function import risk_at, takes_risk
from flatprobe.risk.inactive import find_inactive
from flatprobe.risk.recalibration import Recalibration
from flatprobe.utils.arguments import at_least, one_of, positive
from flatprobe.utils.first_exit import Exit, first_exit
from flatprobe.utils.results import settings

if TYPE_CHECKING:
    import pandas

# The default censoring distance moves the weights by about this many times their own norm: what has not left by then is
# another network altogether. The first direction's search starts at a tenth of the norm.
_FURTHEST = 100.0
_START = 0.1
_FINEST = 1e-12


@dataclass(frozen=True, kw_only=True, repr=False)
class FlatnessRadii(Directed):
    """Radii along the directions, each the crossing inside a bracket that certifies rtol.

    Attributes:
        radii: (directions,) first exits; infinite where none was reached. Units: distance in weight space under
            `isotropic`, relative to the weights under the other laws.
        lower: (directions,) largest radius known inside.
        upper: (directions,) smallest radius known outside.
        evaluations: (directions,) full-data evaluations spent.
        excursions: (directions,) earlier exits that `verify` found.
        probing_ratio: (directions,) widest ratio b / a of an interval of [lower / 100, lower] inside which nothing was
            evaluated: an earlier exit may have been missed there, from a to b at the widest. 100 where nothing below
            the bracket was evaluated, as for most directions without `verify`.
        start: loss and error at the minimizer.
    """

    radii: Float64[Tensor, " directions"]
    lower: Float64[Tensor, " directions"]
    upper: Float64[Tensor, " directions"]
    evaluations: Int64[Tensor, " directions"]
    excursions: Int64[Tensor, " directions"]
    probing_ratio: Float64[Tensor, " directions"]
    start: Risk

    @property
    def reached(self) -> Bool[Tensor, " directions"]:
        """Which directions left the band before max_radius."""
        return self.radii.isfinite()

    @property
    def censored(self) -> int:
        """How many did not: they are not in the mean, the standard deviation or the median."""
        return int((~self.reached).sum())

    @property
    def mean(self) -> float:
        """Mean radius over the reached directions; nan where there is none."""
        return float(self.radii[self.reached].mean())

    @property
    def std(self) -> float:
        """Standard deviation across directions (ddof 1) over the reached ones; nan below two."""
        reached = self.radii[self.reached]
        return float(reached.std()) if len(reached) > 1 else float("nan")

    @property
    def median(self) -> float:
        """Median over the reached directions; nan where there is none."""
        reached = self.radii[self.reached].tolist()
        return median(reached) if reached else float("nan")

    def summary(self) -> dict[str, float]:
        """Mean, standard deviation, median, and how many directions were reached and censored."""
        return {
            "mean": self.mean,
            "std": self.std,
            "median": self.median,
            "directions": len(self.radii),
            "censored": self.censored,
        }

    def to_frame(self) -> "pandas.DataFrame":
        """One row a direction."""
        import pandas as pd

        columns = ("radii", "lower", "upper", "evaluations", "excursions", "probing_ratio")
        frame = pd.DataFrame({name: getattr(self, name).numpy() for name in columns}).rename(
            columns={"radii": "radius"}
        )
        frame.insert(0, "direction", range(len(frame)))
        frame["reached"] = self.reached.numpy()
        return frame

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "FlatnessRadii":
        """The inverse of `to_frame`."""
        columns = ("lower", "upper", "evaluations", "excursions", "probing_ratio")
        return cls(
            radii=torch.from_numpy(frame["radius"].to_numpy(copy=True)),
            **{name: torch.from_numpy(frame[name].to_numpy(copy=True)) for name in columns},
            start=Risk(**settings["start"]),
            frozen=tuple(settings["frozen"]),
            inactive=settings.get("inactive"),
            settings=settings,
        )


@takes_risk
def flatness_radius(
    risk: RiskFunction,
    *,
    epsilon: float = 0.05,
    directions: int = 10,
    law: str = "isotropic",
    parameters: str | Sequence[str] | Any = None,
    objective: str = "loss",
    max_radius: float | None = None,
    rtol: float = 1e-2,
    verify: int = 0,
    batch_norm: str = "frozen",
    inactive: str = "move",
    seed: int = 0,
) -> FlatnessRadii:
    """r(w, u, eps) = sup{ r >= 0 : |I(w + s u) - I(w)| <= eps for all s in [0, r] }, along random directions u.

    The first exit along each direction (T3 eq. 16, Table 1) is bracketed by `flatprobe.utils.first_exit.first_exit`: a
    secant in (log r, log increase), started where the directions already done would put it, closed by an inside and an
    outside radius within `rtol`. About 4 to 6 evaluations of the risk a direction (`make bench`), each one pass over
    the data. The reported radius is the crossing interpolated inside that bracket.

    The bracket certifies an exit, and the *first* one only if the increase is monotone up to it: between the center and
    `lower` the risk is evaluated at few radii or none. Earlier exits that are over within the recorded `probing_ratio`
    may be missed, and `verify` looks for them. With `objective="error"` the risk is a step function and the bracket is
    halved, at about ten evaluations a direction; where the error jumps at the center the radius is 0.

    In single precision the loss has a rounding of its own. Where it could matter, below an epsilon of 1e-4 times the
    largest logit, each radius is held against the loss in float64, three more passes a direction.

    Args:
        risk: an `EmpiricalRisk`, or any callable of the weights with a `center`.
        epsilon: allowed change of the objective, in its units; 0.05 is T3's (Table 1).
        directions: how many independent directions, T; 10 is our choice (T3 does not say), which leaves a standard
            error of a third of the spread.
        law: how directions are drawn (`flatprobe.risk.directions.direction`); `isotropic` is T3's. Radii of different
            laws are not comparable.
        parameters: None for all, `"last"` for T3's "top layer", or names or patterns.
        objective: `"loss"` (T3), or `"error"`, the fraction misclassified.
        max_radius: beyond it a direction is censored; None is 100 times the distance that moves the selected weights by
            about their own norm.
        rtol: relative width of the certified bracket; 1e-2 is a tenth of T3's spread across directions.
        verify: points evaluated a direction, evenly over (0, lower), to look for an earlier exit; 0 trusts monotony.
        batch_norm: BatchNorm statistics while the weights move: `"frozen"` (the running statistics of the minimizer),
            or `"recalibrate"` (one more pass over the data at each point).
        inactive: entries that do not act (unused vocabulary, pruned weights, heads for training only): `"move"` them
            with the others, where n of them make r about sqrt(1 + n / rest) times as long, or `"hold"` them, looked
            for on all the data.
        seed: which family of directions.

    Returns:
        `FlatnessRadii`; directions that never leave have radius `inf` and `reached == False`.

    Raises:
        ValueError: if epsilon, rtol, directions, max_radius or verify are out of range; if a name is unknown, the
            selection matches no parameter or nothing moves; if the objective is not finite at the center; if the loss
            jumps there; if the precision is too low for epsilon, of the weights (half precision) or of the loss; if
            entries are to be held and are not known, or are all.

    Source: T3 eq. 16 and Table 1; laws: Li et al. 2018, Kwon et al. 2021; SPEC section 2.
    """
    positive(epsilon=epsilon, rtol=rtol, max_radius=max_radius)
    if rtol < _FINEST:
        msg = f"rtol is {rtol}; expected at least {_FINEST}, below which rounding decides"
        raise ValueError(msg)
    at_least(1, directions=directions)
    at_least(0, verify=verify)
    one_of("objective", objective, ("loss", "error"))
    one_of("batch_norm", batch_norm, ("frozen", "recalibrate"))
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
    base = _finite(getattr(start, objective), objective)
    exact = float64_risk(risk, epsilon, recalibrated=batch_norm == "recalibrate") if objective == "loss" else None
    exits: list[Exit] = []
    vectors: list[Weights] = []
    for index in range(directions):
        vectors = [center, direction(center, names, law, seed, index, held)]
        exits.append(
            first_exit(
                _increase(measured, vectors, objective, base),
                epsilon,
                start=_guess([e.radius for e in exits if e.reached and e.lower > 0], _START * unit),
                slope=_guess([e.slope for e in exits if e.slope == e.slope], 2.0),
                max_radius=limit,
                rtol=rtol,
                smooth=objective == "loss",
                verify=verify,
            )
        )
        if exits[-1].reached and exits[-1].lower == 0:
            exits[-1] = _at_once(exits[-1], objective, index)
        else:
            check_weights(vectors, exits[-1].radius, rtol)
            if exits[-1].reached and exact is not None:
                check_loss(exact, exits[-1], vectors[1], epsilon, rtol)
    frozen = tuple(name for name in names if name not in vectors[1] and name not in held)
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
        | {"start": {"loss": start.loss, "error": start.error}, "selected": list(names)}
        | recorded(frozen, idle),
    )


def _increase(risk: RiskFunction, vectors: list[Weights], objective: str, base: float) -> Callable[[float], float]:
    at = along(risk, vectors)

    def increase(radius: float) -> float:
        value: float = getattr(at((1.0, radius)), objective)
        return value - base

    return increase


def _at_once(exit_: Exit, objective: str, index: int) -> Exit:
    """The exit of a direction that was outside at every radius tried: at 0 for the error, which may be a step there.

    Raises:
        ValueError: for the loss, which has a radius only where it is continuous.
    """
    if objective == "loss":
        msg = (
            f"the loss is outside epsilon, or not finite, at every radius along direction {index} down to "
            f"{exit_.upper:.3g}, which is near rounding; expected a loss that is continuous at the center: look for "
            "weights that jump there (torch's orthogonal parametrisation by householder does), or for a root or a "
            "logarithm at 0"
        )
        raise ValueError(msg)
    return replace(exit_, radius=0.0)


def _guess(earlier: list[float], default: float) -> float:
    return median(earlier) if earlier else default


def _column(exits: list[Exit], name: str) -> Float64[Tensor, " directions"]:
    return torch.tensor([getattr(exit_, name) for exit_ in exits], dtype=torch.float64, device="cpu")


def _finite(value: float, objective: str) -> float:
    if not math.isfinite(value):
        msg = (
            f"the {objective} at the center is {value}; expected a finite start: is the network trained, are its "
            "inputs scaled?"
        )
        raise ValueError(msg)
    return value
