"""Weight-normalised MLPs over depth and width (S17 section VI-A2): one sweep, read by Fig. 4 a to d and the text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

import flatprobe as fp
from analyses.reproduction import Outcome
from analyses.rules import difference
from analyses.study import Study

LEARNING_RATE = 0.1
FACTORS = (1, 0.1, 0.01)  # of the learning rate in the three thirds of the epochs
MOMENTUM = 0.9
BATCH_SIZE = 128  # samples
DEPTHS = (2, 3, 4, 5)  # L, layers with weights
ALL, HIDDEN, PROJECTED, NONE = "all layers", "hidden layers", "projected", "none"
CONTROLS = (HIDDEN, PROJECTED, NONE)  # ours: not the last layer; projection after each step; no normalization
SEEDS = ("seeds.data", "seeds.network", "seeds.order")
CONSTANT, DIMENSION = 1.0, 10  # C_M and k of eq. 38: assumed, since the source gives none for MNIST
NORMS = {(on, outputs): f"{on}, {outputs}" for on, outputs in product(("train", "test"), ("softmax", "logits"))}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Networks of a preset.

    Attributes:
        data: data set.
        samples: n, training samples.
        widths: M, units of each hidden layer, by depth L; S17: 784 to 6 * 784 at every depth.
        control_width: M of the controls.
        controls: other normalizations.
        epochs: in three thirds.
        draws: of training set, initial weights and order.
        pool: first training samples from which a draw is taken; None for all.
        probed: test samples of the Jacobians; None for all.
    """

    data: str
    samples: int
    widths: dict[int, Sequence[int]]
    control_width: int
    epochs: int
    draws: int
    pool: int | None
    probed: int | None
    controls: Sequence[str] = CONTROLS

    def networks(self) -> list[fp.Experiment]:
        """The experiments of all cells and draws, and of the controls."""
        base = fp.Experiment(
            network={"name": "mlp", "widths": []},
            data={"name": self.data, "samples": self.samples, "pool": self.pool},
            stages=[
                {
                    "learning_rate": LEARNING_RATE, "momentum": MOMENTUM, "batch_size": BATCH_SIZE,
                    **scheduled(self.epochs),
                }
            ],
        )  # fmt: skip
        cells = [(L, M, ALL) for L, widths in self.widths.items() for M in widths]
        cells += [(L, self.control_width, control) for control in self.controls for L in self.widths]
        seeds = {SEEDS: [(draw,) * 3 for draw in range(self.draws)]}
        return [network for cell in cells for network in base.vary({**changes(*cell), **seeds})]


