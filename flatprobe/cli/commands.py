"""The commands. Everything that they need is imported when they run, so that --help is quick."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from flatprobe.studies.compare import Comparison


def demo(*, out: Path = Path("flatprobe-demo"), seed: int = 0) -> None:
    """Train six networks on the bundled digits, natural and random labels, probe them, and write a report.

    Parameters
    ----------
    out: Path
        Folder for the checkpoints (runs), the measurements (records) and report.html. Finished runs in it are used
        again.
    seed: int
        Of the random labels, the initial weights, the order of the samples, the directions and the noise.
    """
    from flatprobe.cli.pages import demo_report
    from flatprobe.studies.demo import demo as study

    comparison = study(out, seed=seed, progress=True)
    page = demo_report(comparison, out / "report.html")
    _summary(comparison)
    print(f"report: {page}")


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
        out=out,
        seed=seed,
        progress=True,
    )
    last = run.history[-1]
    print(f"{out}: {run.epochs} epochs, loss {last['train_loss']:.4g}, accuracy {100 * last['train_accuracy']:.2f} %")


def probe(
    runs: Annotated[list[Path], Parameter(negative=())],
    *,
    out: Path,
    data: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    probes: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    model: str | None = None,
    seed: int = 0,
) -> None:
    """Measure trained networks and write one parquet record a network and probe; `flatprobe report` draws them.

    Runs whose names differ only in a number at their end ("natural-0", "natural-1") form a group: landscapes are
    measured between the networks of a group.

    Parameters
    ----------
    runs: list[Path]
        Run folders of `flatprobe train`, or checkpoint files (safetensors, or state_dicts with --model).
    out: Path
        Folder for the records.
    data: str
        "digits", the name of a Hugging Face data set, or a folder; by default what each run was trained on, its random
        labels too.
    split: str
        Which split of the data; by default the training data.
    limit: int
        Use the first so many samples.
    probes: list[str]
        By default flatness_radius, flatness_radius_last_layer, random_slice, hessian_eigenvalues, functional_margins,
        scores, jacobian_norms, gaussian_robustness, landscape; on request hessian_trace, worst_case_sharpness,
        gradient_noise, weight_norms, geometric_margins, jacobian_maximum, smoothed_certificate, adversarial_accuracy.
    model: str
        For checkpoints without a recipe: package.module:factory, called without arguments for the architecture.
    seed: int
        Of the directions and the noise.
    """
    from flatprobe.checkpoints import load_checkpoint
    from flatprobe.cli.inputs import architecture, data_of, group_of, names_of
    from flatprobe.studies.compare import compare

    names = names_of(runs)
    module = None if model is None else architecture(model)
    networks = {name: load_checkpoint(path, module) for name, path in names.items()}
    samples = {name: data_of(path, data, split, limit) for name, path in names.items()}
    groups = {name: group_of(name) for name in names}
    comparison = compare(networks, samples, probes=probes, groups=groups, seed=seed, progress=True, out=out)
    _summary(comparison)
    print(f"records: {out}")


def audit(
    run: Path,
    *,
    data: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    probes: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    changes: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    factor: float = 4.0,
    model: str | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Show which figures of a network move when its weights change and its function, or its decisions, do not.

    Parameters
    ----------
    run: Path
        Run folder of `flatprobe train`, or a checkpoint file (safetensors, or a state_dict with --model).
    data: str
        "digits", the name of a Hugging Face data set, or a folder; by default what the run was trained on.
    split: str
        Which split of the data; by default the training data.
    limit: int
        Use the first so many samples.
    probes: list[str]
        Those of `flatprobe probe` but the landscape, and flatness_radius_adaptive; by default the cheap ones.
    changes: list[str]
        rescaling, batch_norm, permutation, logit_scale; by default all.
    factor: float
        Of every second unit under rescaling and batch_norm, and of the logits; above 1.
    model: str
        For checkpoints without a recipe: package.module:factory, called without arguments for the architecture.
    seed: int
        Of the directions, the noise and the order of the units.
    out: Path
        A parquet file for the record; by default none is written.
    """
    import flatprobe as fp
    from flatprobe.cli.audits import show
    from flatprobe.cli.inputs import architecture, data_of

    network = fp.load_checkpoint(run, None if model is None else architecture(model))
    samples = data_of(run, data, split, limit)
    result = fp.audit(network, samples, probes=probes, changes=changes, factor=factor, seed=seed, progress=True)
    show(result)
    if out is not None:
        print(f"record: {fp.save(result, out)}")


def report(records: Path, *, out: Path = Path("report.html"), title: str = "flatprobe report") -> None:
    """Write one self-contained HTML page from the records of `flatprobe probe` or `flatprobe demo`.

    Parameters
    ----------
    records: Path
        Folder with one folder a measurement.
    out: Path
        The page.
    title: str
        Its heading.
    """
    from flatprobe.cli.pages import records_report

    print(f"report: {records_report(records, out, title=title)}")


def _value(text: str) -> object:
    """JSON where it is JSON, else the word itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _named(text: str) -> str | dict[str, object]:
    """A name, or a name with its arguments as a JSON object."""
    value = _value(text)
    return value if isinstance(value, dict) else text


def _summary(comparison: "Comparison") -> None:
    """The headline figures as a table on stdout."""
    from rich.console import Console

    from flatprobe.cli.pages import summary_table

    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(summary_table(comparison))
