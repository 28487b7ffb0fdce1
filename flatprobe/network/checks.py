"""Checks of the logits of a network, made before any measurement."""

import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NoReturn

import torch
from torch import Tensor

from flatprobe.data import Batch
from flatprobe.data.inputs import Inputs, few_rows, map_tensors
from flatprobe.network.class_names import class_names_of, find_misplaced
from flatprobe.network.inspection import inspect_network
from flatprobe.network.network import Network

Batches = Iterable[tuple[Inputs, Tensor]]
PerSample = Callable[[Tensor, Tensor], Tensor]

# The samples of the first batch that are inspected, spread over it.
_INSPECTED, _FEW = 16, 4
# The fewest rows that are not probabilities by chance, and the rounding of the sum of a row in half precision.
_FEWEST, _SUM = 2, 1e-2
_SHOWN = 1000  # Numbers in an error message.


def check_batch(network: Network, batch: Batch, classes: int | None) -> None:
    """Check of the first batch: finite, repeatable logits for every class.

    A few samples are inspected. Where they show a fault, the whole batch is inspected, and the error speaks of it.

    Raises:
        ValueError: if the network has fewer logits than the labels have classes.
        ValueError: if a logit of these samples is not finite, naming the sample.
        ValueError: if the network cannot run on the inputs, or its logits are random or depend on other samples.
    """
    count = len(batch.labels)
    inspected = _INSPECTED if network.read.classifier else _FEW  # Outputs per token may be large.
    if count > inspected:
        rows = few_rows(count, inspected)
        few = Batch(_choose(batch.inputs, rows), _choose(batch.labels, rows), batch.start, batch.class_names)
        with suppress(ValueError):
            return _check(network, few, classes)
    return _check(network, batch, classes)


def _choose(inputs: Any, rows: Tensor) -> Any:
    return map_tensors(lambda part: part[rows.to(part.device)], inputs)


def _check(network: Network, batch: Batch, classes: int | None) -> None:
    logits = inspect_network(network, network.prepare(batch.inputs))
    several = logits.ndim == 2 and logits.shape[1] > 1
    if classes is not None and classes > 2 and "logits" in network.read.said:
        msg = (
            f"the labels have {classes} classes (largest label {classes - 1}), but the network returns one logit per "
            "sample, as a classifier of two classes does; expected labels 0 and 1, or, for a regression, floating "
            'targets and fp.EmpiricalRisk(model, data, loss="squared_error")'
        )
        raise ValueError(msg)
    if classes is not None and several and classes > logits.shape[1]:
        msg = (
            f"the labels have {classes} classes (largest label {classes - 1}), but the network returns "
            f"{logits.shape[1]} logits; expected every label below the number of logits: is this the network for this "
            "data?"
        )
        raise ValueError(msg)
    check_logits(logits, batch.start)
    if classes is not None and several:
        warn_of_probabilities(logits, network)
    _check_names(network, batch.class_names)


def warn_of_probabilities(logits: Tensor, network: Network) -> None:
    """Warning for logits that are probabilities or the output of a sigmoid."""
    between = (logits >= 0) & (logits <= 1)
    if len(logits) < _FEWEST or not bool(between.all()):
        return
    if bool(((logits.double().sum(1) - 1).abs() < _SUM).all()) and not bool(((logits == 0) | (logits == 1)).all()):
        found, fix = (
            "probabilities (each row in [0, 1], with sum 1)",
            "leave out the softmax, or return probabilities.log()",
        )
    elif network.sigmoid:
        found, fix = "numbers between 0 and 1 throughout, as a sigmoid gives", "leave out the sigmoid"
    else:
        return
    msg = (
        f"the outputs of {network.name} are {found}, and are measured as logits: losses, margins, Jacobians and radii "
        f"are not those of the classifier that was trained; if they are probabilities, {fix}"
    )
    warnings.warn(msg, UserWarning, stacklevel=6)


