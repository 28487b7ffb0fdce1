"""Transformations and noise as implicit regularizers: eq. RT and Lemma 10.3."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import exact
from analyses.sides import below, equal, side
from analyses.study import Study

TRANSFORMS: tuple[dict[str, Any], ...] = (
    {"name": "gaussian_noise", "deviation": 0.1},
    {"name": "fgsm", "budget": 0.1},
    {"name": "pgd", "budget": 0.5, "norm": "l2"},
    {"name": "gradient_step", "step": 0.5},
    {"name": "cutout", "size": 3},
    {"name": "crop_and_flip", "padding": 1},
    {"name": "deformation"},
)


@dataclass(frozen=True)
class Samples:
    """Digits that are transformed, per batch."""

    samples: int
    batches: int


def transformed(settings: Samples, study: Study) -> pd.DataFrame:  # noqa: ARG001 - nothing is trained
    """Mean loss at T(x) by a plain forward pass, beside the loss at x plus the package's R_T, per transform."""
    rows = []
    for batch in range(settings.batches):
        network = fp.models.mlp((1, 8, 8), widths=(32,), activation="tanh", seed=batch).double()
        data = fp.load_data("digits", limit=(batch + 1) * settings.samples)
        inputs = torch.as_tensor(data.inputs)[-settings.samples :].double()
        labels = torch.as_tensor(data.labels)[-settings.samples :]
        for described in TRANSFORMS:
            arguments = {name: value for name, value in described.items() if name != "name"}
            transform = fp.transforms.TRANSFORMS[described["name"]](**arguments)
            passed = fp.ForwardPass(network, inputs, labels, key=(0, batch))
            points, new = transform(passed)
            loss = nn.functional.cross_entropy(network(points.detach()), torch.as_tensor(new)).item()
            rise = fp.penalties.Transformed(transform)(passed).item()
            where = {"transform": described["name"], "batch": batch}
            rows.append(side("RT", loss, passed.loss.item() + rise, **where))
            rows.append(side("moved", loss, passed.loss.item(), **where))
    return pd.DataFrame(rows)


def transformed_rules(frame: pd.DataFrame) -> list[Outcome]:
    """The identity, on transforms that change the loss."""
    moved = frame[frame["statement"] == "moved"]
    least = float((moved["left"] - moved["right"]).abs().min())
    return [
        equal(frame, "RT", "L(f(T(x)), y) = L(f(x), y) + R_T for seven transformations", tolerance=1e-6),
        exact(
            "Each transformation changes the loss (minus the least change)",
            -least,
            tolerance=-1e-9,
            problems=len(moved),
            beside=True,
        ),
    ]


NOISES = {"Gaussian": 3.0, "signs": 1.0}  # E v^4 / sigma^4
QUADRATICS = 50  # random problems
DEVIATIONS = tuple(float(value) for value in np.geomspace(0.02, 0.5, 8))  # sigma
POINT, LABEL = 0.4, 0.2  # of the curved functions
GAUSS = "Printed eq. 10.3, Gaussian noise: the rise of the loss is sigma^2 (f_x^2 + (f - y) f_xx + sigma^2 / 4 f_xx^2)"
MOMENTS = (
    "Printed eq. 10.2, E v_i v_j = sigma^2 for all i, j: the rise is sigma^2 ||grad f||^2 for linear f in three "
    "dimensions"
)
EXACT = "Eq. 10.3, corrected for Gaussian noise, is exact for every smooth f (remainder of order sigma^6)"


