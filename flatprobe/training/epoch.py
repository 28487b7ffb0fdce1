"""One epoch: minibatches in a shuffled order, one step each."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch.optim import Optimizer

from flatprobe.data import LabelledData
from flatprobe.inputs import Inputs
from flatprobe.models.seeding import seeded
from flatprobe.network import Network
from flatprobe.rng import permutation
from flatprobe.training.objectives import Objective


def train_epoch(
    module: nn.Module,
    placed: Network,
    data: LabelledData,
    optimizer: Optimizer,
    objective: Objective,
    *,
    rate: Callable[[int], float],
    batch_size: int,
    seed: int,
    epoch: int,
) -> None:
    """Take one step a minibatch, in place.

    Order and noise (dropout) depend on (seed, epoch) alone, so that resuming needs no state of a generator.

    Args:
        module: the network, in training mode.
        placed: the same network's `Network`, which knows where its inputs belong.
        data: the training data.
        optimizer: of the module's parameters.
        objective: (logits, labels) -> scalar.
        rate: the learning rate of a step, counted from 0 at the beginning of the training.
        batch_size: samples a step.
        seed: of the order and of the noise.
        epoch: counted from 0.
    """
    batches = list(minibatches(len(data), batch_size, seed, epoch))
    with seeded(seed, "noise", epoch, device=placed.device):
        for step, positions in enumerate(batches, epoch * len(batches)):
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            inputs, labels = data.gather(positions)
            optimizer.zero_grad(set_to_none=True)
            logits = forward(module, placed.laid_out(placed.prepare(inputs)))
            objective(logits, labels.to(placed.device)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def minibatches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[Int64[Tensor, " batch"]]:
    """All positions once, in an order that depends on (seed, epoch) alone, `batch_size` at a time.

    A last batch of a single sample joins the one before it (unless all batches are of one): BatchNorm cannot normalise
    one sample.

    >>> [len(batch) for batch in minibatches(9, 4, seed=0, epoch=0)]
    [4, 5]
    """
    order = permutation(count, seed, "shuffle", epoch)
    batches = list(torch.split(order, batch_size))
    if len(batches) > 1 and batch_size > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return iter(batches)


def forward(module: nn.Module, inputs: Inputs) -> Tensor:
    """The logits of a module in training mode, its inputs passed as `Network` passes them."""
    if isinstance(inputs, dict):
        outputs = module(**inputs)
    else:
        outputs = module(*inputs) if isinstance(inputs, tuple) else module(inputs)
    logits: Tensor = getattr(outputs, "logits", outputs)
    return logits
