"""Poggio et al. (2017), Table 2: networks of growing size on CIFAR-10, without regularizers."""

from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, exact
from analyses.study import Study
from analyses.theory3_2017 import family

SHAPE = (3, 28, 28)  # channels and pixels, which the printed numbers of parameters imply
# As printed: number of parameters, training and test accuracy in percent.
PUBLISHED = {
    "MLP 1x512": (1_209_866, 100.0, 50.51),
    "Alexnet": (1_387_786, 100.0, 76.07),
    "Inception": (1_649_402, 100.0, 85.75),
    "Wide Resnet": (8_949_210, 100.0, 88.21),
}
NETWORKS = {
    "MLP 1x512": {"name": "mlp", "widths": [512]},
    "Alexnet": {"name": "small_alexnet"},
    "Inception": {"name": "small_inception"},
    "Wide Resnet": {"name": "wide_resnet", "depth": 40, "widening": 4},
}
# SGD with momentum 0.9, constant; not stated. The MLP diverges at 0.02.
LEARNING_RATES = {"MLP 1x512": 0.005, "Alexnet": 0.02, "Inception": 0.02, "Wide Resnet": 0.02}
MEAN, STD = 0.47, 0.25  # of the pixels, for the input normalization; not stated


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Data, networks and training of a preset; every training ends at the first epoch with 100 % accuracy."""

    data: str
    samples: int
    networks: tuple[str, ...]
    crop: int | None = 28
    pool: int | None = 10000  # first training samples, of which the samples are drawn
    draws: int = 3  # of samples, initial weights and order
    batch_size: int = 32  # samples; not stated
    tested: int | None = 2000  # first test samples; None for all


PRESETS = {
    "quick": Preset(
        data="digits", samples=40, networks=("MLP 1x512", "Alexnet"), crop=None, pool=None, draws=1, tested=200
    ),
    "cpu": Preset(data="uoft-cs/cifar10", samples=500, networks=("MLP 1x512", "Alexnet")),
    "paper": Preset(
        data="uoft-cs/cifar10", samples=50000, networks=tuple(NETWORKS), pool=None, batch_size=128, tested=None
    ),
}


def experiments(preset: Preset) -> dict[str, list[fp.Experiment]]:
    """One per draw, by network."""
    data = {"name": preset.data, "samples": preset.samples, "pool": preset.pool}
    stage = {"until": "interpolation", "epochs": 500, "batch_size": preset.batch_size}
    return {
        name: fp.Experiment(
            network=NETWORKS[name] | {"mean": MEAN, "std": STD},
            data=data if preset.crop is None else data | {"crop": preset.crop},
            stages=[stage | {"learning_rate": LEARNING_RATES[name]}],
        ).vary({("seeds.data", "seeds.network", "seeds.order"): [(draw,) * 3 for draw in range(preset.draws)]})
        for name in preset.networks
    }


def table(preset: Preset, study: Study) -> pd.DataFrame:
    """One row per network and draw: accuracies in percent, and the number of parameters at Table 2's input shape."""
    measurements = [fp.Measurement("risk", name="train"), fp.Measurement("risk", on="test", samples=preset.tested)]
    parts = []
    for name, chosen in experiments(preset).items():
        found = study.sweep(chosen, measurements)
        parts.append(
            found["train"].assign(
                network=name,
                draw=found["train"]["seeds.data"],
                train=100 * (1 - found["train"]["error"]),
                test=100 * (1 - found["risk"]["error"]),
            )[["network", "draw", "train", "test"]]
        )
    return pd.concat(parts, ignore_index=True).merge(counts(), on="network", how="outer")


def counts() -> pd.DataFrame:
    """The numbers of parameters of all networks of the table."""
    found = {}
    for name, described in NETWORKS.items():
        arguments = {key: value for key, value in described.items() if key != "name"}
        network = fp.models.NETWORKS[described["name"]](SHAPE, **arguments)
        found[name] = sum(parameter.numel() for parameter in network.parameters())
    return pd.DataFrame({"network": list(found), "parameters": list(found.values())})


def rules(frame: pd.DataFrame) -> list[Outcome]:
    """Numbers of parameters, 100 % on the training data, and a test accuracy that rises with the size."""
    sizes = frame.drop_duplicates("network").set_index("network")["parameters"]
    off = max(abs(sizes[name] - PUBLISHED[name][0]) for name in PUBLISHED)
    test = frame.dropna().pivot_table(index="draw", columns="network", values="test")
    trained = [name for name in PUBLISHED if name in test]
    found = [
        exact("numbers of parameters as printed", float(off), tolerance=0.0, problems=len(PUBLISHED)),
        exact(
            "training accuracy 100 %", 100 - frame["train"].min(), tolerance=0.0, problems=len(frame.dropna()), unit="%"
        ),
    ]
    for small, large in pairwise(trained):
        printed = PUBLISHED[large][2] - PUBLISHED[small][2]
        rule = f"test accuracy, {large} - {small}"
        band = (0.75 * printed, 1.25 * printed)
        found.append(difference(rule, test[large] - test[small], published=printed, band=band, unit="points"))
    return found


REPRODUCTION = Reproduction(
    id="T3-T2",
    source="Poggio et al. (2017), Table 2",
    claim=(
        "With all regularizers off, four networks reach 100 % on the training data of CIFAR-10, and the test accuracy "
        "does not drop with the number of parameters: it improves."
    ),
    published=[
        {"network": name, "parameters": size, "train": train, "test": test}
        for name, (size, train, test) in PUBLISHED.items()
    ],
    presets=PRESETS,
    table=table,
    rules=rules,
    differs=(
        "500 training samples in place of 50,000, and the two smallest networks: the others cost 63 s and more than "
        "150 s per 1,000 samples and epoch on a CPU core. 2,000 test samples, 3 draws. Learning rate, batch size, stop "
        f"and input normalization are not stated. {family.JPEG}"
    ),
    cost="6 min",
)
