"""Adversarial training as gradient regularization: section 10.5, and the smoothed classifier of section 9.2."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import difference, exact, ratio
from analyses.study import Study

STEPS = tuple(float(step) for step in np.geomspace(1e-4, 1e-2, 7))  # lambda, and h of the differences
SAMPLES = 50  # digits on which the remainders are measured

BUDGET = 1.0  # l2, pixels in [0, 1], of the attacks in training and in the test; not stated
PGD_STEPS = 7  # "many steps"; not stated
DIFFERENCE = 0.1  # h of the finite differences; not stated
STRENGTHS = (1.0, 2.0)  # lambda of the Tikhonov term, chosen on validation samples; not stated
DEVIATION = 0.25  # sigma of section 9.2, in training and in the certificate; not stated


@dataclass(frozen=True)
class Trainings:
    """Cost of the trainings."""

    data: str
    samples: int  # of the training set; not stated
    pool: int  # training samples that the draw is from
    tested: int  # validation samples, and test samples
    epochs: int
    seeds: int


def remainders() -> pd.DataFrame:
    """Mean differences of R_T and the gradient penalties, by lambda or h."""
    network = fp.models.mlp((1, 8, 8), widths=(32,), activation="tanh").double()
    data = fp.load_data("digits", limit=SAMPLES)
    passed = fp.ForwardPass(network, torch.as_tensor(data.inputs).double(), torch.as_tensor(data.labels))
    squared = fp.penalties.DoubleBackpropagation()(passed).item()
    rows = []
    for step in STEPS:
        for norm in ("linf", "l2"):
            rise = fp.penalties.Transformed(fp.transforms.FGSM(step, norm=norm))(passed).item()
            first = step * fp.penalties.GradientDualNorm(norm)(passed).item()
            rows.append({"statement": f"FGSM {norm}", "step": step, "left": rise, "right": first})
        rise = fp.penalties.Transformed(fp.transforms.GradientStep(step))(passed).item()
        rows.append({"statement": "gradient step", "step": step, "left": rise, "right": step * squared})
        differences = fp.penalties.TikhonovDifferences(step)(passed).item()
        rows.append({"statement": "differences", "step": step, "left": differences, "right": squared})
    return pd.DataFrame(rows)


def experiments(settings: Trainings, methods: dict[str, dict[str, Any]]) -> list[fp.Experiment]:
    """A training per method and seed; the stage has the method's name."""
    found = []
    for name, parts in methods.items():
        base = fp.Experiment(
            network={"name": "mlp", "widths": [512]},
            data={
                "name": settings.data,
                "samples": settings.samples,
                "pool": settings.pool,
                "validation": settings.tested,
            },
            stages=[{"name": name, "epochs": settings.epochs, "learning_rate": 0.05, **parts}],
        )
        seeds = [(seed,) * 3 for seed in range(settings.seeds)]
        found += base.vary({("seeds.data", "seeds.network", "seeds.order"): seeds})
    return found


def adversarial(settings: Trainings, study: Study) -> pd.DataFrame:
    """The remainders; per network the accuracy, clean and under PGD, and the seconds of the fastest epoch."""
    methods: dict[str, dict[str, Any]] = {
        "plain": {},
        "PGD": {"transforms": [{"name": "pgd", "budget": BUDGET, "norm": "l2", "steps": PGD_STEPS}]},
    }
    for strength in STRENGTHS:
        penalty = {"name": "tikhonov_differences", "step": DIFFERENCE}
        methods[f"Tikhonov {strength:g}"] = {"penalties": [[strength, penalty]]}
    arguments = {"arguments": {"budgets": [0.0, BUDGET]}, "samples": settings.tested}
    measurements = [
        fp.Measurement("adversarial_accuracy", on=on, name=on, **arguments) for on in ("validation", "test")
    ]
    found = study.sweep(experiments(settings, methods), [*measurements, fp.Measurement("history")])
    parts = [remainders()]
    for on in ("validation", "test"):
        keys = ["stages.0.name", "seeds.network", "budget"]
        accuracy = found[on].groupby(keys)["correct"].mean().reset_index(name="accuracy")
        parts.append(accuracy.set_axis(["method", "seed", "budget", "accuracy"], axis=1).assign(statement=on))
    seconds = found["history"].groupby(["stages.0.name", "seeds.network"])["seconds"].min().reset_index()
    parts.append(seconds.set_axis(["method", "seed", "seconds"], axis=1).assign(statement="seconds"))
    return pd.concat(parts, ignore_index=True)


ORDERS = {  # of the remainder in lambda or h
    "FGSM linf": (2, "R_T of FGSM in linf is lambda ||grad l||_1 up to a remainder of order 2 in lambda"),
    "FGSM l2": (2, "R_T of the l2 attack is lambda ||grad l||_2 up to a remainder of order 2 in lambda"),
    "gradient step": (2, "R_T of x + lambda grad l is lambda ||grad l||_2^2 up to a remainder of order 2 in lambda"),
    "differences": (1, "The finite differences are ||grad l||_2^2 up to a remainder of order 1 in h"),
}


