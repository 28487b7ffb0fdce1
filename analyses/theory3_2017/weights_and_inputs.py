"""Poggio et al. (2017), sections 5.4 and 9.6.1: perturbations of the weights and of the inputs."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import nn

from analyses.reproduction import Outcome, Reproduction
from analyses.rules import exact

DEPTH = 8  # layers of the source's example
DELTA = 0.1  # relative perturbation of each weight
FACTOR = 2.14  # printed: the perturbation of the data


def counterexample(settings: dict) -> pd.DataFrame:
    """Derivatives of f = x sum_j w_1j w_2j at w = 1, by autograd."""
    rows = []
    for d in settings["dimensions"]:
        for x in (-1.0, 0.3, 1.0):
            value = torch.tensor(x, dtype=torch.float64, requires_grad=True)
            w = torch.ones(2, d, dtype=torch.float64, requires_grad=True)
            by_x, by_w = torch.autograd.grad(value * w.prod(0).sum(), (value, w))
            rows.append(
                {"d": d, "x": x, "by_x": float(by_x), "by_w_least": float(by_w.min()), "by_w": float(by_w.max())}
            )
    return pd.DataFrame(rows)


def separate(frame: pd.DataFrame) -> Sequence[Outcome]:
    """The derivative by x grows with d; those by w do not."""
    by_w = (frame[["by_w_least", "by_w"]].sub(frame["x"], axis=0)).abs()
    return [
        exact("df/dx = d (relative error)", float((frame["by_x"] / frame["d"] - 1).abs().max()), tolerance=1e-12,
              problems=len(frame)),
        exact("df/dw = x for each weight, so that |df/dw| <= b for |x| <= b", float(by_w.to_numpy().max()),
              tolerance=1e-12, problems=len(frame)),
    ]  # fmt: skip


def networks(settings: dict) -> pd.DataFrame:
    """Outputs with each weight times 1 + Delta, and with the inputs times (1 + Delta)^8."""
    rows = []
    for seed in range(settings["networks"]):
        for kind, width in (("linear chain", 1), ("ReLU", 16)):
            draw = torch.Generator().manual_seed(seed)
            weights = [
                torch.randn(width, width, generator=draw, dtype=torch.float64) / width**0.5 for _ in range(DEPTH)
            ]
            x = torch.randn(100, width, generator=draw, dtype=torch.float64)
            before = output(weights, x, relu=kind == "ReLU")
            perturbed = output([weight * (1 + DELTA) for weight in weights], x, relu=kind == "ReLU")
            moved = output(weights, x * (1 + DELTA) ** DEPTH, relu=kind == "ReLU")
            scale = before.abs().max()
            row = {"kind": kind, "seed": seed, "difference": float((perturbed - moved).abs().max() / scale)}
            signs = [1 + DELTA * (2.0 * torch.randint(2, weight.shape, generator=draw) - 1) for weight in weights]
            mixed = output([weight * sign for weight, sign in zip(weights, signs, strict=True)], x, relu=kind == "ReLU")
            row |= {
                "factor": float(perturbed.norm() / before.norm()),
                "random_signs": float(mixed.norm() / before.norm()),
            }
            rows.append(row)
    return pd.DataFrame(rows)


def output(weights: Sequence[torch.Tensor], x: torch.Tensor, *, relu: bool) -> torch.Tensor:
    """A network without biases: x W_1 ... W_d, with ReLU between the layers or without."""
    for number, weight in enumerate(weights):
        x = x @ weight
        x = nn.functional.relu(x) if relu and number < len(weights) - 1 else x
    return x


def tolerance(frame: pd.DataFrame) -> Sequence[Outcome]:
    """Eqs 53 and 54 at d = 8 and Delta = 1/10."""
    count = len(frame)
    return [
        exact("1.1^8 = 2.14 to the printed digits", abs(round((1 + DELTA) ** DEPTH, 2) - FACTOR), tolerance=1e-12,
              published=FACTOR),
        exact("Delta in all weights acts as the factor (1 + Delta)^8 of the inputs (largest difference of outputs)",
              float(frame["difference"].max()), tolerance=1e-12, problems=count),
        exact("and as that factor of the outputs (relative error)",
              float((frame["factor"] / (1 + DELTA) ** DEPTH - 1).abs().max()), tolerance=1e-12, problems=count),
        Outcome(rule="factor of the outputs with random signs of the perturbations (ReLU, mean)", holds=None,
                effect=float(frame.loc[frame["kind"] == "ReLU", "random_signs"].mean()), seeds=count, beside=True),
    ]  # fmt: skip


REPRODUCTIONS = (
    Reproduction(
        id="T3-5.4",
        source="Poggio et al. (2017), section 5.4",
        claim="Small derivatives by the weights do not bound the derivative by the input: for f = x sum_j w_1j w_2j at "
        "w = 1, |df/dw| <= b for |x| <= b, and df/dx = d.",
        presets={"quick": {"dimensions": (1, 10)}, "cpu": {"dimensions": (1, 10, 100, 1000)}},
        table=lambda settings, _study: counterexample(settings),
        rules=separate,
        at_scale=("cpu",),
        cost="1 s",
    ),
    Reproduction(
        id="T3-9.6.1",
        source="Poggio et al. (2017), section 9.6.1: eqs 53 and 54",
        claim="A tolerance of 10 % in all weights of 8 layers corresponds to a tolerance in the data of a factor 2 "
        "(1.1 against 2.14).",
        published=[{"weights": 1.1, "data": FACTOR}],
        presets={"quick": {"networks": 2}, "cpu": {"networks": 20}},
        table=lambda settings, _study: networks(settings),
        rules=tolerance,
        differs="The source takes Delta as a fraction of the weight in eq. 53, and as a fraction of the weights' "
        "range in the text; ours is of the weight, with one sign, which is the worst case. Networks have no biases.",
        at_scale=("cpu",),
        cost="1 s",
    ),
)
