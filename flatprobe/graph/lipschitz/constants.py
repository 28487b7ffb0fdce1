"""Lipschitz constants of the steps of a network in the l2 norm."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flatprobe.graph import Graph, Step
from flatprobe.graph.operators import (
    Convolution,
    adaptive_average_pool_norm,
    adaptive_max_pool_constant,
    average_pool_norm,
    certified_frobenius_norm,
    certified_spectral_norm,
    max_pool_constant,
)

# Covers the rounding of the few operations in float64 on the proven norms of all steps.
_ROUNDING = 1 + 1e-12

_LEAST = 5e-324

# The largest modulus of the derivative of each activation, rounded up. Those of GELU, SiLU and Mish are numerical
# maxima, which a test computes again; that of SELU is its scale times its alpha.
_ACTIVATIONS: dict[str, float] = {
    "relu": 1.0,
    "relu6": 1.0,
    "hardtanh": 1.0,
    "tanh": 1.0,
    "sigmoid": 0.25,
    "silu": 1.0998394,
    "mish": 1.0886390,
    "hardswish": 1.5,
    "selu": 1.7580994,
    "hardsigmoid": 1 / 6 * _ROUNDING,
    "log_sigmoid": 1.0,
    "softshrink": 1.0,
    "erf": 2 / math.sqrt(math.pi) * _ROUNDING,
    **dict.fromkeys(("atan", "arctan", "asinh", "arcsinh", "sin", "cos", "abs", "absolute", "clamp"), 1.0),
}
_GELU = {"none": 1.1289043, "tanh": 1.1290126}


def activation_constant(options: Mapping[str, Any]) -> float | None:
    """Lipschitz constant sup |phi'| of an activation phi; None if it is not known."""
    name: str = options["name"]
    if name == "gelu":
        return _GELU[options["approximate"]]
    if name == "leaky_relu":
        return max(1.0, abs(float(options["negative_slope"])))
    if name == "elu":  # scale (x, or alpha (exp(input_scale x) - 1))
        largest = max(1.0, abs(float(options["alpha"]) * float(options["input_scale"])))
        return abs(float(options["scale"])) * largest * _ROUNDING
    if name == "celu":
        return 1.0 if options["alpha"] > 0 else None
    if name == "softplus":  # `rounding` bounds its jump at the threshold.
        return 1.0 if options["beta"] > 0 else None
    if name == "threshold":  # Continuous if the threshold equals the value below it.
        return 1.0 if options["threshold"] == options["value"] else None
    return _ACTIVATIONS.get(name)


def convolution_of(step: Step, input_shape: tuple[int, ...]) -> Convolution:
    """The operator of a convolution step at its input size."""
    o = step.options
    return Convolution(
        step.tensors["weight"], tuple(input_shape[1:]), o["stride"], o["padding"], o["dilation"], o["groups"]
    )


def step_constant(step: Step, input_shape: tuple[int, ...], kind: str) -> float:
    """Proven Lipschitz constant of one step with one source, in the l2 norm.

    Args:
        step: a step of a folded graph.
        input_shape: the shape of the value of its source, for one sample.
        kind: `"spectral"` or `"frobenius"`, the norm of linear layers and convolutions. Other steps, such as pooling
            and activations, have one constant for both kinds.

    Raises:
        ValueError: for an operation without a known constant, naming the layer.
    """
    rule = _RULES.get(step.kind)
    constant = rule(step, input_shape, kind) if rule else None
    if constant is None:
        step.refuse("the Lipschitz constant")
    return constant


def step_constants(graph: Graph, kind: str) -> list[float]:
    """Constants of all steps; 1 for the input and for joined branches.

    Args:
        graph: a folded graph.
        kind: as in `step_constant`.

    Raises:
        ValueError: for an operation without a known constant, naming the layer.
    """
    return [
        1.0
        if step.kind in {"input", "add", "concatenate", "larger"}
        else step_constant(step, graph.steps[step.sources[0]].shape, kind)
        for step in graph.steps
    ]


