"""Recorder of the layers in a forward pass, with replacements for some of torch's kernels."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from flatprobe.graph.operators.geometry import Geometry
from flatprobe.network.parametrized import holder_of
from flatprobe.training.forward.batch_norm import Statistics
from flatprobe.training.forward.convolution import convolve
from flatprobe.training.forward.layers import Layer
from flatprobe.training.forward.pool import max_pool
from flatprobe.training.forward.provenance import Origins, tensors
from flatprobe.training.forward.relu import rectify
from flatprobe.utils.plain_functions import plain_form

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_OURS = (F.linear, F.batch_norm, F.max_pool2d, *_CONVOLUTIONS)
_RELUS = (F.relu, torch.relu, Tensor.relu)

# Functions that are linear in each operand: with a weight as operand, each is a layer of unknown adjoint.
_PRODUCTS = frozenset(
    (
        "matmul",
        "__matmul__",
        "__rmatmul__",
        "mm",
        "addmm",
        "addmm_",
        "bmm",
        "addbmm",
        "addbmm_",
        "baddbmm",
        "baddbmm_",
        "mv",
        "addmv",
        "addmv_",
        "inner",
        "linalg_matmul",
        "linalg_multi_dot",
        "chain_matmul",
        "einsum",
        "tensordot",
        "linalg_solve",
        "linalg_solve_triangular",
        "bilinear",
        "embedding",
        "embedding_bag",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "conv_tbc",
        "lstm",
        "gru",
        "rnn_tanh",
        "rnn_relu",
        "lstm_cell",
        "gru_cell",
        "rnn_tanh_cell",
        "rnn_relu_cell",
        "multi_head_attention_forward",
        "scaled_dot_product_attention",
    )
)


class Recorder(TorchFunctionMode):
    """Mode that runs torch's functions, records the layers, and gives BatchNorm its statistics.

    Args:
        layers: all modules of the network by name.
        statistics: the BatchNorm statistics of the pass.
    """

    def __init__(self, layers: Mapping[str, nn.Module], statistics: Statistics) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self._modules, self._origins, self._statistics = layers, Origins(layers), statistics
        self._last_relu: tuple[Tensor, Tensor, tuple[int, int], Node] | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name, given = getattr(func, "__name__", ""), (*args, *kwargs.values())
        origin = self._origins.common(name, given)
        if origin is None and name in _PRODUCTS:
            self._note_product(name, given)
        result = self._result(func, args, kwargs)
        if origin is not None:  # A function of weights and constants alone computes a weight.
            self._origins.mark((*given, result), origin)
        return result

    def _result(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # Under torch.vmap and other transforms only torch's functions work.
        if torch._C._functorch.peek_interpreter_stack() is not None:  # noqa: SLF001
            return func(*args, **kwargs)
        if func in _OURS:
            kwargs = {"inputs" if name == "input" else name: value for name, value in kwargs.items()}
        if func is F.linear:
            return self._linear(*args, **kwargs)
        if func in _CONVOLUTIONS:
            return self._convolution(func, *args, **kwargs)
        if func in _RELUS and not kwargs.get("inplace", len(args) > 1 and args[1]):
            return self._rectify(args[0] if args else kwargs["input"])
        if func is F.max_pool2d:
            return self._pool(func, *args, **kwargs)
        if func is F.batch_norm:
            return self._statistics.normalize(*args, **kwargs)
        return plain_form(func)(*args, **kwargs)

    def _rectify(self, inputs: Tensor) -> Tensor:
        outputs = rectify(inputs)
        node = outputs.grad_fn
        self._last_relu = None if node is None else (inputs, outputs, _versions(inputs, outputs), node)
        return outputs

    def _pool(
        self,
        func: Callable[..., Any],
        inputs: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        """Max pooling, exchanged with a ReLU before it: the same function, with a smaller ReLU.

        A positive maximum of a window is at the same place in both orders. Elsewhere the gradient is 0 in both.
        """
        if return_indices:
            return func(inputs, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        window = kernel_size, [] if stride is None else stride, padding, dilation, ceil_mode
        if self._last_relu is not None and inputs is self._last_relu[1]:
            before, after, versions, node = self._last_relu
            hooked = after.retains_grad or after._backward_hooks  # noqa: SLF001
            if after.grad_fn is node and not hooked and versions == _versions(before, after):
                return rectify(max_pool(before, *window), private=True)
        return max_pool(inputs, *window)

    def _linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        alias, source = _alias(inputs)
        outputs = F.linear(alias, weight, bias)
        self._note("linear", weight, "linear", inputs, outputs, source)
        return outputs

    def _convolution(
        self,
        func: Callable[..., Tensor],
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        axes = weight.ndim - 2
        steps, apart = _each(stride, axes), _each(dilation, axes)
        sides = _padding(padding, weight.shape[2:], apart)
        mixed = torch.is_autocast_enabled(inputs.device.type)  # Torch's function casts the weights then.
        # Unequal padding on the two sides, and a sample without batch axis, have no geometry.
        if sides is None or inputs.ndim != weight.ndim or mixed:
            outputs = func(inputs, weight, bias, stride, padding, dilation, groups)
            self._note("unknown", weight, func.__name__, inputs, outputs)
            return outputs
        alias, source = _alias(inputs)
        geometry = Geometry(tuple(inputs.shape[2:]), tuple(weight.shape), steps, sides, apart, groups)
        outputs = convolve(alias, weight, bias, geometry, self._statistics.flag)
        self._note("convolution", weight, "convolution", inputs, outputs, source, geometry)
        return outputs

    def _padded(self, name: str) -> bool:
        """True if the convolution of this weight pads its inputs with other values than zeros."""
        holder = self._modules[holder_of(name)]
        return getattr(holder, "padding_mode", "zeros") != "zeros"

    def _note_product(self, operation: str, given: Iterable[Any]) -> None:
        """Record each weight of two or more axes in a product."""
        for value in tensors(given):
            if value.ndim >= 2 and self._origins.of(value):
                self._note("unknown", value, operation)

    def _note(
        self,
        kind: str,
        weight: Tensor,
        operation: str,
        inputs: Tensor | None = None,
        outputs: Tensor | None = None,
        source: GradientEdge | None = None,
        geometry: Geometry | None = None,
    ) -> None:
        of = self._origins.of(weight)
        name = (of or operation).removesuffix(".weight")
        padded = kind == "convolution" and bool(of) and self._padded(str(of))
        taken, given = (() if value is None else tuple(value.shape) for value in (inputs, outputs))
        target = None if outputs is None else _edge_of(outputs)
        self.layers.append(Layer(name, kind, weight, taken, given, geometry, source, target, padded))


def _alias(inputs: Tensor) -> tuple[Tensor, GradientEdge | None]:
    """An alias for the layer alone, whose gradient therefore does not include that of a skip connection."""
    if not (inputs.requires_grad and torch.is_grad_enabled()):
        return inputs, None
    # `view` would change the strides, which tell the layout of a one-channel image.
    alias = torch.ops.aten.alias(inputs)
    return alias, get_gradient_edge(alias)


def _edge_of(outputs: Tensor) -> GradientEdge | None:
    # The edge and not the tensor, in whose place an in-place ReLU puts another node.
    return get_gradient_edge(outputs) if outputs.requires_grad else None


def _versions(first: Tensor, second: Tensor) -> tuple[int, int]:
    """Counters that change when a tensor is written to."""
    return first._version, second._version  # noqa: SLF001


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) and len(value) == axes else axes * (int(_first(value)),)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple | list) else value


def _padding(padding: Any, kernel: Iterable[int], dilation: tuple[int, ...]) -> tuple[int, ...] | None:
    """Zeros on each side; None if `"same"` pads the two sides differently."""
    if padding == "valid":
        return (0,) * len(dilation)
    if padding == "same":
        total = [apart * (size - 1) for apart, size in zip(dilation, kernel, strict=True)]
        return None if any(width % 2 for width in total) else tuple(width // 2 for width in total)
    return _each(padding, len(dilation))