def scheduled(epochs: int) -> dict[str, object]:
    """Epochs, and the learning rate's factors in their three thirds."""
    return {"epochs": epochs, "schedule": {"name": "step", "stages": [[f, epochs // 3] for f in FACTORS]}}


def changes(depth: int, width: int, normalised: str) -> dict[str, list[object]]:
    """The entries of the experiment in which a cell differs."""
    hidden = [f"linear{layer}" for layer in range(1, depth)]
    return {
        "network.widths": [[width] * (depth - 1)],
        **({"network.unit_rows": [True if normalised == ALL else hidden]} if normalised in (ALL, HIDDEN) else {}),
        **({"stages.0.constraints": [[{"name": "unit_rows"}]]} if normalised == PROJECTED else {}),
    }


PRESETS = {
    "quick": Settings(
        data="digits", samples=100, widths={2: (16, 32), 3: (16, 32)}, control_width=16, epochs=30, draws=2, pool=None,
        probed=100, controls=(HIDDEN,),
    ),
    "cpu": Settings(
        data="ylecun/mnist", samples=1000, widths=dict.fromkeys(DEPTHS, (196, 784)), control_width=196, epochs=120,
        draws=3, pool=10000, probed=1000, controls=(HIDDEN, PROJECTED),
    ),
    "paper": Settings(
        data="ylecun/mnist", samples=5000, widths=dict.fromkeys(DEPTHS, tuple(784 * k for k in range(1, 7))),
        control_width=784, epochs=120, draws=5, pool=None, probed=None,
    ),
}  # fmt: skip


def table(settings: Settings, study: Study) -> pd.DataFrame:
    """One row per network: accuracies, smallest score, Jacobian norms, norms of the weights, bounds."""
    found = study.sweep(
        settings.networks(),
        [
            *(fp.Measurement("risk", on=on, name=f"risk, {on}") for on in ("train", "test")),
            fp.Measurement("scores"),
            *(
                fp.Measurement(
                    "jacobian_maximum", on=on, arguments={"outputs": outputs}, name=name,
                    samples=settings.probed if on == "test" else None,
                )
                for (on, outputs), name in NORMS.items()
            ),
            fp.Measurement("weight_norms", arguments={"path": False}),
        ],
    )  # fmt: skip
    keyed = {name: rows.set_index("experiment") for name, rows in found.items()}
    frame = keyed["risk, train"].pipe(describe)
    frame["train accuracy"] = 100 * (1 - keyed["risk, train"]["error"])
    frame["train loss"] = keyed["risk, train"]["loss"]
    frame["test accuracy"] = 100 * (1 - keyed["risk, test"]["error"])
    frame["smallest score"] = keyed["scores"]["value"].groupby(level=0).min()
    for name in NORMS.values():
        values = keyed[name]["value"].groupby(level=0)
        frame[f"largest norm, {name}"], frame[f"median norm, {name}"] = values.max(), values.median()
    return frame.join(weights(keyed["weight_norms"])).pipe(with_bounds, settings.samples).reset_index(drop=True)


def describe(rows: pd.DataFrame) -> pd.DataFrame:
    """Depth, width, normalization and draw by experiment."""
    widths = rows["network.widths"].map(lambda text: [int(part) for part in text.strip("[]").split(",")])
    unit_rows, constraints = (rows.get(name, pd.Series(None, rows.index, dtype=object)) for name in KINDS)
    kinds = [
        ALL if unit is True else HIDDEN if isinstance(unit, str) else PROJECTED if isinstance(projection, str) else NONE
        for unit, projection in zip(unit_rows, constraints, strict=True)
    ]
    cell = {"normalised": kinds, "L": widths.map(len) + 1, "M": widths.map(max)}
    return pd.DataFrame(cell | {"draw": rows["seeds.data"].astype(int)})


KINDS = ("network.unit_rows", "stages.0.constraints.0.name")


def weights(rows: pd.DataFrame) -> pd.DataFrame:
    """Spectral and Frobenius norms of the layers by experiment, and the distance of the latter from sqrt(rows)."""
    norms = {name: rows[rows["quantity"] == name]["value"].groupby(level=0) for name in ("spectral", "frobenius")}
    units = rows[rows["quantity"] == "fan_in_l1"].groupby([rows.index.name, "layer"])["value"].count()
    frobenius = rows[rows["quantity"] == "frobenius"].set_index("layer", append=True)["value"]
    return pd.DataFrame(
        {
            "smallest spectral norm": norms["spectral"].min(),
            "product of spectral norms": norms["spectral"].prod(),
            "product of Frobenius norms": norms["frobenius"].prod(),
            "distance from sqrt(rows)": (frobenius / units**0.5 - 1).abs().groupby(level=0).max(),
        }
    )


def with_bounds(frame: pd.DataFrame, samples: int) -> pd.DataFrame:
    """Decimal logarithms of eq. 38 with the margins of eqs 36 and 37, where all scores are positive, and of eq. 44."""
    covering = fp.bounds.manifold(constant=CONSTANT, dimension=DIMENSION)
    for number, norm in ((36, "spectral"), (37, "Frobenius")):
        margins = frame["smallest score"] / frame[f"product of {norm} norms"]
        frame[f"log10 bound, eq. {number}"] = [
            math.log10(
                fp.bounds.robustness(
                    samples=samples, empirical=0.0, margin=margin, prior=1, classes=10, covering=covering, form="split"
                ).value
            )
            if margin > 0
            else math.nan
            for margin in margins
        ]
    rate = 2.0 ** (frame["L"] - 1) * frame["product of Frobenius norms"] / samples**0.5
    return frame.assign(**{"log10 bound, eq. 44": rate.map(math.log10)})


def monotone(
    rule: str, frame: pd.DataFrame, x: str, y: str, *, rising: bool = True, normalised: str = ALL, beside: bool = False
) -> Outcome:
    """A claim that y rises or falls with depth or width: Spearman's correlation per draw, averaged over the other one.

    The effect is positive where the claim holds, also for a claim that y falls.
    """
    part = frame[frame["normalised"] == normalised].dropna(subset=[y])
    fixed = "M" if x == "L" else "L"
    per_draw = [
        np.mean([correlation(cell[x], cell[y]) for _, cell in own.groupby(fixed) if len(cell) > 1])
        for _, own in part.groupby("draw")
    ]
    sign = 1 if rising else -1
    unit = "Spearman" if rising else "-Spearman"
    found = difference(rule, [sign * value for value in per_draw], unit=unit, beside=beside)
    assert found.interval is not None
    lower, upper = np.clip(found.interval, -1, 1).tolist()  # a correlation is at most 1, and Student's interval is not
    return replace(found, interval=(lower, upper))


def correlation(x: pd.Series, y: pd.Series) -> float:
    """Spearman's correlation; 0 where y is constant."""
    return float(stats.spearmanr(x, y).statistic) if y.max() > y.min() else 0.0


def ends(frame: pd.DataFrame, x: str, y: str) -> pd.Series:
    """y at the largest minus y at the smallest depth or width, per draw, over the complete cells of the other one."""
    part = frame[frame["normalised"] == ALL]
    wide = part.pivot_table(index=["draw", "M" if x == "L" else "L"], columns=x, values=y)
    whole = wide.columns[wide.notna().all()] if x == "M" else wide.columns
    kept = wide[whole].dropna()
    return (kept[whole[-1]] - kept[whole[0]]).groupby(level="draw").mean()
