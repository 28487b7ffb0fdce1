"""Geometric margins: a proven or estimated lower bound, and an adversarial point as the upper bound."""

import itertools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from flatprobe.attacks import MINIMUM_NORM, NORMS, Box, Perturbed
from flatprobe.data import Batch, LabelledData, check_classes
from flatprobe.data.pairs import random_pairs
from flatprobe.functional import first_order_margins
from flatprobe.functional.losses import functional_margin
from flatprobe.graph.lipschitz import Bound, certified_bounds, explain_zero_bounds
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.slopes import check_input_slopes
from flatprobe.probes.per_sample import continuous
from flatprobe.probes.subjects import each_subject
from flatprobe.utils.arguments import Checked, Whole, at_least, one_of
from flatprobe.utils.results import Result, settings

LIPSCHITZ = ("spectral", "frobenius")  # gamma_3 and gamma_4 of S17, eqs 36 and 37 as corrected
CERTIFIED = (*LIPSCHITZ, "interval")
ESTIMATES = ("gamma_1", "gamma_2", "gradient")
LOWER = (*LIPSCHITZ, *ESTIMATES)

Lower = Literal["spectral", "frobenius", "gamma_1", "gamma_2", "gradient"]
Upper = Literal["ddn", "log_barrier", "deepfool", "fab", "ifgsm"]
Ends = Float64[Tensor, " samples"]


@dataclass(frozen=True, kw_only=True, repr=False)
class GeometricMargins(Result):
    """Lower and upper bounds of the geometric margin per sample, and the value of each method.

    Attributes:
        lower: (samples,) in input units. The largest *certified* bound where a certified method was chosen, and 0 where
            no chosen one knows the network (`uncertified`). Without a certified method, the largest estimate, or 0.
        upper: (samples,) length of the shortest perturbation found that changes the class; `inf` where no attack found
            one, 0 where the sample is misclassified.
        lowers: method -> (samples,).
        uppers: attack -> (samples,).
        labels: (samples,).
    """

    _columns: ClassVar = {
        "sample": "", "label": "labels", "lower": "lower", "upper": "upper", "attack": "attacks", "lower:": "lowers",
        "upper:": "uppers",
    }  # fmt: skip

    lower: Ends
    upper: Ends
    lowers: dict[str, Ends]
    uppers: dict[str, Ends]
    labels: Int64[Tensor, " samples"]

    @property
    def certified(self) -> bool:
        """True if `lower` is proven: certified methods alone enter it, and the estimates remain in `lowers`."""
        return any(name in CERTIFIED and name not in self.uncertified for name in self.lowers)

    @property
    def uncertified(self) -> dict[str, str]:
        """Certified methods without a bound for this network, and the reasons: their lower bounds are 0."""
        found: dict[str, str] = self.settings["subject"].get("uncertified", {})
        return found

    @property
    def reached(self) -> Tensor:
        """(samples,) True where an attack changed the class, or the sample is misclassified."""
        return self.upper.isfinite()

    @property
    def attacks(self) -> list[str]:
        """The attack that gave the upper bound, per sample; the first among equals, "" without any."""
        names, table = list(self.uppers), torch.stack(list(self.uppers.values()))
        return [names[k] if reached else "" for k, reached in zip(table.argmin(0), self.reached, strict=True)]

    @property
    def violations(self) -> int:
        """The number of samples with lower > upper: 0 for certified bounds, and a count against estimates."""
        return int((self.lower > self.upper).sum())

    @property
    def mean(self) -> float:
        """Mean of the upper bounds over the samples; `inf` where no attack found one for a sample."""
        return float(self.upper.mean())

    @property
    def median(self) -> float:
        """Median of the upper bounds, the headline figure `median_upper`."""
        return _median(self.upper)

    def violations_of(self, method: str) -> int:
        """The number of samples whose lower bound by this method is above the upper bound."""
        return int((self.lowers[method] > self.upper).sum())

    def summary(self) -> dict[str, float]:
        """Medians of the bounds and of every method; the numbers of violations and of samples without upper bound.

        The number of certified methods without a bound is added where there are any.
        """
        medians = {"median_upper": self.upper, "median_lower": self.lower}
        medians |= {f"median_{name}": values for name, values in {**self.uppers, **self.lowers}.items()}
        return {name: _median(values) for name, values in medians.items()} | {
            "violations": float(self.violations),
            "not_reached": float((~self.reached).sum()),
            **({"uncertified": float(len(self.uncertified))} if self.uncertified else {}),
        }


