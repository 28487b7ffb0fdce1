"""Random slices: the risk on a line or plane of random directions through the trained weights."""

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from flatprobe.network.weights import Weights, as_given, norm, select
from flatprobe.probes.directional import Directed, describe_directions
from flatprobe.probes.surfaces import error_of, has_error
from flatprobe.risk.directions import LAWS, direction
from flatprobe.risk.empirical import RiskFunction, along, describe, explain_start
from flatprobe.risk.function import takes_risk
from flatprobe.risk.inactive import find_inactive
from flatprobe.risk.lockstep import risks_along
from flatprobe.risk.recalibration import Recalibration
from flatprobe.utils.arguments import Checked, Number, Selection, Whole, is_whole, one_of, positive
from flatprobe.utils.results import settings

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, repr=False)
class RandomSlice(Directed):
    """The risk on a line or a plane through the weights; every array has the shape of the grid.

    Attributes:
        coefficients: (steps, 1) or (steps, steps, 2): `loss[i, j]` is at w + a u + b v, (a, b) = `coefficients[i, j]`.
        loss: (steps,) or (steps, steps); NaN or infinite where the loss of the network is.
        error: fraction misclassified, of the same shape; NaN where the risk has no error.
        cosine: cosine between u and v, near 0 in many dimensions; nan for a line.
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
        """Loss at the weights themselves, the middle of the grid."""
        return float(self.loss[tuple(size // 2 for size in self.loss.shape)])

    def summary(self) -> dict[str, float]:
        """Largest increase (infinite if a loss is not finite), center loss, numbers of points and non-finite ones."""
        known = self.loss.isfinite()
        return {
            "max_increase": float(self.loss.max()) - self.center if bool(known.all()) else float("inf"),
            "center_loss": self.center,
            "points": self.loss.numel(),
            "not_finite": int((~known).sum()),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """One row per point: a (and b), loss, and the error if there is one."""
        import pandas as pd

        dimensions = self.coefficients.shape[-1]
        frame = pd.DataFrame(self.coefficients.reshape(-1, dimensions).numpy(), columns=["a", "b"][:dimensions])
        error = {"error": self.error.flatten().numpy()} if has_error(self) else {}
        return frame.assign(loss=self.loss.flatten().numpy(), **error)

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "RandomSlice":
        """The inverse of `to_frame`."""
        names = [name for name in ("a", "b") if name in frame]
        grid = (settings["arguments"]["steps"],) * len(names)
        column = {name: torch.from_numpy(frame[name].to_numpy(copy=True)).view(grid) for name in frame.columns}
        return cls(
            coefficients=torch.stack([column[name] for name in names], -1), loss=column["loss"],
            error=error_of(frame).view(grid),
            settings=settings, **cls._from_settings(settings),
        )  # fmt: skip


@takes_risk
def random_slice(
    risk: RiskFunction,
    *,
    dimensions: Checked[Literal[1, 2]] = 2,
    extent: Number = 1.0,
    steps: Whole = 21,
    law: Checked[Literal["isotropic", "layer", "filter", "adaptive"]] = "filter",
    parameters: Selection = None,
    batch_norm: Checked[Literal["frozen", "recalibrate"]] = "frozen",
    inactive: Checked[Literal["move", "hold"]] = "move",
    seed: int = 0,
) -> RandomSlice:
    """I(w + a u), or I(w + a u + b v), for a and b in `steps` equal steps of [-extent, extent].

    The number of steps is odd, so the grid is symmetric about its middle point, which is exactly w. u and v are the
    directions 0 and 1 of the seed: independent, hence nearly orthogonal; their cosine is recorded. A loss that is not
    finite stays NaN or infinite.

    Cost: 1 evaluation of the risk per point, 441 for a plane and 21 for a line; less where the first layer is linear
    (`EmpiricalRisk.along`).

    Args:
        risk: an `EmpiricalRisk`, or any callable of the weights with a `center`.
        dimensions: 1 for a line, 2 for a plane.
        extent: largest coefficient. 1, as in Li et al., moves each filter by its norm under `filter`; under `isotropic`
            it is a distance in weight space.
        steps: points along each axis, odd; 21 is our choice (Li et al. take 51 in a plane).
        law: distribution of the directions (`flatprobe.risk.directions.direction`); `filter` is Li et al.'s, which does
            not move one-dimensional parameters.
        parameters: None for all, `"last"`, or names or patterns.
        batch_norm: BatchNorm statistics while the weights move: `"frozen"`, or `"recalibrate"` (one more pass over the
            data at each point).
        inactive: treatment of entries that do not act, `"move"` or `"hold"`, as in `flatness_radius`. Only `"hold"`
            searches for these entries here, and names them.
        seed: of the directions.

    Returns:
        `RandomSlice`.

    Raises:
        ValueError: for an argument out of range, or even `steps`.
        ValueError: if the selection matches nothing, nothing moves, or entries are to be held and are unknown.
        ValueError: if the loss at the center is not finite.

    Source: Li et al. (2018), "Visualizing the loss landscape of neural nets".
    """
    one_of("dimensions", dimensions, (1, 2))
    one_of("batch_norm", batch_norm, ("frozen", "recalibrate"))
    one_of("law", law, LAWS)
    one_of("inactive", inactive, ("move", "hold"))
    positive(extent=extent)
    if not is_whole(steps) or steps < 3 or steps % 2 == 0:
        msg = f"steps must be an odd number of at least 3, got {steps!r}. The center is then a point of the grid"
        raise ValueError(msg)
    center = risk.center
    names = select(center, parameters)
    # The search costs as much as several points, and inactive entries change no point: only `hold` needs it.
    idle, held = find_inactive(risk, names, law, inactive) if inactive != "move" else (None, {})
    vectors = [direction(center, names, law, seed, index, held) for index in range(dimensions)]
    half = steps // 2
    axis = [extent * (k - half) / half for k in range(steps)]
    measured = Recalibration(risk) if batch_norm == "recalibrate" else risk
    at = along(measured, [center, *vectors])
    start = at((1.0, *[0.0] * dimensions)).loss
    if not abs(start) < float("inf"):
        explain_start(risk)
        msg = f"the loss at the center must be finite, got {start}. Check that the network is trained"
        raise ValueError(msg)
    points = list(product(axis, repeat=dimensions))
    risks = risks_along(measured, [center, *vectors], [(1.0, *point) for point in points], at)
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
        | describe_directions(frozen, idle),
    )


def _cosine(u: Weights, v: Weights) -> float:
    inner = sum(float((u[name].double() * v[name].double()).sum()) for name in u)
    return inner / (norm(u) * norm(v))
