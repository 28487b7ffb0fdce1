"""From a module to its steps, by `torch.export`."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from flatprobe.graph.readers import OTHER, Value, read
from flatprobe.graph.steps import Graph, Step, doubled

# Two samples, since torch.export takes a dimension of size 1 for a constant that squeezes may drop.
_SAMPLES = 2


def trace(module: nn.Module, input_shape: Sequence[int]) -> Graph:
    """The operations that a classifier in eval mode applies to its input, with its weights in float64.

    `torch.export` runs the module once on two fake samples that hold no numbers and writes down torch's operations.
    Whatever does not depend on the input (weights, their transposes, constants) is computed.

    Args:
        module: a classifier in eval mode that takes one tensor; never changed.
        input_shape: of one sample.

    Returns:
        The steps, the last of which is the logits.

    Raises:
        ValueError: if it cannot be traced (its code depends on the inputs' values, say) or returns anything but one
            tensor of logits.
    """
    anchor = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    example = torch.zeros((_SAMPLES, *input_shape), dtype=anchor.dtype, device=anchor.device)
    name = type(module).__name__
    try:
        program = torch.export.export(module, (example,), strict=False)
    except Exception as error:  # whatever the module's own code raises under the tracer
        msg = (
            f"{name} cannot be traced on inputs of shape {tuple(input_shape)} ({_first_line(error)}); expected a "
            "network of one tensor whose operations do not depend on the inputs' values"
        )
        raise ValueError(msg) from error
    signature = program.graph_signature
    known = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    state = {**program.state_dict, **program.constants}
    reader = _Reader(name)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            target = known.get(node.name) or signature.inputs_to_lifted_tensor_constants.get(node.name)
            reader.place(node, None if target is None else doubled(state[target]))
        elif node.op == "call_function":
            reader.call(node)
    return reader.graph(next(iter(reversed(program.graph.nodes))))


class _Reader:
    """Steps so far, and what each node of the trace is: a constant, or a step's value."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.steps: list[Step] = []
        self.values: dict[fx.Node, Any] = {}
        self.stale: set[int] = set()  # steps whose value was changed through a view of it

    def place(self, node: fx.Node, constant: Tensor | None) -> None:
        """A weight or a buffer; or the network's input."""
        if constant is not None:
            self.values[node] = constant
            return
        shape = tuple(node.meta["val"].shape[1:])
        self.values[node] = Value(len(self.steps), shape)
        self.steps.append(Step("input", (), "", "input", shape, lambda value: value))

    def call(self, node: fx.Node) -> None:
        """An operation: a constant where its arguments are, else a step."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.values.__getitem__)
        found = _values_in((args, kwargs))
        if not found:
            with torch.no_grad():
                target: Any = node.target
                self.values[node] = target(*args, **_on_cpu(kwargs))
            return
        if node.target is operator.getitem:  # the maxima of a pool that returns their places too
            self.values[node] = args[0] if args[1] == 0 else None
            return
        self._check_fresh(found)
        self.values[node] = value = self._step(node, args, kwargs, found)
        if str(node.target).split(".")[1].endswith("_") and isinstance(node.args[0], fx.Node):
            self._overwritten(node.args[0], value)

    def _step(self, node: fx.Node, args: Any, kwargs: Any, found: list[Value]) -> Value:
        operation = str(node.target)
        parts = operation.split(".")
        result = node.meta["val"]
        shape = tuple((result[0] if isinstance(result, tuple | list) else result).shape)
        name = parts[1].rstrip("_") if len(parts) > 1 else operation
        known = shape[:1] == (_SAMPLES,) and parts[0] == "aten"
        kind, tensors, options = read(name, _bound(node, args, kwargs)) if known else OTHER
        sources = tuple(value.index for value in found)
        step = Step(kind, sources, _layer(node), operation, shape[1:], _replay(node, args, kwargs), tensors, options)
        self.steps.append(step)
        return Value(len(self.steps) - 1, step.shape)

    def _overwritten(self, node: fx.Node, value: Value) -> None:
        """Later uses of what an operation wrote to see its result; those of what it is a view of cannot."""
        index = self.values[node].index
        self.values[node] = value
        while self.steps[index].kind == "rearrange":
            (index,) = self.steps[index].sources
            self.stale.add(index)

    def _check_fresh(self, found: list[Value]) -> None:
        if any(value.index in self.stale for value in found):
            msg = (
                f"{self.network} writes in place to a view of a value that it uses again; expected operations that "
                "return new values: set inplace=False"
            )
            raise ValueError(msg)

    def graph(self, output: fx.Node) -> Graph:
        """The graph up to the logits.

        Raises:
            ValueError: if the output is no single tensor (samples, classes).
        """
        found: list[fx.Node] = []
        fx.node.map_arg(output.args, lambda node: found.append(node))
        last = self.values[found[0]] if len(found) == 1 else None
        if not isinstance(last, Value) or len(last.shape) != 1:
            msg = (
                f"{self.network} returns no single tensor of logits that depends on its input; expected "
                "(batch, classes)"
            )
            raise ValueError(msg)
        self._check_fresh([last])
        return Graph(tuple(self.steps[: last.index + 1]), self.network)


def _values_in(arguments: Any) -> list[Value]:
    found: list[Value] = []

    def look(part: Any) -> None:
        if isinstance(part, Value):
            found.append(part)

    fx.node.map_aggregate(arguments, look)
    return found


def _bound(node: fx.Node, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments by name, defaults too."""
    schema = node.target._schema.arguments  # type: ignore[union-attr] # noqa: SLF001 - torch has no public way to ask
    named = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    return named | dict(zip((argument.name for argument in schema), args, strict=False)) | dict(kwargs)


def _replay(node: fx.Node, args: Any, kwargs: Any) -> Any:
    """Values of the sources -> the operation's value, in float64."""
    target: Any = node.target

    def call(*values: Tensor) -> Tensor:
        left = iter(values)

        def put(part: Any) -> Any:
            return next(left).clone() if isinstance(part, Value) else part  # a clone, which it may write to

        given, named = fx.node.map_aggregate((args, kwargs), put)
        with torch.no_grad():
            result = target(*given, **_on_cpu(named))
        value: Tensor = result[0] if isinstance(result, tuple | list) else result
        return value

    return call


def _on_cpu(kwargs: Any) -> dict[str, Any]:
    """Keyword arguments that make or convert tensors, for float64 on the CPU."""
    own = dict(kwargs)
    if own.get("device") is not None:
        own["device"] = torch.device("cpu")
    if isinstance(own.get("dtype"), torch.dtype) and own["dtype"].is_floating_point:
        own["dtype"] = torch.float64
    return own


def _layer(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return str(next(reversed(stack.values()))[0]) if stack else ""


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
