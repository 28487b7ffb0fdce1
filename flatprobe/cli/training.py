"""The command that trains. What it needs is imported when it runs, so that --help is quick."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def train(
    *,
    data: str,
    network: str,
    out: Path,
    option: Annotated[dict[str, str] | None, Parameter(negative=())] = None,
    normalise: bool = False,
    limit: int | None = None,
    random_labels: float = 0.0,
    epochs: int = 100,
    until: str | None = None,
    target_loss: float | None = None,
    objective: str = "cross_entropy",
    optimizer: str = "sgd",
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    schedule: str | None = None,
    batch_size: int = 128,
    penalty: Annotated[list[str] | None, Parameter(negative=())] = None,
    transform: Annotated[list[str] | None, Parameter(negative=())] = None,
    constraint: Annotated[list[str] | None, Parameter(negative=())] = None,
    precision: str | None = None,
    validation: str | None = None,
    seed: int = 0,
) -> None:
    """Train a network and keep its checkpoints; an interrupted run goes on where it stopped.

    Parameters
    ----------
    data: str
        "digits", the name of a Hugging Face data set, or a folder that holds one.
    network: str
        mlp, sokolic_cnn, thumwanit_cnn, resnet, all_convolutional, all_cnn_c, small_alexnet, small_inception,
        wide_resnet or resnet18.
    out: Path
        The run's folder: config.json, history.json, best.safetensors, last.safetensors.
    option: dict[str, str]
        Arguments of the network, such as --option.widths "[512, 512]" or --option.depth 16.
    normalise: bool
        Begin the network with a layer that normalises the pixels by the training data's mean and standard deviation.
    limit: int
        Use the first so many samples.
    random_labels: float
        Fraction of the labels to replace by random ones.
    epochs: int
        Epochs, or with --until the most that are done.
    until: str
        "interpolation" stops at 100 % training accuracy, "loss" at --target-loss; not reaching it is an error.
    target_loss: float
        Training loss to stop at, with --until loss.
    objective: str
        cross_entropy, squared (targets 1 and 0), squared_signs (targets 1 and -1), hinge, maximum, or
        '{"name": "smoothed_maximum", "epsilon": 0.2}'.
    optimizer: str
        sgd (with momentum), nesterov, adam, or sgdl, which adds noise to the weights in each step:
        '{"name": "sgdl", "noise": 0.01, "decay": 0.5}' (a decay of 0 is constant noise).
    learning_rate: float
        Of the first epoch.
    momentum: float
        Of sgd, nesterov and sgdl, or the first beta of adam.
    weight_decay: float
        d in d/2 ||w||^2.
    schedule: str
        "cosine", '{"name": "step", "stages": [[1, 30], [0.1, 30]]}' (factor and epochs of each stage),
        '{"name": "inverse", "decay": 0.01}' (1 / (1 + decay k) in step k), or constant where it is left out.
    batch_size: int
        Samples a step.
    penalty: list[str]
        A penalty with its strength and its settings: '{"name": "jacobian_frobenius", "strength": 0.01, "projections":
        1}'; give the option again for each further one. `flatprobe.training.penalties` has the names.
    transform: list[str]
        A transformation of the inputs, by its name or as '{"name": ..., ...}', likewise.
    constraint: list[str]
        A constraint on the weights, likewise.
    precision: str
        bfloat16 runs the objective's forward pass in it; by default everything is in float32.
    validation: str
        A split of the data, such as "test", measured after each epoch and used to choose best.safetensors.
    seed: int
        Of the initial weights, the order of the samples, the random labels and the noise of sgdl.
    """
    import torch

    import flatprobe as fp
    from flatprobe.models import build

    samples = fp.load_data(data, limit=limit)
    if random_labels:
        samples = samples.with_random_labels(random_labels, seed=seed)
    arguments = {"input_shape": samples.input_shape, "classes": samples.classes, "seed": seed}
    module = build({"name": network, "arguments": arguments | {k: _value(v) for k, v in (option or {}).items()}})
    if normalise:
        inputs = samples.inputs
        assert isinstance(inputs, torch.Tensor)
        over = [0, *range(2, inputs.ndim)]
        module = fp.Normalised(module, inputs.mean(over).tolist(), inputs.std(over).tolist())
    run = fp.train(
        module,
        samples,
        validation=fp.load_data(data, split=validation) if validation else None,
        epochs=epochs,
        until=until,
        target_loss=target_loss,
        objective=_named(objective),
        optimizer=_named(optimizer),
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=None if schedule is None else _named(schedule),
        batch_size=batch_size,
        penalties=[_penalty(text) for text in penalty or ()],
        transforms=[_named(text) for text in transform or ()],
        constraints=[_named(text) for text in constraint or ()],
        precision=precision,
        out=out,
        seed=seed,
        progress=True,
    )
    last = run.history[-1]
    print(f"{out}: {run.epochs} epochs, loss {last['train_loss']:.4g}, accuracy {100 * last['train_accuracy']:.2f} %")


def _value(text: str) -> object:
    """JSON where it is JSON, else the word itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _named(text: str) -> str | dict[str, object]:
    """A name, or a name with its arguments as a JSON object.

    Raises:
        ValueError: for what begins as an object and is no JSON, with the place.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        value: dict[str, object] = json.loads(text)
    except json.JSONDecodeError as error:
        msg = (
            f"{text!r} is no JSON: {error.msg} at character {error.pos + 1}; expected an object such as "
            '\'{"name": ..., "argument": 1.0}\', names in double quotes, the whole in single ones'
        )
        raise ValueError(msg) from error
    return value


def _penalty(text: str) -> tuple[object, object]:
    """The strength, and the penalty without it.

    Raises:
        ValueError: if there is no strength.
    """
    asked = _named(text)
    if isinstance(asked, str) or "strength" not in asked:
        msg = (
            f"the penalty {text!r} has no strength; expected JSON such as "
            '\'{"name": "double_backpropagation", "strength": 0.1}\''
        )
        raise ValueError(msg)
    return asked.pop("strength"), asked
