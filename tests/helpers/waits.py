"""How often the host waits for the device: `python -m tests.helpers.waits` prints the table.

A row counts one evaluation over the data: the waits per evaluation beside those of its batches, and per batch the
waits and the copies of data to the device.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import flatprobe as fp
from tests.helpers import elsewhere
from tests.helpers.elsewhere import Elsewhere

SIZE = 4
FEW, MANY = 3, 6  # batches

Work = Callable[[], Any]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)
        return nn.Sequential(*layers).double().eval()


def data_of(batches: int) -> fp.LabelledData:
    count = batches * SIZE
    inputs = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return fp.LabelledData(inputs, torch.arange(count) % 3, classes=3)


def _risk(m: nn.Module, d: fp.LabelledData) -> fp.EmpiricalRisk:
    return fp.EmpiricalRisk(m, d, batch_size=SIZE)


def _after_one(work: Callable[[fp.EmpiricalRisk], Any]) -> Callable[[nn.Module, fp.LabelledData], Work]:
    """One more evaluation of a risk that was evaluated before, so that checks at the first use do not count."""

    def prepare(m: nn.Module, d: fp.LabelledData) -> Work:
        risk = _risk(m, d)
        work(risk)
        return lambda: work(risk)

    return prepare


def _line(m: nn.Module, d: fp.LabelledData) -> Work:
    risk = _risk(m, d)
    line = risk.along([risk.center, {name: torch.ones_like(w) for name, w in risk.center.items()}])
    return lambda: line([1.0, 0.1])


# name -> (number of evaluations, (network, data) -> the work)
ROWS: dict[str, tuple[int, Callable[[nn.Module, fp.LabelledData], Work]]] = {
    "risk": (1, _after_one(lambda risk: risk(risk.center))),
    "gradient": (1, _after_one(lambda risk: risk.gradient())),
    "Hessian product": (1, _after_one(lambda risk: risk.hvp(None, risk.center))),
    "quadratic form": (1, _after_one(lambda risk: risk.forms([risk.center], list(risk.center)))),
    "line": (1, _line),
    "flatness radius": (4, lambda m, d: lambda: fp.flatness_radius(_risk(m, d), directions=1, rtol=0.5)),
    "random slice": (5, lambda m, d: lambda: fp.random_slice(_risk(m, d), dimensions=1, steps=5)),
    "interpolation": (
        5,
        lambda m, d: lambda: fp.interpolate(_risk(m, d), [m, m], fp.segment(5), batch_norm="interpolate"),
    ),
    "recalibration": (
        5,
        lambda m, d: lambda: fp.interpolate(_risk(m, d), [m, m], fp.segment(5), batch_norm="recalibrate"),
    ),
    "sharpness": (4, lambda m, d: lambda: fp.worst_case_sharpness(_risk(m, d), radius=0.1, steps=3, restarts=1)),
    "gradient noise": (1, lambda m, d: lambda: fp.gradient_noise(_risk(m, d), batch_size=SIZE, draws=3)),
    "margins": (1, lambda m, d: lambda: fp.functional_margins(m, d, batch_size=SIZE)),
    "Jacobian norms": (1, lambda m, d: lambda: fp.jacobian_norms(m, d, batch_size=SIZE, method="gram")),
    "Jacobian norms, Lanczos": (1, lambda m, d: lambda: fp.jacobian_norms(m, d, batch_size=SIZE, method="lanczos")),
    "robustness": (4, lambda m, d: lambda: fp.gaussian_robustness(m, d, gammas=[0.1, 0.2], draws=2, batch_size=SIZE)),
    "smoothing": (1, lambda m, d: lambda: fp.smoothed_certificate(m, d, draws=20, selection=10, batch_size=SIZE)),
    "FGSM": (1, lambda m, d: lambda: fp.adversarial_accuracy(m, d, budgets=[0.1], attack="fgsm", batch_size=SIZE)),
    "PGD, 5 steps": (1, lambda m, d: lambda: fp.adversarial_accuracy(m, d, budgets=[0.1], steps=5, batch_size=SIZE)),
    "DDN, 5 steps": (
        1,
        lambda m, d: lambda: fp.geometric_margins(m, d, upper="ddn", lower=(), steps=5, batch_size=SIZE),
    ),
    "a step of training": (2, lambda m, d: lambda: fp.train(m, d, epochs=2, batch_size=SIZE)),
}


@dataclass(frozen=True)
class Waits:
    """Waits per evaluation beside those of the batches; waits and uploads per batch and evaluation; by operation."""

    alone: float
    per_batch: float
    uploads: float
    operations: dict[str, float]


def count(name: str) -> Waits:
    """The counts of one row."""
    evaluations, prepare = ROWS[name]
    found = []
    with Elsewhere() as device:
        for batches in (FEW, MANY):
            work = prepare(elsewhere.move(network()), data_of(batches))
            device.counts.clear()
            work()
            found.append(dict(device.counts))
    few, many = found
    slopes = {
        key: (many[key] - few.get(key, 0)) / (MANY - FEW) / evaluations for key in many if many[key] != few.get(key, 0)
    }
    uploads = slopes.pop("upload", 0.0)
    per_batch = sum(slopes.values())
    total = sum(value for key, value in few.items() if key != "upload") / evaluations
    return Waits(total - FEW * per_batch, per_batch, uploads, slopes)


if __name__ == "__main__":
    sys.stdout.write(
        f"{'':26}{'per evaluation':>15}{'per batch':>11}{'uploads':>9}  waits per batch by operation" + "\n"
    )
    for name in ROWS:
        row = count(name)
        operations = ", ".join(f"{key} {value:.3g}" for key, value in row.operations.items())
        sys.stdout.write(f"{name:26}{row.alone:15.3g}{row.per_batch:11.3g}{row.uploads:9.3g}  {operations}" + "\n")
