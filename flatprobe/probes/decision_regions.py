"""Decision regions: classes and margins of a network on the plane through given inputs."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from flatprobe.data import Batch, LabelledData, check_data
from flatprobe.network.checks import check_batch
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.probes.per_sample import continuous, isolate
from flatprobe.utils.arguments import Number, Whole, at_least, is_number
from flatprobe.utils.results import Result, settings

# Least angle (radians) between the two sides that span the plane: below it, rounding decides on the plane.
_ANGLE = 1e-4


@dataclass(frozen=True, kw_only=True, repr=False)
class DecisionRegions(Result):
    """Class and margin at every point of a grid, a outer and b inner. The table has one row per point.

    Attributes:
        a: (grid,) first coordinate, in input units.
        b: (grid,) second coordinate.
        classes: (grid,) argmax of the logits; -1 where a logit is not finite.
        margins: (grid,) largest logit minus the second largest; NaN where a logit is not finite.
    """

    _columns: ClassVar = {"a": "a", "b": "b", "class": "classes", "margin": "margins"}

    a: Float64[Tensor, " grid"]
    b: Float64[Tensor, " grid"]
    classes: Int64[Tensor, " grid"]
    margins: Float64[Tensor, " grid"]

    @property
    def steps(self) -> int:
        """The number of grid points along each axis."""
        return int(self.settings["arguments"]["steps"])

    @property
    def points(self) -> Float64[Tensor, "points 2"]:
        """Coordinates (a, b) of the given points."""
        return torch.tensor(self.settings["points"], dtype=torch.float64, device="cpu")

    @property
    def predicted(self) -> tuple[int, ...]:
        """Classes of the network at the given points."""
        return tuple(self.settings["predicted"])

    def shares(self) -> dict[int, float]:
        """Class -> share of the grid points that have it, the largest share first; -1 where a logit is not finite."""
        found, counts = torch.unique(self.classes, return_counts=True)
        order = counts.argsort(descending=True, stable=True)
        return {int(found[k]): float(counts[k]) / len(self.classes) for k in order}

    def summary(self) -> dict[str, float]:
        """Number of classes on the grid, share of the class of the first given point, number of non-finite points."""
        shares = self.shares()
        return {
            "classes": float(len(shares.keys() - {-1})),
            "first_share": shares.get(self.predicted[0], 0.0),
            "not_finite": float((self.classes == -1).sum()),
        }


@standalone
def decision_regions(
    model: nn.Module,
    points: Tensor,
    *,
    extent: Number = 0.5,
    steps: Whole = 101,
    batch_size: int | None = None,
) -> DecisionRegions:
    """argmax f and its margin at x_0 + a e_1 + b e_2, on a grid of the plane through three inputs x_0, x_1, x_2.

    e_1 = (x_1 - x_0) / ||x_1 - x_0||_2, and e_2 is the unit vector orthogonal to e_1 towards x_2, so distances in the
    plane are l2 distances of inputs. For a network of two inputs, (a, b) is the input itself, and any number of points
    may be given: the two opposite corners of a box with `extent=0`, or the data.

    The grid is the smallest box around the points in (a, b), extended by `extent` times its longer side on all four
    sides. The network is evaluated at the points as rounded to its dtype.

    Cost: 1 forward pass for `steps`^2 inputs.

    Args:
        model: a classifier in eval mode; never changed.
        points: (3, ...) inputs that span a plane, such as a sample and two of its adversarial points; or (points, 2).
        extent: room beyond the points, relative to the longer side of their box; 0.5 is our choice.
        steps: grid points along each axis; 101 is our choice (10,201 inputs).
        batch_size: inputs per pass; None (default) reads the measured table.

    Returns:
        `DecisionRegions`.

    Raises:
        ValueError: for another number of points, points on one line, a negative extent, or fewer than 2 steps.
        ValueError: if the network cannot be probed, or its logits at the points are not finite.
        TypeError: if the points are not one floating tensor.

    Source: Sokolic et al. (2017), Fig. 2 [S17], for two inputs; Oberman (2020), Fig. 5 [O20], for a plane.

    >>> regions = decision_regions(nn.Identity().eval(), torch.tensor([[0.0, 0.0], [1.0, 1.0]]), extent=0, steps=3)
    >>> regions.classes.view(3, 3).tolist()  # row: a from 0 to 1, column: b from 0 to 1
    [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    """
    at_least(2, steps=steps)
    if not (is_number(extent) and 0 <= extent < float("inf")):
        msg = f"extent must be a finite number, at least 0, got {extent!r}. 0 ends the grid at the points"
        raise ValueError(msg)
    network = Network(model)
    data = check_data(LabelledData(points, torch.zeros(len(points), dtype=torch.int64, device=points.device)))
    batch = Batch(points, data.labels, 0)
    given = continuous(isolate(network, batch)[1], "decision_regions")
    check_batch(network, batch, 1)
    size = network.batch_size(batch_size, data)
    origin, axes, places = _plane(given.detach().double().cpu())
    low, high = places.amin(0), places.amax(0)
    room = extent * (high - low).max()
    if not bool(((high - low) + 2 * room > 0).all()):
        msg = f"the points must be apart along both axes if extent is 0, got {places.tolist()}. Give an extent"
        raise ValueError(msg)
    grid = torch.cartesian_prod(*(_axis(low[k] - room, high[k] + room, int(steps)) for k in range(2)))
    logits = []
    with torch.no_grad():
        for part in torch.split(grid, size):
            inputs = (origin + part @ axes).view(len(part), *given.shape[1:])
            logits.append(network(inputs.to(given)).double().cpu())
        predicted = network(given).argmax(1).tolist()
    joined = torch.cat(logits)
    known = joined.isfinite().all(1)
    first, second = joined.topk(2, 1).values.unbind(1)
    described = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    found: dict[str, Any] = {"points": places.tolist(), "predicted": predicted}
    return DecisionRegions(
        a=grid[:, 0].clone(),
        b=grid[:, 1].clone(),
        classes=joined.argmax(1).where(known, -1),
        margins=(first - second).where(known, torch.nan),
        settings=settings("decision_regions", described, extent=extent, steps=steps) | found,
    )


def _axis(low: Tensor, high: Tensor, steps: int) -> Float64[Tensor, " steps"]:
    """Evenly spaced values whose ends are exact."""
    t = torch.arange(steps, dtype=torch.float64, device="cpu") / (steps - 1)
    return torch.lerp(low, high, t)


def _plane(
    points: Float[Tensor, "points ..."],
) -> tuple[Float64[Tensor, " inputs"], Float64[Tensor, "2 inputs"], Float64[Tensor, "points 2"]]:
    """Origin, orthonormal axes, and the coordinates of the points.

    Raises:
        ValueError: for another number of points, or points on one line.
    """
    flat = points.flatten(1)
    if flat.shape[1] == 2 and len(flat) >= 2:
        return torch.zeros_like(flat[0]), torch.eye(2, dtype=torch.float64, device="cpu"), flat
    if len(flat) != 3:
        msg = f"points must be 3 inputs, or inputs of 2 values each, got {tuple(points.shape)}. Three span a plane"
        raise ValueError(msg)
    origin = flat[0]
    first, second = flat[1] - origin, flat[2] - origin
    unit = first / first.norm()
    beyond = second - (second @ unit) * unit
    if not bool(first.norm() > 0) or not bool(beyond.norm() > _ANGLE * second.norm()):
        msg = (
            f"points must span a plane, got three on one line, at distances {float(first.norm()):.4g} and "
            f"{float(second.norm()):.4g} from the first. Take points of two attacks or norms, or another input"
        )
        raise ValueError(msg)
    other = beyond / beyond.norm()
    places = torch.stack([torch.stack([vector @ unit, vector @ other]) for vector in (origin * 0, first, second)])
    return origin, torch.stack([unit, other]), places
