"""Certified lower bounds of the geometric margin in linf by interval propagation."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatprobe.graph import Graph, Step
from flatprobe.graph.folding import apply
from flatprobe.graph.lipschitz.certificates import certifiable_graph
from flatprobe.graph.lipschitz.constants import activation_constant
from flatprobe.graph.lipschitz.rounding import ACTIVATION, EXTRA, Arithmetic, count_of, jump_of
from flatprobe.graph.lipschitz.search import largest_positive

# Lower and upper ends per entry, (samples, *shape) in float64 on the CPU.
Ends = tuple[Tensor, Tensor]

# Operations in float64 beside those that the terms of a sum count, for the rounding of the ends themselves.
_OWN = Arithmetic(2.0**-53, torch.finfo(torch.float64).tiny)

# Activations that fall up to a place and rise after it: place (to 0.01), and a number below the least value.
_VALLEYS = {
    "gelu": (-0.752, -0.17005),
    "silu": (-1.278, -0.27847),
    "mish": (-1.192, -0.30885),
    "hardswish": (-1.5, -0.375),
    **dict.fromkeys(("abs", "absolute"), (0.0, 0.0)),
}
_RISING = {"relu", "relu6", "hardtanh", "tanh", "sigmoid", "selu", "hardsigmoid", "log_sigmoid", "softshrink", "erf"}
_RISING |= {"atan", "arctan", "asinh", "arcsinh", "clamp", "celu", "softplus", "threshold"}

_MOVES = {"rearrange", "concatenate"}
_SUMS = {"linear", "convolution", "affine"}
_BLOCK = 2**22  # entries of a value, or of the differences of rows, at a time


def interval_margins(module: nn.Module, input_shape: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """Certified lower bounds of the linf margin by interval bound propagation.

    The largest eps found for which, over the box |x' - x| <= eps,

        min_{j != y} (w_y - w_j) m - |w_y - w_j| d + b_y - b_j > 0,

    with m -+ d an interval of the inputs of the last layer w h + b. A layer W v + b maps m -+ d to (W m + b) -+ |W| d,
    and an increasing function maps both ends. If the last layer is not linear, the two logits have separate intervals.
    For an affine network, eps is the exact margin, min_j (z_y - z_j) / ||w_y - w_j||_1.

    Every interval is widened by the bound of `lipschitz.rounding` on the error of the network's arithmetic per entry,
    and by that of the intervals themselves in float64. It holds the exact and the computed values, so eps holds for
    both.

    Cost: 1 trace; then about 7 times 2 passes in float64 on the CPU.

    Args:
        module: a classifier in eval mode that takes one tensor; never changed.
        input_shape: the shape of one sample.

    Returns:
        A function of the inputs and labels that returns eps (samples,) in float64: 0 for misclassified samples.

    Raises:
        ValueError: for a network that cannot be traced, or that computes in several precisions.
        ValueError: for an operation without an interval rule, naming the layer.

    Source: Gowal et al. (2018), section 3, with the elision of the last layer; Mirman, Gehr and Vechev (2018).
    """
    return intervals_of(*certifiable_graph(module, input_shape))


def intervals_of(graph: Graph, used: Arithmetic) -> Callable[[Tensor, Tensor], Tensor]:
    """The function of `interval_margins` for a folded graph and the arithmetic of its network."""
    propagation = _Propagation(graph, used)
    zeros = torch.zeros(1, *graph.steps[0].shape, dtype=torch.float64, device="cpu")
    propagation.margin(zeros, torch.zeros(1, dtype=torch.int64, device="cpu"), zeros.new_zeros(1))  # meets every step
    return propagation.radii


@dataclass(frozen=True)
class _Sums:
    """Sums of products of a layer.

    Attributes:
        center: v -> W v + b.
        spread: v -> |W| v + relative |b| + the absolute error.
        relative: relative error of a sum, of the network and of the interval.
    """

    center: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]
    relative: float

    def of(self, middle: Tensor, reach: Tensor) -> Ends:
        """(W m + b) -+ |W| d, with the error relative (|W| |v| + |b|)."""
        grown = 1 + self.relative
        center = self.center(middle)
        spread = self.spread((reach * grown**2).add_(middle.abs(), alpha=self.relative * grown))
        return center - spread, center + spread


class _Propagation:
    """Intervals of the steps of a folded graph, which hold every computed value."""

    def __init__(self, graph: Graph, used: Arithmetic) -> None:
        self.used = used
        steps = graph.steps
        self.normalizes = steps[-1].kind == "log_softmax"
        self.steps = steps[: steps[-1].sources[0] + 1] if self.normalizes else steps
        self.sums = {index: self._sums(step) for index, step in enumerate(self.steps) if step.kind in _SUMS}
        self.places = {index: _places(step, steps) for index, step in enumerate(steps) if step.kind in _MOVES}

    def radii(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The largest eps found per sample."""
        x, y = inputs.detach().to("cpu", torch.float64), labels.cpu()
        last = self.steps[-1]
        entries = last.tensors["weight"].numel() if last.kind == "linear" else 1
        size = max(1, _BLOCK // max(entries, *(math.prod(step.shape) for step in self.steps)))
        found = [self._radii(*block) for block in zip(torch.split(x, size), torch.split(y, size), strict=True)]
        return torch.cat(found).to(inputs.device)

    def _radii(self, x: Tensor, y: Tensor) -> Tensor:
        rows = _rows(self.steps[-1], y) if self.steps[-1].kind == "linear" else None

        def subset(own: Tensor) -> Callable[[Tensor], Tensor]:
            return partial(self.margin, x[own], y[own], rows=None if rows is None else rows[own])

        first = 1e-6 * x.flatten(1).abs().amax(1).clamp_min(1e-3)
        return largest_positive(subset, self.margin(x, y, torch.zeros_like(first), rows), first)

    def margin(self, x: Tensor, y: Tensor, eps: Tensor, rows: Tensor | None = None) -> Tensor:
        """A lower bound of min_j (z_y - z_j) over the box, per sample; NaN counts as no bound."""
        # Larger by the rounding of x -+ eps.
        reach = eps + 4 * _OWN.unit * (eps + x.flatten(1).abs().amax(1)) + _OWN.least
        reach = reach.view(-1, *[1] * (x.ndim - 1))
        values: list[Ends] = []
        last = len(self.steps) - 1
        for index, step in enumerate(self.steps):
            before = [values[source] for source in step.sources]
            if step.kind == "input":
                values.append((x - reach, x + reach))
            elif index == last and step.kind == "linear":
                return self._of_rows(self.sums[index], before[0], y, _rows(step, y) if rows is None else rows)
            else:
                values.append(self._step(index, step, before))
        low, high = values[-1]
        return _least(low.gather(1, y[:, None]) - high - self._of_softmax(torch.maximum(-low, high)), y)

    def _of_rows(self, sums: "_Sums", ends: Ends, y: Tensor, rows: Tensor) -> Tensor:
        """The last layer merged with the differences of logits."""
        middle, reach = _ball(ends)
        logits = sums.center(middle)
        error = sums.spread(middle.abs().add_(reach).mul_(sums.relative))
        spread = (rows @ reach[:, :, None])[..., 0] * (1 + sums.relative)
        error = error + error.gather(1, y[:, None]) + self._of_softmax(error / sums.relative)
        return _least(logits.gather(1, y[:, None]) - logits - spread - error, y)

    def _of_softmax(self, sizes: Tensor) -> Tensor | float:
        """Error of a difference of two values of the network's log-softmax, from bounds of the logits."""
        if not self.normalizes:
            return 0.0
        count = sizes.shape[1]
        return 2 * self.used.gamma(count + EXTRA) * (2 * sizes.amax(1, keepdim=True) + math.log(count) + 1)

    def _sums(self, step: Step) -> "_Sums":
        terms, tensors = _terms(step), step.tensors
        # Of the 4 gamma, one is the error of the center in float64. The others cover all operations on the ends.
        relative = self.used.products(step.kind, terms) + 4 * _OWN.gamma(terms)
        least = 2 * terms * self.used.least
        if step.kind == "affine":
            scale, shift = tensors["scale"], tensors["shift"]
            size, error = scale.abs(), relative * tensors["magnitude"] + least
            return _Sums(lambda v: scale * v + shift, lambda v: size * v + error, relative)
        weight, bias = tensors["weight"], tensors.get("bias")
        plain = weight.new_zeros(len(weight)) if bias is None else bias.abs()
        error = relative * tensors.get("magnitude", plain) + least
        return _Sums(apply(step, weight, bias), apply(step, weight.abs(), error), relative)

    def _step(self, index: int, step: Step, before: list[Ends]) -> Ends:
        if step.kind in _MOVES:
            low, high = (F.pad(torch.cat([part.flatten(1) for part in ends], 1), (1, 0)) for ends in _turned(before))
            return low[:, self.places[index]], high[:, self.places[index]]
        if step.kind in _SUMS:
            return self.sums[index].of(*_ball(before[0]))
        if step.kind in {"max_pool", "adaptive_max_pool", "extremum", "larger"}:
            low, high = (step.call(*ends) for ends in _turned(before))
            return low, high
        sizes = [torch.maximum(-low, high) for low, high in before]
        if step.kind == "activation":
            return self._activation(step, before[0], sizes[0])
        if step.kind == "add":
            return self._sum(step.options["factors"], before, sizes)
        if step.kind in {"average_pool", "adaptive_average_pool", "mean", "sum"}:
            count = count_of(step, tuple(before[0][0].shape[1:]))
            error = self._relative(count + 2) * step.call(sizes[0]) + count * self.used.least
            return _widen(step.call(before[0][0]), step.call(before[0][1]), error)
        return step.refuse("the interval")

    def _sum(self, factors: Sequence[float], before: list[Ends], sizes: list[Tensor]) -> Ends:
        low = high = error = _number(0.0)
        for factor, ends, size in zip(factors, before, sizes, strict=True):
            own = (factor * ends[0], factor * ends[1])
            low, high = low + torch.minimum(*own), high + torch.maximum(*own)
            error = error + self._relative(4) * abs(factor) * size
        return _widen(low, high, error)

    def _relative(self, terms: int) -> float:
        return self.used.gamma(terms) + 2 * _OWN.gamma(terms)

    def _activation(self, step: Step, ends: Ends, sizes: Tensor) -> Ends:
        name, constant = step.options["name"], activation_constant(step.options)
        if name == "relu":  # exact
            return step.call(ends[0]), step.call(ends[1])
        if constant is None:
            step.refuse("the interval")
        low, high = step.call(ends[0]), step.call(ends[1])
        start = step.call(torch.zeros(1, *step.shape, dtype=torch.float64, device="cpu")).abs()
        error = self._relative(ACTIVATION) * (max(constant, 1.0) * sizes + start) + jump_of(step)
        if name in _VALLEYS:
            place, floor = _VALLEYS[name]
            apart = (ends[1] < place - 0.01) | (ends[0] > place + 0.01)
            return _widen(torch.where(apart, torch.minimum(low, high), floor), torch.maximum(low, high), error)
        if name in _RISING or (name in {"leaky_relu", "elu"} and _rises(step)):
            return _widen(low, high, error)
        middle, reach = (low + high) / 2, constant / 2 * (ends[1] - ends[0]) * (1 + 1e-15)
        return _widen(middle, middle, reach + error)


def _rows(last: Step, y: Tensor) -> Tensor:
    """|w_y - w_j| of the last layer, per sample."""
    weight = last.tensors["weight"]
    return (weight[y][:, None] - weight).abs_()


def _turned(values: list[Ends]) -> tuple[list[Tensor], list[Tensor]]:
    """All lower ends, and all upper ends."""
    return [low for low, _ in values], [high for _, high in values]


def _least(leads: Tensor, y: Tensor) -> Tensor:
    """The least lead over another class; NaN, where a number overflows, counts as no lead."""
    return leads.nan_to_num(-torch.inf, torch.inf, -torch.inf).scatter(1, y[:, None], torch.inf).amin(1)


def _terms(step: Step) -> int:
    """Terms of a sum of products, those of a folded layer included."""
    return EXTRA if step.kind == "affine" else math.prod(step.tensors["weight"].shape[1:]) + EXTRA


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64, device="cpu")


