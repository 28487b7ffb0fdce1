"""Tracing of a module into steps by `torch.export`."""

import io
import logging
import operator
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx, nn

from flatprobe.graph.readers import read
from flatprobe.graph.replay import SAMPLES, compute, count_repeats, replay
from flatprobe.graph.steps import Graph, Step, to_float64
from flatprobe.graph.values import OTHER, Value
from flatprobe.network.copies import structural_copy
from flatprobe.network.outputs import Output, select_output

# Rearranging operations that never return a view.
_COPIES = {"clone", "pad", "constant_pad_nd", "flip", "roll", "index", "index_select", "gather", "repeat"}
_COPIES |= {"cat", "concat", "concatenate", "stack", "hstack"}
# The tracers of torch patch functions of the whole process while they run.
_LOCK = threading.Lock()


def trace(module: nn.Module, input_shape: Sequence[int], output: Output = None) -> Graph:
    """Graph of the operations of a network, with weights in float64.

    `torch.export` runs the module once on two fake samples without numbers, and records the operations of torch.
    Tensors that do not depend on the input (weights, their transposes, constants) are computed.

    Args:
        module: a network in eval mode that takes one tensor; never changed.
        input_shape: the shape of one sample.
        output: the output that is followed, as in `fp.WithOutput`; None for a tensor, or `logits`.

    Returns:
        The graph, whose last step is the output.

    Raises:
        ValueError: if the module cannot be traced, for example since its code depends on the values of the inputs.
        ValueError: unless the module returns one tensor.
    """
    anchor = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0, device="cpu"))
    example = torch.zeros((SAMPLES, *input_shape), dtype=anchor.dtype, device=anchor.device)
    name = type(module).__name__
    try:
        with (
            _LOCK,
            _without_log(),
            warnings.catch_warnings(),
            redirect_stderr(_Unheard()),
            torch.inference_mode(mode=False),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")  # Torch warns of attributes that forward assigns, here those of a copy.
            own = structural_copy(module)
            own.register_forward_hook(lambda _layer, _inputs, outputs: select_output(outputs, output, module))
            own.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # views may need it
            program = torch.export.export(own, (example.clone(),), strict=False)
    except Exception as error:  # The code of the module may raise anything under the tracer.
        msg = (
            f"{name} cannot be traced on inputs of shape {tuple(input_shape)} ({_reason(error)}); expected a "
            "network of one tensor whose operations do not depend on the inputs' values"
        )
        raise ValueError(msg) from error
    signature = program.graph_signature
    known = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    state = {**program.state_dict, **program.constants}
    reader = _Reader(name, example.dtype)
    for node in program.graph.nodes:
        try:
            if node.op == "placeholder":
                target = known.get(node.name) or signature.inputs_to_lifted_tensor_constants.get(node.name)
                reader.place(node, None if target is None else to_float64(state[target]))
                if node.name in signature.inputs_to_parameters:
                    reader.weights[node] = frozenset({signature.inputs_to_parameters[node.name]})
            elif node.op == "call_function":
                reader.call(node)
        except (KeyError, TypeError, RuntimeError, AttributeError, IndexError) as error:
            msg = (
                f"{name} applies {node.target} in a way that cannot be followed ({_first_line(error)}); expected "
                "operations on one tensor after the other: look for autocast or for writing into parts of a tensor in "
                "forward"
            )
            raise ValueError(msg) from error
    return reader.graph(next(iter(reversed(program.graph.nodes))))


@contextmanager
def _without_log() -> Iterator[None]:
    """Without the traceback that torch logs of an operation that fails under the tracer; the error has its words."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


class _Unheard(io.TextIOBase):
    """Standard error without the output of this thread."""

    def __init__(self) -> None:
        self._stream, self._own = sys.stderr, threading.get_ident()

    def write(self, text: str, /) -> int:
        return len(text) if threading.get_ident() == self._own else self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


def _reason(error: Exception) -> str:
    if "data-dependent" in str(error):
        return "its forward decides by the values of a tensor: look for .item(), .tolist(), if or while in it"
    return _first_line(error)


@dataclass(frozen=True)
class _Several:
    """Values of an operation with several; each becomes a step at its use."""

    node: fx.Node
    args: Any
    kwargs: Any
    found: list[Value]


class _Reader:
    """The steps so far, and the constant or value of each node of the trace."""

    def __init__(self, network: str, dtype: torch.dtype) -> None:
        self.network = network
        self.dtype = dtype
        self.steps: list[Step] = []
        self.values: dict[fx.Node, Any] = {}
        self.weights: dict[fx.Node, frozenset[str]] = {}  # Names of the parameters behind each constant.
        self.bases: list[int] = []  # Per step, the step whose memory its value may share.
        self.stale: set[int] = set()  # Steps whose value was changed through shared memory.

    def place(self, node: fx.Node, constant: Tensor | None) -> None:
        """Place a constant, such as a weight or a buffer, or the input of the network."""
        if constant is not None:
            self.values[node] = constant
            return
        shape = tuple(node.meta["val"].shape[1:])
        self.values[node] = Value(len(self.steps), shape)
        self._append(Step("input", (), "", "input", shape, lambda value: value))

    def _append(self, step: Step) -> None:
        shares = step.kind == "rearrange" and step.operation.split(".")[1] not in _COPIES
        self.bases.append(self.bases[step.sources[0]] if shares else len(self.steps))
        self.steps.append(step)

    def call(self, node: fx.Node) -> None:
        """Add an operation: a constant if its arguments are constant, else a step."""
        args: Any
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.values.__getitem__)
        if node.meta.get("val") is None:  # The node is an assertion, say.
            self.values[node] = None
            return
        if node.target is operator.getitem and isinstance(args[0], _Several):
            several, place = args
            self._check_fresh(several.found)
            self.values[node] = self._step(several.node, several.args, several.kwargs, several.found, place)
            return
        found = _values_in((args, kwargs))
        if not found:
            self.values[node] = compute(node.target, args, kwargs)
            self.weights[node] = self._weights_of(node)
            return
        if isinstance(node.meta["val"], tuple | list):
            self.values[node] = _Several(node, args, kwargs, found)
            return
        self._check_fresh(found)
        self.values[node] = value = self._step(node, args, kwargs, found)
        name, first = str(node.target).split("."), node.args[0]  # "aten.add_.Tensor": an underscore marks a write.
        if len(name) > 1 and name[1].endswith("_") and isinstance(first, fx.Node):
            self._overwritten(first, value)

    def _step(self, node: fx.Node, args: Any, kwargs: Any, found: list[Value], place: int = 0) -> Value:
        """Add a step, for one of several values of an operation if there are several."""
        operation = str(node.target)
        parts = operation.split(".")
        result = node.meta["val"]
        first = result[place] if isinstance(result, tuple | list) else result
        shape = tuple(first.shape) if isinstance(first, Tensor) else ()
        known = shape[:1] == (SAMPLES,) and parts[0] == "aten" and first.dtype.is_floating_point
        kind, tensors, options = read(parts[1].rstrip("_"), _bound(node, args, kwargs)) if known else OTHER
        call = replay(node, args, kwargs, place)
        sources = tuple(value.index for value in found)
        if kind == "concatenate":
            kind, call, sources = self._reassembled(call, sources)
        if kind == "rearrange":
            found_most = count_repeats(call, self.steps[sources[0]].shape) if len(sources) == 1 else None
            kind, options = ("other", options) if found_most is None else (kind, {"repeats": found_most})
        weights, dtype = self._weights_of(node), getattr(first, "dtype", None)
        dtype = None if dtype == self.dtype else dtype
        self._append(Step(kind, sources, _layer(node), operation, shape[1:], call, tensors, options, weights, dtype))
        return Value(len(self.steps) - 1, shape[1:])

    def _weights_of(self, node: fx.Node) -> frozenset[str]:
        return frozenset().union(*(self.weights.get(given, frozenset()) for given in node.all_input_nodes))

    def _reassembled(self, call: Any, sources: tuple[int, ...]) -> tuple[str, Any, tuple[int, ...]]:
        """A concatenation, or a rearrangement if all parts are pieces of one value."""
        ways: list[list[Any]] = []
        origins = set()
        for source in sources:
            way = []
            while self.steps[source].kind == "rearrange":
                way.append(self.steps[source].call)
                (source,) = self.steps[source].sources
            ways.append(way[::-1])
            origins.add(source)
        if len(origins) > 1:
            return "concatenate", call, sources
        return "rearrange", lambda value: call(*(reduce(lambda v, f: f(v), way, value) for way in ways)), tuple(origins)

    def _overwritten(self, node: fx.Node, value: Value) -> None:
        """Replace a written value; other values in its memory become stale."""
        written = self.values[node].index
        self.values[node] = value
        self.bases[value.index] = self.bases[written]
        sharing = {index for index, base in enumerate(self.bases) if base == self.bases[written]}
        self.stale |= sharing - {value.index}
        self.stale.discard(value.index)

    def _check_fresh(self, found: list[Value]) -> None:
        if any(value.index in self.stale for value in found):
            msg = (
                f"{self.network} writes in place to a view of a value that it uses again; expected operations that "
                "return new values: set inplace=False"
            )
            raise ValueError(msg)

    def graph(self, output: fx.Node) -> Graph:
        """Graph up to the output.

        Raises:
            ValueError: unless the output is one tensor.
        """
        found: list[fx.Node] = []
        fx.node.map_arg(output.args, lambda node: found.append(node))
        last = self.values[found[0]] if len(found) == 1 else None
        if not isinstance(last, Value):
            msg = (
                f"{self.network} returns no single tensor that depends on its input; expected one: name it by "
                "fp.WithOutput(network, output)"
            )
            raise ValueError(msg)
        self._check_fresh([last])
        return Graph(_ancestors(self.steps, last.index), self.network)


def _ancestors(steps: list[Step], last: int) -> tuple[Step, ...]:
    """The steps that a step depends on, and the step itself at the end."""
    needed = {last}
    for index in range(last, -1, -1):
        if index in needed:
            needed.update(steps[index].sources)
    kept = sorted(needed)
    place = {index: position for position, index in enumerate(kept)}
    return tuple(replace(steps[i], sources=tuple(place[source] for source in steps[i].sources)) for i in kept)


def _values_in(arguments: Any) -> list[Value]:
    found: list[Value] = []

    def look(part: Any) -> None:
        if isinstance(part, Value):
            found.append(part)

    fx.node.map_aggregate(arguments, look)
    return found


def _bound(node: fx.Node, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments by name, with defaults."""
    schema = node.target._schema.arguments  # type: ignore[union-attr] # noqa: SLF001 - torch has no public way to ask
    named = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    return named | dict(zip((argument.name for argument in schema), args, strict=False)) | dict(kwargs)


def _layer(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return str(next(reversed(stack.values()))[0]) if stack else ""


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
