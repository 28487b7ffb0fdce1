"""Poggio et al. (2017), sections 5.3, 9.6 and 9.10.5: gradient descent changes weights by the least norm."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import flatprobe as fp
from analyses.reproduction import Outcome, Reproduction
from analyses.rules import exact

ROUNDING = 1e-10  # of what never changes, in float64, relative to the start
CONVERGED = 1e-3  # relative distance from the limit


@dataclass(frozen=True, kw_only=True)
class Problems:
    """Random linear systems X w = y of n samples in d > n dimensions, with standard normal entries.

    Attributes:
        count: of the systems.
        samples: n.
        dimensions: d.
        steps: of gradient descent; SGD takes n times as many, of one sample each.
    """

    count: int
    samples: int
    dimensions: int
    steps: int


def gradient_descent(x: np.ndarray, y: np.ndarray, start: np.ndarray, steps: int) -> np.ndarray:
    """w <- w - X^T (X w - y) / L with L the largest eigenvalue of X X^T."""
    w, rate = start.copy(), 1 / np.linalg.eigvalsh(x @ x.T)[-1]
    for _ in range(steps):
        w -= rate * x.T @ (x @ w - y)
    return w


def stochastic(x: np.ndarray, y: np.ndarray, start: np.ndarray, steps: int, seed: int) -> np.ndarray:
    """w <- w - (x_i . w - y_i) x_i / max_j ||x_j||^2 for one random sample i per step."""
    w, rate = start.copy(), 1 / (x**2).sum(1).max()
    for i in np.random.default_rng(seed).integers(len(x), size=steps * len(x)):
        w -= rate * (x[i] @ w - y[i]) * x[i]
    return w


def through_train(x: np.ndarray, labels: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The weights of `fp.train` on a linear classifier from zero, and the minimum-norm fit of its one-hot targets."""
    network = nn.utils.skip_init(nn.Linear, x.shape[1], 2, bias=False, dtype=torch.float64)  # draws no numbers
    nn.init.zeros_(network.weight)
    data = fp.LabelledData(torch.from_numpy(x), torch.from_numpy(labels))
    rate = len(x) / float(np.linalg.eigvalsh(x @ x.T)[-1]) / 2
    run = fp.train(
        network, data, epochs=steps, objective="squared", learning_rate=rate, batch_size=len(x),
        momentum=0.0,
    )  # fmt: skip
    return run.model.weight.detach().numpy(), np.linalg.pinv(x) @ np.eye(2)[labels]


