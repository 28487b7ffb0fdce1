"""T3 Table 1, the "flatness test": radii for natural and random labels.

Claim: around minimizers of SGD the training loss is flatter for natural labels than for random labels. The distance
along a random unit direction at which the loss has risen by 0.05 is larger. The paper prints, for MNIST, 45.4 +-
2.7 against 6.9 +- 1.0 over all parameters (a ratio of 6.6) and 15.0 +- 1.7 against 3.0 +- 0.1 over the top layer.

The paper leaves open, and is chosen and recorded here: network (Table 2's MLP 1x512), T = 10 directions, SGD's
settings, the stopping rule (the first epoch with 100 % training accuracy), n (presumably all 60,000). At that epoch the
loss is several times larger for random labels than for natural labels, which gives an epsilon in the loss different
meanings. Every network is therefore also measured after further training to one equal loss.

Acceptance: for each learning rate, n and stage, the mean radius over all parameters is larger for natural labels than
for random ones, and the ratio grows with n.

    python -m analyses.theory3_2017.table1 --preset cpu --workers 2

writes records/theory3_2017/table1-cpu.parquet: a row per direction. Run time on two cores: quick 10 s, cpu 10 min;
paper is meant for a GPU.
"""

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from torch import nn

import flatprobe as fp
from analyses.running import pool, write_record
from flatprobe.network.weights import norm
from flatprobe.utils.results import environment
from flatprobe.utils.threads import thread_count

# As printed: mean and standard deviation, MNIST column.
PUBLISHED = {
    ("all", "natural"): (45.4, 2.7),
    ("all", "random"): (6.9, 1.0),
    ("last", "natural"): (15.0, 1.7),
    ("last", "random"): (3.0, 0.1),
}

EPSILON = 0.05  # nats; T3 Table 1
DIRECTIONS = 10  # T, not stated
RTOL = 1e-2  # relative width of a radius' bracket
WIDTHS = (512,)  # hidden units; T3 Table 2's MLP
BATCH_SIZE = 128  # samples; not stated
PARAMETERS = {"all": None, "last": "last"}


@dataclass(frozen=True)
class Preset:
    """Data, sizes and training of a preset."""

    data: str
    sizes: tuple[int, ...]  # n, training samples
    minimizers: int  # per cell
    epochs: int  # largest number per stage of a training
    learning_rates: tuple[float, ...]  # SGD with momentum 0.9, constant; not stated
    equal_loss: float  # nats; below the loss of every network of the preset at its first 100 % epoch
    device: str = "cpu"


PRESETS = {
    "quick": Preset("digits", (60, 180), 2, 2000, (0.05,), 0.03),
    "cpu": Preset("ylecun/mnist", (1000, 3000, 10000), 3, 1000, (0.05,), 0.004),
    "slow": Preset("ylecun/mnist", (1000, 3000, 10000), 2, 1000, (0.01,), 0.006),
    "paper": Preset("ylecun/mnist", (60000,), 3, 3000, (0.01, 0.05), 0.001, "cuda"),
}

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Cell:
    """One network of the table, with its data and training."""

    preset: Preset
    n: int
    labels: str
    learning_rate: float
    minimizer: int
    seed: int  # seed of the random labels and the first minimizer

    def data(self) -> fp.LabelledData:
        """The training data."""
        natural = fp.load_data(self.preset.data, split="train", limit=self.n)
        return natural if self.labels == "natural" else natural.with_random_labels(seed=self.seed)


def cells(preset: Preset, seed: int) -> list[Cell]:
    """All networks of a preset, the largest first, so that workers end together."""
    return [
        Cell(preset, n, labels, rate, minimizer, seed)
        for n in sorted(preset.sizes, reverse=True)
        for rate in sorted(preset.learning_rates)
        for labels in ("random", "natural")
        for minimizer in range(preset.minimizers)
    ]


def measure(preset: Preset, seed: int = 0, workers: int = 1) -> tuple[pd.DataFrame, dict[str, object]]:
    """Rows of a preset, one per direction, and its data, with any number of workers."""
    chosen = cells(preset, seed)
    if workers == 1:
        measured = list(map(rows, chosen))
    else:
        with pool(workers) as workplace:
            measured = list(workplace.map(rows, chosen))
    frame = pd.DataFrame([row for part in measured for row in part])
    order = ["learning_rate", "n", "labels", "minimizer", "stage", "parameters", "direction"]
    read = [
        cell.data().describe()
        for cell in chosen
        if (cell.learning_rate, cell.minimizer) == (max(preset.learning_rates), 0)
    ]
    subject = {"data": read, "test": fp.load_data(preset.data, split="test").describe()}
    return frame.sort_values(order, ignore_index=True), subject


