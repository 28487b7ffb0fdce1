"""The geometric margin as a sandwich: a proven or estimated lower end, and an adversarial point as the upper one."""

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from flatprobe.attacks import MINIMUM_NORM, NORMS, Box, Perturbed, minimum_norm
from flatprobe.data import Batch, LabelledData, check_data
from flatprobe.data.pairs import random_pairs
from flatprobe.functional import first_order_margins
from flatprobe.functional.losses import functional_margin
from flatprobe.graph.lipschitz import Bound, certified_ends, drowned
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.slopes import check_input_slopes
from flatprobe.probes.per_sample import Subject, attacked, continuous
from flatprobe.utils import rng
from flatprobe.utils.arguments import at_least, one_of
from flatprobe.utils.results import Result, settings

if TYPE_CHECKING:
    import pandas

CERTIFIED = ("spectral", "frobenius")  # gamma_3 and gamma_4 of S17, eqs 36 and 37 as corrected
ESTIMATES = ("gamma_1", "gamma_2", "gradient")
LOWER = (*CERTIFIED, *ESTIMATES)

Ends = Float64[Tensor, " samples"]


@dataclass(frozen=True, kw_only=True, repr=False)
class GeometricMargins(Result):
    """Per sample, `lower <= gamma <= upper`, and every method's own value.

    Attributes:
        lower: (samples,) the largest *certified* lower end where a certified method was asked for, 0 where none of
            them knows the network (`uncertified`); else the largest estimate, else 0; in input units.
        upper: (samples,) the length of the shortest perturbation found that changes the class; `inf` where no attack
            found one, 0 where the sample is misclassified.
        lowers: method -> (samples,).
        uppers: attack -> (samples,).
        labels: (samples,).
    """

    lower: Ends
    upper: Ends
    lowers: dict[str, Ends]
    uppers: dict[str, Ends]
    labels: Int64[Tensor, " samples"]

    @property
    def certified(self) -> bool:
        """Whether `lower` is proven: it comes from certified methods. Estimates are in `lowers` alone then."""
        return any(name in CERTIFIED and name not in self.uncertified for name in self.lowers)

    @property
    def uncertified(self) -> dict[str, str]:
        """Certified methods that know nothing of the network, or lose it to rounding, and why: their ends are 0."""
        found: dict[str, str] = self.settings["subject"].get("uncertified", {})
        return found

    @property
    def reached(self) -> Tensor:
        """(samples,) whether an attack changed the class, or the sample is misclassified."""
        return self.upper.isfinite()

    @property
    def attacks(self) -> list[str]:
        """The attack that gave each sample's upper end, the first asked for among equals; "" where none did."""
        names, table = list(self.uppers), torch.stack(list(self.uppers.values()))
        return [names[k] if reached else "" for k, reached in zip(table.argmin(0), self.reached, strict=True)]

    @property
    def violations(self) -> int:
        """How many samples have lower > upper: impossible for certified ends, and a count against estimates."""
        return int((self.lower > self.upper).sum())

    def violations_of(self, method: str) -> int:
        """How many samples have this method's lower end above the upper one."""
        return int((self.lowers[method] > self.upper).sum())

    def summary(self) -> dict[str, float]:
        """Medians of both ends and of every method, the violations, and how many upper ends were not reached.

        Where certified methods do not know the network, how many of them, too.
        """
        medians = {"median_upper": self.upper, "median_lower": self.lower}
        medians |= {f"median_{name}": values for name, values in {**self.uppers, **self.lowers}.items()}
        return {name: _median(values) for name, values in medians.items()} | {
            "violations": float(self.violations),
            "not_reached": float((~self.reached).sum()),
            **({"uncertified": float(len(self.uncertified))} if self.uncertified else {}),
        }

    def to_frame(self) -> "pandas.DataFrame":
        """One row a sample: sample, label, lower, upper, attack, and a column for each method."""
        import pandas as pd

        columns: dict[str, Any] = {"sample": range(len(self.labels)), "label": self.labels.numpy()}
        columns |= {"lower": self.lower.numpy(), "upper": self.upper.numpy(), "attack": self.attacks}
        columns |= {f"lower:{name}": values.numpy() for name, values in self.lowers.items()}
        columns |= {f"upper:{name}": values.numpy() for name, values in self.uppers.items()}
        return pd.DataFrame(columns)

    @classmethod
    def from_frame(cls, frame: "pandas.DataFrame", settings: dict[str, Any]) -> "GeometricMargins":
        """The inverse of `to_frame`."""

        def column(name: str) -> Tensor:
            return torch.from_numpy(frame[name].to_numpy(copy=True))

        def methods(end: str) -> dict[str, Tensor]:
            prefix = f"{end}:"
            return {name.removeprefix(prefix): column(name) for name in frame.columns if name.startswith(prefix)}

        return cls(
            lower=column("lower"),
            upper=column("upper"),
            lowers=methods("lower"),
            uppers=methods("upper"),
            labels=column("label"),
            settings=settings,
        )