@standalone
def geometric_margins(
    model: nn.Module,
    data: LabelledData,
    *,
    lower: Checked[Lower | Sequence[Lower]] = ("spectral",),
    upper: Checked[Upper | Sequence[Upper]] = ("ddn", "log_barrier", "deepfool"),
    norm: Checked[Literal["l2", "linf"]] = "l2",
    box: Box = None,
    steps: Whole | None = None,
    points: Whole = 8,
    segments: Whole = 64,
    seed: int = 0,
    batch_size: int | None = None,
) -> GeometricMargins:
    """gamma(x) = sup{ a : ||x' - x|| <= a implies argmax f(x') = y }, as 0 <= lower <= gamma <= upper.

    *Upper*: every attack runs on every correctly classified sample, and the shortest perturbation is kept. Its point is
    on the boundary by bisection, and the network was evaluated at exactly this rounded point.

    *Lower*, certified: `spectral` (gamma_3) and `frobenius` (gamma_4) walk over the layers
    (`flatprobe.graph.lipschitz`). In linf they are the l2 bound over sqrt(d), since ||v||_2 <= sqrt(d) ||v||_inf. There
    `lowers` has `interval` beside them, by interval propagation, and `lower` is the largest. All hold for the network
    in the precision of its weights. A layer without a known constant (attention, layer normalization) makes the bounds
    0, with a warning and the reason in `uncertified`.

    *Lower*, first order, estimates that may exceed gamma:

    - `gamma_1`: o / (2 max ||J||_2) over sampled points of the ball of radius `upper`, 0 where `upper` is infinite,
    - `gamma_2`: the same over points of segments between samples,
    - `gradient`: min_j (z_y - z_j) / max ||grad (z_y - z_j)||_* over the points of `gamma_1`, exact if f is affine.

    Cost per batch in forward and backward passes (`python -m tests.benchmarks attacks` compares with foolbox):

    - `ddn` about 50, `log_barrier` 60 and its start, `deepfool` about 30 backward; 8 forward to bisect after each,
    - certified methods 1 forward, `interval` about 15 in float64 on the CPU; estimates C backward per point.

    Args:
        model: a classifier in eval mode; never changed. Wrap a network that takes normalized inputs in `fp.Normalised`,
            so that distances are in pixel units.
        data: inputs and labels; the inputs must be one floating tensor, and are rounded to the network's dtype.
        lower: one or several of `LOWER`, or none. Certified methods take precedence in the field `lower`.
        upper: one or several of `attacks.MINIMUM_NORM`. The default leaves out `fab`, with which `ddn` begins, and the
            weak `ifgsm`.
        norm: `"l2"` (default, as in T3 and S17) or `"linf"`.
        box: least and largest value of an input; None (default) attacks in all of R^d, where gamma is defined. With a
            box, `upper` bounds the margin within it, and `lower` still holds.
        steps: steps of every attack; None (default) takes the default of each attack.
        points: points per sample for `gamma_1` and `gradient`, half of them on the segment to the adversarial point.
        segments: segments between random pairs of samples for `gamma_2`, with 4 points each.
        seed: of the random starts, points and segments.
        batch_size: samples per pass; None (default) reads the measured table.

    Returns:
        `GeometricMargins`. Both bounds of a misclassified sample are 0; a tie counts as misclassified.

    Raises:
        ValueError: for an unknown method or norm, no attack, or a count below 1.
        ValueError: if the box does not contain the data; the message names the sample and its value.
        ValueError: if a layer is not differentiable, or an estimate meets a gradient that is not the function's.
        ValueError: if the network or the data cannot be probed.
        TypeError: if the inputs are not one floating tensor.

    Source: Poggio et al. (2017), Def. 1 and eq. 11 [T3]; Sokolic et al. (2017), eqs 10 and 34 to 37 as corrected (docs,
    Definitions) [S17]; Oberman (2020), eq. 8.1 [O20]; Gowal et al. (2018), section 3, for `interval`.
    """
    methods, attacks = _names(lower), _names(upper)
    _check(methods, attacks, norm)
    at_least(1, steps=steps, points=points, segments=segments)
    network, data = Network(model), check_classes(data)
    size = network.batch_size(batch_size, data)
    chosen = methods
    if norm == "linf" and set(CERTIFIED) & set(methods):
        methods = (*methods, "interval")
    lowers: dict[str, list[Tensor]] = {name: [] for name in methods}
    uppers: dict[str, list[Tensor]] = {name: [] for name in attacks}
    bounds: dict[str, Bound] = {}
    uncertified: dict[str, str] = {}
    for subject in each_subject(network, data, size, "geometric_margins", box):
        inputs, labels, forward = subject.inputs, subject.labels, subject.forward()
        if subject.start == 0:
            kinds = [kind for kind in methods if kind in CERTIFIED]
            single = isinstance(subject.given, Tensor)
            bounds, uncertified = certified_bounds(
                network.read.module(network.module), inputs, kinds, norm, single=single
            )
            if set(ESTIMATES) & set(methods):
                check_input_slopes(forward, inputs)
            if "gamma_2" in methods:
                largest = _largest_jacobian_between(network, data, segments, size, norm, seed)
        logits = subject.logits
        right = functional_margin(logits, labels) > 0
        rows = right.nonzero().flatten()
        closest = Perturbed.none(inputs)
        for name in attacks:
            found = subject.attack(name, rows, norm, box, steps, seed)
            uppers[name].append(found.distance)
            closest = closest.closer(found.points, found.distance, found.distance.isfinite())
        values = {kind: bound(logits, labels, inputs) for kind, bound in bounds.items()}
        values |= dict.fromkeys(uncertified, torch.zeros_like(closest.distance))
        if "gamma_2" in methods:
            values["gamma_2"] = first_order_margins.jacobian_ratio(logits, labels, largest, norm, inputs[0].numel())
        if {"gamma_1", "gradient"} & set(methods):
            draws = map(subject.noise(seed, "ball"), itertools.count())
            values |= first_order_margins.estimate_near(
                forward, inputs, labels, closest.points, closest.distance, norm, points, draws
            )
        for name in methods:
            lowers[name].append(torch.where(right, values[name].double(), 0.0))
    lower_ends, upper_ends = _join(lowers), _join(uppers)
    uncertified |= explain_zero_bounds({kind: lower_ends[kind] for kind in bounds}, upper_ends.values(), network.dtype)
    if uncertified:
        msg = (
            f"{network.name} is not certified by {', '.join(uncertified)}, whose lower bounds are 0: "
            f"{next(iter(uncertified.values()))}"
        )
        warnings.warn(msg, stacklevel=3)  # past the decorator
    decisive = [lower_ends[name] for name in methods if name in CERTIFIED] or list(lower_ends.values())
    described: dict[str, Any] = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    described |= {"uncertified": uncertified} if uncertified else {}
    arguments = {"norm": norm, "box": box, "steps": steps, "points": points, "segments": segments, "seed": seed}
    return GeometricMargins(
        lower=torch.stack(decisive).amax(0) if decisive else torch.zeros(len(data), dtype=torch.float64, device="cpu"),
        upper=torch.stack(list(upper_ends.values())).amin(0),
        lowers=lower_ends,
        uppers=upper_ends,
        labels=data.labels,
        settings=settings("geometric_margins", described, lower=list(chosen), upper=list(attacks), **arguments),
    )


