"""Largest Jacobian norm over a set of samples, or along segments between pairs of samples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from flatprobe.data import Batch, LabelledData, check_classes, parts_of
from flatprobe.data.inputs import Inputs
from flatprobe.data.pairs import BETWEEN, random_pairs
from flatprobe.functional.jacobian_norms import method_for, norms
from flatprobe.network.checks import check_batch
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.slopes import check_input_slopes
from flatprobe.probes.per_sample import continuous, isolate
from flatprobe.utils import rng
from flatprobe.utils.arguments import Checked, Whole, at_least, one_of
from flatprobe.utils.results import Result, settings

OPTIONS = {
    "along": ("samples", "segments"),
    "norm": ("spectral", "frobenius"),
    "outputs": ("logits", "softmax"),
    "between": BETWEEN,
}
# (first unit, points on the units from there on, the inputs of these units) -> norms
Norms = Callable[[int, Tensor, Inputs], Float64[Tensor, "units points"]]


@dataclass(frozen=True, kw_only=True, repr=False)
class JacobianMaximum(Result):
    """Largest norm per unit, a sample or a segment: a lower bound of the supremum. The table has one row per unit.

    Attributes:
        values: (units,) largest norm found.
        first: (units,) position of the sample, or of the segment's first sample.
        second: (units,) position of the segment's second sample; `first` again for a sample.
        at: (units,) position of the largest norm on the segment, from 0 (first) to 1 (second).
        points: number of evaluated points per unit.
    """

    _columns: ClassVar = {"first": "first", "second": "second", "at": "at", "value": "values"}

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
        """Largest norm found: positions of the two samples, and t between them (0 first, 1 second)."""
        unit = int(self.values.argmax())
        return int(self.first[unit]), int(self.second[unit]), float(self.at[unit])

    def summary(self) -> dict[str, float]:
        """Maximum, median and minimum over the units; number of evaluated points in total."""
        return {
            "max": self.maximum,
            "median": float(self.values.quantile(0.5)) if len(self) < 2**24 else float(self.values.median()),
            "min": float(self.values.min()),
            "points": float(self.points * len(self)),
        }


@standalone
def jacobian_maximum(
    model: nn.Module,
    data: LabelledData,
    *,
    along: Checked[Literal["samples", "segments"]] = "samples",
    norm: Checked[Literal["spectral", "frobenius"]] = "spectral",
    outputs: Checked[Literal["logits", "softmax"]] = "logits",
    pairs: Whole = 100,
    between: Checked[Literal["any", "same", "different"]] = "any",
    points: Whole = 9,
    refine: Whole = 8,
    seed: int = 0,
    batch_size: int | None = None,
) -> JacobianMaximum:
    """max_i ||J(x_i)|| over the samples, or max_t ||J((1 - t) x + t x')|| over segments between pairs of them.

    A *lower bound* of sup ||J|| over the set, not a certificate: a maximum over points in place of S17's supremum.
    Along a segment the supremum bounds the expansion, ||f(x') - f(x)|| <= sup_t ||J|| ||x' - x|| (S17, Theorem 3 and
    Corollary 2). This holds for any two inputs, so by default pairs are drawn from all samples.

    Each segment is evaluated at `points` evenly spaced t, its endpoints included, then at `refine` further ones between
    the neighbors of the best. All segments share the batches. The grid also works on a ReLU network's piecewise
    constant norm, where a golden-section search would not move.

    Cost per point: 1 forward and C backward passes, or Lanczos from `functional.jacobian_norms.LANCZOS_CLASSES` classes
    on.

    Args:
        model: a classifier in eval mode; never changed.
        data: inputs and labels; the inputs must be one floating tensor.
        along: `"samples"` (default, as in S17, Fig. 4c, d, for training and test set) or `"segments"`.
        norm: `"spectral"` (S17's) or `"frobenius"`.
        outputs: `"logits"` or `"softmax"` (S17's f).
        pairs: number of segments; pair k depends on (seed, k) and the data alone, and pairs may recur. 100 is our
            choice.
        between: `"any"` two samples, two of the `"same"` class, or two of `"different"` classes.
        points: evenly spaced points per segment, at least 2. 9, and 8 to refine, are our choice: closer to the maximum
            over a fine grid than 17 evenly spaced points.
        refine: further points around the best one; 0 omits them.
        seed: of the pairs.
        batch_size: points per pass; None (default) reads the measured table.

    Returns:
        `JacobianMaximum`. `pairs`, `between`, `points`, `refine` and `seed` have no effect along samples.

    Raises:
        ValueError: for an unknown word, too few pairs or points, or data without such pairs.
        ValueError: if the network or the data cannot be probed, or the gradient is not that of the function.
        ValueError: if a norm is not finite.
        TypeError: if the inputs are not one floating tensor.

    Source: Sokolic et al. (2017), Theorem 3, Corollary 2 and Fig. 4 [S17].

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
    network, data = Network(model), check_classes(data)
    size = network.batch_size(batch_size, data)
    first = next(iter(data.batches(size)))
    check_batch(network, first, data.classes)
    method = method_for(norm, network.classes, network.architecture)
    held, prepared = isolate(network, first)
    check_input_slopes(held, continuous(prepared, "jacobian_maximum"), forward=method == "lanczos")

    def norms_of(unit: int, inputs: Tensor, given: Inputs) -> Tensor:
        start = None
        if method == "lanczos":  # the points of a unit share its start
            start = rng.sample_normal(unit, unit + len(inputs), (network.classes,), "lanczos", device=network.device)
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
    """The norm at each sample, and t = 0."""
    parts = []
    for batch in data.batches(size):
        given = network.prepare(batch.inputs)
        parts.append(norms_of(batch.start, _movable(network, given)[:, None], given))
    values = torch.cat(parts).squeeze(1)
    return values, torch.zeros_like(values)


def _over_segments(
    network: Network, data: LabelledData, norms_of: Norms, ends: Tensor, points: int, refine: int, size: int
) -> tuple[Tensor, Tensor]:
    """The largest norm on each segment, and its t: an even grid, then a finer one around the best point."""
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
            # The weighted form reproduces both endpoints exactly, which x + t (x' - x) does not.
            weight = t.to(x).view(*t.shape, *(1,) * (x.ndim - 1))
            return norms_of(unit, (1 - weight) * x[:, None] + weight * other[:, None], given)

        t = torch.linspace(0, 1, points, dtype=torch.float64, device="cpu").expand(len(own), -1)
        values = norms_at(t)
        if refine:
            # A NaN counts as the largest norm, so that it is reported.
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
    """Check that the inputs which do not move along a segment agree at its endpoints.

    Raises:
        ValueError: if they differ; the message names the first such pair of samples.
    """
    for name, part in parts_of(given).items():
        differ = (part != parts_of(others)[name]).flatten(1).any(1)
        if not part.is_floating_point() and bool(differ.any()):
            one, two = ends[int(differ.nonzero()[0])].tolist()
            msg = (
                f"the samples {one} and {two} must agree in {name}, which cannot move along a segment, got different "
                'values. Measure along="samples"'
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
            f"the norm of the Jacobian {what} must be finite, got {float(values[unit])}. Look for an overflow of the "
            "logits or their slopes, and probe in float64"
        )
        raise ValueError(msg)