def _places(step: Step, steps: Sequence[Step]) -> Tensor:
    """For each entry of a moved value, its place among the entries of the sources, from 1 on; 0 for a padded zero."""
    numbers, first = [], 1
    for source in step.sources:
        size = math.prod(shape := steps[source].shape)
        numbers.append(
            torch.arange(first, first + size, dtype=torch.float64, device="cpu").view(1, *shape).expand(2, *shape)
        )
        first += size
    return step.call(*numbers)[0].long()


def _rises(step: Step) -> bool:
    """True for a leaky ReLU or ELU that is known to increase; of a PReLU, only the modulus of the slope is."""
    o = step.options
    if o["name"] == "leaky_relu":
        return "prelu" not in step.operation and float(o["negative_slope"]) >= 0
    return min(float(o["alpha"]), float(o["scale"]), float(o["input_scale"])) >= 0


def _widen(low: Tensor, high: Tensor, error: Tensor) -> Ends:
    """Wider ends; the errors also cover the rounding of this sum, a unit of the larger modulus."""
    error = error * (1 + 1e-15)
    return low - error, high + error


def _ball(ends: Ends) -> Ends:
    """Middle and half width of intervals, the latter up to a rounding that the errors of sums cover."""
    middle = (ends[0] + ends[1]) / 2
    return middle, torch.maximum(ends[1] - middle, middle - ends[0])