def systems(settings: Problems) -> pd.DataFrame:
    """One row per system, method and start: distance from the least change, and the movement of the null component."""
    rows = []
    for number in range(settings.count):
        draw = np.random.default_rng(number)
        x, y = draw.standard_normal((settings.samples, settings.dimensions)), draw.standard_normal(settings.samples)
        pseudo = x.T @ np.linalg.inv(x @ x.T)  # Lemma 3
        null = np.eye(settings.dimensions) - pseudo @ x
        other = null @ draw.standard_normal(settings.dimensions)
        starts = {"zero": 0 * other, "random": draw.standard_normal(settings.dimensions), "minimum": pseudo @ y + other}
        for start, w0 in starts.items():
            limit = w0 + pseudo @ (y - x @ w0)
            ends = {
                "GD": gradient_descent(x, y, w0, settings.steps),
                "SGD": stochastic(x, y, w0, settings.steps, number),
            }
            for method, w in ends.items():
                rows.append(
                    {
                        "problem": number, "method": method, "start": start,
                        "distance": np.linalg.norm(w - limit) / np.linalg.norm(limit),
                        "null_change": np.linalg.norm(null @ (w - w0)) / (np.linalg.norm(w0) or 1.0),
                        "norm_excess": np.linalg.norm(pseudo @ y) / np.linalg.norm(pseudo @ y + other) - 1,
                        "moved": np.linalg.norm(w - w0) / np.linalg.norm(limit),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def with_train(settings: Problems) -> pd.DataFrame:
    """The systems, and one system through `fp.train`."""
    draw = np.random.default_rng(settings.count)
    x = draw.standard_normal((settings.samples, settings.dimensions))
    found, limit = through_train(x, draw.integers(2, size=settings.samples), settings.steps)
    row = {"problem": settings.count, "method": "fp.train", "start": "zero"}
    row |= {"distance": np.linalg.norm(found.T - limit) / np.linalg.norm(limit)}
    return pd.concat([systems(settings), pd.DataFrame([row])], ignore_index=True)


def converges(frame: pd.DataFrame) -> Sequence[Outcome]:
    """Lemma 3, Lemma 4, Theorem 4 and Corollary 1."""
    zero, counts = frame[frame["start"] == "zero"], frame.loc[frame["method"] == "GD", "problem"].nunique()
    return [
        exact(
            f"{method} from zero ends at the minimum-norm solution (relative distance)",
            float(zero.loc[zero["method"] == method, "distance"].max()),
            tolerance=CONVERGED,
            problems=counts if method != "fp.train" else 1,
        )
        for method in ("GD", "SGD", "fp.train")
    ] + [
        exact("the component in the null space of X never changes", frame["null_change"].max(),
              tolerance=ROUNDING, problems=counts),
        exact("no other solution has a smaller norm", frame["norm_excess"].max(), tolerance=0.0, problems=counts),
    ]  # fmt: skip


def least_change(frame: pd.DataFrame) -> Sequence[Outcome]:
    """Lemma 1, in the linear approximation that it is stated in."""
    other, minimum = frame[frame["start"] == "random"], frame[frame["start"] == "minimum"]
    counts = frame["problem"].nunique()
    return [
        exact("from any start the change ends at the least-norm one (relative distance)", other["distance"].max(),
              tolerance=CONVERGED, problems=counts),
        exact("from a minimum the weights do not move", minimum["moved"].max(), tolerance=ROUNDING, problems=counts),
        exact("the norm of the degenerate directions does not increase", frame["null_change"].max(),
              tolerance=ROUNDING, problems=counts),
    ]  # fmt: skip


POWERS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: z, "square": lambda z: z**2, "cube": lambda z: z**3, "ReLU": torch.relu,
}  # fmt: skip


def two_layers(settings: Problems) -> pd.DataFrame:
    """Movement of W_1 in and orthogonal to the span of the data, for W_2 h(W_1 X) and the squared loss."""
    rows = []
    for number in range(settings.count):
        draw = torch.Generator().manual_seed(number)
        x, first, second, y = (
            torch.randn(shape, generator=draw, dtype=torch.float64)
            for shape in (
                (settings.dimensions, settings.samples), (20, settings.dimensions), (3, 20), (3, settings.samples)
            )
        )  # fmt: skip
        orthogonal = torch.eye(settings.dimensions, dtype=torch.float64) - x @ torch.linalg.pinv(x)
        for activation, h in POWERS.items():
            w = [(value / value.shape[1] ** 0.5).requires_grad_() for value in (first, second)]
            start = w[0].detach().clone()
            losses = []
            for _ in range(settings.steps):
                loss = ((w[1] @ h(w[0] @ x) - y) ** 2).mean()
                losses.append(float(loss.detach()))
                for value, gradient in zip(w, torch.autograd.grad(loss, w), strict=True):
                    value.data -= 0.01 * gradient / max(1.0, float(gradient.norm()))  # powers have large gradients
            change = w[0].detach() - start
            rows.append(
                {
                    "problem": number, "activation": activation, "loss_ratio": losses[-1] / losses[0],
                    "moved": float(change.norm() / start.norm()),
                    "orthogonal": float((change @ orthogonal).norm() / start.norm()),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def stays(frame: pd.DataFrame) -> Sequence[Outcome]:
    """Eqs 69 to 71, and the ReLU that the remark after them expects."""
    problems = frame["problem"].nunique()
    return [
        exact(f"the part of W1 orthogonal to the data never changes: {activation}", part["orthogonal"].max(),
              tolerance=ROUNDING, problems=problems)
        for activation, part in frame.groupby("activation", sort=False)
    ]  # fmt: skip


SOURCE = "Poggio et al. (2017)"
OWN = "The source states no sizes: the systems are ours, with standard normal entries."
REPRODUCTIONS = (
    Reproduction(
        id="T3-9.6",
        source=f"{SOURCE}, section 9.6: Lemmas 3 and 4, Theorem 4, Corollary 1",
        claim="From zero, GD and SGD on the squared loss of an underdetermined linear system converge to the "
        "minimum-norm solution; the component in the null space never changes.",
        presets={
            "quick": Problems(count=2, samples=10, dimensions=30, steps=400),
            "cpu": Problems(count=20, samples=20, dimensions=60, steps=1000),
        },
        table=lambda settings, _study: with_train(settings),
        rules=converges,
        differs=OWN,
        at_scale=("cpu",),
        cost="10 s",
    ),
    Reproduction(
        id="T3-5.3",
        source=f"{SOURCE}, section 5.3: Lemma 1",
        claim="Further iterations change the weights by the least norm, and do not increase the norm of the degenerate "
        "directions.",
        presets={
            "quick": Problems(count=2, samples=10, dimensions=30, steps=400),
            "cpu": Problems(count=20, samples=20, dimensions=60, steps=1000),
        },
        table=lambda settings, _study: systems(settings),
        rules=least_change,
        differs=OWN + " The lemma is stated in a linear approximation of the network, and is tested there.",
        at_scale=("cpu",),
        cost="10 s",
    ),
    Reproduction(
        id="T3-9.10.5",
        source=f"{SOURCE}, section 9.10.5: eqs 69 to 71",
        claim="The gradient with respect to the first layer's weights lies in the span of the data, for linear and "
        "power activations; a remark expects the same of ReLU.",
        presets={
            "quick": Problems(count=1, samples=8, dimensions=20, steps=200),
            "cpu": Problems(count=5, samples=20, dimensions=50, steps=1000),
        },
        table=lambda settings, _study: two_layers(settings),
        rules=stays,
        differs=OWN + " Steps are clipped at the gradient's norm 1, which keeps their direction.",
        at_scale=("cpu",),
        cost="10 s",
    ),
)
