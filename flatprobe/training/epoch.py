"""One epoch: a step per minibatch, in a shuffled order."""

import math
from collections.abc import Callable, Iterator
from typing import NoReturn

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.optim import Optimizer

from flatprobe.data import LabelledData
from flatprobe.data.inputs import Inputs
from flatprobe.network.differentiable import explain_errors
from flatprobe.training.diverged import FIX, DivergedError
from flatprobe.training.objective import Objective
from flatprobe.utils.rng import permutation
from flatprobe.utils.seeding import seeded

# Steps between checks of the terms: on a GPU each check waits for the device.
_LOOK_EVERY = 50


def train_epoch(
    objective: Objective,
    data: LabelledData,
    optimizer: Optimizer,
    *,
    after: Callable[[], None],
    rate: Callable[[int], float],
    batch_size: int,
    epoch: int,
) -> dict[str, float]:
    """Take one step per minibatch, in place.

    Order and noise (dropout) depend only on (seed, epoch), so that resuming needs no state of a generator.

    Args:
        objective: minimized by each step; its network is in training mode.
        data: the training data.
        optimizer: of the module's parameters.
        after: called after each step, for the constraints.
        rate: the learning rate as a function of the step, counted from 0 at the beginning of the training.
        batch_size: samples per step.
        epoch: counted from 0.

    Returns:
        The mean of each term of the objective over the steps, by its name.

    Raises:
        DivergedError: if a term is not finite, with its name and the step, at most 50 steps later.
    """
    batches = list(minibatches(len(data), batch_size, objective.seed, epoch))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sums: dict[str, float] = {}
    waiting: list[dict[str, Tensor]] = []
    with seeded(objective.seed, "noise", epoch, device=objective.placed.device):
        for number, positions in enumerate(batches):
            step = epoch * len(batches) + number
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            for parameter in parameters:  # `optimizer.zero_grad` without its profiler
                parameter.grad = None
            inputs, labels = data.gather(positions)
            try:
                total, values = objective(inputs, labels, step)
            except Exception as error:
                if waiting:  # Terms of steps that were not checked yet may give the reason.
                    _add(sums, waiting, step - 1, epoch)
                if all(bool(parameter.isfinite().all()) for parameter in parameters):
                    _explain(error, objective, inputs)
                msg = f"weights are not finite any more in step {step} (counted from 0), in epoch {epoch + 1}; {FIX}"
                raise DivergedError(msg) from error
            try:
                # Only the parameters' gradient: the inputs require one for the penalties, but the step does not use it.
                torch.autograd.backward(total, inputs=parameters)
            except RuntimeError as error:
                _explain(error, objective, inputs)
            optimizer.step()
            after()
            waiting.append({name: value.detach() for name, value in values.items()})
            if len(waiting) == _LOOK_EVERY or number + 1 == len(batches):
                _add(sums, waiting, step, epoch)
                waiting.clear()
    return {name: value / len(batches) for name, value in sums.items()}


def _explain(error: Exception, objective: Objective, inputs: Inputs) -> NoReturn:
    """Raise the error, which names the layer and a fix if it is about derivatives."""
    with explain_errors(objective.placed, inputs, twice=bool(objective.penalties)):
        raise error


def _add(sums: dict[str, float], waiting: list[dict[str, Tensor]], last: int, epoch: int) -> None:
    """Add the steps' terms to the sums.

    Raises:
        DivergedError: if a term is not finite.
    """
    names = list(waiting[0])
    if len(waiting) == 1:  # Of an epoch of one step: the same numbers without the calls of torch below.
        values = [float(waiting[0][name]) for name in names]
        if all(map(math.isfinite, values)):
            for name, value in zip(names, values, strict=True):
                sums[name] = sums.get(name, 0.0) + value
            return
    terms = torch.stack([row[name] for row in waiting for name in names])
    table = terms.cpu().double().view(len(waiting), len(names))
    finite = table.isfinite()
    if not bool(finite.all()):
        row = int((~finite).any(1).nonzero()[0])
        column = int((~finite[row]).nonzero()[0])
        step = last - len(waiting) + 1 + row
        others = ", ".join(f"{name} {float(table[row, k]):.4g}" for k, name in enumerate(names) if k != column)
        msg = (
            f"the term {names[column]!r} is {float(table[row, column])} in step {step} (counted from 0), in epoch "
            f"{epoch + 1}" + (f"; the other terms there: {others}" if others else "") + f"; {FIX}"
        )
        raise DivergedError(msg)
    for name, value in zip(names, table.sum(0).tolist(), strict=True):
        sums[name] = sums.get(name, 0.0) + value


def minibatches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[Int64[Tensor, " batch"]]:
    """All positions once, `batch_size` at a time, in an order that depends only on (seed, epoch).

    A last batch of a single sample joins the batch before it, unless all batches have one sample: BatchNorm cannot
    normalize one sample.

    >>> [len(batch) for batch in minibatches(9, 4, seed=0, epoch=0)]
    [4, 5]
    """
    order = permutation(count, seed, "shuffle", epoch)
    if count <= batch_size:
        return iter([order])
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and batch_size > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return iter(batches)
