"""Training loop."""

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
from flatprobe.training.run_folder import Progress, RunFolder, hash_state
from flatprobe.training.schedules import Schedule
from flatprobe.training.settings import Settings, rule_met
from flatprobe.training.trainer import Trainer
from flatprobe.utils.arguments import Flag, Named, Number, Whole, at_least, flag, is_number, one_of
from flatprobe.utils.progress import reporting
from flatprobe.utils.results import environment
from flatprobe.utils.tensor_files import State
from flatprobe.utils.threads import thread_count, thread_rule


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
    """Minimize the mean loss over the data by minibatch steps on a copy of the network.

    After each epoch, `EmpiricalRisk` measures loss and accuracy over all data in eval mode, so that training stops by
    the figures from which the probes start. Cost: 1 forward pass over the data per epoch, about a third of a training
    pass. The copy trains in training mode; parameters that require no gradient do not change.

    Order and dropout noise depend only on (seed, epoch). On the CPU the weights are a function of the arguments and the
    thread count, to the last bit, whether the run was interrupted and resumed or not.

    To continue a finished run, train its model: `train(run.model, data, until="loss", ...)`, with a new optimizer
    state.

    Args:
        network: any classifier that returns logits (batch, classes), on the device and in the dtype of the training. It
            is not changed. Modules in eval mode in a network in training mode, and frozen modules of a network in eval
            mode, stay in eval mode; the run's settings name them.
        data: the training data.
        validation: measured after each epoch; its loss selects `best.safetensors`.
        epochs: the number of epochs, with `until` the largest number; 100 as in Thumwanit (2020) [N20].
        until: None: exactly `epochs`; `"interpolation"`: until an epoch ends with 100 % training accuracy; `"loss"`:
            until an epoch ends with a training loss of at most `target_loss`.
        target_loss: in units of the objective's loss (nats for the cross-entropy); only with `until="loss"`.
        objective: `"cross_entropy"` (T3, S17, N20); `"squared"` on one-hot targets, `"squared_signs"` on targets of +1
            and -1; `"hinge"`; `"maximum"` (O20 eq. 2.5) or its smoothing
            `{"name": "smoothed_maximum", "epsilon": e}` (O20 eqs 7.1, 7.2). `flatprobe.functional.losses` has the
            formulas. Or any function or module (logits, labels) -> (samples,), as in `fp.EmpiricalRisk`; torch's losses
            are called with reduction="none" and averaged over the batch. The record has its fingerprint.
        optimizer: `"sgd"` with momentum (S17), `"nesterov"`, `"adam"` (N20), or `{"name": "sgdl", "noise": s,
            "decay": a}`: noise of standard deviation s (1 + t)^(-a) in every weight after step t = 0, 1, ... (T3 eq.
            5, with momentum 0); a is 0.5 by default, and 0 for constant noise (T3 Fig. 6).
        learning_rate: 0.01 is the first rate of Sokolić et al. (2017), section VI-C1 [S17].
        momentum: of SGD, Nesterov and SGDL, or beta_1 of Adam; 0.9 as in S17's section VI-B2.
        weight_decay: d in d/2 ||w||^2, over all parameters; 0 by default, as it is one of the regularizers to study.
        schedule: factors on the learning rate: None (constant), `"cosine"` over the epochs, S17's steps as
            `{"name": "step", "stages": [(factor, epochs), ...]}`, or 1 / (1 + c k) in step k as `{"name": "inverse",
            "decay": c}`, whose rate and c `inverse_rate` derives from the constants of Oberman (2020) [O20].
        batch_size: samples per step; 128 is the usual size. A last batch of one sample joins the batch before it.
        penalties: (strength, penalty) pairs: strength * P is added to the objective. A penalty is one of
            `fp.penalties`, its name, `{"name": ..., argument: value}`, or any function of a `fp.ForwardPass`, whose
            fingerprint the record has. The history has a column per penalty with the mean over the epoch's steps,
            without the strength. The objective and the penalties share one forward pass; see `fp.ForwardPass` for
            BatchNorm.
        transforms: of the inputs, from `fp.transforms` or by name, applied to each batch in order. The objective and
            the penalties take the transformed batch.
        constraints: on the weights, from `fp.constraints` or by name, applied to the initial weights and after each
            step.
        precision: None: the network's dtype; `"bfloat16"`: the objective's forward pass under `torch.autocast`, while
            the weights, the penalties and all measurements keep the network's dtype.
        out: a folder for config.json, history.json, last.safetensors and best.safetensors. A run that was interrupted
            there continues; a finished run is returned unchanged.
        resume: False makes an existing run in `out` an error.
        save_every: the largest number of seconds of training that an interruption loses; 0 saves after every epoch.
        seed: of the order of the samples, the noise inside the network, and SGDL's noise, but not of the network's
            initial weights.
        threads: torch threads during the training, restored afterwards. None: the count of the interrupted run, else
            `flatprobe.utils.threads.thread_rule`: one for small dense networks, the present count for others.
        progress: True: a bar on a terminal, else plain lines, on stderr; None: a bar on a terminal only.
        on_failure: if the stopping rule is not met within the epochs, `"raise"` an error, or `"flag"`: return the run
            with `reached == False`.

    Returns:
        The run: the model in eval mode and without gradients, its history, and whether the stopping rule was met. If
        the data name their classes, the model keeps the names as `model.class_names`, and probes compare them with
        those of their data.

    Raises:
        DivergedError: if the loss or a penalty is not finite; a `RuntimeError`. The message names the term and the
            step, and `out` keeps the weights of the epoch before.
        RuntimeError: if the stopping rule is not met.
        ValueError: for another `threads` than the interrupted run's.
        ValueError: for unsuitable settings, networks, data and folders.

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
        penalties=penalties,
        transforms=transforms,
        constraints=constraints,
        precision=precision,
        seed=seed,
    )
    one_of("on_failure", on_failure, ("raise", "flag"))
    one_of("progress", progress, (True, False, None))
    flag(resume=resume)
    at_least(1, threads=threads)
    if not is_number(save_every) or not save_every >= 0:
        msg = f"save_every must be a number of seconds, at least 0, got {save_every!r}"
        raise ValueError(msg)
    with torch.inference_mode(mode=False):  # which enables gradients too
        trainer = Trainer(structural_copy(network), data, validation, settings)
        run = _run(trainer, threads, None if out is None else RunFolder(out), resume, save_every, progress)
    if not run.reached and on_failure == "raise":
        raise RuntimeError(describe_failure(run, settings))
    return run


def _run(
    trainer: Trainer,
    threads: int | None,
    folder: RunFolder | None,
    resume: bool,
    save_every: float,
    progress: bool | None,
) -> TrainingRun:
    """The run from its beginning, or from its saved progress."""
    config = describe_run(trainer, threads)
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
        reached=rule_met(vars(trainer.settings), trainer.history[-1]),
        settings=config,
        path=None if folder is None else folder.path,
    )


def _epochs(trainer: Trainer, folder: RunFolder | None, save_every: float, progress: bool | None) -> None:
    """Train epochs until the stopping rule is met or none are left, and save meanwhile and at the end.

    Raises:
        DivergedError: if a term is not finite, after the last complete epoch is saved.
        KeyboardInterrupt: on Ctrl-C, with a note on the saved epoch.
    """
    best, saved, kept = None, time.monotonic(), len(trainer.history)
    with reporting(trainer.settings.epochs, progress, done=len(trainer.history), epochs=True) as report:
        while not trainer.done():
            before = None if folder is None else trainer.copy_progress()
            try:
                improved = trainer.epoch()
            except KeyboardInterrupt as error:
                if folder is not None:
                    error.add_note(f"{folder.path} holds epoch {kept} of the run, and the same call goes on from there")
                raise
            except DivergedError as error:
                msg = f"{error}{_keep(folder, before, best)}"
                raise DivergedError(msg) from error
            except Exception:  # A user-defined penalty may raise anything.
                _keep(folder, before, best)
                raise
            row = trainer.history[-1]
            report(f"loss {row['train_loss']:.4g}, accuracy {100 * row['train_accuracy']:.1f} %")
            if folder is None:
                continue
            best = trainer.state() if improved else best
            if trainer.done() or time.monotonic() - saved >= save_every:
                folder.save(trainer.progress(), best, finished=trainer.done())
                best, saved, kept = None, time.monotonic(), len(trainer.history)


def _keep(folder: RunFolder | None, before: Progress | None, best: State | None) -> str:
    """Save the last complete epoch, if there is one, and return a note for the error's message."""
    if folder is None or before is None or not before.history:
        return ""
    folder.save(before, best, finished=False)
    return f". {folder.path} holds the weights of epoch {len(before.history)}, before it happened"


