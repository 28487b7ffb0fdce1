"""The command `train`. It imports its libraries when it runs, so that --help is quick."""

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
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Train a network and save its checkpoints. The same command resumes an interrupted run.

    Parameters
    ----------
    data: str
        "digits", the name of a Hugging Face data set, a folder, a file .npz or .pt, or a function that returns data as
        package.module:name or path/to/file.py:name.
    network: str
        Name of a network: mlp, sokolic_cnn, thumwanit_cnn, resnet, all_convolutional, all_cnn_c, small_alexnet,
        small_inception, wide_resnet or resnet18.
    out: Path
        Folder of the run, for config.json, history.json, best.safetensors and last.safetensors.
    option: dict[str, str]
        Arguments of the network, such as --option.widths "[512, 512]" for mlp or --option.depth 16 for wide_resnet.
    normalise: bool
        Add a first layer that normalizes the pixels by the mean and standard deviation of the training data.
    limit: int
        Number of training samples to use, from the first one on.
    random_labels: float
        Fraction of the labels that are replaced by random ones.
    epochs: int
        Number of epochs; with --until, the maximum number.
    until: str
        "interpolation" stops at 100 % training accuracy, "loss" at --target-loss. Missing the target is an error.
    target_loss: float
        Training loss at which --until loss stops.
    objective: str
        Training loss: cross_entropy, squared (targets 1 and 0), squared_signs (targets 1 and -1), hinge, maximum, or
        '{"name": "smoothed_maximum", "epsilon": 0.2}'.
    optimizer: str
        sgd (with momentum), nesterov, adam, or sgdl, which adds noise to the weights in each step:
        '{"name": "sgdl", "noise": 0.01, "decay": 0.5}'. A decay of 0 keeps the noise constant.
    learning_rate: float
        Learning rate of the first epoch.
    momentum: float
        Momentum of sgd, nesterov and sgdl, or the first beta of adam.
    weight_decay: float
        Coefficient d of the penalty d/2 ||w||^2.
    schedule: str
        Factor of the learning rate: cosine, '{"name": "step", "stages": [[1, 30], [0.1, 30]]}' (factor and epochs of
        each stage), or '{"name": "inverse", "decay": 0.01}' (1 / (1 + decay k) in step k). The default is constant.
    batch_size: int
        Samples per step.
    penalty: list[str]
        A penalty with its strength and settings, such as '{"name": "jacobian_frobenius", "strength": 0.01,
        "projections": 1}'. Repeat the option for several penalties.
    transform: list[str]
        A transformation of the inputs, as a name or '{"name": ..., ...}'. Repeat the option for several.
    constraint: list[str]
        A constraint on the weights, as a name or '{"name": ..., ...}'. Repeat the option for several.
    precision: str
        bfloat16 for a forward pass of the objective in bfloat16. The default is float32 throughout.
    validation: str
        Split of the data, such as test, that is measured after each epoch and selects best.safetensors.
    device: str
        Device of the training, such as cuda or cuda:1. The default is the CPU.
    seed: int
        Seed of the initial weights, the order of the samples, the random labels and the noise of sgdl.
    """
    import torch

    import flatprobe as fp
    from flatprobe.cli.reading import data_of
    from flatprobe.models import build
    from flatprobe.utils.devices import as_device

    place = as_device(device or "cpu")
    samples = data_of(None, data, None, limit)
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
        module.to(place),
        samples,
        validation=data_of(None, data, validation, None) if validation else None,
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
    unit = "epoch" if run.epochs == 1 else "epochs"
    print(f"{out}: {run.epochs} {unit}, loss {last['train_loss']:.4g}, accuracy {100 * last['train_accuracy']:.2f} %")
    if validation and "validation_accuracy" in last:
        accuracy, loss = last["validation_accuracy"], last["validation_loss"]
        gaps = f"gaps {loss - last['train_loss']:.4g} and {100 * (last['train_accuracy'] - accuracy):.2f} %"
        print(f"{validation}: loss {loss:.4g}, accuracy {100 * accuracy:.2f} %; {gaps}")


def _value(text: str) -> object:
    """The value of a JSON text, or the text itself if it is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _named(text: str) -> str | dict[str, object]:
    """A name, or a name with its arguments as a JSON object.

    Raises:
        ValueError: if the text begins like an object and is not valid JSON.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        value: dict[str, object] = json.loads(text)
    except json.JSONDecodeError as error:
        msg = (
            f"an option in braces must be valid JSON, got {text!r} ({error.msg} at character {error.pos + 1}). Write "
            """'{"name": ..., "argument": 1.0}', with double quotes inside and single quotes around it."""
        )
        raise ValueError(msg) from error
    return value


def _penalty(text: str) -> tuple[object, object]:
    """The strength, and the penalty without it.

    Raises:
        ValueError: if the strength is missing.
    """
    asked = _named(text)
    if isinstance(asked, str) or "strength" not in asked:
        msg = (
            f"--penalty must have a strength, got {text!r}. Write "
            """'{"name": "double_backpropagation", "strength": 0.1}'."""
        )
        raise ValueError(msg)
    return asked.pop("strength"), asked
