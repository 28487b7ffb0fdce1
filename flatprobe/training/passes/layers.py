"""The layers that a forward pass applies, seen from outside: linear maps, convolutions, BatchNorm statistics."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from flatprobe.training.passes.convolution import Geometry, convolved
from flatprobe.training.passes.relu import rectified
from flatprobe.training.passes.statistics import Statistics

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_OURS = (F.linear, F.batch_norm, *_CONVOLUTIONS)
_RELUS = (F.relu, torch.relu, Tensor.relu)
_ENTRYWISE = (F.layer_norm, F.group_norm, F.instance_norm, F.rms_norm, F.prelu)

# Torch's own that layers with other parameters come down to, beside the functions of torch.nn.functional.
_OPERATIONS = frozenset(
    (
        "embedding",
        "matmul",
        "__matmul__",
        "mm",
        "addmm",
        "bmm",
        "baddbmm",
        "mv",
        "einsum",
        "tensordot",
        "bilinear",
        "lstm",
        "gru",
        "rnn_tanh",
        "rnn_relu",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
    )
)


@dataclass(frozen=True)
class Layer:
    """A linear layer or a convolution as one pass applied it: zhat = W x + b.

    Attributes:
        name: of its weight among the module's parameters, without the last part (`"features.0"`); where the weight is
            no parameter (it is computed from some), what torch calls the operation.
        kind: `"linear"`, `"convolution"`, or `"unknown"` for another operation on a parameter of two or more axes.
        weight: W as it was applied.
        input_shape: of x, the samples first.
        output_shape: of zhat.
        options: the `Geometry` of a convolution, as `geometry`.
        source: where the gradient with respect to x *through this layer alone* is found; None where x is no function
            of inputs or weights that need gradients.
        target: where the gradient with respect to zhat is found; None likewise.
    """

    name: str
    kind: str
    weight: Tensor = field(repr=False)
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    options: Mapping[str, Any]
    source: GradientEdge | None = field(repr=False)
    target: GradientEdge | None = field(repr=False)

    def adjoint(self, outputs: Tensor) -> Tensor:
        """W^T y: like x, from something like zhat."""
        geometry = self._geometry
        if geometry is not None:
            return geometry.adjoint(outputs, self.weight)
        return outputs @ self.weight if self.weight.ndim == 2 else outputs[..., None] * self.weight

    def gathered(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """The gradient of <y, W x> in W, from something like x and something like zhat."""
        geometry = self._geometry
        if geometry is not None:
            return geometry.gathered(inputs, outputs)
        rows = outputs.reshape(-1, self.weight.shape[0] if self.weight.ndim == 2 else 1)
        return (rows.mT @ inputs.reshape(-1, inputs.shape[-1])).view(self.weight.shape)

    @property
    def _geometry(self) -> Geometry | None:
        return self.options.get("geometry")


def gradients_at(
    layers: Iterable[Layer], of: Tensor, along: Tensor | None, *, create_graph: bool
) -> list[tuple[Layer, Tensor, Tensor]]:
    """What `ForwardPass.layer_gradients` says.

    Raises:
        ValueError: for a layer of unknown kind; if there is no other.
    """
    unknown = next((layer.name for layer in layers if layer.kind == "unknown"), None)
    if unknown is not None:
        msg = (
            f"the layer of {unknown!r} is neither linear nor a convolution of one to three dimensions with equal "
            "padding on either side; expected such layers alone, whose adjoints are known: take a penalty on the whole "
            "network instead, such as jacobian_frobenius"
        )
        raise ValueError(msg)
    reached = [layer for layer in layers if layer.target is not None]
    if not reached:
        msg = (
            "the network has no linear layer and no convolution that gradients pass; expected one: take a penalty on "
            "the whole network instead, such as jacobian_frobenius"
        )
        raise ValueError(msg)
    edges = [edge for layer in reached for edge in (layer.target, layer.source) if edge is not None]
    along = torch.ones_like(of) if along is None else along
    values = torch.autograd.grad(of, edges, along, create_graph=create_graph, retain_graph=True, allow_unused=True)
    at = dict(zip(map(id, edges), values, strict=True))
    found = []
    for layer in reached:
        outputs = at[id(layer.target)]
        if outputs is not None:  # of a layer that only another output depends on there is none
            inputs = layer.adjoint(outputs) if layer.source is None else at[id(layer.source)]
            found.append((layer, inputs, outputs))
    return found


class Watch(TorchFunctionMode):
    """Runs torch's functions as they are, notes the layers, and has BatchNorm take its statistics from `statistics`.

    Args:
        names: of the module's parameters, by `id`.
        statistics: of this pass.
    """

    def __init__(self, names: Mapping[int, str], statistics: Statistics) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self._names, self._statistics = names, statistics
        self._last_relu: tuple[Tensor, Tensor, tuple[int, int]] | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        # Within torch.vmap or another transform torch's own functions are needed.
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
        if func is F.max_pool2d and args and len(args) < 7 and not kwargs.get("return_indices"):
            return self._pool(*args, **kwargs)
        if func is F.batch_norm:
            return self._statistics.normalise(*args, **kwargs)
        if func not in _ENTRYWISE and _computes(func):
            for value in _parameters((*args, *kwargs.values())):
                self._note("unknown", value, getattr(func, "__name__", str(func)), (), (), {}, None, None)
        return func(*args, **kwargs)

    def _rectify(self, inputs: Tensor) -> Tensor:
        outputs = rectified(inputs)
        self._last_relu = inputs, outputs, _versions(inputs, outputs)
        return outputs

    def _pool(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Max pooling; behind a ReLU it goes before it, which is the same function, and the ReLU's a smaller one.

        Where a window's maximum is positive it is at the same place, and elsewhere the gradient is 0 either way.
        """
        if self._last_relu is not None:
            before, after, versions = self._last_relu
            if inputs is after and versions == _versions(before, after):
                return rectified(F.max_pool2d(before, *args, **kwargs))
        outputs: Tensor = F.max_pool2d(inputs, *args, **kwargs)
        return outputs

    def _linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        alias, source = _own(inputs)
        outputs = F.linear(alias, weight, bias)
        self._note("linear", weight, "linear", inputs.shape, outputs.shape, {}, source, _edge(outputs))
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
        mixed = torch.is_autocast_enabled(inputs.device.type)  # then torch's own casts the weights
        # Another padding on the two sides, or a sample alone, has no geometry either.
        if sides is None or inputs.ndim != weight.ndim or mixed:
            outputs = func(inputs, weight, bias, stride, padding, dilation, groups)
            self._note("unknown", weight, func.__name__, inputs.shape, outputs.shape, {}, None, None)
            return outputs
        alias, source = _own(inputs)
        geometry = Geometry(steps, sides, apart, groups, inputs.shape, weight.shape)
        outputs = convolved(alias, weight, bias, geometry, self._statistics.flag)
        options = {"geometry": geometry}
        self._note("convolution", weight, "convolution", inputs.shape, outputs.shape, options, source, _edge(outputs))
        return outputs

    def _note(
        self,
        kind: str,
        weight: Tensor,
        operation: str,
        input_shape: Iterable[int],
        output_shape: Iterable[int],
        options: Mapping[str, Any],
        source: GradientEdge | None,
        target: GradientEdge | None,
    ) -> None:
        name = self._names.get(id(weight), operation).removesuffix(".weight")
        shapes = tuple(input_shape), tuple(output_shape)
        self.layers.append(Layer(name, kind, weight, *shapes, options, source, target))


