"""What torch's operations are as steps: a table from their names to readers of their arguments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flatprobe.graph.steps import broadcast

Parts = tuple[str, dict[str, Tensor], dict[str, Any]]
Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """An argument that depends on the network's input.

    Attributes:
        index: its step.
        shape: of one sample.
    """

    index: int
    shape: tuple[int, ...]


OTHER: Parts = ("other", {}, {})
REARRANGE: Parts = ("rearrange", {}, {})


def read(name: str, arguments: Arguments) -> Parts:
    """Kind, tensors and options of an operation, by its name without overload and trailing underscore.

    Its constant arguments are tensors in float64 or plain Python; those that depend on the input are `Value`s.
    """
    reader = READERS.get(name)
    return reader(arguments) if reader else OTHER


def _linear(a: Arguments) -> Parts:
    if not isinstance(a["input"], Value) or not isinstance(a["weight"], Tensor):
        return OTHER
    return "linear", _tensors(weight=a["weight"], bias=a["bias"]), {}


def _product(a: Arguments) -> Parts:
    first, second = a["self"], a.get("other", a.get("mat2"))
    if isinstance(first, Value) and isinstance(second, Tensor) and second.ndim == 2:
        return "linear", {"weight": second.mT.contiguous()}, {}
    return OTHER


def _addmm(a: Arguments) -> Parts:
    bias, matrix = a["self"], a["mat2"]
    plain = a.get("beta", 1) == 1 and a.get("alpha", 1) == 1
    if isinstance(a["mat1"], Value) and isinstance(matrix, Tensor) and isinstance(bias, Tensor) and plain:
        return "linear", {"weight": matrix.mT.contiguous(), "bias": bias.expand(matrix.shape[1])}, {}
    return OTHER


def _convolution(a: Arguments) -> Parts:
    weight = a["weight"]
    if not isinstance(a["input"], Value) or not isinstance(weight, Tensor):
        return OTHER
    kernel = tuple(weight.shape[2:])
    dilation, stride = _tuple(a["dilation"], kernel), _tuple(a["stride"], kernel)
    if isinstance(a["padding"], str):
        total = [d * (k - 1) if a["padding"] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        if any(value % 2 for value in total):  # padded on one side more than on the other
            return OTHER
        padding = tuple(value // 2 for value in total)
    else:
        padding = _tuple(a["padding"], kernel)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": a["groups"]}
    return "convolution", _tensors(weight=weight, bias=a["bias"]), options


def _batch_norm(a: Arguments) -> Parts:
    mean, variance = a["running_mean"], a["running_var"]
    if a["training"] or not isinstance(mean, Tensor):
        return OTHER
    scale = (variance + a["eps"]).rsqrt() * (1 if a["weight"] is None else a["weight"])
    bias = torch.zeros_like(mean) if a["bias"] is None else a["bias"]
    shape = (-1,) + (1,) * (len(a["input"].shape) - 1)
    shift, magnitude = bias - scale * mean, bias.abs() + (scale * mean).abs()
    return "affine", {k: v.view(shape) for k, v in _tensors(scale=scale, shift=shift, magnitude=magnitude).items()}, {}


def _sum(sign: int) -> Callable[[Arguments], Parts]:
    def reader(a: Arguments) -> Parts:
        factor = sign * a.get("alpha", 1)
        if isinstance(a["self"], Value) and isinstance(a["other"], Value):
            same = a["self"].shape == a["other"].shape
            return ("add", {}, {"factors": (1.0, float(factor))}) if same else OTHER
        if isinstance(a["self"], Value):
            return _affine(a["self"], 1.0, _constant(a["other"]) * factor)
        return _affine(a["other"], float(factor), _constant(a["self"]))

    return reader


def _multiplied(a: Arguments) -> Parts:
    first, second = a["self"], a["other"]
    if isinstance(first, Value) and isinstance(second, Value):
        return OTHER
    return (
        _affine(first, _constant(second), 0.0) if isinstance(first, Value) else _affine(second, _constant(first), 0.0)
    )


def _divided(a: Arguments) -> Parts:
    if not isinstance(a["self"], Value) or isinstance(a["other"], Value) or a.get("rounding_mode") is not None:
        return OTHER
    return _affine(a["self"], 1 / _constant(a["other"]), 0.0)


def _affine(value: Value, scale: Tensor | float, shift: Tensor | float) -> Parts:
    factors = [broadcast(_constant(part), value.shape) for part in (scale, shift)]
    if factors[0] is None or factors[1] is None:
        return OTHER
    if any(
        size not in {1, own}
        for part in factors
        if part is not None
        for size, own in zip(part.shape, value.shape, strict=True)
    ):
        return OTHER  # the value would be repeated
    return "affine", {"scale": factors[0], "shift": factors[1], "magnitude": factors[1].abs()}, {}


def _constant(value: Any) -> Tensor:
    return (
        value.double() if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64, device="cpu")
    )


def _activation(name: str, *parameters: str) -> Callable[[Arguments], Parts]:
    return lambda a: ("activation", {}, {"name": name} | {parameter: a[parameter] for parameter in parameters})


def _pool(kind: str, dimensions: int) -> Callable[[Arguments], Parts]:
    def reader(a: Arguments) -> Parts:
        if len(_pooled(a).shape) != dimensions + 1:  # without channels torch takes the samples for them
            return OTHER
        kernel = _tuple(a["kernel_size"], range(dimensions))
        options: dict[str, Any] = {
            "kernel": kernel,
            "stride": _tuple(a["stride"] or kernel, kernel),
            "padding": _tuple(a["padding"], kernel),
            "ceil_mode": a["ceil_mode"],
        }
        if kind == "max_pool":
            options["dilation"] = _tuple(a["dilation"], kernel)
        else:
            options |= {"count_include_pad": a["count_include_pad"], "divisor_override": a.get("divisor_override")}
        return kind, {}, options

    return reader


def _adaptive(kind: str, dimensions: int) -> Callable[[Arguments], Parts]:
    return lambda a: (kind, {}, {}) if len(_pooled(a).shape) == dimensions + 1 else OTHER


def _pooled(a: Arguments) -> Value:
    value: Value = a["self"] if "self" in a else a["input"]
    return value


def _mean(a: Arguments) -> Parts:
    shape = a["self"].shape
    dims = [dim % (len(shape) + 1) for dim in (a["dim"] or ())]
    if not dims or 0 in dims:  # over the samples
        return OTHER
    count = 1
    for dim in dims:
        count *= shape[dim - 1]
    return "mean", {}, {"count": count}


def _concatenated(a: Arguments) -> Parts:
    values = a["tensors"]
    along_samples = a["dim"] in {0, -len(values[0].shape) - 1} if isinstance(values[0], Value) else True
    return OTHER if along_samples or not all(isinstance(v, Value) for v in values) else ("concatenate", {}, {})


def _moved(_a: Arguments) -> Parts:
    return REARRANGE


def _padded(a: Arguments) -> Parts:
    return REARRANGE if a.get("mode", "constant") == "constant" and not a["value"] else OTHER


def _dropped(a: Arguments) -> Parts:
    return OTHER if a["train"] else REARRANGE


def _tensors(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if value is not None}


def _tuple(value: Any, like: Any) -> tuple[int, ...]:
    given = tuple(value) if isinstance(value, list | tuple) else (value,)
    return given if len(given) == len(like) else given * len(like)


# Entries moved or left out, none changed.
_MOVES = (
    "view",
    "reshape",
    "flatten",
    "unflatten",
    "permute",
    "transpose",
    "squeeze",
    "unsqueeze",
    "contiguous",
    "clone",
    "alias",
    "detach",
    "to",
    "_to_copy",
    "slice",
    "select",
    "movedim",
    "numpy_T",
    "identity",
)
READERS: dict[str, Callable[[Arguments], Parts]] = {
    "linear": _linear,
    "matmul": _product,
    "mm": _product,
    "addmm": _addmm,
    **{f"conv{d}d": _convolution for d in (1, 2, 3)},
    "batch_norm": _batch_norm,
    "add": _sum(1),
    "sub": _sum(-1),
    "mul": _multiplied,
    "div": _divided,
    "neg": lambda a: _affine(a["self"], -1.0, 0.0),
    "cat": _concatenated,
    "mean": _mean,
    **{f"max_pool{d}d": _pool("max_pool", d) for d in (1, 2, 3)},
    **{f"avg_pool{d}d": _pool("average_pool", d) for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": _adaptive("adaptive_max_pool", d) for d in (1, 2, 3)},
    **{f"adaptive_avg_pool{d}d": _adaptive("adaptive_average_pool", d) for d in (1, 2, 3)},
    **dict.fromkeys(_MOVES, _moved),
    "pad": _padded,
    "constant_pad_nd": _padded,
    "dropout": _dropped,
    "feature_dropout": _dropped,
    **{name: _activation(name) for name in ("relu", "relu6", "tanh", "sigmoid", "silu", "mish", "hardswish", "selu")},
    "gelu": _activation("gelu", "approximate"),
    "leaky_relu": _activation("leaky_relu", "negative_slope"),
    "elu": _activation("elu", "alpha", "scale", "input_scale"),
    "celu": _activation("celu", "alpha"),
    "hardtanh": _activation("hardtanh"),
}
