"""Changed copies of a network, each checked against it on all of the data before anything is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from flatprobe.data import LabelledData
from flatprobe.graph.reparametrize import CHANGES, layout, reparametrize
from flatprobe.network.checks import check_batch
from flatprobe.network.network import Network
from flatprobe.utils.arguments import one_of


@dataclass(frozen=True)
class Copies:
    """What `checked_copies` found, by change.

    Attributes:
        networks: the changed copies.
        applied: what is known of each, as a record says it.
        missing: the changes without a copy, and why.
    """

    networks: dict[str, nn.Module]
    applied: dict[str, dict[str, Any]]
    missing: dict[str, str]


def checked_copies(network: Network, data: LabelledData, changes: Sequence[str], factor: float, seed: int) -> Copies:
    """The network's copies whose logits are its own, up to the square root of its precision relative to the largest.

    Args:
        network: as it was given.
        data: whose logits are compared, all of them.
        changes: names in `CHANGES`.
        factor: of `reparametrize`; the logits of `logit_scale` are expected to be as many times larger.
        seed: of `reparametrize`.

    Returns:
        `Copies`.

    Raises:
        ValueError: for an unknown change, or if there is no copy, with all the reasons.
    """
    for change in changes:
        one_of("change", change, CHANGES)
    found = layout(network.module, data.input_shape)
    copies: dict[str, nn.Module] = {}
    applied: dict[str, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    limit = float(torch.finfo(network.dtype).eps) ** 0.5
    for change in changes:
        kind = CHANGES[change]
        places = kind.places(found)
        if not places:
            missing[change] = kind.missing
            continue
        changed = reparametrize(network.module, found, change, factor=factor, seed=seed)
        scale = factor if kind.keeps == "decisions" else 1.0
        deviation, agree = _deviation(network, Network(changed), data, scale)
        if not deviation <= limit or (kind.keeps == "decisions" and not agree):
            missing[change] = (
                f"the copy's logits differ by {deviation:.2g} of the largest, or its classes do, and {limit:.1g} was "
                "expected: is a layer's weight used elsewhere in the network's code, or its precision too low?"
            )
            continue
        copies[change] = changed
        left = [name for name in kind.candidates(found) if name not in places]
        applied[change] = {
            "keeps": kind.keeps, "places": list(places), "left_out": left, "deviation": deviation, "limit": limit,
        }  # fmt: skip
    if not copies:
        reasons = "; ".join(f"{change}: {reason}" for change, reason in missing.items())
        msg = f"no change applies to {type(network.module).__name__}: {reasons or 'none was asked for'}"
        raise ValueError(msg)
    return Copies(copies, applied, missing)


def _deviation(before: Network, after: Network, data: LabelledData, scale: float) -> tuple[float, bool]:
    """max |z' - scale z| / max |scale z| over all samples and classes, and whether all decisions agree."""
    difference, largest, agree = 0.0, 0.0, True
    for batch in data.batches(before.batch_size()):
        if batch.start == 0:
            for network in (before, after):
                check_batch(network, batch, data.classes)
        inputs = before.prepare(batch.inputs)
        with torch.no_grad():
            z, changed = (network(inputs).double() for network in (before, after))
        difference = max(difference, float((changed - scale * z).abs().max()))
        largest = max(largest, float((scale * z).abs().max()))
        agree &= torch.equal(z.argmax(1), changed.argmax(1))
    return difference / largest if largest else difference, agree
