"""Lockstep training of many small networks."""

import math
import time
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from flatprobe.data import LabelledData
from flatprobe.data.inputs import tensors
from flatprobe.functional.user_loss import Loss
from flatprobe.network.contexts import standalone
from flatprobe.network.copies import structural_copy
from flatprobe.network.trained_on import mark_training_data
from flatprobe.risk.lockstep import agree
from flatprobe.training.diverged import FIX, DivergedError
from flatprobe.training.epoch import minibatches
from flatprobe.training.loop import describe_failure, describe_run
from flatprobe.training.run import TrainingRun
from flatprobe.training.schedules import Schedule, factor
from flatprobe.training.settings import Settings, rule_met
from flatprobe.training.stack import UPDATES, Stack
from flatprobe.training.trainer import Trainer
from flatprobe.utils.arguments import Checked, Flag, Number, Whole, at_least, one_of
from flatprobe.utils.progress import reporting
from flatprobe.utils.threads import thread_count, thread_rule

_ALONE = "Train these networks one by one with fp.train"
_FEW = 4  # samples on which stacked networks are compared with single ones


@standalone
def train_many(
    networks: Checked[Sequence[nn.Module]],
    data: Checked[LabelledData | Sequence[LabelledData]],
    *,
    epochs: Whole = 100,
    until: str | None = None,
    target_loss: Number | None = None,
    objective: Loss | Any = "cross_entropy",
    optimizer: str = "sgd",
    learning_rate: Checked[Number | Sequence[Number]] = 0.01,
    momentum: Number = 0.9,
    weight_decay: Checked[Number | Sequence[Number]] = 0.0,
    schedule: Schedule = None,
    batch_size: Whole = 128,
    seeds: Checked[Sequence[Whole] | None] = None,
    threads: Whole | None = None,
    progress: Flag | None = False,
    on_failure: str = "raise",
    **others: object,
) -> list[TrainingRun]:
    """Minimize the loss of many networks of one architecture in lockstep, by batched products of stacked weights.

    Run k is `train(networks[k], data[k], seed=seeds[k], ...)` in exact arithmetic, with the same batches. Its weights
    differ by rounding, since a batched product sums in another order: by 1e-13 after 100 steps in float64. In float32
    the difference grows during the training, so that runs may end in different epochs. A network that meets the
    stopping rule leaves the stack.

    Cost: the steps of one network have the Python calls of all. 20 networks 64-32-10 train in 0.3 of the CPU time of
    `train` one by one, 20 networks 64-512-10 in 0.9. Memory: the activations of all networks for one batch.

    The networks must act in training as in evaluation: no dropout, and BatchNorm only in eval mode within a network in
    training mode. Operations that torch cannot batch run once per network or are refused. Penalties, transforms,
    constraints, validation data and run folders are those of `train` alone.

    Args:
        networks: of one architecture, with their own initial weights. They are not changed.
        data: of all networks, or one per network with as many samples of one shape, such as other labels; in memory.
        epochs: as in `train`, as are the arguments without a comment here; the same for all networks.
        until: per network.
        target_loss: in units of the objective's loss.
        objective: a name or a function.
        optimizer: `"sgd"`, `"nesterov"` or `"adam"`.
        learning_rate: one for all, or one per network.
        momentum: beta_1 of Adam.
        weight_decay: one for all, or one per network.
        schedule: factors on the learning rates.
        batch_size: samples per step and network.
        seeds: of the order of the samples, one per network; None (default): 0, 1, 2, ...
        threads: None (default): by `flatprobe.utils.threads.thread_rule`, from the parameters of all networks.
        progress: True: a bar on a terminal, else plain lines, on stderr; None: a bar on a terminal only.
        on_failure: `"raise"` an error if a network does not meet the stopping rule, or `"flag"` its run.
        **others: refused, such as the further arguments of `train`.

    Returns:
        One run per network, in their order, without a path. `seconds` in the history is the time of all networks
        together.

    Raises:
        DivergedError: if a loss is not finite, naming the network; a `RuntimeError`.
        RuntimeError: if a stopping rule is not met, naming the network.
        TypeError: for anything but a sequence of networks.
        ValueError: for unsuitable settings, networks and data.
        ValueError: for networks that differ in more than their weights, or act otherwise in training.

    >>> data = LabelledData(torch.eye(4), torch.arange(4))
    >>> runs = train_many([nn.Linear(4, 4) for _ in range(3)], data, epochs=2, learning_rate=[0.1, 0.2, 0.3])
    >>> [run.history[-1]["learning_rate"] for run in runs]
    [0.1, 0.2, 0.3]
    """
    if others:
        msg = f"train_many must be called without {', '.join(others)}, got {others!r}. {_ALONE}"
        raise ValueError(msg)
    one_of("optimizer", optimizer, UPDATES)
    one_of("on_failure", on_failure, ("raise", "flag"))
    one_of("progress", progress, (True, False, None))
    at_least(1, threads=threads)
    members = _networks(networks)
    common: dict[str, Any] = {
        "epochs": epochs,
        "until": until,
        "target_loss": target_loss,
        "objective": objective,
        "optimizer": optimizer,
        "momentum": momentum,
        "schedule": schedule,
        "batch_size": batch_size,
        "penalties": (),
        "transforms": (),
        "constraints": (),
        "precision": None,
    }
    own = {
        "learning_rate": _each("learning_rate", learning_rate, members),
        "weight_decay": _each("weight_decay", weight_decay, members),
        "seed": _each("seeds", [*range(len(members))] if seeds is None else seeds, members),
    }
    settings = [Settings(**common, **dict(zip(own, values, strict=True))) for values in zip(*own.values(), strict=True)]
    with torch.inference_mode(mode=False), warnings.catch_warnings():
        # Of operations without a batching rule, such as weight norm, which run once per network, with the same result.
        warnings.filterwarnings("ignore", "There is a performance drop because we have not yet implemented the batch")
        trainers = [
            Trainer(structural_copy(network), part, None, chosen)
            for network, part, chosen in zip(members, _each("data", data, members), settings, strict=True)
        ]
        _check_alike(trainers)
        runs = _run(trainers, threads, progress)
    for place, run in enumerate(runs):
        if not run.reached and on_failure == "raise":
            msg = f"network {place}: {describe_failure(run, trainers[place].settings)}"
            raise RuntimeError(msg)
    return runs