def describe_run(trainer: Trainer, threads: int | None) -> dict[str, Any]:
    """The content of config.json."""
    probed = trainer.risk.network
    # The recipe holds the normalization; without these keys, runs of earlier versions go on.
    network = {key: own for key, own in probed.describe().items() if key not in ("inner_class", "normalised")}
    device = network.pop("device")
    parameters = sum(value.numel() for value in probed.weights.values())
    return {
        "network": {**network, "initial_weights": hash_state(trainer.module)},
        "data": trainer.risk.data.describe(),
        "validation": None if trainer.validation is None else trainer.validation.data.describe(),
        "settings": trainer.settings.as_json(),
        **({"in_eval_mode": trainer.in_eval_mode} if trainer.in_eval_mode else {}),
        "environment": {
            **environment(),
            "device": device,
            "threads": threads or thread_rule(parameters, trainer.settings.batch_size, probed.architecture),
        },
    }


def _check_threads(threads: int | None, recorded: int, folder: RunFolder) -> None:
    """Check that the thread count is the interrupted run's, since another order of sums would give other bits.

    Raises:
        ValueError: for another count.
    """
    if threads not in {None, recorded}:
        msg = (
            f"threads is {threads}, but the run in {folder.path} began with {recorded}; leave it out, or give the same"
        )
        raise ValueError(msg)


def describe_failure(run: TrainingRun, settings: Settings) -> str:
    """The message of a run that did not reach its goal."""
    last = run.history[-1]
    accuracies, losses = ([row[name] for row in run.history] for name in ("train_accuracy", "train_loss"))
    goal = (
        "100 % training accuracy" if settings.until == "interpolation" else f"a training loss of {settings.target_loss}"
    )
    return (
        f"the training did not reach {goal} within {run.epochs} epochs: it ended with accuracy "
        f"{100 * last['train_accuracy']:.2f} % and loss {last['train_loss']:.4g} (best: {100 * max(accuracies):.2f} % "
        f"and {min(losses):.4g}). Give it more epochs than {settings.epochs}, change the learning rate (it is "
        f"{settings.learning_rate}; random labels often want a lower one), normalize the inputs, or use "
        "optimizer='adam'; on_failure='flag' returns such a run"
        + ("" if run.path is None else f". The trained network is in {run.path}")
    )
