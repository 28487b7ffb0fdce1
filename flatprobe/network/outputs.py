"""Output of a network that is measured: its logits, or the tensor that the user names."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from flatprobe.utils.fingerprint import fingerprint

# A key, an attribute, an index, or a function of all that a network returns; None for the default.
Output = str | int | Callable[[Any], Tensor] | None


class WithOutput(nn.Module):
    """A network of which one output is measured: x -> output of network(x).

    Probes read the network inside, so that its weights keep their names.

    Args:
        network: returns a dict, a tuple, a list or an object.
        output: the key, attribute or index of the tensor that is measured, or a function of all that the network
            returns.

    Raises:
        TypeError: unless the network is an `nn.Module`.

    >>> two = nn.LSTM(3, 2, batch_first=True)
    >>> WithOutput(two, 0)(torch.ones(1, 5, 3)).shape
    torch.Size([1, 5, 2])
    """

    network: nn.Module
    output: Any

    def __init__(self, network: nn.Module | Any, output: Output) -> None:
        super().__init__()
        if not isinstance(network, nn.Module):
            msg = f"network must be a torch.nn.Module, got a {type(network).__name__}. Load a state_dict into it first"
            raise TypeError(msg)
        self.network, self.output = network, output
        self.training = network.training

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The chosen output.

        Raises:
            ValueError: if the network has no such output.
        """
        return select_output(self.network(*args, **kwargs), self.output, self.network)


def select_output(outputs: Any, output: Output, module: nn.Module) -> Tensor:
    """The tensor that is measured among the outputs: by default the output itself, or its `logits`.

    Raises:
        ValueError: if there is no such output, or it is not a floating tensor.
    """
    if output is None:
        found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", outputs)
    elif callable(output):
        found = output(outputs)
    elif isinstance(output, str) and not isinstance(outputs, Mapping):
        found = getattr(outputs, output, None)
    else:
        try:
            found = outputs[output]
        except (KeyError, IndexError, TypeError):
            found = None
    if isinstance(found, Tensor) and found.is_floating_point():
        return found
    wanted = "" if output is None else f", of which output={output!r} is {_kind(found)}"
    msg = f"the output of {type(module).__name__} is {_kind(outputs)}{wanted}; expected {_fix(outputs)}"
    raise ValueError(msg)


def logits_of(outputs: Any, module: nn.Module, output: Output = None, samples: int | None = None) -> Tensor:
    """Logits (batch, classes) of an output; of one logit z, those of its two classes, (0, z).

    Args:
        outputs: all that the network returned.
        module: the network.
        output: the output that is measured.
        samples: the number of samples, where a network may have taken the batch of a single sample away.

    Raises:
        ValueError: unless the logits are floating and of shape (batch, classes), (batch, 1) or (batch,).
    """
    found = select_output(outputs, output, module)
    if found.ndim == 2 and found.shape[1] > 1:
        return found
    if found.ndim not in {1, 2} or found.numel() != (len(found) if samples is None else samples):
        parts = " per sample, for several parts of it (pixels, tokens)" if found.ndim > 2 else ""
        msg = (
            f"the output of {type(module).__name__} is of shape {tuple(found.shape)}{parts}; expected logits of shape "
            "(batch, classes), or one logit per sample of a classifier of two classes. The probes in weight space "
            'measure other tasks, by fp.EmpiricalRisk(model, data, loss="squared_error"), say'
        )
        raise ValueError(msg)
    return two_logits(found)


class Reading:
    """The measured output of a pass.

    Args:
        output: the output that is measured; None for `logits`, or all.
        classifier: True for logits (samples, classes), False for anything with one row per sample.
        alone: True if each sample is passed alone and gives a single number, such as the loss of the network.

    Attributes:
        said: the reading in records, where the output of the network is not a tensor of logits.
    """

    def __init__(self, output: Output = None, *, classifier: bool = True, alone: bool = False) -> None:
        self.output, self.classifier, self.alone = output, classifier, alone
        self.said: dict[str, Any] = {}
        if output is not None:
            self.said["output"] = fingerprint(output) if callable(output) else output

    def module(self, network: nn.Module) -> nn.Module:
        """The network with its measured output, as a module."""
        return network if self.output is None else WithOutput(network, self.output)

    def of(self, output: Output) -> "Reading":
        """The same for another output."""
        return Reading(output, classifier=self.classifier, alone=self.alone)

    def __call__(self, outputs: Any, module: nn.Module, samples: int) -> Tensor:
        """The output of these samples.

        Raises:
            ValueError: if the network has no such output, or it has not one row per sample.
        """
        if self.output is None and not isinstance(outputs, Tensor):
            self.said["output"] = "logits"
        if self.classifier:
            logits = logits_of(outputs, module, self.output, samples)
            if isinstance(outputs, Tensor) and outputs.shape != logits.shape:
                self.said["logits"] = "(0, z) of one output z"
            return logits
        found = select_output(outputs, self.output, module)
        if self.alone:
            if found.numel() == 1:
                return found.reshape(1)
            msg = f"the loss of {type(module).__name__} is {_kind(found)}; expected a single number"
            raise ValueError(msg)
        if found.ndim == 0 or len(found) != samples:
            rows = f"{len(found)} rows" if found.ndim else "a single number"
            msg = (
                f"the network {type(module).__name__} returns {rows} for a batch of {samples} samples; expected one "
                "row per sample. A .squeeze() in forward takes the batch of a single sample away: .flatten(1)"
            )
            raise ValueError(msg)
        return found


def two_logits(output: Tensor) -> Tensor:
    """The logits (0, z) of the two classes of one logit z, from (samples,) or (samples, 1).

    The cross-entropy of (0, z) is the binary cross-entropy of z, and class 1 is decided where z > 0.

    >>> two_logits(torch.tensor([2.0, -1.0]))
    tensor([[ 0.,  2.],
            [ 0., -1.]])
    """
    z = output.reshape(-1, 1)
    return torch.cat((torch.zeros_like(z), z), 1)


def _kind(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"a tensor of shape {tuple(found.shape)}, {found.dtype}"
    if isinstance(found, Mapping):
        return f"a {type(found).__name__} with {', '.join(map(repr, found))}"
    if isinstance(found, tuple | list):
        return f"a {type(found).__name__} of {len(found)}: {', '.join(map(_short, found))}"
    return "missing" if found is None else f"a {type(found).__name__}"


def _short(part: Any) -> str:
    return f"{tuple(part.shape)}" if isinstance(part, Tensor) else type(part).__name__


def _fix(outputs: Any) -> str:
    if isinstance(outputs, Tensor):
        return "a floating tensor, one row per sample"
    example = "'attribute'"
    if isinstance(outputs, Mapping | tuple | list):
        example = repr(next(iter(outputs), "key")) if isinstance(outputs, Mapping) else "0"
    return (
        "a floating tensor, one row per sample: name the output by fp.WithOutput(network, "
        f"{example}), by output={example} of fp.EmpiricalRisk, or by --output {example.strip(chr(39))}"
    )
