"""Reparametrized copies of a network, each checked against the network on all data."""

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
    """Copies by change, with the changes that have none.

    Attributes:
        networks: change -> changed copy.
        applied: change -> its entry in the settings.
        missing: change without a copy -> reason.
    """

    networks: dict[str, nn.Module]
    applied: dict[str, dict[str, Any]]
    missing: dict[str, str]


def make_copies(network: Network, data: LabelledData, changes: Sequence[str], factor: float, seed: int) -> Copies:
    """Copies with the network's logits, up to the square root of the precision relative to the largest logit.

    Args:
        network: the network as given.
        data: samples whose logits are compared, all of them.
        changes: names in `CHANGES`.
        factor: factor of `reparametrize`, by which `logit_scale` scales the logits.
        seed: seed of `reparametrize`.

    Returns:
        `Copies`.

    Raises:
        ValueError: for an unknown change, or if no change gives a copy; the message lists the reasons.
    """
    for change in changes:
        one_of("change", change, CHANGES)
    found = layout(network.module, data.input_shape, network.read.output)
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
        changed = network.read.module(reparametrize(network.module, found, change, factor=factor, seed=seed))
        scale = factor if kind.keeps == "decisions" else 1.0
        deviation, agree = _deviation(network, Network(changed), data, scale)
        if not deviation <= limit or (kind.keeps == "decisions" and not agree):
            missing[change] = (
                f"the copy's logits must agree to {limit:.1g} of the largest, with equal classes, got {deviation:.2g}"
                ". Look for a layer's weight used elsewhere in the network's code, or too low a precision"
            )
            continue
        copies[change] = changed
        left = [name for name in kind.candidates(found) if name not in places]
        applied[change] = {
            "keeps": kind.keeps, "places": list(places), "left_out": left, "deviation": deviation, "limit": limit,
        }  # fmt: skip
    if not copies:
        reasons = "; ".join(f"{change}: {reason}" for change, reason in missing.items())
        msg = f"at least one change must apply to {type(network.module).__name__}, got none: {reasons or 'none given'}"
        raise ValueError(msg)
    return Copies(copies, applied, missing)


def _deviation(before: Network, after: Network, data: LabelledData, scale: float) -> tuple[float, bool]:
    """max |z' - scale z| / max |scale z| over all samples and classes, and True if all decisions agree."""
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