def propagate(graph: Graph, own: Sequence[float]) -> list[float]:
    """Proven Lipschitz constants of the network from its input up to each step.

    - Constants multiply along a chain (Sokolic et al. (2017), eqs 36 and 37 [S17]).
    - A sum of branches has the sum of their constants: for a residual block, L_shortcut + L_block times the constant of
      its input.
    - A concatenation, and the larger of two values per entry, has the root of the sum of the squares.

    Args:
        graph: a folded graph.
        own: the `step_constants`.
    """
    reached: list[float] = []
    for step, constant in zip(graph.steps, own, strict=True):
        before = [reached[source] for source in step.sources]
        if step.kind == "input":
            reached.append(1.0)
        elif step.kind == "add":
            factors = step.options["factors"]
            reached.append(sum(abs(factor) * L for factor, L in zip(factors, before, strict=True)) * _ROUNDING)
        else:
            reached.append(_product(math.hypot(*before), constant))  # The hypot of one number is its modulus.
    return reached


def _product(first: float, second: float) -> float:
    """Product, rounded up, and positive on underflow."""
    return max(first * second * _ROUNDING, _LEAST) if first and second else 0.0


def _linear(step: Step, _shape: tuple[int, ...], kind: str) -> float:
    weight = step.tensors["weight"]
    if kind == "spectral":
        return certified_spectral_norm(weight)
    return certified_frobenius_norm(weight) * math.sqrt(math.prod(step.shape[:-1])) * _ROUNDING  # once per position


def _convolution(step: Step, shape: tuple[int, ...], kind: str) -> float:
    layer = convolution_of(step, shape)
    return certified_spectral_norm(layer) if kind == "spectral" else certified_frobenius_norm(layer)


def _root(count: int) -> float:
    root = math.isqrt(count)
    return float(root) if root * root == count else math.sqrt(count) * _ROUNDING


def _max_pool(step: Step, shape: tuple[int, ...], _kind: str) -> float:
    o = step.options
    return max_pool_constant(o["kernel"], o["stride"], o["padding"], o["dilation"], _spatial(o, shape), o["ceil_mode"])


def _average_pool(step: Step, shape: tuple[int, ...], _kind: str) -> float:
    o = step.options
    size = _spatial(o, shape)
    counted, divisor = o["count_include_pad"], o["divisor_override"]
    return average_pool_norm(o["kernel"], o["stride"], o["padding"], size, o["ceil_mode"], counted, divisor)


def _spatial(options: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[-len(options["kernel"]) :])


def _adaptive(rule: Callable[..., float]) -> Callable[[Step, tuple[int, ...], str], float]:
    return lambda step, shape, _kind: rule(tuple(shape[1:]), tuple(step.shape[1:]))


_RULES: dict[str, Callable[[Step, tuple[int, ...], str], float | None]] = {
    "linear": _linear,
    "convolution": _convolution,
    "affine": lambda step, _shape, _kind: float(step.tensors["scale"].abs().max()),
    "activation": lambda step, _shape, _kind: activation_constant(step.options),
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "adaptive_max_pool": _adaptive(adaptive_max_pool_constant),
    "adaptive_average_pool": _adaptive(adaptive_average_pool_norm),
    "mean": lambda step, _shape, _kind: _ROUNDING / math.sqrt(step.options["count"]),
    "sum": lambda step, _shape, _kind: math.sqrt(step.options["count"]) * _ROUNDING,
    "extremum": lambda _step, _shape, _kind: 1.0,
    "rearrange": lambda step, _shape, _kind: _root(step.options["repeats"]),
    # I - 1 p^T is a projection, of norm ||1|| ||p|| <= sqrt(classes).
    "log_softmax": lambda step, _shape, _kind: math.sqrt(step.options["count"]) * _ROUNDING,
}
