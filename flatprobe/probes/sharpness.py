"""Worst-case sharpness: how much the loss can rise within a ball around the trained weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from flatprobe.network.weights import Weights, as_given, combine, norm, select
from flatprobe.risk.directions import direction
from flatprobe.risk.empirical import RiskFunction, describe
from flatprobe.risk.function import takes_risk
from flatprobe.risk.inactive import check_acts
from flatprobe.risk.protocols import loss_and_gradient
from flatprobe.utils.arguments import at_least, one_of, positive
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas

# SAM's radius (Foret et al. 2021) and ASAM's on CIFAR-10 (Kwon et al. 2021): those that the two were proposed with.
RADII = {"l2": 0.05, "adaptive": 0.5}
# The step, in radii: the first one goes all the way, success lengthens it, failure halves it, and at the least a
# restart is done.
_LONGER, _LONGEST, _LEAST = 1.5, 4.0, 1e-4


@dataclass(frozen=True, kw_only=True, repr=False)
class WorstCaseSharpness(Result):
    """The largest increase of the loss that each restart found within the ball; lower bounds of the true maximum.

    Attributes:
        increases: (restarts,) I(w + v) - I(w) at the best v of the restart.
        lengths: (restarts,) length of that v, in the law's norm; the radius where it is on the ball's surface.
        passes: (restarts,) gradients over the data spent.
        loss: I(w).
        radius: of the ball.
        frozen: selected parameters that the law does not move, being zero.
    """

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
        """The largest increase, the least over the restarts (far below it: more are needed), and the radius."""
        return {"sharpness": self.sharpness, "least": float(self.increases.min()), "radius": self.radius}

    def to_frame(self) -> "pandas.DataFrame":
        """One row a restart: restart, increase, length, passes."""
        import pandas as pd

        columns = {"increase": self.increases.numpy(), "length": self.lengths.numpy(), "passes": self.passes.numpy()}
        return pd.DataFrame({"restart": range(len(self.increases)), **columns})

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "WorstCaseSharpness":
        """The inverse of `to_frame`."""
        column = {name: torch.from_numpy(frame[name].to_numpy(copy=True)) for name in ("increase", "length", "passes")}
        return cls(
            increases=column["increase"], lengths=column["length"], passes=column["passes"], loss=settings["loss"],
            radius=settings["arguments"]["radius"], frozen=tuple(settings["frozen"]), settings=settings,
        )  # fmt: skip


@takes_risk
def worst_case_sharpness(
    risk: RiskFunction,
    *,
    radius: float | None = None,
    law: str = "l2",
    steps: int = 20,
    restarts: int = 3,
    parameters: str | Sequence[str] | Any = None,
    seed: int = 0,
) -> WorstCaseSharpness:
    """max { I(w + v) - I(w) : ||v|| <= radius }, over the whole data set; the result is a lower bound of it.

    Projected gradient ascent: from a point on the ball's surface, steps along the gradient's direction, projected back
    onto the ball; a step that raises the loss is kept and lengthens the next, one that does not is halved. One gradient
    over the *whole* data set a step. The mean over batches of each batch's own maximum, which others report, is another
    and larger number that depends on the batch size. The first restart begins where SAM's single step ends
    (radius * g / ||g||), so the result is never below that estimate; the others begin in random directions.

    Under `law="adaptive"` the ball is {||v / |w||| <= radius} (entry by entry), which follows a rescaling of ReLU units
    exactly; weights that are zero do not move. The gradient is then taken in v / |w|.

    Args:
        risk: an `EmpiricalRisk`, or any callable with a `center` and a method `gradient(weights)`.
        radius: of the ball; None takes SAM's 0.05 for `l2` (Foret et al. 2021) and ASAM's 0.5 for `adaptive` (Kwon
            et al. 2021, CIFAR-10).
        law: `"l2"`, or `"adaptive"`.
        steps: ascent steps a restart; 20 is our choice.
        restarts: starting points; 3 is our choice, whose spread shows in `increases`.
        parameters: None for all, `"last"`, or names or patterns; the others stay.
        seed: of the random starting points.

    Returns:
        `WorstCaseSharpness`: its `sharpness` and the increase of each restart.

    Raises:
        ValueError: if the arguments are out of range, the selection matches nothing or is all zero under `adaptive`, or
            the loss or a gradient (the parameter is named) is not finite in the ball.
        TypeError: for a risk without `gradient`.

    Source: Foret et al. 2021, "Sharpness-aware minimization"; Kwon et al. 2021, "ASAM".
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
                f'under law="adaptive" none of the selected parameters moves ({", ".join(names)}), as they are all '
                'zero; select others or use law="l2"'
            )
            raise ValueError(msg)
        self.loss, self.slope = self._at({})

    def start(self, restart: int, seed: int) -> Weights:
        """A point on the surface: along the gradient at the center, and in random directions."""
        if restart == 0 and norm(self.slope) > 0:
            return self._to_surface(self.slope)
        u = direction(self.center, self.names, "isotropic", seed, restart)
        return self._to_surface({name: value * (self.scale[name] != 0) for name, value in u.items()})

    def run(self, u: Weights, steps: int) -> tuple[float, float, float]:
        """The best increase from this point on, the length of its u, and the gradients spent."""
        loss, slope = self._at(u)
        step, passes = 1.0, 1
        while passes <= steps and step > _LEAST and (length := norm(slope)) > 0:
            moved = self._projected(combine([u, slope], [1.0, step * self.radius / length]))
            passes += 1
            found, found_slope = self._at(moved)
            if found > loss:
                u, loss, slope, step = moved, found, found_slope, min(_LONGER * step, _LONGEST)
            else:
                step /= 2
        # The center is in the ball as well, with an increase of 0.
        return (loss - self.loss, norm(u), passes) if loss > self.loss else (0.0, 0.0, passes)

    def _at(self, u: Weights) -> tuple[float, Weights]:
        moved = {name: self.center[name] + self.scale[name] * value for name, value in u.items()}
        loss, gradient = loss_and_gradient(self.risk, {**self.center, **moved}, self.names)
        if not loss < float("inf"):
            msg = (
                f"the loss is {loss} within the ball of radius {self.radius:g}; expected a finite one: take a smaller "
                "radius, or probe in float64"
            )
            raise ValueError(msg)
        return loss, {name: self.scale[name] * value for name, value in gradient.items()}

    def _to_surface(self, u: Weights) -> Weights:
        return combine([u], [self.radius / norm(u)])

    def _projected(self, u: Weights) -> Weights:
        return self._to_surface(u) if norm(u) > self.radius else u
