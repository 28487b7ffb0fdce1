"""The training loop."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flatprobe.data import LabelledData
from flatprobe.functional.user_loss import Loss
from flatprobe.network.contexts import standalone
from flatprobe.network.copies import structural_copy
from flatprobe.network.trained_on import mark_training_data
from flatprobe.training.diverged import DivergedError
from flatprobe.training.run import TrainingRun
from flatprobe.training.run_folder import Progress, RunFolder, fingerprint
from flatprobe.training.schedules import Schedule
from flatprobe.training.settings import Settings, made_constraints, made_penalties, made_transforms, reached
from flatprobe.training.trainer import Trainer
from flatprobe.utils.arguments import Flag, Named, Number, Whole, at_least, flag, is_number, one_of
from flatprobe.utils.results import environment
from flatprobe.utils.tensor_files import State
from flatprobe.utils.threads import thread_count, thread_rule
from flatprobe.utils.training_progress import reporting


@standalone
def train(
    network: nn.Module,
    data: LabelledData,
    *,
    validation: LabelledData | None = None,
    epochs: Whole = 100,
    until: str | None = None,
    target_loss: Number | None = None,
    objective: Loss | Any = "cross_entropy",
    optimizer: Named | Any = "sgd",
    learning_rate: Number = 0.01,
    momentum: Number = 0.9,
    weight_decay: Number = 0.0,
    schedule: Schedule = None,
    batch_size: Whole = 128,
    penalties: object = (),
    transforms: object = (),
    constraints: object = (),
    precision: str | None = None,
    out: str | Path | None = None,
    resume: Flag = True,
    save_every: Number = 10.0,
    seed: Whole = 0,
    threads: Whole | None = None,
    progress: Flag | None = False,
    on_failure: str = "raise",
) -> TrainingRun:
    """Minimise the mean loss over the data by minibatch steps on a copy of the network.

    After each epoch, loss and accuracy are measured over all data in eval mode by `EmpiricalRisk`: the figures by which
    training stops are those that the probes start from. That costs one forward pass an epoch, about a third of a
    training pass. The whole copy is trained in training mode; parameters that require no gradient stay as they are.

    Order and dropout noise depend on (seed, epoch) alone. On the CPU the weights are a function of the arguments and
    the thread count, to the last bit: that an interrupted run was resumed leaves no trace in them.

    A finished run is continued by training its model: `train(run.model, data, until="loss", ...)`; the optimizer then
    starts anew.

    Args:
        network: any classifier that returns logits (batch, classes), on the device and in the dtype to train in. It is
            not changed. Parts in eval mode in a network in training mode, and frozen parts of one in eval mode, stay in
            eval mode; the run's settings name them.
        data: the training data.
        validation: where given, measured after each epoch, and what `best.safetensors` is chosen by.
        epochs: the number of epochs, or with `until` the most that are done; 100 as in N20.
        until: None: exactly `epochs`; `"interpolation"`: until an epoch ends with 100 % training accuracy; `"loss"`:
            until one ends with a training loss of at most `target_loss`.
        target_loss: in units of the objective's loss (nats for the cross-entropy); with `until="loss"` only.
        objective: `"cross_entropy"` (T3, S17, N20); `"squared"` on one-hot targets, `"squared_signs"` on targets of +1
            and -1; `"hinge"`; `"maximum"` (O20 eq. 2.5) or its smoothing
            `{"name": "smoothed_maximum", "epsilon": e}` (O20 eqs 7.1, 7.2). The formulas:
            `flatprobe.functional.losses`. Or any function or module (logits, labels) -> (samples,), as in
            `fp.EmpiricalRisk`: of torch's losses the plain mean over the batch of what reduction="none" gives. The
            record has its source and what it carries.
        optimizer: `"sgd"` with momentum (S17), `"nesterov"`, `"adam"` (N20), or `{"name": "sgdl", "noise": s,
            "decay": a}`: noise of standard deviation s (1 + t)^(-a) in every weight after step t = 0, 1, ... (T3 eq.
            5, with momentum 0); a is 0.5 where it is left out, and 0 for constant noise (T3 Fig. 6).
        learning_rate: 0.01 is the first rate of S17's section VI-C1.
        momentum: of SGD, Nesterov and SGDL, or beta_1 of Adam; 0.9 as in S17's section VI-B2.
        weight_decay: d in d/2 ||w||^2, over all parameters; none by default, since it is one of the regularizers to
            study.
        schedule: factors on the learning rate: None (constant), `"cosine"` over the epochs, S17's steps as
            `{"name": "step", "stages": [(factor, epochs), ...]}`, or 1 / (1 + c k) in step k as `{"name": "inverse",
            "decay": c}`, whose rate and c `inverse_rate` derives from O20's constants.
        batch_size: samples a step; 128 is the usual size. A last batch of one sample joins the one before it.
        penalties: (strength, penalty) pairs: strength * P is added to the objective. A penalty is one of
            `fp.penalties` (SPEC section 5), its name, `{"name": ..., argument: value}`, or any function of a
            `fp.ForwardPass`, of which the record has the source and what it closes over. The history has a column with
            each one's mean over the epoch's steps, without the strength. One forward pass serves the objective and the
            penalties; `ForwardPass` says what they see of BatchNorm.
        transforms: of the inputs, applied to each batch one after the other: those of `fp.transforms`, or their names.
            The objective and the penalties are those of the transformed batch.
        constraints: on the weights, applied to the initial ones and after each step: those of `fp.constraints`.
        precision: None: the network's own; `"bfloat16"`: the objective's forward pass under `torch.autocast`, while
            the weights, the penalties and all measurements keep the network's own.
        out: a folder to write config.json, history.json, last.safetensors and best.safetensors to. A run that was
            interrupted there goes on where it stopped; a finished one is returned as it is.
        resume: False makes an existing run in `out` an error.
        save_every: the most seconds of training that an interruption loses; 0 saves after every epoch.
        seed: of the order of the samples, of the noise inside the network and of SGDL's noise (the network's initial
            weights are its own).
        threads: torch threads during the training, restored afterwards. None: those that an interrupted run began with,
            else `flatprobe.utils.threads.thread_rule`: one for small dense networks, as many as are set for others.
        progress: True: a bar on a terminal, else plain lines, on stderr; None: a bar on a terminal only.
        on_failure: when the stopping rule is not met within the epochs, `"raise"` an error, or `"flag"`: return the run
            with `reached == False`.

    Returns:
        The run: model in eval mode and without gradients, history, whether the stopping rule was met. Where the data
        name their classes the model keeps the names, `model.class_names`, and probes compare them with those of the
        data that they measure on.

    Raises:
        RuntimeError: if the loss, or a penalty, is not finite: with the term and the step, and what was trained up to
            the epoch before is kept in `out`; if the stopping rule is not met.
        ValueError: if `threads` is another count than the interrupted run's. Unsuitable settings, networks, data and
            folders are too.

    >>> data = LabelledData(torch.eye(4), torch.arange(4))
    >>> run = train(nn.Linear(4, 4), data, until="interpolation", learning_rate=1.0)
    >>> run.interpolated, run.model.training
    (True, False)
    """
    settings = Settings(
        epochs=epochs,
        until=until,
        target_loss=target_loss,
        objective=objective,
        optimizer=optimizer,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=schedule,
        batch_size=batch_size,
        penalties=made_penalties(penalties),
        transforms=made_transforms(transforms),
        constraints=made_constraints(constraints),
        precision=precision,
        seed=seed,
    )
    one_of("on_failure", on_failure, ("raise", "flag"))
    one_of("progress", progress, (True, False, None))
    flag(resume=resume)
    at_least(1, threads=threads)
    if not is_number(save_every) or not save_every >= 0:
        msg = f"save_every is {save_every!r}; expected a number of seconds, at least 0"
        raise ValueError(msg)
    with torch.inference_mode(mode=False):  # which enables gradients too
        trainer = Trainer(structural_copy(network), data, validation, settings)
        run = _run(trainer, threads, None if out is None else RunFolder(out), resume, save_every, progress)
    if not run.reached and on_failure == "raise":
        raise RuntimeError(_not_reached(run, settings))
    return run


def _run(
    trainer: Trainer,
    threads: int | None,
    folder: RunFolder | None,
    resume: bool,
    save_every: float,
    progress: bool | None,
) -> TrainingRun:
    """The whole run, or what is left of it."""
    config = _config(trainer, threads)
    if folder is not None:
        config = folder.claim(config, resume=resume)
        _check_threads(threads, config["environment"]["threads"], folder)
        if folder.finished() is not None:
            return TrainingRun.load(folder.path, trainer.module)
        trainer.restore(folder.progress())
    with thread_count(config["environment"]["threads"]):
        _epochs(trainer, folder, save_every, progress)
    trainer.module.zero_grad(set_to_none=True)
    mark_training_data(trainer.module, config["data"]["fingerprint"])
    return TrainingRun(
        model=trainer.module,
        history=trainer.history,
        reached=reached(vars(trainer.settings), trainer.history[-1]),
        settings=config,
        path=None if folder is None else folder.path,
    )


def _epochs(trainer: Trainer, folder: RunFolder | None, save_every: float, progress: bool | None) -> None:
    """Epochs until the rule is met or there are no more, saving on the way and at the end.

    Raises:
        DivergedError: if a term is not finite, once the last complete epoch is saved.
        KeyboardInterrupt: on Ctrl-C, with a note of what is kept.
    """
    best, saved, kept = None, time.monotonic(), len(trainer.history)
    with reporting(trainer.settings.epochs, len(trainer.history), progress) as report:
        while not trainer.done():
            before = None if folder is None else trainer.copied_progress()
            try:
                improved = trainer.epoch()
            except KeyboardInterrupt as error:
                if folder is not None:
                    error.add_note(f"{folder.path} holds epoch {kept} of the run, and the same call goes on from there")
                raise
            except DivergedError as error:
                msg = f"{error}{_keep(folder, before, best)}"
                raise DivergedError(msg) from error
            except Exception:  # of a penalty of the caller's own, say
                _keep(folder, before, best)
                raise
            report(trainer.history[-1])
            if folder is None:
                continue
            best = trainer.state() if improved else best
            if trainer.done() or time.monotonic() - saved >= save_every:
                folder.save(trainer.progress(), best, finished=trainer.done())
                best, saved, kept = None, time.monotonic(), len(trainer.history)


def _keep(folder: RunFolder | None, before: Progress | None, best: State | None) -> str:
    """Save what the last complete epoch ended with, where there is one; what to add to the error's message."""
    if folder is None or before is None or not before.history:
        return ""
    folder.save(before, best, finished=False)
    return f". {folder.path} holds the weights of epoch {len(before.history)}, before it happened"


