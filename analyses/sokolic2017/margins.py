"""S17 eqs 34 to 37: tightness of the lower bounds of the margin.

Claim (S17 section IV): the margin of a sample is bounded from below by its score over a Jacobian norm, ever more
loosely as the norm is taken over a ball around the sample (gamma_1, eq. 34), over the training data (gamma_2, eq. 35),
as a product of spectral norms (gamma_3, eq. 36) or of Frobenius norms (gamma_4, eq. 37). The paper prints no figures.
All have the corrected constant (docs, Definitions). gamma_3 and gamma_4 are certified; gamma_1, gamma_2 and the
pairwise form "gradient" are estimates over sampled points. The upper bounds are the shortest perturbations that each
attack finds. Certificates subtract the rounding of single precision, so gamma_3 and gamma_4 are also computed for the
network in double precision.

Acceptance: no certified lower bound above an upper bound on any sample, and medians in S17's order: gamma_4 <= gamma_3
<= gamma_1, gamma_3 <= gamma_2, each below the median of the best attack, in double precision. The order of gamma_3 and
gamma_2 fails on the MLP (0.489 against 0.482): the certificate uses the last layer's rows pair by pair, S17's does not.

    python -m analyses.sokolic2017.margins --preset cpu

writes records/sokolic2017/margins-cpu.parquet: a row per network, sample and method. Run time on one core: quick 10 s,
cpu 3 min.
"""

import argparse
import copy
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn

import flatprobe as fp
from analyses.running import write_record
from flatprobe.attacks import MINIMUM_NORM
from flatprobe.graph.lipschitz import certified_margins
from flatprobe.utils.results import environment

LOWER = ("frobenius", "spectral", "gamma_2", "gamma_1", "gradient")
CERTIFIED = ("frobenius", "spectral")
DOUBLE = " in float64"  # follows the name of a certified method
LEARNING_RATE = 0.05  # SGD with momentum 0.9
BATCH_SIZE = 64  # samples
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Preset:
    """Data and networks of a preset."""

    data: str
    train: int  # samples that the networks interpolate
    test: int  # samples whose margins are measured
    networks: tuple[str, ...]
    epochs: int  # largest number per training


PRESETS = {
    "quick": Preset("digits", 300, 30, ("mlp",), 300),
    "cpu": Preset("ylecun/mnist", 3000, 200, ("mlp", "cnn"), 300),
}


def networks(preset: Preset, seed: int) -> dict[str, nn.Module]:
    """T3's MLP of 512 units and N20's small CNN, trained to 100 % accuracy."""
    data = fp.load_data(preset.data, split="train", limit=preset.train)
    build = {
        "mlp": lambda: fp.models.mlp(data.input_shape, widths=(512,), seed=seed),
        "cnn": lambda: fp.models.thumwanit_cnn(data.input_shape, seed=seed),
    }
    options = {"until": "interpolation", "learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE, "seed": seed}
    return {name: fp.train(build[name](), data, epochs=preset.epochs, **options).model for name in preset.networks}


def measure(preset: Preset, seed: int = 0) -> tuple[pd.DataFrame, dict[str, object]]:
    """Rows of a preset, one per network, sample and method, and its data."""
    test = fp.load_data(preset.data, split="test", limit=preset.test)
    rows = []
    for name, network in networks(preset, seed).items():
        margins = fp.geometric_margins(network, test, lower=LOWER, upper=tuple(MINIMUM_NORM), seed=seed)
        for side, methods in (("lower", margins.lowers | in_double(network, test)), ("upper", margins.uppers)):
            for method, values in methods.items():
                part = pd.DataFrame({"sample": range(len(test)), "label": test.labels.numpy(), "value": values.numpy()})
                rows.append(part.assign(network=name, side=side, method=method, closest=margins.upper.numpy()))
    frame = pd.concat(rows, ignore_index=True)
    return frame[["network", "side", "method", "sample", "label", "value", "closest"]], {"data": test.describe()}


def in_double(network: nn.Module, data: fp.LabelledData) -> dict[str, torch.Tensor]:
    """The certified lower bounds of the network in double precision."""
    double = copy.deepcopy(network).double()
    assert isinstance(data.inputs, torch.Tensor)
    inputs = data.inputs.double()
    with torch.no_grad():
        logits = double(inputs)
    norms = inputs.flatten(1).norm(dim=1)
    return {
        f"{kind}{DOUBLE}": certified_margins(double, data.input_shape, kind)(logits, data.labels, norms)
        for kind in CERTIFIED
    }


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Medians over the samples, and lower bounds above adversarial points."""
    keys = ["network", "side", "method"]
    above = (frame["side"] == "lower") & (frame["value"] > frame["closest"])
    grouped = frame.assign(above=above).groupby(keys, sort=False)
    return grouped.agg(median=("value", "median"), above=("above", "sum"), samples=("value", "size")).reset_index()


def check_claims(frame: pd.DataFrame) -> dict[str, bool]:
    """Parts of the acceptance rule, and whether they hold."""
    found: dict[str, bool] = {}
    for network, rows in table(frame).groupby("network"):
        medians = rows.set_index("method")["median"].to_dict()
        counts = rows.set_index("method")["above"].to_dict()
        best = frame[frame["network"] == network].drop_duplicates("sample")["closest"].median()
        violated = any(counts[method] for method in CERTIFIED)
        found[f"{network}: no certified lower bound above an upper bound"] = not violated
        found[f"{network}: medians in S17's order"] = _is_ordered(medians, best)
    return found


def _is_ordered(medians: Mapping[str, float], best: float) -> bool:
    frobenius, spectral = (medians[f"{kind}{DOUBLE}"] for kind in CERTIFIED)
    order = frobenius <= spectral <= min(medians["gamma_1"], medians["gamma_2"])
    return bool(order and max(medians["gamma_1"], medians["gamma_2"]) <= best)


def main(arguments: list[str] | None = None) -> Path:
    """Measure a preset, write its record, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument(
        "--out", type=Path, help="record to write; by default records/sokolic2017/margins-PRESET.parquet"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    frame, subject = measure(preset, options.seed)
    out = options.out or ROOT / "records" / "sokolic2017" / f"margins-{options.preset}.parquet"
    command = f"python -m analyses.sokolic2017.margins --preset {options.preset} --seed {options.seed}"
    settings = {"preset": asdict(preset), "learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE}
    metadata = {"kind": "analysis", "command": command, "settings": settings, "subject": subject}
    return write_record(
        frame, out, metadata | {"environment": environment()}, shown=(table(frame),), claims=check_claims(frame)
    )


if __name__ == "__main__":
    main(sys.argv[1:])
