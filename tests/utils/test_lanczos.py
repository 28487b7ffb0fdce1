"""Extreme eigenpairs: multiple and near eigenvalues, zero and low-rank operators, against the known spectrum."""

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.probes import hessian_eigenvalues
from flatprobe.utils import rng
from flatprobe.utils.lanczos import ENDS, extreme_pairs
from tests.helpers import cases
from tests.helpers.references import hessian

SPECTRA = {
    "simple": [10 * 0.7**k for k in range(9)] + [0.001 * k for k in range(91)],
    "each three times": [v for k in range(6) for v in 3 * [10 * 0.7**k]] + [0.001 * k for k in range(82)],
    "near": [10 * 0.7**k * (1 + s) for k in range(6) for s in (0, 1e-5)] + [0.001 * k for k in range(88)],
    "of either sign": [5.0, 5.0, -7.0, -7.0, -7.0] + [0.01 * k for k in range(-47, 48)],
    "rank 3": [3.0, 3.0, 1.0] + 97 * [0.0],
    "zero": 100 * [0.0],
    "constant": 100 * [-2.0],
}


def rotated(values: list[float], seed: int = 0) -> tuple[Tensor, Tensor]:
    """A symmetric matrix of that spectrum, and the spectrum."""
    spectrum = torch.tensor(values, dtype=torch.float64)
    noise = torch.randn(len(values), len(values), generator=rng.generator(seed, "rotation"), dtype=torch.float64)
    basis = torch.linalg.qr(noise).Q
    return basis @ spectrum.diag() @ basis.T, spectrum


def first(spectrum: Tensor, which: str, count: int) -> Tensor:
    return spectrum[ENDS[which](spectrum).argsort(descending=True)][:count]


@pytest.mark.parametrize("which", ENDS)
@pytest.mark.parametrize("name", SPECTRA)
def test_every_eigenvalue_is_found_as_often_as_it_occurs(name: str, which: str) -> None:
    matrix, spectrum = rotated(SPECTRA[name])
    scale = float(spectrum.abs().max())
    for count in (1, 2, 5):
        for dtype in (torch.float64, torch.float32):
            own, generator = matrix.to(dtype), rng.generator(count, "start")
            vectors, met = extreme_pairs(
                lambda v, own=own: own @ v, lambda g=generator, d=dtype: torch.randn(100, generator=g).to(d),
                count=count, which=which, tolerance=1e-3, space=12, budget=1200,
            )  # fmt: skip
            assert met
            vectors = vectors.double()
            torch.testing.assert_close(vectors @ vectors.T, torch.eye(count).double(), rtol=0, atol=1e-5)
            values = first(torch.einsum("ki,ij,kj->k", vectors, matrix, vectors), which, count)
            expected = first(spectrum, which, count)
            # Within the tolerance, and never beyond the true one (Courant-Fischer).
            assert bool(((values - expected).abs() <= 1e-3 * expected.abs().clamp_min(0.1 * scale) + 1e-12).all())
            end = ENDS[which]
            assert bool((end(values) <= end(expected) + 1e-5 * scale).all())


def test_a_search_that_runs_out_says_so_and_keeps_what_it_found() -> None:
    matrix, _ = rotated([10.0, *(0.001 * k for k in range(99))])
    generator = rng.generator(0, "start")
    vectors, met = extreme_pairs(
        lambda v: matrix @ v, lambda: torch.randn(100, generator=generator).double(),
        count=3, which="largest", tolerance=1e-12, space=12, budget=24,
    )  # fmt: skip
    assert not met
    assert len(vectors) == 1


@pytest.mark.parametrize("classes", [3, 10])
def test_slow_reference_squared_loss_has_every_eigenvalue_once_a_class(classes: int) -> None:
    for seed, dtype in ((0, torch.float64), (1, torch.float32)):
        generator = rng.generator(seed, "inputs")
        x = torch.randn(200, 20, generator=generator, dtype=torch.float64) * torch.linspace(1, 2, 20)
        y = torch.randint(classes, (200,), generator=generator)
        network = nn.Linear(20, classes, bias=False).to(dtype).eval()
        data = fp.LabelledData(x.to(dtype), y, classes=classes)
        true = torch.linalg.eigvalsh(2 * x.T @ x / 200).repeat_interleave(classes)
        for which in ("largest", "smallest"):
            risk = fp.EmpiricalRisk(network, data, loss="squared")
            found = fp.hessian_eigenvalues(risk, count=5, which=which, seed=seed)
            torch.testing.assert_close(found.eigenvalues, first(true, which, 5), rtol=1e-3, atol=0)


def test_slow_reference_the_smallest_eigenvalues_at_a_minimum() -> None:
    """The smallest eigenvalues there are far below the largest: no tolerance relative to themselves is met."""
    data = cases.data_for((4, 4), samples=40, classes=4)
    model = fp.train(cases.smooth().train(), data, optimizer="adam", learning_rate=0.05, epochs=100).model
    spectrum = torch.linalg.eigvalsh(hessian(model, data))
    found = fp.hessian_eigenvalues(fp.EmpiricalRisk(model, data), which="smallest", count=2)
    assert abs(float(spectrum[0])) < 0.02 * float(spectrum[-1])
    assert float((found.eigenvalues - spectrum[:2]).abs().max()) <= 1e-4 * float(spectrum[-1])
    assert float(found.eigenvalues[0]) >= float(spectrum[0]) - 1e-9


@pytest.mark.parametrize("count", [20, 24, 25, 26, 60])
def test_slow_reference_many_eigenvalues_of_few_weights(count: int) -> None:
    matrix, spectrum = rotated([float(k % 7) for k in range(60)])
    risk = cases.Quadratic({"w": torch.zeros(60, dtype=torch.float64)}, matrix)
    found = fp.hessian_eigenvalues(risk, count=count)
    torch.testing.assert_close(found.eigenvalues, first(spectrum, "largest", count), rtol=0, atol=1e-3)


def test_pinned_products() -> None:
    """ARPACK took 13 for the first eigenvalue of this spectrum, of which one is the residual's; more tell of more."""
    matrix, _ = rotated(SPECTRA["simple"])
    risk = cases.Quadratic({"w": torch.zeros(100, dtype=torch.float64)}, matrix)
    assert [fp.hessian_eigenvalues(risk, count=count).products for count in (1, 2, 5)] == [13, 26, 29]


def test_the_krylov_space_is_the_memory_and_restarts_are_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hessian_eigenvalues, "_RESTARTS", 1)
    matrix, _ = rotated([0.01 * k for k in range(100)])
    risk = cases.Quadratic({"w": torch.zeros(100, dtype=torch.float64)}, matrix)
    with pytest.raises(ValueError, match=r"all 2 eigenvalues must meet .* 1e-09, got 0 after 12 Hessian products"):
        fp.hessian_eigenvalues(risk, count=2, tolerance=1e-9)
