"""S17 Table VI: cost of the Jacobian penalties, read from the record of the benchmark."""

from pathlib import Path

import pandas as pd

from analyses import rules
from analyses.reproduction import Outcome, Reproduction
from analyses.study import Study
from flatprobe.utils.tables import read_table

RECORD = Path(__file__).parents[2] / "tests" / "benchmarks" / "records" / "penalties.parquet"
EXACT, PER_LAYER = "Frobenius, exact", "per layer"  # eqs 49 and 52
# Seconds per batch without and with the penalty, and their ratio, on a Titan X.
PUBLISHED = (
    {"network": "MNIST CNN", "penalty": "eq. 49", "plain": 0.003, "penalized": 0.030, "ratio": 10.00},
    {"network": "ImageNet ResNet-18", "penalty": "eq. 52", "plain": 0.120, "penalized": 0.190, "ratio": 1.58},
)
PENALTIES = {EXACT: (10.00, (5.0, 15.0), "CNN"), PER_LAYER: (1.58, (0.0, 2.7), "ResNet")}  # published, accepted, S17's


def table(preset: object, study: Study) -> pd.DataFrame:  # noqa: ARG001 - the benchmark measured
    """Time of a penalized training step over a plain one, a row per network, penalty and round."""
    frame, _ = read_table(RECORD)
    wide = frame.pivot_table(index=["network", "round"], columns="variant", values="seconds")
    ratios = wide[list(PENALTIES)].div(wide["plain"], axis=0).reset_index()
    return ratios.melt(["network", "round"], var_name="penalty", value_name="ratio").dropna(ignore_index=True)


def judge(frame: pd.DataFrame) -> list[Outcome]:
    """Ratios within the accepted range; the network that resembles S17's counts."""
    return [
        rules.within(
            f"{penalty}: cost of a step, {network}",
            rounds["ratio"],
            PENALTIES[penalty][1],
            published=PENALTIES[penalty][0],
            unit="of a plain step",
            beside=network != PENALTIES[penalty][2],
        )
        for (penalty, network), rounds in frame.groupby(["penalty", "network"])
    ]


REPRODUCTION = Reproduction(
    id="S17-T6",
    source="Sokolic et al. (2017), Table VI",
    claim="A training step with the Jacobian penalty costs 10.00 plain ones on MNIST (eq. 49), and 1.58 with the "
    "penalty per layer on a ResNet-18 (eq. 52).",
    published=PUBLISHED,
    presets={"quick": {"record": "penalties"}, "cpu": {"record": "penalties"}},
    table=table,
    rules=judge,
    differs="CPU in place of a Titan X; other networks and batches. `python -m tests.benchmarks penalties` measures.",
    at_scale=(),
    cost="1 min",
)