def rows(cell: Cell) -> list[dict[str, object]]:
    """Train one network through both stages, with a row per direction and radius."""
    start = time.monotonic()
    preset, seed, data = cell.preset, cell.seed + cell.minimizer, cell.data()
    test = fp.load_data(preset.data, split="test")
    names = {name: getattr(cell, name) for name in ("n", "labels", "learning_rate", "minimizer")}
    network: nn.Module = fp.models.mlp(data.input_shape, widths=WIDTHS, seed=seed).to(preset.device)
    found: list[dict[str, object]] = []
    for stage, until, target in (("first 100 %", "interpolation", None), ("equal loss", "loss", preset.equal_loss)):
        run = fp.train(
            network,
            data,
            epochs=preset.epochs,
            until=until,
            target_loss=target,
            learning_rate=cell.learning_rate,
            batch_size=BATCH_SIZE,
            seed=seed,
            on_failure="flag",
        )
        network = run.model
        risk = fp.EmpiricalRisk(network, data)
        common = names | {
            "stage": stage,
            "epochs": run.epochs,
            "met": run.reached,
            "train_loss": risk().loss,
            "train_accuracy": 1 - risk().error,
            "test_accuracy": 1 - fp.EmpiricalRisk(network, test)().error,
            "weight_norm": norm(risk.center),
            "margin_median": fp.functional_margins(network, data).summary()["median"],
        }
        for parameters, selection in PARAMETERS.items():
            radii = fp.flatness_radius(
                risk, epsilon=EPSILON, directions=DIRECTIONS, parameters=selection, rtol=RTOL, seed=seed
            )
            found += [common | {"parameters": parameters} | row for row in radii.to_frame().to_dict("records")]
    sys.stderr.write(f"{names}: {time.monotonic() - start:.0f} s\n")
    return found


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation of the minimizers' mean radii, beside T3's.

    Censored directions, and networks that did not meet the stopping rule of the stage within the epochs, are left out
    of the means and counted.
    """
    keys = ["learning_rate", "stage", "parameters", "n", "labels"]
    means = frame[frame["reached"] & frame["met"]].groupby([*keys, "minimizer"])["radius"].mean()
    averaged = means.groupby(keys).agg(["mean", "std"]).reindex(frame.groupby(keys).size().index)
    averaged["censored"] = (~frame["reached"]).groupby([frame[key] for key in keys]).sum()
    failed = frame[~frame["met"]].groupby(keys)["minimizer"].nunique()
    averaged["failed"] = failed.reindex(averaged.index, fill_value=0)
    for column in ("train_loss", "test_accuracy", "epochs", "weight_norm"):
        averaged[column] = frame.groupby(keys)[column].mean()
    published = [
        PUBLISHED.get((parameters, labels), (float("nan"),) * 2) for _, _, parameters, _, labels in averaged.index
    ]
    averaged["published_mean"], averaged["published_std"] = zip(*published, strict=True)
    return averaged.reset_index()


def ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """Ratio of the mean radii, natural over random, and the published ratio.

    `relative` is the ratio of the radii divided by the weight norms of their minimizers.
    """
    averaged = table(frame)
    averaged["per_norm"] = averaged["mean"] / averaged["weight_norm"]
    wide = averaged.pivot_table(
        index=["learning_rate", "stage", "parameters", "n"], columns="labels", values=["mean", "per_norm"]
    )
    result = pd.DataFrame(
        {
            "ratio": wide["mean", "natural"] / wide["mean", "random"],
            "relative": wide["per_norm", "natural"] / wide["per_norm", "random"],
        }
    ).reset_index()
    result["published"] = [PUBLISHED[p, "natural"][0] / PUBLISHED[p, "random"][0] for p in result["parameters"]]
    return result


def check_claims(frame: pd.DataFrame) -> dict[str, bool]:
    """Parts of the acceptance rule, and whether they hold."""
    rows = ratios(frame)
    rows = rows[rows["parameters"] == "all"].sort_values("n")
    return {
        f"learning rate {rate:g}, {stage}: {claim}": bool(holds)
        for (rate, stage), group in rows.groupby(["learning_rate", "stage"])
        for claim, holds in (
            ("natural flatter than random at every n", (group["ratio"] > 1).all()),
            ("the ratio grows with n", group["ratio"].is_monotonic_increasing),
        )
    }


def main(arguments: list[str] | None = None) -> Path:
    """Measure a preset, write its record, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument(
        "--out", type=Path, help="record to write; by default records/theory3_2017/table1-PRESET.parquet"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes; one per core")
    options = parser.parse_args(arguments)
    out = options.out or ROOT / "records" / "theory3_2017" / f"table1-{options.preset}.parquet"
    started = time.monotonic()
    with thread_count(1):  # the networks are small: one thread and one process each
        frame, subject = measure(PRESETS[options.preset], options.seed, options.workers)
    settings = {
        "preset": asdict(PRESETS[options.preset]),
        "epsilon": EPSILON,
        "directions": DIRECTIONS,
        "rtol": RTOL,
        "widths": WIDTHS,
        "batch_size": BATCH_SIZE,
        "seed": options.seed,
    }
    command = f"python -m analyses.theory3_2017.table1 --preset {options.preset} --seed {options.seed}"
    metadata = {
        "kind": "analysis",
        "claim": "T3 Table 1",
        "published": [{"parameters": p, "labels": y, "mean": m, "std": s} for (p, y), (m, s) in PUBLISHED.items()],
        "command": command,
        "settings": settings,
        "subject": subject,
        "environment": environment() | {"seconds": round(time.monotonic() - started, 1)},
    }
    return write_record(frame, out, metadata, shown=(table(frame), ratios(frame)), claims=check_claims(frame))


if __name__ == "__main__":
    main()
