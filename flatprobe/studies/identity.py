"""Identity of networks, losses and probe functions in records: the values that they compute, and their code."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from flatprobe.data import LabelledData
from flatprobe.data.validation import digest
from flatprobe.functional.outputs import at_least_single
from flatprobe.network.contexts import standalone
from flatprobe.network.network import Network
from flatprobe.network.outputs import Reading
from flatprobe.risk.task import Task
from flatprobe.utils.fingerprint import fingerprint, source_of, surroundings
from flatprobe.utils.rng import keep_global_states
from flatprobe.utils.threads import one_thread

FEW = 8  # samples, which every network takes at once
_UNSEEN = ("training", "trained_on")  # attributes without influence on a pass in eval mode
_PLAIN = (bool, int, float, complex, str, tuple, type(None))


def network_identity(model: nn.Module, data: LabelledData, loss: Any = None) -> dict[str, Any] | None:
    """Digests of a network's function: its outputs on the first samples, and what the outputs of others depend on.

    Equal weights and layers may belong to different functions, by another `forward` or another temperature. The outputs
    are compared exactly, by one thread. On another machine they may differ in the last digits, which counts as another
    network.

    Args:
        model: the network.
        data: its samples, of which the first 8 are passed through it.
        loss: the loss of the measurements; for "model" the output is the loss that the network returns.

    Returns:
        `outputs`, `sources` (the code of the classes of its parts), `around` (the files and global values behind
        `forward` of a user's classes) and `attributes` (public plain values of its parts).
        None where the network cannot be run.
    """
    with suppress(Exception):  # a user's module may raise anything
        outputs = _outputs(model, data, own_loss=loss == "model" or loss == {"name": "model"})[0]
        parts = list(model.modules())
        return {
            "outputs": digest({"outputs": outputs.reshape(-1)}),
            "sources": sorted({str(source_of(type(part))) for part in parts}),
            # The helpers and globals of a user's own file; installed libraries change by their version.
            "around": [surroundings(code) for code in dict.fromkeys(map(_own_forward, parts)) if code is not None],
            "attributes": digest({repr([_attributes(part) for part in parts]): torch.empty(0)}),
        }
    return None


def loss_identity(loss: Any, model: nn.Module, data: LabelledData) -> dict[str, Any] | None:
    """Digests of a user-defined loss: its values and errors of a network's first samples, and its code.

    Returns:
        `values` and `code`; None where the loss cannot be computed.
    """
    with suppress(Exception):
        outputs, labels = _outputs(model, data)
        task = Task(loss, data)
        values = {"values": task.per_sample(outputs, labels).detach()}
        if task.user is not None and task.user.error is not None:
            values["error"] = task.user.error(at_least_single(outputs), labels).detach()
        return {"values": digest(values), "code": surroundings(loss)}
    return None


def probe_identity(function: object) -> dict[str, Any] | None:
    """Fingerprint of a probe function, with the files and global values that it reads; None without a file."""
    with suppress(Exception):  # an object that cannot be inspected must not stop the others
        around = surroundings(function)
        return None if around is None else {**fingerprint(function), "around": around}
    return None


def _own_forward(part: nn.Module) -> Any:
    """The `forward` of a class in a user's file; None for one of flatprobe or an installed library."""
    forward = type(part).forward
    code = getattr(forward, "__code__", None)
    library = type(part).__module__.partition(".")[0] in {"torch", "flatprobe"}
    return None if library or code is None or "site-packages" in code.co_filename else forward


@standalone
def _outputs(model: nn.Module, data: LabelledData, *, own_loss: bool = False) -> tuple[Tensor, Tensor]:
    """Outputs and labels of the first samples."""
    network = Network(model, Reading("loss", alone=True) if own_loss else None)
    batch = next(iter(data.head(min(FEW, len(data))).batches(FEW)))
    with keep_global_states(), one_thread(), torch.no_grad():
        torch.manual_seed(0)
        return network(network.prepare(batch.inputs)), network.placed(batch.labels)


def _attributes(part: nn.Module) -> list[tuple[str, str]]:
    public = {name: value for name, value in vars(part).items() if not name.startswith("_") and name not in _UNSEEN}
    return sorted((name, repr(value)) for name, value in public.items() if isinstance(value, _PLAIN))
