"""The largest Jacobian norm over a set of samples, or along the segments between pairs of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from flatprobe.data import Batch, LabelledData, check_data, parts_of
from flatprobe.data.inputs import Inputs
from flatprobe.data.pairs import BETWEEN, random_pairs
from flatprobe.functional.jacobian_norms import method_for, norms
from flatprobe.network.checks import check_batch
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.slopes import check_input_slopes
from flatprobe.probes.per_sample import continuous, placed
from flatprobe.utils import rng
from flatprobe.utils.arguments import at_least, one_of
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas

OPTIONS = {
    "along": ("samples", "segments"),
    "norm": ("spectral", "frobenius"),
    "outputs": ("logits", "softmax"),
    "between": BETWEEN,
}
# (first unit, points on each of the units that follow, those units' inputs as given) -> their norms
Norms = Callable[[int, Tensor, Inputs], Float64[Tensor, "units points"]]


@dataclass(frozen=True, kw_only=True, repr=False)
class JacobianMaximum(Result):
    """The largest norm found at each sample, or on each segment: an estimate from below of the supremum.

    Attributes:
        values: (units,) the largest norm found on each unit, a sample or a segment.
        first: (units,) position of the sample, or of the one where the segment begins.
        second: (units,) position of the one where it ends; `first` again for a sample.
        at: (units,) where on the segment the largest norm was found, from 0 (first) to 1 (second).
        points: how many points of each unit were evaluated.
    """

    values: Float64[Tensor, " units"]
    first: Int64[Tensor, " units"]
    second: Int64[Tensor, " units"]
    at: Float64[Tensor, " units"]
    points: int

    def __len__(self) -> int:
        """The number of samples, or of segments."""
        return len(self.values)

    @property
    def maximum(self) -> float:
        """The largest norm found, in output units per input unit."""
        return float(self.values.max())

    @property
    def where(self) -> tuple[int, int, float]:
        """Positions of the two samples, and the place t between them (0 first, 1 second), of the largest norm found."""
        unit = int(self.values.argmax())
        return int(self.first[unit]), int(self.second[unit]), float(self.at[unit])

    def summary(self) -> dict[str, float]:
        """The maximum; median and least over the units; how many points were evaluated in all."""
        return {
            "max": self.maximum,
            "median": float(self.values.quantile(0.5)) if len(self) < 2**24 else float(self.values.median()),
            "min": float(self.values.min()),
            "points": float(self.points * len(self)),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """One row a sample or segment."""
        import pandas as pd

        columns = {name: getattr(self, name).numpy() for name in ("first", "second", "at")}
        return pd.DataFrame(columns | {"value": self.values.numpy()})

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "JacobianMaximum":
        """The inverse of `to_frame`."""
        values, first, second, at = (
            torch.from_numpy(frame[name].to_numpy(copy=True)) for name in ("value", "first", "second", "at")
        )
        return cls(values=values, first=first, second=second, at=at, points=settings["points"], settings=settings)


@standalone
def jacobian_maximum(
    model: nn.Module,
    data: LabelledData,
    *,
    along: str = "samples",
    norm: str = "spectral",
    outputs: str = "logits",
    pairs: int = 100,
    between: str = "any",
    points: int = 9,
    refine: int = 8,
    seed: int = 0,
    batch_size: int | None = None,
) -> JacobianMaximum:
    """max_i ||J(x_i)|| over the samples, or max_t ||J((1 - t) x + t x')|| over segments between pairs of them.

    An estimate *from below* of sup ||J|| over the set, and no certificate: a maximum over points of what S17 takes as a
    supremum. Along a segment that supremum bounds the expansion, ||f(x') - f(x)|| <= sup_t ||J|| ||x' - x|| (S17
    Theorem 3, Corollary 2), for any two inputs: the theorem names no classes, so by default the pairs are drawn from
    all. Each segment is probed at `points` evenly spaced t, its ends among them, and at `refine` further ones between
    the neighbours of the best. All segments are refined in the same batches, and a grid also climbs the steps of a ReLU
    network's piecewise constant norm, on which a golden section would stand still.

    One forward pass and C backward passes a point (or Lanczos from `jacobians.LANCZOS_CLASSES` classes on).

    Args:
        model: a classifier in eval mode; never changed.
        data: inputs and labels; the inputs one floating tensor.
        along: `"samples"` (default: what S17 Fig. 4c, d shows of the training and the test set) or `"segments"`.
        norm: `"spectral"` (S17's) or `"frobenius"`.
        outputs: `"logits"` or `"softmax"` (S17's f).
        pairs: how many segments; pair k depends on (seed, k) and the data alone, and pairs may recur. 100 is our
            choice.
        between: which pairs: `"any"`, or two samples of the `"same"` class, or of `"different"` ones.
        points: evenly spaced points of a segment, at least 2; 9, and 8 to refine, are our choice: closer to the maximum
            over a fine grid than 17 evenly spaced ones.
        refine: further points around the best one; 0 leaves it at the even ones.
        seed: which family of pairs.
        batch_size: points at a time; None (default) reads the measured table.

    Returns:
        `JacobianMaximum`: a value a sample or segment, and where it was found. `pairs`, `between`, `points`, `refine`
        and `seed` have no effect along samples.

    Raises:
        ValueError: for unknown options, too few pairs or points, data without such pairs, a network or data that cannot
            be probed, a network whose gradient is not that of its function, or a norm that is not finite.
        TypeError: if the inputs are not one floating tensor.

    >>> model = nn.Linear(2, 2, bias=False).eval()
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    >>> data = LabelledData(torch.eye(2), torch.tensor([0, 1]))
    >>> jacobian_maximum(model, data, along="segments", pairs=3).values.tolist()
    [4.0, 4.0, 4.0]
    """
    given = {"along": along, "norm": norm, "outputs": outputs, "between": between}
    for name, options in OPTIONS.items():
        one_of(name, given[name], options)
    at_least(1, pairs=pairs)
    at_least(2, points=points)
    at_least(0, refine=refine)
    network, data = Network(model), check_data(data)
    size = network.batch_size(batch_size)
    first = next(iter(data.batches(size)))
    check_batch(network, first, data.classes)
    method = method_for(norm, network.classes, network.architecture)
    held, prepared = placed(network, first)
    check_input_slopes(held, continuous(prepared, "jacobian_maximum"), forward=method == "lanczos")

    def norms_of(unit: int, inputs: Tensor, given: Inputs) -> Tensor:
        start = None
        if method == "lanczos":  # one start a unit, for all its points
            start = rng.sample_normal(unit, unit + len(inputs), (network.classes,), "lanczos")
            start = start.repeat_interleave(inputs.shape[1], 0)
        rows = inputs.flatten(0, 1)
        owners = torch.arange(len(rows), device="cpu") // inputs.shape[1]
        parts = [
            norms(
                network.repeating(given, owners[first : first + size]),
                rows[first : first + size],
                norm=norm,
                softmax=outputs == "softmax",
                start=None if start is None else start[first : first + size],
            )
            for first in range(0, len(rows), size)
        ]
        return torch.cat(parts).view(inputs.shape[:2]).cpu()

    arguments: dict[str, object] = {"along": along, "norm": norm, "outputs": outputs, "method": method}
    if along == "samples":
        ends = torch.arange(len(data), device="cpu")[:, None].expand(-1, 2)
        values, at = _over_samples(network, data, norms_of, size)
        evaluated = 1
    else:
        ends = random_pairs(data.labels, pairs, between, seed)
        values, at = _over_segments(network, data, norms_of, ends, points, refine, size)
        evaluated = points + refine
        arguments |= {"pairs": pairs, "between": between, "points": points, "refine": refine, "seed": seed}
    _check_finite(values, ends, at)
    subject = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    return JacobianMaximum(
        values=values,
        first=ends[:, 0].clone(),
        second=ends[:, 1].clone(),
        at=at,
        points=evaluated,
        settings=settings("jacobian_maximum", subject, **arguments) | {"points": evaluated},
    )


def _over_samples(network: Network, data: LabelledData, norms_of: Norms, size: int) -> tuple[Tensor, Tensor]:
    """The norm at each sample, and zeros for its place."""
    parts = []
    for batch in data.batches(size):
        given = network.prepare(batch.inputs)
        parts.append(norms_of(batch.start, _movable(network, given)[:, None], given))
    values = torch.cat(parts).squeeze(1)
    return values, torch.zeros_like(values)


def _over_segments(
    network: Network, data: LabelledData, norms_of: Norms, ends: Tensor, points: int, refine: int, size: int
) -> tuple[Tensor, Tensor]:
    """The largest norm on each segment, and its place: an even grid, then a finer one around its best point."""
    step = 1 / (points - 1)
    found = []
    at_once = max(1, size // points)
    for unit in range(0, len(ends), at_once):
        own = ends[unit : unit + at_once]
        given, ends_given = (network.prepare(data.gather(side)[0]) for side in own.T)
        x, other = _movable(network, given), _movable(network, ends_given)
        _check_same(given, ends_given, own)

        def norms_at(
            t: Tensor, unit: int = unit, x: Tensor = x, other: Tensor = other, given: Inputs = given
        ) -> Tensor:
            # Weighted, and not x + t (x' - x): both ends are then met exactly.
            weight = t.to(x).view(*t.shape, *(1,) * (x.ndim - 1))
            return norms_of(unit, (1 - weight) * x[:, None] + weight * other[:, None], given)

        t = torch.linspace(0, 1, points, dtype=torch.float64, device="cpu").expand(len(own), -1)
        values = norms_at(t)
        if refine:
            # A norm that is not a number is taken for the best, and so reported.
            best = t.gather(1, values.nan_to_num(nan=torch.inf).argmax(1, keepdim=True))
            low, high = (best - step).clamp_min(0), (best + step).clamp_max(1)
            inner = torch.arange(1, refine + 1, dtype=torch.float64, device="cpu") / (refine + 1)
            finer = low + (high - low) * inner
            t, values = torch.cat([t, finer], 1), torch.cat([values, norms_at(finer)], 1)
        place = values.nan_to_num(nan=torch.inf).argmax(1, keepdim=True)
        found.append((values.gather(1, place).squeeze(1), t.gather(1, place).squeeze(1)))
    values, at = (torch.cat(parts) for parts in zip(*found, strict=True))
    return values, at


def _movable(network: Network, given: Inputs) -> Tensor:
    return continuous(
        Batch(network.holding(given)[1], torch.empty(0, dtype=torch.long, device="cpu"), 0), "jacobian_maximum"
    )


def _check_same(given: Inputs, others: Inputs, ends: Tensor) -> None:
    """What does not move along a segment is the same at both of its ends.

    Raises:
        ValueError: naming the first two samples that differ in it.
    """
    for name, part in parts_of(given).items():
        differ = (part != parts_of(others)[name]).flatten(1).any(1)
        if not part.is_floating_point() and bool(differ.any()):
            one, two = ends[int(differ.nonzero()[0])].tolist()
            msg = (
                f"the samples {one} and {two} differ in {name}, which cannot be moved along a segment between them; "
                'expected samples that agree in it: measure along="samples"'
            )
            raise ValueError(msg)


def _check_finite(values: Tensor, ends: Tensor, at: Tensor) -> None:
    bad = ~values.isfinite()
    if bool(bad.any()):
        unit = int(bad.nonzero()[0])
        first, second = ends[unit].tolist()
        what = (
            f"at sample {first}" if first == second else f"at {float(at[unit]):g} between samples {first} and {second}"
        )
        msg = (
            f"the norm of the Jacobian {what} is {float(values[unit])}; expected finite norms: look for an overflow of "
            "the logits or their slopes, and probe in float64"
        )
        raise ValueError(msg)