@standalone
def geometric_margins(
    model: nn.Module,
    data: LabelledData,
    *,
    lower: str | Sequence[str] = ("spectral",),
    upper: str | Sequence[str] = ("ddn", "log_barrier", "deepfool"),
    norm: str = "l2",
    box: Box = None,
    steps: int | None = None,
    points: int = 8,
    segments: int = 64,
    seed: int = 0,
    batch_size: int | None = None,
) -> GeometricMargins:
    """gamma(x) = sup{ a : ||x' - x|| <= a implies argmax f(x') = y }, as 0 <= lower <= gamma <= upper.

    *Upper*: every attack runs on every sample that is classified correctly; its point is pulled onto the boundary and
    was passed through the network exactly as it is rounded; the shortest is kept. `ddn` costs about 50 forward and
    backward passes, `log_barrier` 60 and its start, `deepfool` some 3 times 10 backward passes, the closing of each 8
    forward passes. `python -m tests.benchmarks attacks` sets them beside foolbox's on MNIST networks.
    *Lower*, certified: `spectral` (gamma_3) and `frobenius` (gamma_4) by a walk over the layers
    (`flatprobe.graph.lipschitz`), one forward pass; in linf the l2 bound over sqrt(d), since ||v||_2 <= sqrt(d)
    ||v||_inf. Certified is the network as it is computed, in the precision of its weights. Where a layer has no known
    constant (attention, layer normalisation), the method's ends are 0, `uncertified` says why, and a warning is given.
    *Lower*, first order, estimates that may lie above gamma: `gamma_1`, o / (2 max ||J||_2) over sampled points of the
    ball of radius `upper`; `gamma_2`, the same over points of segments between samples; `gradient`, min_j (z_y - z_j) /
    max ||grad (z_y - z_j)||_* over the points of `gamma_1`, exact for affine networks. 0 where `upper` is not reached,
    since there is no ball then. C backward passes a point.

    The networks' inputs are what they are after rounding to the network's dtype.

    Args:
        model: a classifier in eval mode; never changed. Wrap a network that wants normalised inputs in `fp.Normalised`,
            so that distances are in pixel units.
        data: inputs and labels; the inputs one floating tensor.
        lower: which of `LOWER`, a name or several; certified ones decide the field `lower` wherever one is asked for.
            May be empty.
        upper: which of `attacks.MINIMUM_NORM`, a name or several; at least one. The default leaves out `fab`, with
            which `ddn` begins, and the weak `ifgsm`.
        norm: `"l2"` (default, as in T3 and S17) or `"linf"`.
        box: least and largest value of an input; None (default) attacks in all of R^d, where gamma is defined. With a
            box the upper ends are those of the margin within it, and `lower` still holds.
        steps: of every attack; None (default) for each attack's own number.
        points: sampled a sample by `gamma_1` and `gradient`, half on the segment to the adversarial point.
        segments: between random pairs of samples for `gamma_2`, 4 points on each.
        seed: which family of random starts, points and segments.
        batch_size: samples at a time; None (default) reads the measured table.

    Returns:
        `GeometricMargins`. Misclassified samples (ties count) have both ends 0.

    Raises:
        ValueError: for unknown methods or norms, no attack, counts below 1, a box that does not contain the data (the
            sample and its value named), a layer that is not differentiable (named), estimates of a network whose
            gradient is not that of its function, or a network or data that cannot be probed.
        TypeError: if the inputs are not one floating tensor.

    Source: T3 Def. 1 and eq. 11; S17 eqs 10 and 34 to 37 with SPEC's correction; O20 eq. 8.1.
    """
    lower, upper = ((names,) if isinstance(names, str) else tuple(names) for names in (lower, upper))
    _check(lower, upper, norm)
    at_least(1, steps=steps, points=points, segments=segments)
    network, data = Network(model), check_data(data)
    size = network.batch_size(batch_size)
    lowers: dict[str, list[Tensor]] = {name: [] for name in lower}
    uppers: dict[str, list[Tensor]] = {name: [] for name in upper}
    bounds: dict[str, Bound] = {}
    uncertified: dict[str, str] = {}
    for subject in attacked(network, data, size, "geometric_margins", box):
        inputs, labels, forward = subject.inputs, subject.labels, subject.forward()
        if subject.start == 0:
            kinds = [kind for kind in lower if kind in CERTIFIED]
            single = isinstance(subject.given, Tensor)
            bounds, uncertified = certified_ends(network.module, inputs, kinds, norm, single=single)
            if set(ESTIMATES) & set(lower):
                check_input_slopes(forward, inputs)
            if "gamma_2" in lower:
                steepest = _steepest_between(network, data, segments, size, norm, seed)
        with torch.no_grad():
            logits = forward(inputs)
        right = functional_margin(logits, labels) > 0
        closest = Perturbed.none(inputs)
        for name in upper:
            found = _attack(name, subject, right, norm, box, steps, seed)
            uppers[name].append(found.distance.cpu())
            closest = closest.closer(found.points, found.distance, found.distance.isfinite())
        values = {kind: bound(logits, labels, inputs) for kind, bound in bounds.items()}
        values |= dict.fromkeys(uncertified, torch.zeros_like(closest.distance))
        if "gamma_2" in lower:
            values["gamma_2"] = first_order_margins.jacobian_ratio(logits, labels, steepest, norm, inputs[0].numel())
        if {"gamma_1", "gradient"} & set(lower):
            draws = map(_draw(subject, seed, "ball"), itertools.count())
            values |= first_order_margins.estimate_near(
                forward, inputs, labels, closest.points, closest.distance, norm, points, draws
            )
        for name in lower:
            lowers[name].append(torch.where(right, values[name].double(), 0.0).cpu())
    own, attacks = _joined(lowers), _joined(uppers)
    uncertified |= drowned({kind: own[kind] for kind in bounds}, attacks.values(), network.dtype)
    if uncertified:
        msg = (
            f"{network.name} is not certified by {', '.join(uncertified)}, whose lower ends are 0: "
            f"{next(iter(uncertified.values()))}"
        )
        warnings.warn(msg, stacklevel=3)  # past the decorator
    ends = [own[name] for name in lower if name in CERTIFIED] or list(own.values())
    described: dict[str, Any] = {"network": network.describe(), "data": data.describe(), "batch_size": size}
    described |= {"uncertified": uncertified} if uncertified else {}
    arguments = {"norm": norm, "box": box, "steps": steps, "points": points, "segments": segments, "seed": seed}
    return GeometricMargins(
        lower=torch.stack(ends).amax(0) if ends else torch.zeros(len(data), dtype=torch.float64, device="cpu"),
        upper=torch.stack(list(attacks.values())).amin(0),
        lowers=own,
        uppers=attacks,
        labels=data.labels,
        settings=settings("geometric_margins", described, lower=list(lower), upper=list(upper), **arguments),
    )