def _parameters(values: Iterable[Any]) -> Iterator[nn.Parameter]:
    """Those of two or more axes among the arguments of a function, transposed or not; recurrent layers have a list."""
    for value in values:
        if isinstance(value, Tensor):
            owner = value if value._base is None else value._base  # noqa: SLF001
            if isinstance(owner, nn.Parameter) and owner.ndim >= 2:
                yield owner
        elif isinstance(value, list | tuple):
            yield from _parameters(value)


def _computes(func: Callable[..., Any]) -> bool:
    """Whether it is a layer's operation, and not a look at a tensor (its shape, its device), a cast or a move."""
    name = getattr(func, "__name__", "")
    return name in _OPERATIONS or getattr(func, "__module__", "") == "torch.nn.functional"


def _own(inputs: Tensor) -> tuple[Tensor, GradientEdge | None]:
    """An alias that only the layer takes: the gradient there comes through the layer alone, not through its skip."""
    if not (inputs.requires_grad and torch.is_grad_enabled()):
        return inputs, None
    # A view as such would write the strides anew, which tell a one-channel image's layout.
    alias = torch.ops.aten.alias(inputs)
    return alias, get_gradient_edge(alias)


def _edge(outputs: Tensor) -> GradientEdge | None:
    # The place in the graph and not the tensor: a ReLU that works in place would put another one there.
    return get_gradient_edge(outputs) if outputs.requires_grad else None


def _versions(first: Tensor, second: Tensor) -> tuple[int, int]:
    """What changes when a tensor is written to."""
    return first._version, second._version  # noqa: SLF001


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) and len(value) == axes else axes * (int(_first(value)),)


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple | list) else value


def _padding(padding: Any, kernel: Iterable[int], dilation: tuple[int, ...]) -> tuple[int, ...] | None:
    """Zeros on either side; None where `"same"` pads the two sides differently."""
    if padding == "valid":
        return (0,) * len(dilation)
    if padding == "same":
        total = [apart * (size - 1) for apart, size in zip(dilation, kernel, strict=True)]
        return None if any(width % 2 for width in total) else tuple(width // 2 for width in total)
    return _each(padding, len(dilation))
