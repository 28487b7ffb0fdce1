"""A caller's module made safe to call: checked once, never changed, evaluated at explicit weights."""

import copy
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from flatprobe.attention import without_fast_path
from flatprobe.inputs import Held, Inputs, as_arguments, channels_last, joined, mapped, only_floating, tensors
from flatprobe.modules import BATCH_NORMS, check_finite, check_mode, logits_of, unwrapped
from flatprobe.rng import global_states_kept
from flatprobe.sequences import affine_in_inputs, layers_of, run, tensors_of
from flatprobe.weights import Weights, snapshot, weights_of

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

    Convolutional networks are evaluated in channels-last layout on a CPU.

    Args:
        module: a classifier (`nn.Module`) in eval mode. It is called through `torch.func.functional_call` and never
            changed. Of a compiled or data-parallel one, the network inside is called.

    Raises:
        TypeError: if it is no module.
        ValueError: if the module, or a submodule, is in training mode; if a parameter or buffer is not finite (named);
            if a BatchNorm layer has no running statistics, since its output would depend on the batch.
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
        self.module = module
        self.weights: Weights = weights_of(module)
        self.buffers: Weights = snapshot(module.named_buffers())
        state = {**self.weights, **self.buffers}
        check_finite(state, f"the network {type(module).__name__}")
        floating = [value for value in state.values() if value.is_floating_point()]
        # Of a network in several precisions the first layer's, since that is what its inputs meet.
        anchor = floating[0] if floating else torch.empty(0)
        self._dtypes = dict.fromkeys(value.dtype for value in floating) or {anchor.dtype: None}
        self.device = anchor.device
        self.dtype = anchor.dtype
        convolutional = any(isinstance(layer, _CONVOLUTIONS) for layer in module.modules())
        tokens = any(isinstance(layer, _TOKENS) for layer in module.modules())
        self.architecture = "convolutional" if convolutional else "tokens" if tokens else "dense"
        self.batch_normalised = any(isinstance(layer, BATCH_NORMS) for layer in module.modules())
        self._channels_last = convolutional and self.device.type == "cpu"
        self.eval_only = True
        # Looking for tensors under two names costs a small network as much as a layer; most have none.
        named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        self._tied = len(named) > len({id(value) for _, value in named})
        self.classes = 0  # the number of logits; known once `checked` has seen a batch
        # Whether a layer writes to the inputs, and to which buffers; taken for granted until `checked` has seen.
        self._in_place = True
        self._written = frozenset(self.buffers)
        self._held: Held | None = None  # the inputs of which one is passed alone: see `holding`
        if self._channels_last:
            with torch.inference_mode(mode=False):  # else backward passes could not keep them
                self.weights = {name: channels_last(value) for name, value in self.weights.items()}

    def __call__(self, inputs: Inputs, weights: Mapping[str, Tensor] | None = None) -> Float[Tensor, "samples classes"]:
        """Logits of inputs that `prepare` returned, at these weights (and buffers), by default the network's own."""
        if self.eval_only and any(layer.training for layer in self.module.modules()):
            check_mode(self.module)  # looked at again at each call: the caller may have gone on training it
        inputs = self.laid_out(inputs if self._held is None else joined(self._held, _one(inputs)))
        args, kwargs = as_arguments(inputs)
        state = {**self.weights, **self._fresh_buffers(), **(weights or {})}
        with without_fast_path():
            outputs = functional_call(self.module, state, args, kwargs, tie_weights=self._tied)
        return logits_of(outputs, self.module)

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
        return self.holding(mapped(lambda part: part[owners], inputs))[0]

    def prepare(self, inputs: Inputs) -> Inputs:
        """The inputs on the weights' device, floating ones in the weights' dtype."""
        return mapped(lambda part: part.to(self.device, self.dtype if part.is_floating_point() else None), inputs)

    def _fresh_buffers(self) -> Weights:
        """The buffers, those that a forward pass writes to as copies: every pass starts from the same ones."""
        return {name: value.clone() if name in self._written else value for name, value in self.buffers.items()}

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
        inputs = mapped(torch.clone, inputs) if self._in_place else inputs
        return channels_last(inputs) if self._channels_last and isinstance(inputs, Tensor) else inputs

    def checked(self, inputs: Inputs) -> Tensor:
        """The logits of the inputs, passed twice: they must agree, else what is measured is a random variable.

        Raises:
            ValueError: if the network cannot take the inputs; if the two differ by more than 1e-3 of the largest logit
                (a GPU's sums may differ by rounding, dropout differs by far more).
        """
        with global_states_kept(), torch.no_grad():
            first = self._first(inputs)
            self._in_place = False
            passed, buffers = mapped(torch.clone, inputs), self._fresh_buffers()
            second = self(passed, buffers)
            self._in_place = not all(map(torch.equal, tensors(passed), tensors(inputs)))
            self._written = frozenset(
                name for name, value in buffers.items() if not torch.equal(value, self.buffers[name])
            )
        self.classes = first.shape[1]
        difference = (first - second).abs().max()
        if difference > 1e-3 * first.abs().max():
            msg = (
                f"two passes of {type(self.module).__name__} over the same {len(first)} inputs differ by up to "
                f"{float(difference):.3g} in the logits; expected a deterministic network in eval mode: look for "
                "dropout or noise applied regardless of the mode (such as F.dropout without training=self.training)"
            )
            raise ValueError(msg)
        return first

    def _first(self, inputs: Inputs) -> Tensor:
        try:
            return self(inputs)
        except (RuntimeError, TypeError, IndexError) as error:
            if self._channels_last:  # a view of a convolution's output as a vector, say, needs the usual layout
                self._channels_last = False
                self.weights = {n: w.clone(memory_format=torch.contiguous_format) for n, w in self.weights.items()}
                return self._first(inputs)
            shapes = ", ".join(f"{tuple(part.shape)} {part.dtype}" for part in tensors(inputs))
            msg = (
                f"{type(self.module).__name__} cannot be run on inputs of shape {shapes} ({error}); expected inputs "
                "that "
                "the network takes: is this the network for this data?"
            )
            raise ValueError(msg) from error

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
        layers = layers_of(self.module)
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
            outputs = run(layers[:first], _one(self.laid_out(inputs)), self._fresh_buffers())
            return nn.functional.linear(outputs, weights[weight], weights.get(bias))

        def tail(outputs: Inputs, weights: Mapping[str, Tensor]) -> Tensor:
            return logits_of(run(layers[first + 1 :], _one(outputs), {**self._fresh_buffers(), **weights}), self.module)

        return head, tail, frozenset(names[first])

    def describe(self) -> dict[str, object]:
        """What a record says of the network."""
        return {
            "class": type(self.module).__name__,
            "recipe": getattr(self.module, "recipe", None),
            "parameters": sum(value.numel() for value in self.weights.values()),
            "dtype": ", ".join(str(dtype).removeprefix("torch.") for dtype in self._dtypes),
            "device": str(self.device),
            "layout": "channels last" if self._channels_last else "contiguous",
        }


def _one(inputs: Inputs) -> Tensor:
    assert isinstance(inputs, Tensor)  # what the layers of a sequence hand on, and what moves among held inputs
    return inputs