def check_exchangeable(network: Network) -> None:
    """Check that logits depend on registered parameters and buffers alone.

    Raises:
        ValueError: if `forward` reads a weight through a view or past its layer, naming the weight.
        ValueError: if a pass uses a tensor that an earlier pass computed from weights or inputs.
        ValueError: if the logits depend on weights that are not registered, with their shapes.
    """
    if network.fixed is not None:
        msg = (
            f"{network.name} reads {network.fixed!r} through a view, or past the layer that holds it (a global name "
            "or a tuple, say), so its logits would not follow other weights; expected forward to reach its weights "
            "through self"
        )
        raise ValueError(msg)
    if network.remembered:
        msg = (
            f"a pass of {network.name} uses a tensor of shape {tuple(network.remembered[0].shape)} that an earlier "
            "pass has computed from weights or inputs, so its logits would not follow other weights; expected what "
            "forward remembers to be an attribute of the network, where it is computed again: look for lru_cache, and "
            "for dictionaries of a class or of a module"
        )
        raise ValueError(msg)
    if network.unregistered:
        shapes = ", ".join(str(tuple(value.shape)) for value in network.unregistered[:5])
        msg = (
            f"the logits of {network.name} depend on {len(network.unregistered)} tensors that require gradients and "
            f"are no parameters of it, of shapes {shapes}; expected its weights to be registered: hold layers in an "
            "nn.ModuleList or nn.ModuleDict and tensors in nn.Parameter, or call requires_grad_(False) on constants"
        )
        raise ValueError(msg)


def _check_names(network: Network, names: list[str] | None) -> None:
    """Check that data and network number the named classes alike.

    Names are not compared if data and network have none in common.

    Raises:
        ValueError: if a class has different numbers in the data and in the network.
    """
    own = class_names_of(network.module)
    if own is None or names is None or {*own[0]}.isdisjoint(names):
        return
    if name := find_misplaced(names, own[0]):
        msg = (
            f"the class {name!r} is number {names.index(name)} of the data and number {own[0].index(name)} of the "
            f"network; expected one numbering: data = data.with_class_names([*model.{own[1]}])"
        )
        raise ValueError(msg)
    if unknown := [name for name in names if name not in own[0]]:
        warnings.warn(
            f"{len(unknown)} of the {len(names)} classes of the data, such as {unknown[0]!r}, are not among the "
            f"{len(own[0])} that the network names; the others agree",
            stacklevel=5,
        )


def check_logits(logits: Tensor, start: int) -> None:
    """Check that logits are finite.

    Args:
        logits: (samples, ...).
        start: the number of the first sample.

    Raises:
        ValueError: if a logit is not finite, naming the first such sample.
    """
    if bool(logits.sum(dtype=torch.float64).isfinite()):
        return  # A sum is finite only where all its terms are.
    bad = ~logits.isfinite().reshape(len(logits), -1).all(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        values = logits[row].tolist() if logits[row].numel() <= _SHOWN else f"of shape {tuple(logits[row].shape)}"
        msg = (
            f"the logits of sample {start + row} are not finite ({values}); expected finite logits: "
            "look for an overflow (half precision?) or an unusual input"
        )
        raise ValueError(msg)


def report_not_finite(network: Network, batches: Batches, per_sample: PerSample, loss: Any) -> NoReturn:
    """Error that explains a risk that is not finite at the weights of the network.

    Args:
        network: the network, evaluated at its weights.
        batches: inputs, from `prepare`, and labels.
        per_sample: logits, labels -> losses.
        loss: the name of the loss, or its fingerprint.

    Raises:
        ValueError: always; the message names the first sample whose logits or loss are not finite.
    """
    start = 0
    with torch.no_grad():
        for inputs, labels in batches:
            logits = network(inputs)
            check_logits(logits, start)
            values = per_sample(logits, labels)
            for row in (~values.isfinite()).nonzero().flatten().tolist()[:1]:
                fix = (
                    "look for a logarithm of 0, a division by 0 or an unknown label"
                    if isinstance(loss, dict) and "source" in loss
                    else "probe it in float64"
                )
                if "cross_entropy" in _name(loss) and labels.ndim > 1:
                    fix = "drop a sample of which no pixel or token counts, data.subset(positions)"
                label = f" (label {labels[row].item()})" if labels.ndim == 1 else ""
                msg = (
                    f"the loss {_name(loss)} of sample {start + row}{label} is "
                    f"{float(values[row])} at the network's own weights though its logits are finite; expected finite "
                    f"losses: {fix}"
                )
                raise ValueError(msg)
            start += len(labels)
    msg = f"the sum of the losses {_name(loss)} overflows at the network's own weights; probe it in float64"
    raise ValueError(msg)


def _name(loss: Any) -> str:
    return str(loss["name"]) if isinstance(loss, dict) and "name" in loss else str(loss)
