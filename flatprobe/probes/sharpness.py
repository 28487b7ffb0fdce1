"""Worst-case sharpness: the largest increase of the loss within a ball around the trained weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from flatprobe.network.weights import Weights, as_given, combine, norm, select
from flatprobe.risk.directions import direction
from flatprobe.risk.empirical import RiskFunction, describe
from flatprobe.risk.function import takes_risk
from flatprobe.risk.inactive import check_acts
from flatprobe.risk.protocols import loss_and_gradient
from flatprobe.utils.arguments import Checked, Selection, Whole, at_least, one_of, positive
from flatprobe.utils.results import Result, settings

# The radii proposed with SAM (Foret et al. 2021) and with ASAM on CIFAR-10 (Kwon et al. 2021).
RADII = {"l2": 0.05, "adaptive": 0.5}
# Factors of the step length, in radii. The first step is 1 long, success lengthens the step, failure halves it, and a
# restart ends at the least one.
_LONGER, _LONGEST, _LEAST = 1.5, 4.0, 1e-4


@dataclass(frozen=True, kw_only=True, repr=False)
class WorstCaseSharpness(Result):
    """Largest increase of the loss in the ball, per restart: lower bounds of the maximum. One row per restart.

    Attributes:
        increases: (restarts,) I(w + v) - I(w) at the best v of the restart.
        lengths: (restarts,) length of this v in the law's norm; the radius on the ball's surface.
        passes: (restarts,) number of gradients over the data.
        loss: I(w).
        radius: radius of the ball.
        frozen: selected parameters that the law does not move, being zero.
    """

    _columns: ClassVar = {"restart": "", "increase": "increases", "length": "lengths", "passes": "passes"}

    increases: Float64[Tensor, " restarts"]
    lengths: Float64[Tensor, " restarts"]
    passes: Int64[Tensor, " restarts"]
    loss: float
    radius: float
    frozen: tuple[str, ...]

    @property
    def sharpness(self) -> float:
        """The largest increase found, a lower bound of the maximum over the ball."""
        return float(self.increases.max())

    def summary(self) -> dict[str, float]:
        """Largest and least increase over the restarts, and the radius; far apart, they call for more restarts."""
        return {"sharpness": self.sharpness, "least": float(self.increases.min()), "radius": self.radius}

    @classmethod
    def _from_settings(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        own = {"radius": settings["arguments"]["radius"], "frozen": tuple(settings["frozen"])}
        return super()._from_settings(settings) | own


@takes_risk
def worst_case_sharpness(
    risk: RiskFunction,
    *,
    radius: float | None = None,
    law: Checked[Literal["l2", "adaptive"]] = "l2",
    steps: Whole = 20,
    restarts: Whole = 3,
    parameters: Selection = None,
    seed: int = 0,
) -> WorstCaseSharpness:
    """max { I(w + v) - I(w) : ||v|| <= radius }, over the whole data set; the result is a lower bound of it.

    Projected gradient ascent from the surface of the ball, along the gradient's direction and projected back onto the
    ball. A step that raises the loss is kept, and the next is longer; otherwise the step is halved. The first restart
    begins where SAM's single step ends (radius * g / ||g||), so the result is never below this estimate. The others
    begin in random directions. The mean over batches of each batch's maximum, which others report, is a different and
    larger number that depends on the batch size.

    Under `law="adaptive"` the ball is {||v / |w||| <= radius}, entry by entry. It follows a rescaling of ReLU units
    exactly, and weights that are zero do not move. The gradient is then taken in v / |w|.

    Cost: 1 gradient over the *whole* data set per step, and 1 per restart.

    Args:
        risk: an `EmpiricalRisk`, or any callable with a `center` and a method `gradient(weights)`.
        radius: radius of the ball; None takes SAM's 0.05 for `l2` (Foret et al. 2021) and ASAM's 0.5 for `adaptive`
            (Kwon et al. 2021, CIFAR-10).
        law: `"l2"`, or `"adaptive"`.
        steps: ascent steps per restart; 20 is our choice.
        restarts: starting points; 3 is our choice, whose spread `increases` shows.
        parameters: None for all, `"last"`, or names or patterns; the other parameters stay.
        seed: of the random starting points.

    Returns:
        `WorstCaseSharpness` with `sharpness` and the increase per restart.

    Raises:
        ValueError: for an argument out of range, or a selection that matches nothing or is all zero under `adaptive`.
        ValueError: if the loss or a gradient is not finite in the ball; the message names the parameter.
        TypeError: for a risk without `gradient`.

    Source: Foret et al. (2021), "Sharpness-aware minimization"; Kwon et al. (2021), "ASAM".
    """
    one_of("law", law, RADII)
    radius = RADII[law] if radius is None else float(radius)
    positive(radius=radius)
    at_least(1, steps=steps, restarts=restarts)
    names = select(risk.center, parameters)
    check_acts(risk, names, "isotropic" if law == "l2" else law)
    ascent = _Ascent(risk, names, law, radius)
    finds = [ascent.run(ascent.start(restart, seed), steps) for restart in range(restarts)]
    increases, lengths, passes = (
        torch.tensor(column, dtype=torch.float64, device="cpu") for column in zip(*finds, strict=True)
    )
    arguments = {
        "radius": radius, "law": law, "steps": steps, "restarts": restarts, "parameters": as_given(parameters),
        "seed": seed,
    }  # fmt: skip
    return WorstCaseSharpness(
        increases=increases,
        lengths=lengths,
        passes=passes.long(),
        loss=ascent.loss,
        radius=radius,
        frozen=ascent.frozen,
        settings=settings("worst_case_sharpness", describe(risk), **arguments)
        | {"loss": ascent.loss, "selected": list(names), "frozen": list(ascent.frozen)},
    )


class _Ascent:
    """Ascent of I(w + s u) over ||u|| <= radius, s = 1 or |w| entry by entry."""

    def __init__(self, risk: RiskFunction, names: Sequence[str], law: str, radius: float) -> None:
        self.risk, self.names, self.radius = risk, names, radius
        self.center = risk.center
        absolute = {name: self.center[name].abs() for name in names}
        self.scale = absolute if law == "adaptive" else {name: torch.ones_like(w) for name, w in absolute.items()}
        self.frozen = tuple(name for name in names if not bool(self.scale[name].any()))
        if len(self.frozen) == len(names):
            msg = (
                f'law="adaptive" must have a selected parameter that is not zero, got {", ".join(names)}. Select '
                'others, or use law="l2"'
            )
            raise ValueError(msg)
        self.loss, self.slope = self._at({})

    def start(self, restart: int, seed: int) -> Weights:
        """The start of a restart on the surface: along the gradient at the center, or in a random direction."""
        if restart == 0 and norm(self.slope) > 0:
            return self._to_surface(self.slope)
        u = direction(self.center, self.names, "isotropic", seed, restart)
        return self._to_surface({name: value * (self.scale[name] != 0) for name, value in u.items()})

    def run(self, u: Weights, steps: int) -> tuple[float, float, float]:
        """The best increase found from u, the length of its point, and the number of gradients."""
        loss, slope = self._at(u)
        step, passes = 1.0, 1
        while passes <= steps and step > _LEAST and (length := norm(slope)) > 0:
            moved = self._project(combine([u, slope], [1.0, step * self.radius / length]))
            passes += 1
            found, found_slope = self._at(moved)
            if found > loss:
                u, loss, slope, step = moved, found, found_slope, min(_LONGER * step, _LONGEST)
            else:
                step /= 2
        # The center is in the ball too, so the increase is at least 0.
        return (loss - self.loss, norm(u), passes) if loss > self.loss else (0.0, 0.0, passes)

    def _at(self, u: Weights) -> tuple[float, Weights]:
        moved = {name: self.center[name] + self.scale[name] * value for name, value in u.items()}
        loss, gradient = loss_and_gradient(self.risk, {**self.center, **moved}, self.names)
        if not loss < float("inf"):
            msg = (
                f"the loss must be finite within the ball of radius {self.radius:g}, got {loss}. Take a smaller "
                "radius, or probe in float64"
            )
            raise ValueError(msg)
        return loss, {name: self.scale[name] * value for name, value in gradient.items()}

    def _to_surface(self, u: Weights) -> Weights:
        return combine([u], [self.radius / norm(u)])

    def _project(self, u: Weights) -> Weights:
        return self._to_surface(u) if norm(u) > self.radius else u
