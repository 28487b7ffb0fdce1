"""Random subsets with the same number of samples of each class."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from flatprobe.utils.arguments import at_least
from flatprobe.utils.rng import permutation


def balanced_positions(
    labels: Int64[Tensor, " samples"], classes: int, per_class: int, seed: int, names: Sequence[str] | None
) -> Int64[Tensor, " subset"]:
    """Positions of random samples, with the labels 0, ..., classes - 1 in turn.

    Args:
        labels: all labels.
        classes: number of classes.
        per_class: samples per class.
        seed: seed of the draw.
        names: class names for the message, or None.

    Returns:
        `per_class * classes` positions, the beginning of those of a larger `per_class`.

    Raises:
        ValueError: if `per_class` is below 1, or a class has fewer samples.

    >>> balanced_positions(torch.tensor([1, 1, 0]), 2, 1, seed=0, names=None)
    tensor([2, 0])
    """
    at_least(1, per_class=per_class)
    counts = labels.bincount(minlength=classes)
    if int(counts.min()) < per_class:
        smallest = int(counts.argmin())
        name = f" ({names[smallest]!r})" if names is not None and smallest < len(names) else ""
        msg = (
            f"per_class must be at most the samples of each class, got {per_class}. Class {smallest}{name} has only "
            f"{int(counts[smallest])} of {len(labels)}; draw fewer, or from more samples"
        )
        raise ValueError(msg)
    order = permutation(len(labels), seed, "balanced subset")
    by_class = order[labels[order].argsort(stable=True)]
    starts = counts.cumsum(0) - counts
    return by_class[(starts + torch.arange(per_class, device="cpu")[:, None]).flatten()]
