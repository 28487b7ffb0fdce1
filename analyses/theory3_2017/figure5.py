"""Poggio et al. (2017), Fig. 5: components of minibatch gradients at the end of training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, ratio
from analyses.study import Study
from analyses.theory3_2017 import family

BINS = np.linspace(-5, 5, 41)  # of a component over its standard deviation
STAGES = ("initial", family.INTERPOLATED, family.EQUAL_LOSS)
NEARLY_NORMAL = (
    1.0  # excess kurtosis; a mean of 64 samples has that of one sample over 64. Our reading of "approximatively"
)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Networks, minibatch sizes (samples; the last one nearly all) and draws of a preset."""

    family: family.Family
    batch_sizes: Sequence[int]  # not stated
    draws: int  # minibatches; not stated
    components: int = 64  # not stated


PRESETS = {
    "quick": Preset(family=family.MNIST["quick"], batch_sizes=(4, 16, 26), draws=40),
    "cpu": Preset(family=family.MNIST["cpu"], batch_sizes=(4, 16, 64, 256, 996), draws=100),
    "paper": Preset(family=family.MNIST["paper"], batch_sizes=(4, 16, 64, 256, 1024, 59996), draws=1000),
}


def noise(model: object, data: fp.LabelledData, *, batch_size: int, draws: int, components: int) -> pd.DataFrame:
    """Histogram of the noise's components, each over its standard deviation, with the figures of the noise."""
    found = fp.gradient_noise(fp.EmpiricalRisk(model, data), batch_size=batch_size, draws=draws, components=components)
    standard = (found.noise / found.noise.square().mean(0).sqrt()).numpy()
    counts, _ = np.histogram(standard.clip(BINS[0], BINS[-1]), BINS)
    return pd.DataFrame({"from": BINS[:-1], "to": BINS[1:], "share": counts / standard.size}).assign(**found.summary())


def table(preset: Preset, study: Study) -> pd.DataFrame:
    """One row per network, stage, minibatch size and bin."""
    measurements = [
        fp.Measurement(
            "analyses.theory3_2017.figure5:noise",
            stage=stage,
            arguments={"batch_size": size, "draws": preset.draws, "components": preset.components},
            name=f"{stage}, {size}",
        )
        for stage in STAGES
        for size in (preset.batch_sizes if stage == family.INTERPOLATED else preset.batch_sizes[-2:-1])
    ]
    found = study.sweep(preset.family.networks(), measurements)
    parts = [
        family.cells(found[m.name]).assign(stage=m.stage, batch_size=m.arguments["batch_size"]) for m in measurements
    ]
    columns = ["labels", "scale", "draw", "stage", "batch_size", "from", "to", "share", "mean_kurtosis"]
    return pd.concat(parts, ignore_index=True)[[*columns, "mean_kurtosis_error", "trace_covariance", "gradient_norm"]]


def rules(frame: pd.DataFrame) -> list[Outcome]:
    """Nearly normal components at middle sizes, and a full gradient that is small beside the noise."""
    frame = frame.drop_duplicates(["labels", "scale", "draw", "stage", "batch_size"])
    frame = frame.assign(length=(frame["trace_covariance"] / frame["batch_size"]) ** 0.5 / frame["gradient_norm"])
    ended = frame[(frame["stage"] == family.INTERPOLATED) & (frame["labels"] == "natural")]
    found = []
    for scale in family.SCALES:
        kurtosis = ended[ended["scale"] == scale].pivot_table(
            index="draw", columns="batch_size", values="mean_kurtosis"
        )
        small, *_, middle, nearly_all = kurtosis.columns
        at = f"initial weights x{scale}"
        shared = {"unit": "excess kurtosis", "beside": scale != 1}
        found += [
            difference(f"{NORMAL} ({at})", NEARLY_NORMAL - kurtosis[middle].abs(), **shared),
            difference(f"{SMALL} ({at})", kurtosis[small] - kurtosis[middle], **shared),
            difference(f"{LARGE} ({at})", kurtosis[nearly_all] - kurtosis[middle], **shared),
        ]
        lengths = {
            stage: part.set_index("draw")["length"]
            for stage, part in frame[
                (frame["labels"] == "natural") & (frame["scale"] == scale) & (frame["batch_size"] == middle)
            ].groupby("stage")
        }
        one = np.ones(len(kurtosis))
        found += [
            ratio(f"{GRADIENT} ({at})", lengths[family.INTERPOLATED], one, beside=scale != 1),
            ratio(
                f"noise over full gradient grows over training ({at})",
                lengths[family.INTERPOLATED],
                lengths["initial"],
                beside=True,
            ),
        ]
    return found


NORMAL = "components are nearly normal for middle minibatches: excess kurtosis below 1, by this margin"
SMALL = "components are less normal for very small minibatches"
LARGE = "components are less normal for very large minibatches, nearly all samples"
GRADIENT = "the full gradient is small: the noise of a middle minibatch is longer, by this ratio"

REPRODUCTION = Reproduction(
    id="T3-F5",
    source="Poggio et al. (2017), Fig. 5",
    claim=(
        "In the asymptotic regime, the components of minibatch gradients are approximately Gaussian for minibatches "
        "that are not too small or too large, and their average, the full gradient, is very small."
    ),
    presets=PRESETS,
    table=table,
    rules=rules,
    differs=(
        "The rule reads the kurtosis alone. At 256 of 1,000 samples it is near that of a normal law, but the histogram "
        "has two peaks: few samples carry the gradient at 100 % accuracy, and a minibatch holds such a sample or does "
        f"not. {family.CUT} MNIST: the figure names no data set. Minibatch sizes, components and the asymptotic regime "
        "are not stated: the first epoch with 100 % training accuracy here, and further training to equal loss beside."
    ),
    cost="2 min",
)