def expectation(values: Any, sigma: float, law: str) -> float:
    """E values(v) of noise with E v^2 = sigma^2: Gauss and Hermite's rule with 40 nodes, or the mean over +-sigma."""
    if law == "signs":
        return float((values(sigma) + values(-sigma)) / 2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    return float((weights * values(sigma * nodes)).sum() / weights.sum())


def regularizer(derivatives: tuple[float, ...], label: float, sigma: float, kurtosis: float) -> float:
    """sigma^2 (f_x^2 + (f - y) f_xx + kurtosis sigma^2 / 4 f_xx^2)."""
    f, first, second = derivatives[:3]
    return sigma**2 * (first**2 + (f - label) * second + kurtosis * sigma**2 / 4 * second**2)


def further(derivatives: tuple[float, ...], label: float, sigma: float) -> float:
    """sigma^4 (f_x f_xxx + (f - y) f_xxxx / 4), for Gaussian noise."""
    f, first, _, third, fourth = derivatives
    return sigma**4 * (first * third + (f - label) * fourth / 4)


@dataclass(frozen=True)
class Noise:
    """Samples of the noise by the package."""

    draws: int


def noise(settings: Noise, study: Study) -> pd.DataFrame:  # noqa: ARG001
    """Rises of the quadratic loss by quadrature and by the package's noise, beside the printed and corrected forms."""
    rows: list[dict[str, Any]] = []
    random = np.random.default_rng(0)
    for problem in range(QUADRATICS):
        a, b, c, x, y = random.normal(size=5)
        derivatives = (a + b * x + c * x**2, b + 2 * c * x, 2 * c)
        for sigma in DEVIATIONS:
            for law, kurtosis in NOISES.items():
                values = lambda v, a=a, b=b, c=c, x=x, y=y: (a + b * (x + v) + c * (x + v) ** 2 - y) ** 2  # noqa: E731
                rise = expectation(values, sigma, law) - values(0.0)
                where = {"problem": problem, "sigma": sigma, "law": law}
                rows.append(side(f"printed {law}", rise, regularizer(derivatives, y, sigma, 1.0), **where))
                rows.append(side(f"corrected {law}", rise, regularizer(derivatives, y, sigma, kurtosis), **where))
    rows += _curved()
    rows += _sampled(settings.draws)
    for problem in range(QUADRATICS):  # linear f = g . x in three dimensions: the rise is E (g . v)^2 = g^T E[v v^T] g
        gradient, where = random.normal(size=3), {"problem": problem}
        rows.append(side("moments printed", gradient @ np.ones((3, 3)) @ gradient, gradient @ gradient, **where))
        rows.append(side("moments corrected", gradient @ np.eye(3) @ gradient, gradient @ gradient, **where))
    return pd.DataFrame(rows)


def _curved() -> list[dict[str, Any]]:
    """Remainders for f = sin(2 x), without and with the further term of order sigma^4."""
    s, c = np.sin(2 * POINT), np.cos(2 * POINT)
    derivatives, rows = (s, 2 * c, -4 * s, -8 * c, 16 * s), []
    for sigma in DEVIATIONS:
        values = lambda v: (np.sin(2 * (POINT + v)) - LABEL) ** 2  # noqa: E731
        rise = expectation(values, sigma, "Gaussian") - float(values(0.0))
        corrected = regularizer(derivatives, LABEL, sigma, 3.0)
        rows.append(side("curved", rise, corrected, sigma=sigma))
        rows.append(side("curved further", rise, corrected + further(derivatives, LABEL, sigma), sigma=sigma))
    return rows


class Quadratic(nn.Module):
    """f(x) = 0.3 + 0.4 x + 1.5 x^2, and a second output 0: the squared loss of label 0 is (f - 1)^2."""

    coefficients = (0.3, 0.4, 1.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(samples, 2) outputs of (samples, 1) inputs."""
        a, b, c = self.coefficients
        return torch.cat([a + b * x + c * x**2, torch.zeros_like(x)], dim=1)


def _sampled(draws: int) -> list[dict[str, Any]]:
    """The rise by the package's transform at x = 0.1, in standard errors from the two forms; the target is 1."""
    (a, b, c), x, sigma, rows = Quadratic.coefficients, 0.1, 0.25, []
    derivatives = (a + b * x + c * x**2, b + 2 * c * x, 2 * c)
    passed = fp.ForwardPass(
        Quadratic(), torch.full((draws, 1), x).double(), torch.zeros(draws, dtype=torch.long), loss="squared", key=(0,)
    )
    rises = (passed.losses_at(fp.transforms.GaussianNoise(sigma)(passed)[0]) - passed.losses).detach().numpy()
    error = rises.std(ddof=1) / draws**0.5
    for name, kurtosis in (("printed", 1.0), ("corrected", 3.0)):
        distance = abs(rises.mean() - regularizer(derivatives, 1.0, sigma, kurtosis)) / error
        rows.append(side(f"sampled {name}", distance, 4.0, sigma=sigma, rise=rises.mean(), error=error))
    return rows


def noise_rules(frame: pd.DataFrame) -> list[Outcome]:
    """The printed form and the corrected one, per law of the noise."""
    curved = frame[frame["statement"].isin(["curved", "curved further"])]
    sizes = (curved["left"] - curved["right"]).abs()
    slopes = {
        name: float(np.polyfit(np.log(part["sigma"][:5]), np.log(sizes[part.index][:5]), 1)[0])
        for name, part in curved.groupby("statement")
    }
    return [
        equal(frame, "printed signs", "Printed eq. 10.3, noise +-sigma: the same", tolerance=1e-9),
        equal(frame, "printed Gaussian", GAUSS, tolerance=1e-9),
        equal(
            frame,
            "corrected Gaussian",
            "Corrected, Gaussian noise: 3 sigma^2 / 4 f_xx^2 in the bracket",
            tolerance=1e-9,
        ),
        below(
            frame, "sampled corrected", "The package's Gaussian noise is within 4 standard errors of the corrected form"
        ),
        below(frame, "sampled printed", SAMPLED, beside=True),
        equal(frame, "moments printed", MOMENTS, tolerance=1e-9, beside=True),
        equal(frame, "moments corrected", "Corrected: the same with E v_i v_j = sigma^2 delta_ij", tolerance=1e-9),
        exact(EXACT, abs(slopes["curved"] - 6), tolerance=0.2, unit="slope - 6", beside=True),
        exact(
            "With sigma^4 (f_x f_xxx + (f - y) f_xxxx / 4) the remainder is of order sigma^6",
            abs(slopes["curved further"] - 6),
            tolerance=0.2,
            unit="slope - 6",
            beside=True,
        ),
    ]


SAMPLED = "The package's Gaussian noise is within 4 standard errors of the printed form"

REPRODUCTIONS = (
    Reproduction(
        id="O20-RT",
        source="Oberman (2020), eq. RT",
        claim="Training on T(x) is training on x with the regularizer R_T = L(f(T(x)), y) - L(f(x), y).",
        presets={"quick": Samples(20, 1), "cpu": Samples(200, 5), "paper": Samples(200, 5)},
        at_scale=("quick", "cpu", "paper"),
        table=transformed,
        rules=transformed_rules,
        cost="2 s",
    ),
    Reproduction(
        id="O20-L10.3",
        source="Oberman (2020), Lemma 10.3",
        claim="With additive noise of variance sigma^2 the quadratic loss is regularized by "
        "sigma^2 (f_x^2 + (f - y) f_xx + sigma^2 / 4 f_xx^2).",
        presets={"quick": Noise(1_000_000), "cpu": Noise(4_000_000), "paper": Noise(4_000_000)},
        at_scale=("quick", "cpu", "paper"),
        table=noise,
        rules=noise_rules,
        reasons={
            GAUSS: "E v^4 is 3 sigma^4 for Gaussian noise; the printed 1/4 holds for E v^4 = sigma^4, as for v = "
            "+-sigma. "
            "The rules above and below test both on the same 50 quadratic functions, without sampling.",
            SAMPLED: "As for the quadrature: the fourth moment.",
            MOMENTS: "With E v_i v_j = sigma^2 for i != j all coordinates move together, and the rise is "
            "sigma^2 (sum_i f_i)^2. The moments of independent coordinates give ||grad f||^2, by the next rule.",
            EXACT: "For f = sin(2 x) the remainder is of order sigma^4, from the third and fourth derivatives that the "
            "proof's expansion leaves out; with them it is of order sigma^6, by the next rule.",
        },
        differs="The lemma has no experiment. Expectations are by quadrature, and once by sampling with the "
        "package's noise.",
        cost="3 s",
    ),
)
