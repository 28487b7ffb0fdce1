"""New labels for the same samples: random draws, or renumbering by class names."""

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from flatprobe.utils.rng import sample_uniform


def randomize(labels: Int64[Tensor, " samples"], classes: int, fraction: float, seed: int) -> Int64[Tensor, " samples"]:
    """Labels, each replaced by a uniform class with probability `fraction`.

    Raises:
        ValueError: if the fraction is outside [0, 1].
    """
    if not 0 <= fraction <= 1:
        msg = f"fraction must be a number in [0, 1], got {fraction}"
        raise ValueError(msg)
    count = len(labels)
    replaced = sample_uniform(0, count, seed, "random labels", "replaced").double() < fraction
    # In float64 the product of a float32 number below 1 and the number of classes cannot round up to that number.
    drawn = (sample_uniform(0, count, seed, "random labels", "class").double() * classes).long()
    return torch.where(replaced, drawn, labels)


def renumber(
    labels: Int64[Tensor, " samples"], own: Sequence[str] | None, names: Sequence[str]
) -> Int64[Tensor, " samples"]:
    """Labels of the same classes in another list of names.

    Args:
        labels: positions in `own`.
        own: class names in the present order.
        names: class names in the new order.

    Returns:
        Positions in `names`.

    Raises:
        ValueError: if there are no class names, or a class with samples is not exactly once among the new ones.
    """
    if own is None:
        msg = "the data must have class names, got none. Make them with source={'class_names': [...]}"
        raise ValueError(msg)
    held: list[int] = labels.unique().tolist()  # type: ignore[no-untyped-call]
    called = [own[k] if k < len(own) else f"number {k}, which has no name," for k in held]
    if unclear := [name for name in called if names.count(name) != 1]:
        listed = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
        msg = f"names must hold each class of the data once, and {unclear[0]!r} is not, got {listed}"
        raise ValueError(msg)
    places = torch.zeros(len(own), dtype=torch.int64, device="cpu")
    places[held] = torch.tensor([names.index(own[k]) for k in held], device="cpu")
    return places[labels]
