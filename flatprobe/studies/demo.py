"""Demonstration: natural against random labels on the bundled digits, trained and probed from scratch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from flatprobe.data import LabelledData
from flatprobe.data.load import load_data
from flatprobe.models import Normalised, mlp
from flatprobe.studies.compare import Comparison, compare
from flatprobe.studies.facts import KEY
from flatprobe.studies.probes_by_name import LANDSCAPE
from flatprobe.training import train
from flatprobe.utils.progress import Clock, reporting
from flatprobe.utils.results import Result, check_places
from flatprobe.utils.threads import thread_count

NATURAL, RANDOM = "natural labels", "random labels"
MINIMIZERS = 3  # the corners of a triangle
WIDTHS = (512,)  # T3 Table 2's MLP

# SGD at this constant rate reaches 100 % on either kind of labels within a hundred epochs; at 0.1 without
# normalization, training on random labels failed. Mean and standard deviation are those of the digits' pixels, rounded.
LEARNING_RATE = 0.05
BATCH_SIZE = 64
# From 100 % accuracy on, larger batches allow a larger rate, since SGD's noise grows with rate / batch size. Random
# labels then take half the time. At 1.6 times this quotient training leaves the minimum: the loss rises above 1.
EQUAL_LEARNING_RATE = 0.25
EQUAL_BATCH_SIZE = 256
MEAN, STD = 0.3, 0.37
EPOCHS = 2000
MEASURED = (
    "generalization",
    "flatness_radius",
    "flatness_radius_last_layer",
    "random_slice",
    "hessian_eigenvalues",
    "functional_margins",
    "scores",
    "jacobian_norms",
    "gaussian_robustness",
    LANDSCAPE,
)

# Training loss (nats) at which every network is probed again, so that epsilon = 0.05 means the same for all. It is
# below the loss of either kind of labels at the first epoch with 100 % accuracy.
EQUAL_LOSS = 0.005


def demo(out: str | Path, *, seed: int = 0, progress: bool | None = False) -> Comparison:
    """Comparison of three networks trained on natural and three trained on random labels of the digits.

    Each network is the MLP of 512 units of Poggio et al. (2017), Table 2 [T3], behind a layer that normalizes the
    pixels. Radii are measured twice: at the first epoch with 100 % training accuracy, and again at one equal loss. At
    the first, the loss differs several-fold between natural and random labels.

    Args:
        out: folder for `runs` (checkpoints) and `records` (parquet). Finished runs in the folder are reused.
        seed: of the random labels, the initial weights, the order of the samples, the directions and the noise.
        progress: True: a bar on a terminal, else plain lines, on stderr; None: a bar on a terminal only.

    Returns:
        The comparison, as saved under `out/records`.
    """
    out = Path(out)
    natural = load_data("digits", split="train")
    data = {NATURAL: natural, RANDOM: natural.with_random_labels(seed=seed)}
    names = {f"{label.split()[0]}-{index}": label for label in data for index in range(MINIMIZERS)}
    own = {name: data[label] for name, label in names.items()}
    radii = [probe for probe in MEASURED if probe.startswith("flatness_radius")]
    each = [*(probe for probe in MEASURED if probe != LANDSCAPE), *(f"{probe}_equal_loss" for probe in radii)]
    check_places(out / "records", {**dict.fromkeys(each, names), LANDSCAPE: data})
    first: dict[str, nn.Module] = {}
    equal: dict[str, nn.Module] = {}
    test, clock = load_data("digits", split="test"), Clock()
    # One thread: on images this small a second thread costs more than it gains.
    with thread_count(1), reporting(2 * len(names), progress) as step:
        for index, (name, label) in enumerate(names.items()):
            step(f"training {name} to 100 % accuracy")
            network = Normalised(mlp(natural.input_shape, widths=WIDTHS, seed=seed + index % MINIMIZERS), MEAN, STD)
            with clock("training to 100 % accuracy"):
                first[name] = _train(
                    network, data[label], out / "runs" / name, seed=seed + index, until="interpolation"
                )
            step(f"training {name} on to a loss of {EQUAL_LOSS}")
            folder = out / "runs" / f"{name}-equal-loss"
            with clock("training to equal loss"):
                equal[name] = _train(first[name], data[label], folder, seed=seed + index, until="loss")
    options: dict[str, Any] = {"groups": names, "seed": seed, "progress": progress, "threads": 1}
    with clock("probing"):
        comparison = compare(first, own, test=test, probes=MEASURED, **options)
        later = compare(equal, own, probes=radii, **options)
    results = comparison.results | {f"{probe}_equal_loss": _without_key(later.results[probe]) for probe in radii}
    combined = replace(comparison, results=results, seconds=clock.seconds)
    combined.save(out / "records")
    return combined


def _without_key(results: dict[str, Result]) -> dict[str, Result]:
    """The results without the keys of their networks, which have other weights here than elsewhere, as intended."""
    return {
        name: replace(result, settings={key: own for key, own in result.settings.items() if key != KEY})
        for name, result in results.items()
    }


def _train(network: nn.Module, data: LabelledData, out: Path, *, seed: int, until: str) -> nn.Module:
    equal = until == "loss"
    return train(
        network,
        data,
        epochs=EPOCHS,
        until=until,
        target_loss=EQUAL_LOSS if equal else None,
        learning_rate=EQUAL_LEARNING_RATE if equal else LEARNING_RATE,
        batch_size=EQUAL_BATCH_SIZE if equal else BATCH_SIZE,
        seed=seed,
        out=out,
    ).model
