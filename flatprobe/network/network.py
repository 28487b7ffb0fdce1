"""The network of a user, evaluated at explicit weights and never changed."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flatprobe.data import LabelledData
from flatprobe.data.inputs import (
    Held,
    Inputs,
    as_arguments,
    channels_last,
    compute_logits,
    default_layout,
    each_alone,
    join,
    map_tensors,
    only_floating,
    tensors,
)
from flatprobe.network.batch_sizes import default_batch_size
from flatprobe.network.contexts import no_autocast
from flatprobe.network.modules import BATCH_NORMS, architecture_of, check_finite, check_module, named, unwrap
from flatprobe.network.outputs import Reading, WithOutput
from flatprobe.network.parametrized import computed_weights
from flatprobe.network.sequential import Step, first_linear, layers_of, run, run_steps
from flatprobe.network.slots import Slots
from flatprobe.network.weights import Weights
from flatprobe.utils.memory import fit_batch_size
from flatprobe.utils.plain_functions import PlainFunctions
from flatprobe.utils.rng import keep_global_states

Half = Callable[[Inputs, Mapping[str, Tensor]], Tensor]
Split = tuple[Half, Half, frozenset[str]]


class Network:
    """A network x -> outputs at explicit weights, a snapshot of a module; by default a classifier x -> logits z.

    On a CPU, convolutional networks run in channels-last layout unless the layout changes the function.

    Args:
        module: a network (`nn.Module`) in eval mode, or a `WithOutput` of one. It is copied (see
            `copies.structural_copy`), and neither changed nor called. Wrappers of `torch.compile` and data parallelism
            are removed, from parts too.
        read: the output that is measured; None for logits.

    Raises:
        TypeError: unless the model is an `nn.Module` that is not scripted.
        ValueError: if the module or a submodule is in training mode.
        ValueError: if a parameter or buffer is not finite, or a parameter is complex.
        ValueError: if different parameters share memory.
        ValueError: if a BatchNorm layer has no running statistics, so that its output depends on the batch.
    """

    def __init__(self, module: object, read: Reading | None = None) -> None:
        if not isinstance(module, nn.Module):
            msg = (
                f"the model is a {type(module).__name__}; expected a torch.nn.Module: load a state_dict into its "
                "network first"
            )
            raise TypeError(msg)
        module = unwrap(module)
        self.read = Reading() if read is None else read
        if isinstance(module, WithOutput):
            self.read, module = self.read.of(module.output), unwrap(module.network)
        check_module(module)
        self.slots = Slots(module)
        self.caller: nn.Module | None = module  # Until `inspect_network` has run.
        state = self.slots.state
        check_finite(state, f"the network {type(module).__name__}")
        floating = [value for value in state.values() if value.is_floating_point()]
        # In a network with several precisions, the inputs take that of the first layer.
        anchor = floating[0] if floating else torch.empty(0, device="cpu")
        self.precisions = dict.fromkeys(value.dtype for value in floating) or {anchor.dtype: None}
        self.device = anchor.device
        self.dtype = anchor.dtype
        self.architecture = architecture_of(self.slots.module)
        self.batch_normalised = any(isinstance(layer, BATCH_NORMS) for layer in self.slots.module.modules())
        self.channels_last = self.architecture == "convolutional" and self.device.type == "cpu"
        self.plain = True  # Whether a pass calls a function of `PlainFunctions`; assumed until `inspect_network` knows.
        self.classes = 0  # The number of logits, set by `inspect_network`.
        self.in_place = True  # Whether a layer writes to the inputs; assumed until `inspect_network` knows.
        self._held: Held | None = None  # The other inputs of a batch: see `holding`.
        self.sigmoid = False  # Whether the logits are the output of a sigmoid.
        self.seeds = False  # Whether a pass moves the global generator of torch.
        self.steps: list[Step] | None = None  # The whole function, where no pass is needed to know it.
        # Findings of `inspect_network`: a tensor that a pass reads but that cannot be exchanged, leaves that are not
        # parameters, and tensors that one pass computes and the next one uses.
        self.fixed: str | None = None
        self.unregistered: list[Tensor] = []
        self.remembered: list[Tensor] = []
        self.lay_out(last=self.channels_last)

    def lay_out(self, *, last: bool) -> None:
        """Run later passes in channels-last layout, or in the default layout of torch."""
        self.channels_last = last
        if self.architecture == "convolutional":
            self.slots.lay_out(last=last)
        state, own = self.slots.state, self.slots.parameters
        self.weights: Weights = {name: state[name].detach() for name in own}
        self.buffers: Weights = {name: value for name, value in state.items() if name not in self.weights}

    def __call__(self, inputs: Inputs, weights: Mapping[str, Tensor] | None = None) -> Float[Tensor, "samples ..."]:
        """Outputs of inputs from `prepare`, by default at the network's weights; logits of a classifier."""
        if self.steps is not None and self._held is None and isinstance(inputs, Tensor):
            with no_autocast():
                return self.read(self._run_steps(_one(self.laid_out(inputs)), weights), self.slots.module, len(inputs))
        inputs = self.laid_out(inputs if self._held is None else join(self._held, _one(inputs)))
        with self._pass(weights):
            return self.run(inputs)

    def _run_steps(self, value: Tensor, weights: Mapping[str, Tensor] | None, place: slice = slice(None)) -> Tensor:
        assert self.steps is not None
        return run_steps(self.steps[place], value, {**self.slots.state, **weights} if weights else self.slots.state)

    def run(self, inputs: Inputs) -> Tensor:
        """Logits at the tensors that the copy holds at present."""

        def logits(inputs: Inputs) -> Tensor:
            args, kwargs = as_arguments(inputs)
            return self.read(self.slots.module(*args, **kwargs), self.slots.module, len(tensors(inputs)[0]))

        return torch.cat([*map(logits, each_alone(inputs))]) if self.read.alone else compute_logits(logits, inputs)

    @property
    def name(self) -> str:
        """The class name of the module."""
        return type(self.slots.module).__name__

    @property
    def module(self) -> nn.Module:
        """The copy of the module at its original weights, until the next pass."""
        self.rest()
        return self.slots.module

    def rest(self) -> None:
        """Release the weights of the last pass."""
        with self.slots.lock:
            self.slots.place(fresh=False)

    @contextmanager
    def _pass(self, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
        """Context in which the copy is at these weights, for one thread at a time."""
        states = keep_global_states() if self.seeds else nullcontext()
        functions = PlainFunctions() if self.plain else nullcontext()
        with self.slots.lock, no_autocast(), states:
            self.slots.place(weights)
            with functions:
                yield

    def buffers_after_pass(self, names: Iterable[str]) -> Weights:
        """The buffers after the last pass."""
        return {name: self.slots.current(name) for name in names}

    def copy(self, *, dtype: torch.dtype | None = None) -> "Network":
        """A network with the same weights, in the same or another precision.

        Args:
            dtype: the precision of the copy; None for that of this network. A copy in another precision has the default
                layout.

        Returns:
            A network that shares nothing with this one but the other inputs of `holding`.
        """
        result = copy.copy(self)
        result.slots, result.caller = self.slots.copy(dtype), None
        result.steps = None  # A copy may get hooks.
        if dtype is not None:
            result.dtype, result.precisions = dtype, {dtype: None}
        if self._held is not None:
            result._held = (result.prepare(self._held[0]), self._held[1])  # type: ignore[assignment] # noqa: SLF001
        result.lay_out(last=self.channels_last and dtype is None)
        return result

    def holding(self, inputs: Inputs) -> tuple["Network", Inputs]:
        """The network as a function of its only floating input, and this input.

        Args:
            inputs: a batch, from `prepare`.

        Returns:
            A network of the floating tensor that passes the other tensors of the batch (masks, positions) on. This
            network and the inputs for a single tensor, or unless exactly one is floating.
        """
        if isinstance(inputs, Tensor) or (place := only_floating(inputs)) is None:
            return self, inputs
        network = copy.copy(self)
        network._held = (inputs, place)  # noqa: SLF001 - a copy of itself
        return network, inputs[place]  # type: ignore[index] # the place is of its kind

    def repeating(self, inputs: Inputs, owners: Tensor) -> "Network":
        """The network for points that are made from samples of a batch.

        Args:
            inputs: the batch, from `prepare`.
            owners: (points,) the number of the sample behind each point.
        """
        if isinstance(inputs, Tensor):
            return self
        owners = owners.to(self.device)
        return self.holding(map_tensors(lambda part: part[owners], inputs))[0]

    def choosing(self, rows: Tensor) -> "Network":
        """The network of `holding` for some samples of the batch."""
        if self._held is None:
            return self
        inputs, place = self._held
        network = copy.copy(self)
        chosen = map_tensors(lambda part: part[rows.to(part.device)], inputs)
        network._held = (chosen, place)  # type: ignore[assignment] # noqa: SLF001
        return network

    def prepare(self, inputs: Inputs) -> Inputs:
        """The inputs on the device and, if floating, in the dtype of the weights."""
        return map_tensors(self.placed, inputs)

    def placed(self, part: Tensor) -> Tensor:
        """One tensor of a batch, of the inputs or the labels, as `prepare` returns it."""
        part = part.to(self.device, self.dtype if part.is_floating_point() else None)
        return part.clone() if part.is_inference() else part  # No backward pass can save an inference tensor.

    def batch_size(self, given: int | None = None, data: LabelledData | None = None) -> int:
        """The given batch size, by default that of `default_batch_size`; smaller where memory has run out.

        Raises:
            ValueError: if it is below 1.
        """
        if given is not None and given < 1:
            msg = f"batch_size is {given}; expected at least 1, or None for the measured table"
            raise ValueError(msg)
        return fit_batch_size(int(given) if given is not None else default_batch_size(self, data))

    def laid_out(self, inputs: Inputs) -> Inputs:
        """The inputs in the layout of the network, copied if a layer writes to them."""
        inputs = map_tensors(torch.clone, inputs) if self.in_place else inputs
        if self.channels_last:
            return channels_last(inputs) if isinstance(inputs, Tensor) else inputs
        return map_tensors(default_layout, inputs) if self.architecture == "convolutional" else inputs

    def first_linear(self, *, in_inputs: bool = False) -> Split | None:
        """The network as tail(head(x)), with a head that is affine in its weights.

        Along a line or in a simplex of weights, the outputs of the head are the same combination of the outputs at the
        endpoints. They are computed once per endpoint.

        Args:
            in_inputs: True if the head must be affine in the inputs too: only flattening and normalization come before
                its linear layer.

        Returns:
            `head(inputs, weights)`, up to the first layer with parameters, an `nn.Linear`; `tail(outputs, weights)`,
            the rest; and the names of the parameters of the head. None unless the module is a plain nest of
            `nn.Sequential` that begins with an `nn.Linear` and has no hooks or shared weights.
        """
        layers = layers_of(module := self.module)
        first = None if layers is None else first_linear(layers, {*self.weights, *self.buffers}, in_inputs=in_inputs)
        if layers is None or first is None:
            return None
        weight, bias = (f"{layers[first][0]}.{name}" for name in ("weight", "bias"))

        def part(place: slice, value: Tensor, weights: Mapping[str, Tensor] | None) -> Tensor:
            return run(layers[place], value) if self.steps is None else self._run_steps(value, weights, place)

        def head(inputs: Inputs, weights: Mapping[str, Tensor]) -> Tensor:
            with no_autocast() if self.steps is not None else self._pass(None):
                outputs = part(slice(first), _one(self.laid_out(inputs)), None)
                return nn.functional.linear(outputs, weights[weight], weights.get(bias))

        def tail(outputs: Inputs, weights: Mapping[str, Tensor]) -> Tensor:
            rest = slice(first + 1, None)
            with no_autocast() if self.steps is not None else self._pass(weights):
                return compute_logits(
                    lambda value: self.read(part(rest, _one(value), weights), module, len(_one(value))), outputs
                )

        return head, tail, frozenset({weight, bias} & self.weights.keys())

    def describe(self) -> dict[str, object]:
        """Fingerprint of the network, as records hold it."""
        return {
            **named(self.module),
            "recipe": getattr(self.module, "recipe", None),
            "parameters": sum(value.numel() for value in self.weights.values()),
            "dtype": ", ".join(str(dtype).removeprefix("torch.") for dtype in self.precisions),
            "device": str(self.device),
            "layout": "channels last" if self.channels_last else "contiguous",
            **self.read.said,
            # Weight-space probes move the parameters that these weights are computed from.
            **({"parametrised": list(computed)} if (computed := computed_weights(self.module)) else {}),
        }


def _one(inputs: Inputs) -> Tensor:
    assert isinstance(inputs, Tensor)  # Layers of a sequence pass on one tensor, and one tensor moves in `holding`.
    return inputs
