"""Certified lower bounds of the geometric margin in linf by interval propagation."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatprobe.graph import Graph, Step, fold, trace
from flatprobe.graph.folding import apply
from flatprobe.graph.lipschitz.certificates import check_precision
from flatprobe.graph.lipschitz.constants import activation_constant
from flatprobe.graph.lipschitz.rounding import ACTIVATION, EXTRA, Arithmetic, arithmetic, count_of, jump_of

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
_STEPS = 14  # alternately by the secant and by halves
_BLOCK = 2**22  # entries of the differences of rows at a time


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

    Cost: 1 trace; then about 20 times 2 passes in float64 on the CPU.

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
    anchor = next(
        (p for p in module.parameters() if p.is_floating_point()), torch.empty(0, dtype=torch.float32, device="cpu")
    )
    traced = trace(module, input_shape)
    check_precision(traced, anchor.dtype)
    propagation = _Propagation(fold(traced), arithmetic(anchor.dtype, anchor.device))
    zeros = torch.zeros(1, *input_shape, dtype=torch.float64, device="cpu")
    propagation.margin(zeros, torch.zeros(1, dtype=torch.int64, device="cpu"), zeros.new_zeros(1))  # meets every step
    return propagation.radii


class _Propagation:
    """Intervals of the steps of a folded graph, which hold every computed value."""

    def __init__(self, graph: Graph, used: Arithmetic) -> None:
        self.used = used
        steps = graph.steps
        self.normalizes = steps[-1].kind == "log_softmax"
        self.steps = steps[: steps[-1].sources[0] + 1] if self.normalizes else steps
        self.places = {index: _places(step, steps) for index, step in enumerate(steps) if step.kind in _MOVES}

    def radii(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """The largest eps found per sample."""
        x, y = inputs.detach().to("cpu", torch.float64), labels.cpu()
        size = max(1, _BLOCK // max(math.prod(step.shape) for step in self.steps))
        found = [self._radii(*block) for block in zip(torch.split(x, size), torch.split(y, size), strict=True)]
        return torch.cat(found).to(inputs.device)

    def _radii(self, x: Tensor, y: Tensor) -> Tensor:
        low = torch.zeros(len(x), dtype=torch.float64, device="cpu")
        at_low = self.margin(x, y, low)
        right = at_low > 0
        first = 1e-6 * x.flatten(1).abs().amax(1).clamp_min(1e-3)
        fall = at_low - self.margin(x, y, first)
        high = torch.where(fall > 0, first * at_low / fall, torch.inf).clamp_max(first * 1e20).where(right, 0.0)
        at_high = self.margin(x, y, high)
        for step in range(_STEPS):
            inside = at_high > 0  # The end is not found yet.
            secant = at_low / (at_low - at_high).clamp_min(1e-300) * (1 - 1e-10)
            middle = torch.where(inside, 2 * high, low + (secant if step % 2 == 0 else 0.5) * (high - low))
            now = self.margin(x, y, middle)
            low, at_low = low.where(~inside, high), at_low.where(~inside, at_high)
            holds = (now > 0) & ~inside
            high, at_high = high.where(holds, middle), at_high.where(holds, now)
            low, at_low = low.where(~holds, middle), at_low.where(~holds, now)
        return torch.where(right, low.where(~(at_high > 0), high), 0.0)

    def margin(self, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
        """A lower bound of min_j (z_y - z_j) over the box, per sample; NaN counts as no bound."""
        reach = eps.view(-1, *[1] * (x.ndim - 1))
        values: list[Ends] = []
        last = len(self.steps) - 1
        for index, step in enumerate(self.steps):
            before = [values[source] for source in step.sources]
            if step.kind == "input":
                values.append(_outward(x - reach, x + reach))
            elif index == last and step.kind == "linear":
                return self._of_rows(step, before[0], y)
            else:
                values.append(self._step(index, step, before))
        low, high = values[-1]
        return _least(low.gather(1, y[:, None]) - high - self._of_softmax(torch.maximum(-low, high)), y)

    def _of_rows(self, step: Step, ends: Ends, y: Tensor) -> Tensor:
        """The last layer merged with the differences of logits."""
        weight, relative, least = step.tensors["weight"], *self._errors(step)
        bias = step.tensors.get("bias", torch.zeros(len(weight), dtype=torch.float64, device="cpu"))
        middle, reach = _ball(ends)
        logits = F.linear(middle, weight, bias)
        sizes = F.linear(middle.abs() + reach, weight.abs(), step.tensors.get("magnitude", bias.abs()))
        size = max(1, _BLOCK // weight.numel())
        rows = zip(torch.split(y, size), torch.split(reach, size), strict=True)
        spread = torch.cat([((weight[own][:, None] - weight).abs() @ r[:, :, None])[..., 0] for own, r in rows])
        spread = spread * (1 + 2 * _OWN.gamma(_terms(step)))
        error = relative * (sizes + sizes.gather(1, y[:, None])) + 2 * least + self._of_softmax(sizes)
        return _least(logits.gather(1, y[:, None]) - logits - spread - error, y)

    def _of_softmax(self, sizes: Tensor) -> Tensor | float:
        """Error of a difference of two values of the network's log-softmax, from bounds of the logits."""
        if not self.normalizes:
            return 0.0
        count = sizes.shape[1]
        return 2 * self.used.gamma(count + EXTRA) * (2 * sizes.amax(1, keepdim=True) + math.log(count) + 1)

    def _errors(self, step: Step) -> tuple[float, float]:
        """Relative and absolute rounding of a sum of products, of the network and of the interval."""
        terms = _terms(step)
        return self.used.products(step.kind, terms) + 4 * _OWN.gamma(terms), 2 * terms * self.used.least

    def _step(self, index: int, step: Step, before: list[Ends]) -> Ends:
        if step.kind in _MOVES:
            low, high = (F.pad(torch.cat([part.flatten(1) for part in ends], 1), (1, 0)) for ends in _turned(before))
            return low[:, self.places[index]], high[:, self.places[index]]
        if step.kind in {"linear", "convolution", "affine"}:
            return self._affine(step, _ball(before[0]))
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

    def _affine(self, step: Step, ball: Ends) -> Ends:
        """(W m + b) -+ |W| d, with the error relative (|W| |v| + |b|)."""
        relative, least = self._errors(step)
        middle, reach = ball
        wide = (reach + relative * (middle.abs() + reach)) * (1 + relative)
        tensors = step.tensors
        if step.kind == "affine":
            center, spread = tensors["scale"] * middle + tensors["shift"], tensors["scale"].abs() * wide
            offset = tensors["magnitude"]
        else:
            weight, bias = tensors["weight"], tensors.get("bias")
            center, spread = apply(step, weight, bias)(middle), apply(step, weight.abs(), None)(wide)
            offset = tensors.get("magnitude", _number(0.0) if bias is None else bias.abs())
            if step.kind == "convolution" and offset.ndim:
                offset = offset.view(-1, *[1] * (weight.ndim - 2))
        return _widen(center, center, spread + relative * offset + least)

    def _activation(self, step: Step, ends: Ends, sizes: Tensor) -> Ends:
        name, constant = step.options["name"], activation_constant(step.options)
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


def _outward(low: Tensor, high: Tensor) -> Ends:
    infinity = _number(torch.inf)
    return torch.nextafter(low, -infinity), torch.nextafter(high, infinity)


def _widen(low: Tensor, high: Tensor, error: Tensor) -> Ends:
    return _outward(low - error * (1 + 1e-15), high + error * (1 + 1e-15))


def _ball(ends: Ends) -> Ends:
    """Middle and half width of intervals."""
    middle = (ends[0] + ends[1]) / 2
    return middle, _outward(middle, torch.maximum(ends[1] - middle, middle - ends[0]))[1]
