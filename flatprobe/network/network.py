"""A caller's module made safe to call: checked once, never changed, evaluated at explicit weights."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flatprobe.data.inputs import (
    Held,
    Inputs,
    as_arguments,
    channels_last,
    compute_logits,
    default_layout,
    join,
    map_tensors,
    only_floating,
)
from flatprobe.network.contexts import no_autocast
from flatprobe.network.modules import BATCH_NORMS, check_finite, check_mode, check_real, logits_of, unwrapped
from flatprobe.network.parametrized import parametrised
from flatprobe.network.sequential import affine_in_inputs, layers_of, run, tensors_of
from flatprobe.network.slots import Slots
from flatprobe.network.weights import Weights
from flatprobe.utils.plain_functions import PlainFunctions
from flatprobe.utils.rng import keep_global_states

# Samples a forward pass, by (architecture, device type): a fixed table rather than a timing at run time, so that
# results repeat. The CPU's rows follow `python -m tests.benchmarks batch_size`; the GPU's are not measured yet.
# Those for tokens bound the memory instead: 512 tokens of one sample are as much as 512 samples of a dense network.
BATCH_SIZES = {
    ("dense", "cpu"): 512,
    ("convolutional", "cpu"): 64,
    ("tokens", "cpu"): 32,
    ("dense", "cuda"): 8192,
    ("convolutional", "cuda"): 1024,
    ("tokens", "cuda"): 256,
}

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TOKENS = (nn.Embedding, nn.MultiheadAttention)

Half = Callable[[Inputs, Mapping[str, Tensor]], Tensor]
Split = tuple[Half, Half, frozenset[str]]


class Network:
    """A classifier x -> logits z at explicit weights; weights and buffers are snapshots taken here.

    Convolutional networks are evaluated in channels-last layout on a CPU, where that changes nothing but the time.

    Args:
        module: a classifier (`nn.Module`) in eval mode. It is copied (see `copies.structural_copy`), and neither
            changed nor called. Of a compiled or data-parallel one, or part, the network inside is copied.

    Raises:
        TypeError: if it is no module, or a scripted one.
        ValueError: if the module, or a submodule, is in training mode; if a parameter or buffer is not finite, or a
            parameter complex (named); if different parameters share memory; if a BatchNorm layer has no running
            statistics, since its output would depend on the batch.
    """

    def __init__(self, module: object) -> None:
        if not isinstance(module, nn.Module):
            msg = (
                f"the model is a {type(module).__name__}; expected a torch.nn.Module: load a state_dict into its "
                "network first"
            )
            raise TypeError(msg)
        module = unwrapped(module)
        check_mode(module)
        check_real(module)
        self.slots = Slots(module)
        self.caller: nn.Module | None = module  # until `inspected` has seen whether its own tensors are used
        state = self.slots.state
        check_finite(state, f"the network {type(module).__name__}")
        floating = [value for value in state.values() if value.is_floating_point()]
        # Of a network in several precisions the first layer's, since that is what its inputs meet.
        anchor = floating[0] if floating else torch.empty(0, device="cpu")
        self.precisions = dict.fromkeys(value.dtype for value in floating) or {anchor.dtype: None}
        self.device = anchor.device
        self.dtype = anchor.dtype
        layers = list(self.slots.module.modules())
        convolutional = any(isinstance(layer, _CONVOLUTIONS) for layer in layers)
        tokens = any(isinstance(layer, _TOKENS) for layer in layers)
        self.architecture = "convolutional" if convolutional else "tokens" if tokens else "dense"
        self.batch_normalised = any(isinstance(layer, BATCH_NORMS) for layer in layers)
        self.channels_last = convolutional and self.device.type == "cpu"
        self.plain = True  # taken for granted until `inspected` has seen
        self.classes = 0  # the number of logits; known once `inspected` has seen a batch
        self.in_place = True  # whether a layer writes to the inputs; taken for granted until `inspected` has seen
        self._held: Held | None = None  # the inputs of which one is passed alone: see `holding`
        self.sigmoid = False  # whether the logits are what a sigmoid returns
        self.seeds = False  # whether a pass moves torch's global generator
        # What `inspected` finds: a tensor that is used but not exchanged, leaves that are no parameters, and what a
        # pass has computed and the next one used.
        self.fixed: str | None = None
        self.unregistered: list[Tensor] = []
        self.remembered: list[Tensor] = []
        self.lay_out(last=self.channels_last)

    def lay_out(self, *, last: bool) -> None:
        """Run from now on in channels-last layout, or in torch's default one."""
        self.channels_last = last
        if self.architecture == "convolutional":
            self.slots.lay_out(last=last)
        state, own = self.slots.state, self.slots.parameters
        self.weights: Weights = {name: state[name].detach() for name in own}
        self.buffers: Weights = {name: value for name, value in state.items() if name not in self.weights}

    def __call__(self, inputs: Inputs, weights: Mapping[str, Tensor] | None = None) -> Float[Tensor, "samples classes"]:
        """Logits of inputs that `prepare` returned, at these weights (and buffers), by default the network's own."""
        inputs = self.laid_out(inputs if self._held is None else join(self._held, _one(inputs)))
        with self._pass(weights):
            return self.run(inputs)

    def run(self, inputs: Inputs) -> Tensor:
        """The logits at the tensors that the copy holds now."""

        def logits(inputs: Inputs) -> Tensor:
            args, kwargs = as_arguments(inputs)
            return logits_of(self.slots.module(*args, **kwargs), self.slots.module)

        return compute_logits(logits, inputs)

    @property
    def name(self) -> str:
        """The name of the module's class."""
        return type(self.slots.module).__name__

    @property
    def module(self) -> nn.Module:
        """The copy of the caller's module, at its own weights; another pass may move them."""
        self.rest()
        return self.slots.module

    def rest(self) -> None:
        """Let go of the weights of the last pass."""
        with self.slots.lock:
            self.slots.place(fresh=False)

    @contextmanager
    def _pass(self, weights: Mapping[str, Tensor] | None) -> Iterator[None]:
        """The copy at these weights, for this thread alone."""
        states = keep_global_states() if self.seeds else nullcontext()
        functions = PlainFunctions() if self.plain else nullcontext()
        with self.slots.lock, no_autocast(), states:
            self.slots.place(weights)
            with functions:
                yield

    def left(self, names: Iterable[str]) -> Weights:
        """These buffers as the last pass has left them."""
        return {name: self.slots.now(name) for name in names}

    def copied(self, *, dtype: torch.dtype | None = None) -> "Network":
        """Another network with the same own weights, in its own precision or another one.

        Args:
            dtype: of the copy; None for this network's. A copy in another precision has the default layout.

        Returns:
            A network that shares nothing with this one but the other inputs that it holds.
        """
        result = copy.copy(self)
        result.slots, result.caller = self.slots.copied(dtype), None
        if dtype is not None:
            result.dtype, result.precisions = dtype, {dtype: None}
        if self._held is not None:
            result._held = (result.prepare(self._held[0]), self._held[1])  # type: ignore[assignment] # noqa: SLF001
        result.lay_out(last=self.channels_last and dtype is None)
        return result

    def holding(self, inputs: Inputs) -> tuple["Network", Inputs]:
        """The network as a function of the one floating tensor among several inputs, and that tensor.

        Args:
            inputs: a batch, from `prepare`.

        Returns:
            A network that takes the floating tensor alone and passes the batch's other tensors (masks, positions) on
            as they are. For a single tensor, or where not exactly one is floating, this network and the inputs.
        """
        if isinstance(inputs, Tensor) or (place := only_floating(inputs)) is None:
            return self, inputs
        network = copy.copy(self)
        network._held = (inputs, place)  # noqa: SLF001 - a copy of itself
        return network, inputs[place]  # type: ignore[index] # the place is of its kind

    def repeating(self, inputs: Inputs, owners: Tensor) -> "Network":
        """The network for points made of a batch's samples: each beside the other inputs of the sample it is made of.

        Args:
            inputs: the batch, from `prepare`.
            owners: (points,) which sample of the batch each point is made of.

        Returns:
            As `holding`; this network for a single tensor.
        """
        if isinstance(inputs, Tensor):
            return self
        owners = owners.to(self.device)
        return self.holding(map_tensors(lambda part: part[owners], inputs))[0]

    def choosing(self, rows: Tensor) -> "Network":
        """The network for these samples of the batch whose other inputs it holds."""
        if self._held is None:
            return self
        inputs, place = self._held
        network = copy.copy(self)
        chosen = map_tensors(lambda part: part[rows.to(part.device)], inputs)
        network._held = (chosen, place)  # type: ignore[assignment] # noqa: SLF001
        return network

    def prepare(self, inputs: Inputs) -> Inputs:
        """The inputs on the weights' device, floating ones in the weights' dtype."""
        return map_tensors(self.placed, inputs)

    def placed(self, part: Tensor) -> Tensor:
        """One tensor of a batch as `prepare` has it: of the inputs, or the labels."""
        part = part.to(self.device, self.dtype if part.is_floating_point() else None)
        return part.clone() if part.is_inference() else part  # which no backward pass could keep

    def batch_size(self, given: int | None = None) -> int:
        """The given batch size, or the one of `BATCH_SIZES` for this architecture and device.

        Raises:
            ValueError: if it is below 1.
        """
        if given is None:
            return BATCH_SIZES.get((self.architecture, self.device.type), BATCH_SIZES[self.architecture, "cpu"])
        if given < 1:
            msg = f"batch_size is {given}; expected at least 1, or None for the measured table"
            raise ValueError(msg)
        return int(given)

    def laid_out(self, inputs: Inputs) -> Inputs:
        """The inputs in their memory layout, copied for a network whose first layer would write to them."""
        inputs = map_tensors(torch.clone, inputs) if self.in_place else inputs
        if self.channels_last:
            return channels_last(inputs) if isinstance(inputs, Tensor) else inputs
        return map_tensors(default_layout, inputs) if self.architecture == "convolutional" else inputs

    def first_linear(self, *, in_inputs: bool = False) -> Split | None:
        """The network as tail(head(x)), head affine in its own weights, where the layers show that it is.

        Along a line or in a simplex of weights, the head's outputs are the same combination of the endpoints' outputs,
        so they need to be computed only once an endpoint.

        Args:
            in_inputs: whether the head must be affine in the inputs too (nothing but flattening and
                normalisation before its linear layer).

        Returns:
            `head(inputs, weights)`, which ends with the first layer that has parameters, an `nn.Linear`; `tail(outputs,
            weights)`, the rest; and the names of the head's parameters. None where the module is not a plain nest of
            `nn.Sequential`, where its first layer is another one, or where hooks or shared weights forbid taking it
            apart.
        """
        layers = layers_of(module := self.module)
        if layers is None:
            return None
        names = [{f"{prefix}.{name}" for name, _ in layer.named_parameters()} for prefix, layer in layers]
        own = [f"{prefix}.{name}" for prefix, layer in layers for name, _ in tensors_of(layer)]
        first = next((index for index, found in enumerate(names) if found), None)
        # A layer used twice, or a tensor that two layers share, is named once by the module and twice here.
        if first is None or len(own) != len(set(own)) or set(own) != {*self.weights, *self.buffers}:
            return None
        prefix, linear = layers[first]
        if type(linear) is not nn.Linear or any(isinstance(layer, BATCH_NORMS) for _, layer in layers[:first]):
            return None
        if in_inputs and not all(affine_in_inputs(layer) for _, layer in layers[:first]):
            return None
        weight, bias = f"{prefix}.weight", f"{prefix}.bias"

        def head(inputs: Inputs, weights: Mapping[str, Tensor]) -> Tensor:
            with self._pass(None):
                outputs = run(layers[:first], _one(self.laid_out(inputs)))
                return nn.functional.linear(outputs, weights[weight], weights.get(bias))

        def tail(outputs: Inputs, weights: Mapping[str, Tensor]) -> Tensor:
            with self._pass(weights):
                return compute_logits(lambda value: logits_of(run(layers[first + 1 :], _one(value)), module), outputs)

        return head, tail, frozenset(names[first])

    def describe(self) -> dict[str, object]:
        """What a record says of the network."""
        return {
            "class": self.name,
            "recipe": getattr(self.module, "recipe", None),
            "parameters": sum(value.numel() for value in self.weights.values()),
            "dtype": ", ".join(str(dtype).removeprefix("torch.") for dtype in self.precisions),
            "device": str(self.device),
            "layout": "channels last" if self.channels_last else "contiguous",
            # What moves and is measured in weight space are the parameters that these weights are computed from.
            **({"parametrised": list(computed)} if (computed := parametrised(self.module)) else {}),
        }


def _one(inputs: Inputs) -> Tensor:
    assert isinstance(inputs, Tensor)  # what the layers of a sequence hand on, and what moves among held inputs
    return inputs
