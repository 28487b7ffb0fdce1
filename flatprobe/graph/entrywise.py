"""Readers of entrywise operations, maxima and minima."""

from typing import Any

from torch import Tensor

from flatprobe.graph.values import OTHER, Arguments, Parts, Reader, Value, constant, dimensions, fit_constant

# Activations whose Lipschitz constant depends on no parameter.
_PLAIN = (
    "relu",
    "relu6",
    "hardtanh",
    "tanh",
    "sigmoid",
    "silu",
    "mish",
    "hardswish",
    "selu",
    "hardsigmoid",
    "log_sigmoid",
    "softshrink",
    "erf",
    "atan",
    "arctan",
    "asinh",
    "arcsinh",
    "sin",
    "cos",
    "abs",
    "absolute",
)


def _activation(name: str, *parameters: str) -> Reader:
    return lambda a: ("activation", {}, {"name": name} | {parameter: a[parameter] for parameter in parameters})


def _clamp(a: Arguments) -> Parts:
    """Clamping to bounds that do not depend on the input."""
    bounds = [a[name] for name in ("min", "max", "other") if a.get(name) is not None]
    if not isinstance(a["self"], Value) or any(fit_constant(bound, a["self"]) is None for bound in bounds):
        return OTHER
    return "activation", {}, {"name": "clamp"}


def _larger(a: Arguments) -> Parts:
    """Reader of a maximum or minimum: of two values, or over dimensions."""
    if a.get("dim") is not None:
        dims = dimensions(a)
        return ("extremum", {}, {"dims": dims, "keepdim": a["keepdim"]}) if dims else OTHER
    first, second = a["self"], a.get("other")
    if second is None:
        return OTHER
    if isinstance(first, Value) and isinstance(second, Value):
        return ("larger", {}, {}) if first.shape == second.shape else OTHER
    return _clamp(a) if isinstance(first, Value) else _clamp({"self": second, "other": first})


def _prelu(a: Arguments) -> Parts:
    slope: Any = a["weight"]
    if not isinstance(a["self"], Value) or not isinstance(slope, Tensor):
        return OTHER
    return "activation", {}, {"name": "leaky_relu", "negative_slope": float(constant(slope).abs().max())}


def _rrelu(a: Arguments) -> Parts:
    if a["training"]:
        return OTHER
    return "activation", {}, {"name": "leaky_relu", "negative_slope": (a["lower"] + a["upper"]) / 2}


ENTRYWISE: dict[str, Reader] = {
    **{name: _activation(name) for name in _PLAIN},
    "gelu": _activation("gelu", "approximate"),
    "leaky_relu": _activation("leaky_relu", "negative_slope"),
    "elu": _activation("elu", "alpha", "scale", "input_scale"),
    "celu": _activation("celu", "alpha"),
    "softplus": _activation("softplus", "beta", "threshold"),
    "threshold": _activation("threshold", "threshold", "value"),
    "prelu": _prelu,
    "rrelu": _rrelu,
    **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max"), _clamp),
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin", "max", "min", "amax", "amin"), _larger),
}