def _run(trainers: list[Trainer], threads: int | None, progress: bool | None) -> list[TrainingRun]:
    network, settings = trainers[0].risk.network, trainers[0].settings
    parameters = len(trainers) * sum(value.numel() for value in network.weights.values())
    threads = threads or thread_rule(parameters, settings.batch_size, network.architecture)
    configs = [{**describe_run(own, threads), "lockstep": len(trainers)} for own in trainers]
    stack = Stack(trainers)
    _check_stack(stack)
    with thread_count(threads), reporting(settings.epochs, progress, epochs=True) as report:
        while stack.trainers:
            _epoch(stack, trainers)
            stack.write_back()
            stack.keep([place for place, own in enumerate(stack.trainers) if not own.done()])
            report(f"{len(stack.trainers)} networks in training")
    for own, config in zip(trainers, configs, strict=True):
        mark_training_data(own.module, config["data"]["fingerprint"])
    return [
        TrainingRun(
            model=own.module,
            history=own.history,
            reached=rule_met(vars(own.settings), own.history[-1]),
            settings=config,
            path=None,
        )
        for own, config in zip(trainers, configs, strict=True)
    ]


def _epoch(stack: Stack, all_trainers: list[Trainer]) -> None:
    """Train one epoch of the stack, and add its row to each history.

    Raises:
        DivergedError: if a loss is not finite.
    """
    started, own = time.perf_counter(), [trainer.settings for trainer in stack.trainers]
    first, epoch = own[0], len(stack.trainers[0].history)
    rates, decays = (
        torch.tensor([getattr(part, name) for part in own], dtype=torch.float64, device="cpu")
        for name in ("learning_rate", "weight_decay")
    )
    samples, waiting = len(stack.trainers[0].risk.data), []
    orders = [minibatches(samples, first.batch_size, part.seed, epoch) for part in own]
    batches = [torch.stack(positions) for positions in zip(*orders, strict=True)]
    for number, positions in enumerate(batches):
        losses = stack.losses(positions)
        torch.autograd.backward(losses.sum(), inputs=stack.parameters)
        scale = factor(first.schedule, epoch, first.epochs, epoch * len(batches) + number)
        stack.step(rates * scale, decays)
        waiting.append(losses.detach())
    found = torch.stack(waiting).cpu()
    risks = stack.risks()
    finite = found.isfinite().all(0).tolist()
    for trainer, risk, rate, fits in zip(stack.trainers, risks, (rates * scale).tolist(), finite, strict=True):
        if not fits or not math.isfinite(risk.loss):
            place = all_trainers.index(trainer)
            msg = f"the loss of network {place} is not finite in epoch {epoch + 1}; {FIX}"
            raise DivergedError(msg)
        row = {"epoch": epoch + 1, "train_loss": risk.loss, "train_accuracy": 1 - risk.error, "learning_rate": rate}
        trainer.history.append({**row, "seconds": time.perf_counter() - started})


