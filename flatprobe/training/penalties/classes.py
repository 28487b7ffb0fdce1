"""Sums over classes of maxima over a batch, for the lower bounds of the RKHS norm."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flatprobe.attacks.points import Points, Values, per_sample
from flatprobe.training.forward import ForwardPass
from flatprobe.utils.arguments import Whole, at_least, given, one_of


def check_classes(classes: str | Whole) -> None:
    """Check that the classes are "all" or a number.

    Raises:
        ValueError: for a word other than "all", or a number below 1.
    """
    if isinstance(classes, str):
        one_of("classes", classes, ("all",))
    else:
        given(classes=classes)
        at_least(1, classes=classes)


def draw_classes(passed: ForwardPass, classes: str | int, name: str) -> tuple[list[int], float]:
    """The classes to sum over, and the factor that makes the sum unbiased: count / drawn.

    Args:
        passed: the batch.
        classes: "all", or the number of classes drawn in each pass, without repetition.
        name: of the penalty, for its random numbers.
    """
    count = passed.logits.shape[1]
    if isinstance(classes, str) or classes >= count:
        return list(range(count)), 1.0
    drawn = passed.uniform((count,), name, "classes").argsort()[:classes]
    return drawn.tolist(), count / classes


def group_rows(rows: Sequence[int]) -> list[list[int]]:
    """The positions in `rows` in the fewest groups without a repeated row, so that one pass serves a group.

    >>> group_rows([4, 2, 4, 4, 1])
    [[0, 1, 4], [2], [3]]
    """
    groups: list[list[int]] = []
    for position, row in enumerate(rows):
        earlier = rows[:position].count(row)
        groups[earlier:] = [[*(groups[earlier] if earlier < len(groups) else []), position], *groups[earlier + 1 :]]
    return groups


def climb(
    passed: ForwardPass, k: int, steps: int, moved: Callable[[Tensor | None, Points], tuple[Tensor, Points]]
) -> tuple[Points, Values]:
    """The points of an ascent with the largest f_k per sample, and their gains over f_k(x).

    Args:
        passed: the batch.
        k: the class.
        steps: of the ascent; 1 forward and 1 backward pass to the inputs each.
        moved: (position, gradient of f_k at its points) -> next position and its points; None at the start.

    Returns:
        The points, x where no point is higher, and the gains, at least 0; both detached.
    """
    at: Tensor | None = None
    position: Tensor | None = None
    logits = passed.logits
    height = logits[:, k].detach()
    best, gain = passed.inputs.detach(), torch.zeros_like(height)
    for step in range(steps):
        gradient = passed.derivative(logits[:, k], at=at, create_graph=False)
        position, points = moved(position, gradient)
        at = points.detach().requires_grad_()
        with torch.set_grad_enabled(step + 1 < steps):
            logits = passed.again(at)
        found = logits[:, k].detach() - height
        best = torch.where(per_sample(found > gain, best), at.detach(), best)
        gain = torch.maximum(gain, found)
    return best, gain


def sum_maxima(
    passed: ForwardPass,
    classes: str | int,
    name: str,
    walk: Callable[[int], tuple[Points, Values]],
) -> Tensor:
    """sum_k max_i (f_k(x_i') - f_k(x_i))^2, x_i' the ascent's points for class k; differentiable in the weights.

    The x_i' are detached, and only the maximal sample of each class is differentiated: 1 forward pass for all classes,
    or as many as classes share a sample.

    Args:
        passed: the batch.
        classes: as in `draw_classes`.
        name: of the penalty, for its random numbers.
        walk: class -> points and gains.
    """
    summed, factor = draw_classes(passed, classes, name)
    points, rows = [], []
    for k in summed:
        found, gains = walk(k)
        rows.append(gains.argmax())
        points.append(found[rows[-1]])
    total = passed.logits.new_zeros(())
    own = torch.stack(rows)
    for group in group_rows(own.tolist()):
        at = own[group], [summed[position] for position in group]
        moved = passed.inputs.detach().clone()
        moved[own[group]] = torch.stack([points[position] for position in group])
        total = total + (passed.again(moved)[at] - passed.logits[at]).square().sum()
    return factor * total
