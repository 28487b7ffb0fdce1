"""Checks of a network's logits before anything is measured with them."""

from torch import Tensor

from flatprobe.data import Batch
from flatprobe.network import Network


def check_batch(network: Network, batch: Batch, classes: int) -> None:
    """The network takes the batch, gives finite logits for all its classes, and the same twice.

    Raises:
        ValueError: where it does not.
    """
    logits = network.checked(network.prepare(batch.inputs))
    if len(logits) != len(batch.labels):
        msg = (
            f"the network returns {len(logits)} rows of logits for a batch of {len(batch.labels)} samples; expected "
            "one row a "
            "sample, (batch, classes)"
        )
        raise ValueError(msg)
    if classes > logits.shape[1]:
        msg = (
            f"the labels have {classes} classes (largest label {classes - 1}), but the network returns "
            f"{logits.shape[1]} logits; "
            "expected every label below the number of logits: is this the network for this data?"
        )
        raise ValueError(msg)
    check_logits(logits, batch.start)


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
