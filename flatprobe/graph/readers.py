"""Readers that turn operations of torch into steps, by name."""

from typing import Any

import torch
from torch import Tensor

from flatprobe.graph.entrywise import ENTRYWISE
from flatprobe.graph.values import OTHER, Arguments, Parts, Reader, Value, constant, dimensions, fit_constant

REARRANGE: Parts = ("rearrange", {}, {})


def read(name: str, arguments: Arguments) -> Parts:
    """Kind, tensors and options of an operation.

    The name has neither overload nor trailing underscore. Constant arguments are tensors in float64 or Python objects;
    arguments that depend on the input are `Value` objects.
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
        if any(value % 2 for value in total):  # The padding is asymmetric.
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


def _sum(sign: int) -> Reader:
    def reader(a: Arguments) -> Parts:
        factor = sign * a.get("alpha", 1)
        if isinstance(a["self"], Value) and isinstance(a["other"], Value):
            same = a["self"].shape == a["other"].shape
            return ("add", {}, {"factors": (1.0, float(factor))}) if same else OTHER
        if isinstance(a["self"], Value):
            return _affine(a["self"], 1.0, constant(a["other"]) * factor)
        return _affine(a["other"], float(factor), constant(a["self"]))

    return reader


def _reverse_subtract(a: Arguments) -> Parts:
    """Reverse subtraction other - alpha self, such as `1 - x`."""
    return _sum(-1)({"self": a["other"], "other": a["self"], "alpha": a.get("alpha", 1)})


def _multiply(a: Arguments) -> Parts:
    first, second = a["self"], a["other"]
    if isinstance(first, Value) and isinstance(second, Value):
        return OTHER
    return _affine(first, constant(second), 0.0) if isinstance(first, Value) else _affine(second, constant(first), 0.0)


def _divide(a: Arguments) -> Parts:
    if not isinstance(a["self"], Value) or isinstance(a["other"], Value) or a.get("rounding_mode") is not None:
        return OTHER
    return _affine(a["self"], 1 / constant(a["other"]), 0.0)


def _affine(value: Value, scale: Tensor | float, shift: Tensor | float) -> Parts:
    factor, offset = fit_constant(scale, value), fit_constant(shift, value)
    if factor is None or offset is None:
        return OTHER
    return "affine", {"scale": factor, "shift": offset, "magnitude": offset.abs()}, {}


def _pool(kind: str, dimensions: int) -> Reader:
    def reader(a: Arguments) -> Parts:
        if len(_pooled_value(a).shape) != dimensions + 1:  # Without channels, torch takes the samples for channels.
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


def _adaptive(kind: str, dimensions: int) -> Reader:
    return lambda a: (kind, {}, {}) if len(_pooled_value(a).shape) == dimensions + 1 else OTHER


def _pooled_value(a: Arguments) -> Value:
    value: Value = a["self"] if "self" in a else a["input"]
    return value


def _average(kind: str) -> Reader:
    """Reader of a mean or a sum over dimensions of one sample."""

    def reader(a: Arguments) -> Parts:
        count = 1
        for dim in dimensions(a):
            count *= a["self"].shape[dim]
        return (kind, {}, {"count": count}) if dimensions(a) else OTHER

    return reader


def _join(stacked: bool) -> Reader:
    """Reader of a concatenation or stack within each sample."""

    def reader(a: Arguments) -> Parts:
        values = a["tensors"]
        if not all(isinstance(value, Value) for value in values):
            return OTHER
        rank = len(values[0].shape) + 1
        along = a.get("dim", min(rank - 1, 1))  # hstack has none
        return OTHER if along in {0, -rank - stacked} else ("concatenate", {}, {})

    return reader


def _log_softmax(a: Arguments) -> Parts:
    dims = dimensions(a)
    return ("log_softmax", {}, {"count": a["self"].shape[dims[0]]}) if dims else OTHER


def _move(_a: Arguments) -> Parts:
    return REARRANGE


def _pad(a: Arguments) -> Parts:
    return REARRANGE if a.get("mode", "constant") == "constant" and not a["value"] else OTHER


def _dropout(a: Arguments) -> Parts:
    return OTHER if a["train"] else REARRANGE


def _tensors(**tensors: Tensor | None) -> dict[str, Tensor]:
    return {name: value for name, value in tensors.items() if value is not None}


def _tuple(value: Any, like: Any) -> tuple[int, ...]:
    given = tuple(value) if isinstance(value, list | tuple) else (value,)
    return given if len(given) == len(like) else given * len(like)


def _masked_fill(a: Arguments) -> Parts:
    return OTHER if isinstance(a["mask"], Value) or isinstance(a["value"], Value) or bool(a["value"]) else REARRANGE


# Operations that move, repeat or drop entries and change none; `trace` counts the repetitions.
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
    "moveaxis",
    "swapaxes",
    "swapdims",
    "ravel",
    "mT",
    "adjoint",
    "numpy_T",
    "identity",
    "narrow",
    "chunk",
    "split",
    "split_with_sizes",
    "unsafe_chunk",
    "unsafe_split",
    "tensor_split",
    "hsplit",
    "vsplit",
    "dsplit",
    "unbind",
    "flip",
    "fliplr",
    "flipud",
    "rot90",
    "roll",
    "channel_shuffle",
    "native_channel_shuffle",
    "pixel_shuffle",
    "pixel_unshuffle",
    "index",
    "index_select",
    "gather",
    "expand",
    "repeat",
    "tile",
    "repeat_interleave",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "im2col",
)
READERS: dict[str, Reader] = {
    "linear": _linear,
    "matmul": _product,
    "mm": _product,
    "addmm": _addmm,
    **{f"conv{d}d": _convolution for d in (1, 2, 3)},
    "batch_norm": _batch_norm,
    "add": _sum(1),
    **dict.fromkeys(("sub", "subtract"), _sum(-1)),
    "rsub": _reverse_subtract,
    **dict.fromkeys(("mul", "multiply"), _multiply),
    **dict.fromkeys(("div", "divide", "true_divide"), _divide),
    **dict.fromkeys(("neg", "negative"), lambda a: _affine(a["self"], -1.0, 0.0)),
    **dict.fromkeys(("cat", "concat", "concatenate", "hstack"), _join(stacked=False)),
    "stack": _join(stacked=True),
    "mean": _average("mean"),
    "sum": _average("sum"),
    "log_softmax": _log_softmax,
    **{f"max_pool{d}d": _pool("max_pool", d) for d in (1, 2, 3)},
    **{f"avg_pool{d}d": _pool("average_pool", d) for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": _adaptive("adaptive_max_pool", d) for d in (1, 2, 3)},
    **{f"adaptive_avg_pool{d}d": _adaptive("adaptive_average_pool", d) for d in (1, 2, 3)},
    **dict.fromkeys(_MOVES, _move),
    "pad": _pad,
    "constant_pad_nd": _pad,
    "masked_fill": _masked_fill,
    **dict.fromkeys(("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), _dropout),
    **ENTRYWISE,
}