def adversarial_rules(frame: pd.DataFrame) -> list[Outcome]:
    """Orders of the remainders; robustness and cost of the Tikhonov term beside PGD."""
    outcomes = []
    for statement, (order, rule) in ORDERS.items():
        part = frame[frame["statement"] == statement]
        slope = np.polyfit(np.log(part["step"]), np.log((part["left"] - part["right"]).abs()), 1)[0]
        outcomes.append(exact(rule, abs(float(slope) - order), tolerance=0.1, problems=len(part), unit="slope error"))
    tables = {
        name: frame[frame["statement"] == name].pivot_table(
            index=["method", "budget"], columns="seed", values="accuracy"
        )
        for name in ("validation", "test")
    }
    strengths = [method for method in frame["method"].dropna().unique() if method.startswith("Tikhonov")]
    chosen = max(strengths, key=lambda method: tables["validation"].loc[method, BUDGET].mean())
    test, seconds = (
        tables["test"],
        frame[frame["statement"] == "seconds"].pivot_table(index="method", columns="seed", values="seconds"),
    )
    rules = (
        "Under PGD the Tikhonov term has more than 0.9 of the accuracy of training on PGD",
        "Under PGD it has a higher accuracy than plain training",
        "At equal clean accuracy: that of the Tikhonov term is at least that of training on PGD minus 2 points",
        "An epoch on PGD takes more than twice the time of one with the Tikhonov term",
    )
    return [
        *outcomes,
        ratio(rules[0], test.loc[chosen, BUDGET], test.loc["PGD", BUDGET], above=0.9),
        difference(rules[1], test.loc[chosen, BUDGET] - test.loc["plain", BUDGET]),
        difference(rules[2], test.loc[chosen, 0.0] - test.loc["PGD", 0.0], above=-0.02),
        ratio(rules[3], seconds.loc["PGD"], seconds.loc[chosen], above=2),
    ]


def smoothing(settings: Trainings, study: Study) -> pd.DataFrame:
    """Shares of test samples by certified radius, of networks trained on noise and of plain ones."""
    methods: dict[str, dict[str, Any]] = {
        "plain": {},
        "noise": {"transforms": [{"name": "gaussian_noise", "deviation": DEVIATION}]},
    }
    certificate = fp.Measurement(
        "smoothed_certificate", on="test", samples=settings.tested, arguments={"sigma": DEVIATION, "draws": 1000}
    )
    found = study.sweep(experiments(settings, methods), [certificate])["smoothed_certificate"]
    found["certified"] = found["radius"].where(found["predicted"] == found["labels"], 0.0)
    groups = found.groupby(["stages.0.name", "seeds.network"])["certified"]
    rows = [
        {"method": method, "seed": seed, "radius": radius, "share": float((values > radius).mean())}
        for (method, seed), values in groups
        for radius in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    ]
    return pd.DataFrame(rows)


def smoothing_rules(frame: pd.DataFrame) -> list[Outcome]:
    """More than half of the samples have a certificate, and more than without the noise."""
    shares = frame.pivot_table(index=["method", "radius"], columns="seed", values="share")
    more = "Training on the noise certifies a larger share of samples at radius 0.5 than plain training"
    return [
        difference(
            "More than half of the test samples have a certified radius above 0", shares.loc["noise", 0.0], above=0.5
        ),
        difference(more, shares.loc["noise", 0.5] - shares.loc["plain", 0.5], beside=True),
    ]


PRESETS = {
    "quick": Trainings(data="digits", samples=200, pool=1000, tested=100, epochs=10, seeds=2),
    "cpu": Trainings(data="ylecun/mnist", samples=1000, pool=10_000, tested=300, epochs=40, seeds=3),
    "paper": Trainings(data="ylecun/mnist", samples=1000, pool=10_000, tested=1000, epochs=40, seeds=10),
}
REPRODUCTIONS = (
    Reproduction(
        id="O20-10.5",
        source="Oberman (2020), section 10.5",
        claim="Adversarial training is the regularizer lambda ||grad l||_* (unnormalized: lambda ||grad l||_2^2); by "
        "finite "
        "differences it gives a robustness comparable to many steps of adversarial training at the cost of one.",
        presets=PRESETS,
        at_scale=(),
        table=adversarial,
        rules=adversarial_rules,
        differs="The source names neither network nor data nor strengths: ours are an MLP of 512 units, 1,000 MNIST "
        "digits, l2 attacks of length 1 with 7 steps, and the strength, 1 or 2, chosen "
        "on validation samples. Times are of the fastest epoch, on a machine with other work.",
        cost="2 min",
    ),
    Reproduction(
        id="O20-9.2",
        source="Oberman (2020), section 9.2",
        claim="The classifier averaged over Gaussian noise is certified to be robust to adversarial perturbations.",
        presets=PRESETS,
        at_scale=(),
        table=smoothing,
        rules=smoothing_rules,
        differs="The source names no experiment: ours is the MLP of section 10.5, trained on the noise, with Cohen et "
        "al.'s certificate at failure probability 0.001.",
        cost="1 min",
    ),
)
