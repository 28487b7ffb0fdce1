"""Checks of a network's logits before anything is measured with them."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import torch
from torch import Tensor

from flatprobe.data import Batch
from flatprobe.data.inputs import Inputs
from flatprobe.network.class_names import class_names_of, misplaced
from flatprobe.network.inspection import inspected
from flatprobe.network.network import Network

Batches = Iterable[tuple[Inputs, Tensor]]
PerSample = Callable[[Tensor, Tensor], Tensor]

# Rows without which chance could have it so, and how far from 1 a row of probabilities sums in half precision.
_FEWEST, _SUM = 2, 1e-2


def check_batch(network: Network, batch: Batch, classes: int) -> None:
    """The network takes the batch, gives finite logits for all its classes, and the same twice.

    Raises:
        ValueError: where it does not.
    """
    logits = inspected(network, network.prepare(batch.inputs))
    if classes > logits.shape[1]:
        msg = (
            f"the labels have {classes} classes (largest label {classes - 1}), but the network returns "
            f"{logits.shape[1]} logits; "
            "expected every label below the number of logits: is this the network for this data?"
        )
        raise ValueError(msg)
    check_logits(logits, batch.start)
    _warn_of_probabilities(logits, network)
    _check_names(network, batch.class_names)


def _warn_of_probabilities(logits: Tensor, network: Network) -> None:
    """Rows in [0, 1] that all sum to 1 are hardly logits, nor is what a sigmoid has returned."""
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
    warnings.warn(msg, UserWarning, stacklevel=5)


def check_exchangeable(network: Network) -> None:
    """The logits are a function of the parameters and buffers that the network has registered, and of no other weights.

    Raises:
        ValueError: naming the tensor that is read elsewhere, or the shapes of the weights that are no parameters.
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
            "forward remembers to be held by the network itself, where it is computed again: look for lru_cache, and "
            "for dictionaries of a class or of the program"
        )
        raise ValueError(msg)
    if network.unregistered:
        shapes = ", ".join(str(tuple(value.shape)) for value in network.unregistered[:5])
        msg = (
            f"the logits of {network.name} depend on {len(network.unregistered)} tensors that require gradients and "
            f"are no parameters of it, of shapes {shapes}; expected its weights to be registered: hold layers in an "
            "nn.ModuleList or nn.ModuleDict and tensors in nn.Parameter, or call requires_grad_(False) on what is to "
            "stay as it is"
        )
        raise ValueError(msg)


def _check_names(network: Network, names: list[str] | None) -> None:
    """The data's classes have the numbers that the network gives them, as far as both know their names.

    Where no name is common to both, they are taken for two ways of naming, and nothing is compared.

    Raises:
        ValueError: for a name that stands for two numbers.
    """
    own = class_names_of(network.module)
    if own is None or names is None or {*own[0]}.isdisjoint(names):
        return
    if name := misplaced(names, own[0]):
        msg = (
            f"the class {name!r} is number {names.index(name)} of the data and number {own[0].index(name)} of the "
            f"network; expected one numbering: data = data.with_class_names([*model.{own[1]}])"
        )
        raise ValueError(msg)
    if unknown := [name for name in names if name not in own[0]]:
        warnings.warn(
            f"{len(unknown)} of the {len(names)} classes of the data, such as {unknown[0]!r}, are not among the "
            f"{len(own[0])} that the network names; the others agree",
            stacklevel=4,
        )


def check_logits(logits: Tensor, start: int) -> None:
    """The logits of the samples from `start` on are finite.

    Raises:
        ValueError: naming the first sample whose logits are not.
    """
    bad = ~logits.isfinite().all(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        msg = (
            f"the logits of sample {start + row} are not finite ({logits[row].tolist()}); expected finite logits: "
            "look for an overflow "
            "(half precision?) or an unusual input"
        )
        raise ValueError(msg)


def report_not_finite(network: Network, batches: Batches, per_sample: PerSample, loss: Any) -> NoReturn:
    """Why the risk at the network's own weights is not finite.

    Args:
        network: whose weights are meant.
        batches: inputs, from `prepare`, and labels.
        per_sample: logits, labels -> losses.
        loss: its name, or what a record says of it.

    Raises:
        ValueError: naming the first sample whose logits are not finite, or whose loss is not.
    """
    start = 0
    with torch.no_grad():
        for inputs, labels in batches:
            logits = network(inputs)
            check_logits(logits, start)
            values = per_sample(logits, labels)
            for row in (~values.isfinite()).nonzero().flatten().tolist()[:1]:
                fix = (
                    "look for a logarithm of 0, a division by 0 or a label that it does not know"
                    if isinstance(loss, dict) and "source" in loss
                    else "probe it in float64"
                )
                msg = (
                    f"the loss {_name(loss)} of sample {start + row} (label {int(labels[row])}) is "
                    f"{float(values[row])} at the network's own weights though its logits are finite; expected finite "
                    f"losses: {fix}"
                )
                raise ValueError(msg)
            start += len(labels)
    msg = f"the sum of the losses {_name(loss)} overflows at the network's own weights; probe it in float64"
    raise ValueError(msg)


def _name(loss: Any) -> str:
    return str(loss["name"]) if isinstance(loss, dict) and "name" in loss else str(loss)
