"""Random pairs of samples; pair k is a function of (seed, k)."""

import torch
from jaxtyping import Int64
from torch import Tensor

from flatprobe.utils import rng

BETWEEN = ("any", "same", "different")


def random_pairs(labels: Int64[Tensor, " samples"], count: int, between: str, seed: int) -> Int64[Tensor, "pairs 2"]:
    """Positions of random pairs of different samples.

    Args:
        labels: labels of all samples.
        count: number of pairs, which may repeat.
        between: `"any"` two samples, two of the `"same"` class, or of `"different"` classes.
        seed: seed of the draw; pair k depends on (seed, k) and the labels alone.

    Returns:
        (pairs, 2) positions: the first is uniform over the samples with a partner, the second over its partners.

    Raises:
        ValueError: if no pair exists.
    """
    counts = labels.bincount()
    partners = {"any": len(labels) - 1, "same": counts[labels] - 1, "different": len(labels) - counts[labels]}[between]
    choices = (torch.as_tensor(partners, device="cpu") > 0).expand(len(labels)).nonzero().flatten()
    if not len(choices):
        what = {"any": "two samples", "same": "two samples of one class", "different": "samples of two classes"}
        msg = f"there is no pair for between={between!r} among {len(labels)} samples; expected at least {what[between]}"
        raise ValueError(msg)
    ends = []
    for index in range(count):
        generator = rng.generator(seed, "pair", index)
        first = choices[torch.randint(len(choices), (), generator=generator, device="cpu")]
        allowed = {
            "any": torch.ones_like(labels, dtype=torch.bool),
            "same": labels == labels[first],
            "different": labels != labels[first],
        }[between]
        allowed[first] = False
        others = allowed.nonzero().flatten()
        ends.append(torch.stack([first, others[torch.randint(len(others), (), generator=generator, device="cpu")]]))
    return torch.stack(ends)
