"""Random slices: the risk along one or two random directions from the trained weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float64
from torch import Tensor

from flatprobe.network.weights import Weights, as_given, norm, select
from flatprobe.probes.directional import Directed, recorded
from flatprobe.risk.directions import direction
from flatprobe.risk.empirical import RiskFunction, along, describe, explain_start
from flatprobe.risk.function import takes_risk
from flatprobe.risk.inactive import find_inactive
from flatprobe.risk.recalibration import Recalibration
from flatprobe.utils.arguments import one_of, positive
from flatprobe.utils.results import settings

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, repr=False)
class RandomSlice(Directed):
    """The risk on a line or a plane through the weights; every array keeps the grid's shape.

    Attributes:
        coefficients: (steps, 1) or (steps, steps, 2): `loss[i, j]` is at w + a u + b v, (a, b) = `coefficients[i, j]`.
        loss: (steps,) or (steps, steps); NaN or infinite where the network's is.
        error: fraction misclassified, of the same shape.
        cosine: between u and v, near 0 in many dimensions; nan for a line.
    """

    coefficients: Float64[Tensor, "*grid dimensions"]
    loss: Float64[Tensor, "*grid"]
    error: Float64[Tensor, "*grid"]
    cosine: float

    @property
    def accuracy(self) -> Float64[Tensor, "*grid"]:
        """1 - error."""
        return 1 - self.error

    @property
    def center(self) -> float:
        """The loss at the weights themselves, the middle of the grid."""
        return float(self.loss[tuple(size // 2 for size in self.loss.shape)])

    def summary(self) -> dict[str, float]:
        """Largest increase (infinite where a loss is not finite), the center's loss, how many points are not finite."""
        known = self.loss.isfinite()
        return {
            "max_increase": float(self.loss.max()) - self.center if bool(known.all()) else float("inf"),
            "center_loss": self.center,
            "points": self.loss.numel(),
            "not_finite": int((~known).sum()),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """One row a point: a (and b), loss, error."""
        import pandas as pd

        dimensions = self.coefficients.shape[-1]
        frame = pd.DataFrame(self.coefficients.reshape(-1, dimensions).numpy(), columns=["a", "b"][:dimensions])
        return frame.assign(loss=self.loss.flatten().numpy(), error=self.error.flatten().numpy())

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "RandomSlice":
        """The inverse of `to_frame`."""
        names = [name for name in ("a", "b") if name in frame]
        grid = (settings["arguments"]["steps"],) * len(names)
        column = {name: torch.from_numpy(frame[name].to_numpy(copy=True)).view(grid) for name in frame.columns}
        return cls(
            coefficients=torch.stack([column[name] for name in names], -1), loss=column["loss"], error=column["error"],
            cosine=settings["cosine"], frozen=tuple(settings["frozen"]), inactive=settings.get("inactive"),
            settings=settings,
        )  # fmt: skip


@takes_risk
def random_slice(
    risk: RiskFunction,
    *,
    dimensions: int = 2,
    extent: float = 1.0,
    steps: int = 21,
    law: str = "filter",
    parameters: str | Sequence[str] | Any = None,
    batch_norm: str = "frozen",
    inactive: str = "move",
    seed: int = 0,
) -> RandomSlice:
    """I(w + a u), or I(w + a u + b v), for a and b in `steps` equal steps of [-extent, extent] (Li et al. 2018).

    The steps are odd in number, so the middle point is w itself, to the last bit, and the grid is symmetric about it.
    One evaluation of the risk a point (less where the first layer is linear: `EmpiricalRisk.along`): 441 for a plane,
    21 for a line. u and v are directions 0 and 1 of the seed: independent, hence nearly orthogonal; their cosine is
    recorded. A point where the network's loss is not finite stays NaN or infinite.

    Args:
        risk: an `EmpiricalRisk`, or any callable of the weights with a `center`.
        dimensions: 1 for a line, 2 for a plane.
        extent: the largest coefficient; 1 (as in Li et al.) moves each filter by its own norm under `filter`. Under
            `isotropic` it is a distance in weight space.
        steps: points along each axis, odd; 21 is our choice (Li et al. take 51 in a plane).
        law: how the directions are drawn (`flatprobe.risk.directions.direction`); `filter` is Li et al.'s, which leaves
            1-D parameters where they are.
        parameters: None for all, `"last"`, or names or patterns.
        batch_norm: BatchNorm statistics while the weights move: `"frozen"`, or `"recalibrate"` (one more pass over the
            data at each point).
        inactive: entries that do not act: `"move"` them with the others, or `"hold"` them; as in `flatness_radius`,
            which names them in either case. Here they are looked for, and named, with `"hold"` alone.
        seed: which family of directions.

    Returns:
        `RandomSlice`.

    Raises:
        ValueError: if an argument is out of range, `steps` is even, the selection matches nothing or nothing moves, if
            entries are to be held and are not known, or if the loss at the center is not finite.
    """
    one_of("dimensions", dimensions, (1, 2))
    one_of("batch_norm", batch_norm, ("frozen", "recalibrate"))
    positive(extent=extent)
    if steps < 3 or steps % 2 == 0:
        msg = f"steps is {steps}; expected an odd number of at least 3, so that the center is a point of the grid"
        raise ValueError(msg)
    center = risk.center
    names = select(center, parameters)
    # Looking costs as much as several points, and what does not act changes no point: `hold` alone needs it.
    idle, held = find_inactive(risk, names, law, inactive) if inactive != "move" else (None, {})
    vectors = [direction(center, names, law, seed, index, held) for index in range(dimensions)]
    half = steps // 2
    axis = [extent * (k - half) / half for k in range(steps)]
    measured = Recalibration(risk) if batch_norm == "recalibrate" else risk
    at = along(measured, [center, *vectors])
    start = at((1.0, *[0.0] * dimensions)).loss
    if not abs(start) < float("inf"):
        explain_start(risk)
        msg = f"the loss at the center is {start}; expected a finite start: is the network trained?"
        raise ValueError(msg)
    points = list(product(axis, repeat=dimensions))
    risks = [at((1.0, *point)) for point in points]
    grid = (steps,) * dimensions
    frozen = tuple(name for name in names if name not in vectors[0] and name not in held)
    cosine = _cosine(vectors[0], vectors[1]) if dimensions == 2 else float("nan")
    arguments = {
        "dimensions": dimensions, "extent": extent, "steps": steps, "law": law, "parameters": as_given(parameters),
        "batch_norm": batch_norm, "inactive": inactive, "seed": seed,
    }  # fmt: skip
    return RandomSlice(
        coefficients=torch.tensor(points, dtype=torch.float64, device="cpu").view(*grid, dimensions),
        loss=torch.tensor([value.loss for value in risks], dtype=torch.float64, device="cpu").view(grid),
        error=torch.tensor([value.error for value in risks], dtype=torch.float64, device="cpu").view(grid),
        cosine=cosine,
        frozen=frozen,
        inactive=None if idle is None else idle.counts,
        settings=settings("random_slice", describe(risk), **arguments)
        | {"cosine": cosine, "selected": list(names)}
        | recorded(frozen, idle),
    )


def _cosine(u: Weights, v: Weights) -> float:
    inner = sum(float((u[name].double() * v[name].double()).sum()) for name in u)
    return inner / (norm(u) * norm(v))