def _config(trainer: Trainer, threads: int | None) -> dict[str, Any]:
    probed = trainer.risk.network
    network = probed.describe()
    device = network.pop("device")
    parameters = sum(value.numel() for value in probed.weights.values())
    return {
        "network": {**network, "initial_weights": fingerprint(trainer.module)},
        "data": trainer.risk.data.describe(),
        "validation": None if trainer.validation is None else trainer.validation.data.describe(),
        "settings": trainer.settings.as_json(),
        **({"in_eval_mode": trainer.resting} if trainer.resting else {}),
        "environment": {
            **environment(),
            "device": device,
            "threads": threads or thread_rule(parameters, trainer.settings.batch_size, probed.architecture),
        },
    }


def _check_threads(threads: int | None, recorded: int, folder: RunFolder) -> None:
    """The thread count that was asked for is the interrupted run's: other sums would give other bits.

    Raises:
        ValueError: if it is not.
    """
    if threads not in {None, recorded}:
        msg = (
            f"threads is {threads}, but the run in {folder.path} began with {recorded}; leave it out, or give the same"
        )
        raise ValueError(msg)


def _not_reached(run: TrainingRun, settings: Settings) -> str:
    last = run.history[-1]
    accuracies, losses = ([row[name] for row in run.history] for name in ("train_accuracy", "train_loss"))
    goal = (
        "100 % training accuracy" if settings.until == "interpolation" else f"a training loss of {settings.target_loss}"
    )
    return (
        f"the training did not reach {goal} within {run.epochs} epochs: it ended with accuracy "
        f"{100 * last['train_accuracy']:.2f} % and loss {last['train_loss']:.4g} (best: {100 * max(accuracies):.2f} % "
        f"and {min(losses):.4g}). Give it more epochs than {settings.epochs}, change the learning rate (it is "
        f"{settings.learning_rate}; random labels often want a lower one), normalise the inputs, or use "
        "optimizer='adam'; on_failure='flag' returns such a run"
        + ("" if run.path is None else f". What was trained lies in {run.path}")
    )