def _check(lower: Sequence[str], upper: Sequence[str], norm: str) -> None:
    for name in lower:
        one_of("lower", name, LOWER)
    for name in upper:
        one_of("upper", name, MINIMUM_NORM)
    if not upper:
        msg = f"upper is empty; expected at least one attack among {', '.join(MINIMUM_NORM)}"
        raise ValueError(msg)
    one_of("norm", norm, NORMS)


def _attack(name: str, subject: Subject, right: Tensor, norm: str, box: Box, steps: int | None, seed: int) -> Perturbed:
    """The attack on the samples that are classified correctly; distance 0 at the others."""
    points = subject.inputs.clone()
    distances = torch.zeros(len(points), dtype=torch.float64, device=points.device)
    if bool(right.any()):
        noise = _draw(subject, seed, name)
        forward, inputs, labels = subject.forward(right), points[right], subject.labels[right]
        found = minimum_norm(
            name, forward, inputs, labels, norm=norm, box=box, steps=steps, draw=lambda k: noise(k)[right]
        )
        points[right], distances[right] = found.points, found.distance
    return Perturbed(points, distances)


def _draw(subject: Subject, seed: int, name: str) -> Callable[[int], Tensor]:
    start, inputs = subject.start, subject.inputs
    return lambda k: rng.sample_normal(start, start + len(inputs), inputs.shape[1:], seed, name, k).to(inputs)


def _steepest_between(network: Network, data: LabelledData, segments: int, size: int, norm: str, seed: int) -> Tensor:
    """max ||J||_2 over 4 points, ends included, of each of the random segments."""
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


def _joined(values: dict[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat(parts) for name, parts in values.items()}


def _median(values: Tensor) -> float:
    """The middle value, `inf` included."""
    return float(values.sort().values[(len(values) - 1) // 2 : len(values) // 2 + 1].mean())