def _networks(networks: object) -> list[nn.Module]:
    """The networks as a list.

    Raises:
        TypeError: for anything but a sequence of networks.
        ValueError: for none.
    """
    if not isinstance(networks, Sequence | nn.ModuleList) or isinstance(networks, nn.Sequential | str):
        msg = f"networks must be a list of networks, got a {type(networks).__name__}. Give [network, ...]"
        raise TypeError(msg)
    if not networks:
        msg = "networks must hold at least one network, got none"
        raise ValueError(msg)
    return list(networks)


def _each(name: str, given: Any, networks: Sequence[nn.Module]) -> Sequence[Any]:
    """One entry per network.

    Raises:
        ValueError: for a sequence of another length.
    """
    given = given.tolist() if hasattr(given, "tolist") else given  # NumPy's arrays and torch's tensors
    if not isinstance(given, Sequence) or isinstance(given, str):
        return [given] * len(networks)
    if len(given) != len(networks):
        msg = f"{name} must have one entry per network, {len(networks)}, got {len(given)}"
        raise ValueError(msg)
    return given


def _check_alike(trainers: Sequence[Trainer]) -> None:
    """Check that the data have one size, and that the networks have one architecture.

    Raises:
        ValueError: for other data and networks.
    """
    sizes, kinds = [_size_of(own.risk.data) for own in trainers], [_kind_of(own.module) for own in trainers]
    for place, (size, kind) in enumerate(zip(sizes, kinds, strict=True)):
        if size != sizes[0]:
            msg = f"data must have one size for all networks, got {sizes[0]} and, of network {place}, {size}. {_ALONE}"
            raise ValueError(msg)
        if kind != kinds[0]:
            msg = f"networks must be of one architecture, got other parameters or buffers in network {place}. {_ALONE}"
            raise ValueError(msg)


def _size_of(data: LabelledData) -> list[tuple[int, ...]]:
    try:
        return [tuple(part.shape) for part in tensors(data.inputs)]
    except RuntimeError as error:
        msg = f"data must be in memory for training in lockstep, got streamed or changed ones ({error}). {_ALONE}"
        raise ValueError(msg) from error


def _kind_of(module: nn.Module) -> list[tuple[object, ...]]:
    named = [*module.named_parameters(), *module.named_buffers()]
    return [(name, tuple(value.shape), value.dtype, value.device, value.requires_grad) for name, value in named]


def _check_stack(stack: Stack) -> None:
    """Check on a few samples that the stack computes what each network computes, in both modes.

    Raises:
        ValueError: for networks that differ in more than their weights, act otherwise in training, or have operations
            without a rule for stacked weights.
    """
    few = torch.arange(min(_FEW, len(stack.trainers[0].risk.data)), device="cpu")
    positions = few.expand(len(stack.trainers), -1)
    try:
        together = stack.logits_at(positions)
        torch.autograd.grad(stack.losses(positions).sum(), stack.parameters, allow_unused=True)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[0]
        msg = f"networks must have operations that torch.vmap stacks, got one without ({said}). {_ALONE}"
        raise ValueError(msg) from error
    for place, (trainer, logits) in enumerate(zip(stack.trainers, together, strict=True)):
        alone = trainer.logits_at(few)
        if not agree(logits, alone):
            msg = f"networks must differ in their weights alone, got another function in network {place}. {_ALONE}"
            raise ValueError(msg)
        if trainer.acts_otherwise_in_training(few):
            msg = (
                f"networks must act in training as in evaluation, got dropout, BatchNorm or the like in network "
                f"{place}. Put these layers alone into eval mode, or train these networks one by one with fp.train"
            )
            raise ValueError(msg)