def _names(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)


def _check(methods: Sequence[object], attacks: Sequence[object], norm: object) -> None:
    for name in methods:
        one_of("lower", name, LOWER)
    for name in attacks:
        one_of("upper", name, MINIMUM_NORM)
    if not attacks:
        msg = f"upper must name one or more attacks of {', '.join(MINIMUM_NORM)}, got none"
        raise ValueError(msg)
    one_of("norm", norm, NORMS)


def _largest_jacobian_between(
    network: Network, data: LabelledData, segments: int, size: int, norm: str, seed: int
) -> Tensor:
    """max ||J||_2 over 4 points of each random segment, its endpoints included."""
    positions = random_pairs(data.labels, segments, "any", seed)
    largest = torch.zeros((), dtype=torch.float64, device=network.device)
    for start in range(0, segments, size):
        pairs = positions[start : start + size]
        ends = [Batch(*data.gather(own), 0) for own in pairs.T]
        first, second = (continuous(Batch(network.prepare(end.inputs), end.labels, 0), "gamma_2") for end in ends)
        for number in range(4):
            point = torch.lerp(first, second, number / 3)
            jacobian, _ = first_order_margins.slopes(
                network, point, torch.zeros_like(pairs[:, 0]).to(point.device), norm
            )
            largest = torch.maximum(largest, jacobian.amax())
    return largest


def _join(values: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat(parts).cpu() for name, parts in values.items()}


def _median(values: Tensor) -> float:
    """The median, `inf` included."""
    return float(values.sort().values[(len(values) - 1) // 2 : len(values) // 2 + 1].mean())
