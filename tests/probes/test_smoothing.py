"""Smoothed certificates: validity on affine classifiers, a loop as reference, indexed noise, the standard deviation."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import flatprobe as fp
from flatprobe.probes.smoothing import ABSTAINED, SmoothedCertificate
from flatprobe.utils import rng
from flatprobe.utils.confidence import clopper_pearson_lower
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched, assert_seed_determines

DATA = cases.data_for((1, 8, 8), samples=70)
FEW = {"draws": 70, "selection": 10}


def binary(samples: int, *, spread: float = 0.3) -> tuple[cases.Affine, fp.LabelledData, torch.Tensor]:
    """A binary affine classifier, samples near its boundary, and |w.x + b| / ||w||: the smoothed one's exact radius."""
    model = cases.affine(2, 3)
    inputs = spread * torch.randn(samples, 3, generator=rng.generator("binary"), dtype=torch.float64)
    w, b = (value[0] - value[1] for value in (model.weight.detach(), model.bias.detach()))
    inputs = inputs - b * w / w.square().sum()  # about the boundary, where a certificate is most easily wrong
    gap = inputs @ w + b
    return model, fp.LabelledData(inputs, (gap < 0).long(), classes=2), gap.abs() / w.norm()


def test_closed_form_exceeds_the_exact_radius_of_an_affine_classifier_no_more_often_than_alpha() -> None:
    """Every certificate is right with probability 1 - alpha, so exceedances are at most binomial(n, alpha)."""
    alpha, sigma = 0.05, 0.25
    model, data, exact = binary(400)
    wrong = trials = 0
    for seed in range(3):
        result = fp.smoothed_certificate(model, data, sigma=sigma, draws=200, alpha=alpha, selection=20, seed=seed)
        answered = result.predicted != ABSTAINED
        misplaced = answered & (result.predicted != data.labels)
        wrong += int((misplaced | (answered & (result.radius > exact))).sum())
        trials += len(data)
    assert wrong <= stats.binom.ppf(1 - 1e-4, trials, alpha)
    # Not by being useless: Clopper-Pearson at 200 draws errs nearly as often as it may where the vote is open.
    assert wrong >= stats.binom.ppf(1e-4, trials, alpha / 4)


def test_closed_form_many_draws_come_near_the_exact_radius() -> None:
    model, data, exact = binary(40)
    result = fp.smoothed_certificate(model, data, sigma=0.5, draws=6000, alpha=0.001)
    p = stats.norm.cdf(exact / 0.5)
    # 3.1 + 4 standard errors of the proportion, through the slope of Phi^-1
    shortfall = 7.1 * np.sqrt(p * (1 - p) / 6000) / stats.norm.pdf(exact / 0.5) * 0.5
    near = (exact > 0.1) & (exact < 0.9)
    assert int(near.sum()) > 20
    assert bool((exact - result.radius <= torch.from_numpy(shortfall))[near].all())
    assert bool((result.predicted == data.labels)[near].all())


def test_regression_variance_passed_where_a_standard_deviation_is_meant_robust_generalization_measures() -> None:
    """The noise that reaches the network has standard deviation sigma, not sigma^2 (and not sqrt(sigma))."""

    seen: list[torch.Tensor] = []

    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.detach().clone())
            return torch.stack([x.sum(1), -x.sum(1)], 1) + self.shift

    data = fp.LabelledData(torch.full((64, 100), 0.5), torch.zeros(64, dtype=torch.long), classes=2)
    for sigma in (0.1, 0.5, 3.0):
        for probe in (
            lambda model, sigma=sigma: fp.gaussian_robustness(model, data, gammas=[sigma], draws=4),
            lambda model, sigma=sigma: fp.smoothed_certificate(model, data, sigma=sigma, draws=10, selection=2),
        ):
            seen.clear()
            probe(Recorder().eval())
            noise = torch.cat([x for x in seen if float(x.std()) > 0]) - 0.5
            standard_error = sigma / math.sqrt(2 * noise.numel())
            assert standard_error < 0.01 * sigma
            assert abs(float(noise.std()) - sigma) < 4 * standard_error
            assert abs(float(noise.mean())) < 4 * sigma / math.sqrt(noise.numel())


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_slow_reference_sample_by_sample_and_draw_by_draw(name: str) -> None:
    model, data, sigma = cases.NETWORKS[name](), DATA.head(5), 0.5
    result = fp.smoothed_certificate(model, data, sigma=sigma, alpha=0.05, seed=3, **FEW)
    for index in range(5):
        votes = {}
        for family, draws in (("selection", 10), ("estimation", 70)):
            votes[family] = [0] * 10
            for draw in range(draws):
                noise = rng.draws_normal(range(index, index + 1), draw, draw + 1, (1, 8, 8), 3, f"smoothing {family}")
                noise = noise[0].double()
                z = model(data.inputs[index : index + 1].double() + sigma * noise)
                votes[family][int(z.argmax())] += 1
        top = votes["selection"].index(max(votes["selection"]))
        k = votes["estimation"][top]
        lower = stats.binomtest(k, 70, alternative="greater").proportion_ci(0.95, "exact").low
        assert (int(result.selected[index]), int(result.counts[index])) == (top, k)
        assert int(result.predicted[index]) == (top if lower > 0.5 else ABSTAINED)
        radius = sigma * stats.norm.ppf(lower) if lower > 0.5 else 0.0
        assert float(result.radius[index]) == pytest.approx(radius, rel=1e-9)
        assert int(result.labels[index]) == int(data.labels[index])


def test_closed_form_clopper_pearson_is_the_inverse_of_the_binomial_tail() -> None:
    counts = torch.tensor([0, 1, 7, 50, 99, 100])
    lower = clopper_pearson_lower(counts, 100, 0.01)
    assert float(lower[0]) == 0
    for k, p in zip(counts[1:].tolist(), lower[1:].tolist(), strict=True):
        tail = math.fsum(math.comb(100, j) * p**j * (1 - p) ** (100 - j) for j in range(k, 101))
        assert tail == pytest.approx(0.01, rel=1e-9)
    assert float(lower[-1]) == pytest.approx(0.01**0.01, rel=1e-12)


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_untouched_and_batch_size_invariant(name: str) -> None:
    model = cases.NETWORKS[name]()
    assert_model_untouched(model, lambda: fp.smoothed_certificate(model, DATA, **FEW))

    def values(data: fp.LabelledData, size: int) -> torch.Tensor:
        result = fp.smoothed_certificate(model, data, sigma=1.0, alpha=0.2, batch_size=size, **FEW)
        return torch.stack([result.radius, result.selected.double(), result.counts.double()])

    data = DATA.head(5)
    assert_batch_size_invariant(values, data)
    assert torch.equal(values(data, 256), values(data, 64))  # four samples to a pass, and one


def test_property_seed_determines_and_longer_runs_continue_shorter_ones() -> None:
    model, data, _ = binary(30)
    options = {"sigma": 1.0, "alpha": 0.2}
    assert_seed_determines(lambda seed: fp.smoothed_certificate(model, data, seed=seed, **options, **FEW).counts)
    runs = [fp.smoothed_certificate(model, data, selection=10, draws=n, **options) for n in (70, 71, 300)]
    assert torch.equal(runs[0].selected, runs[2].selected)
    assert bool(((runs[1].counts - runs[0].counts >= 0) & (runs[1].counts - runs[0].counts <= 1)).all())
    fewer = fp.smoothed_certificate(model, data.head(7), selection=10, draws=70, **options)
    assert torch.equal(fewer.counts, runs[0].counts[:7])


def test_property_selection_and_estimation_are_different_families() -> None:
    """On the boundary the selected class keeps half of the fresh draws; the selecting draws would favour it."""
    model, data, _ = binary(400, spread=0.0)
    result = fp.smoothed_certificate(model, data, draws=101, selection=101)
    share = float(result.counts.sum()) / (400 * 101)
    assert abs(share - 0.5) < 4 * 0.5 / math.sqrt(400 * 101)
    assert result.abstained > 0.99


def made(predicted: list[int], radius: list[float], labels: list[int]) -> SmoothedCertificate:
    columns = {"predicted": predicted, "selected": predicted, "counts": predicted, "labels": labels}
    tensors = {name: torch.tensor(column) for name, column in columns.items()}
    settings = {"arguments": {"sigma": 0.3}}
    return SmoothedCertificate(**tensors, radius=torch.tensor(radius, dtype=torch.float64), settings=settings)


def test_closed_form_certified_accuracy_and_summary() -> None:
    result = made([1, ABSTAINED, 0, 2, 1], [0.5, 0.0, 0.3, 0.25, 0.9], [1, 1, 1, 2, 1])
    assert result.certified.tolist() == [0.5, 0.0, 0.0, 0.25, 0.9]
    radii = [0.0, 0.25, 0.26, 0.5, 0.9, 1.0]
    assert result.certified_accuracy(radii).tolist() == [0.6, 0.6, 0.4, 0.4, 0.2, 0.0]
    assert result.summary() == {
        "median_radius": 0.25, "mean_radius": pytest.approx(0.33), "abstained": 0.2,
        "certified_accuracy(0.3)": 0.4, "certified_accuracy(0)": 0.6, "certified_accuracy(0.25)": 0.6,
        "certified_accuracy(0.5)": 0.4,
    }  # fmt: skip
    assert list(result.summary([0.9]))[:2] == ["certified_accuracy(0.3)", "certified_accuracy(0.9)"]  # sigma first
    lower, upper = result.band(radii, 0.9)
    for count, low, high in zip((3, 3, 2, 2, 1, 0), lower.tolist(), upper.tolist(), strict=True):
        reference = stats.binomtest(count, 5).proportion_ci(0.9, method="wilson")
        assert (low, high) == pytest.approx((reference.low, reference.high), rel=1e-9)
    assert len(result) == 5


def test_result_survives_the_record(tmp_path) -> None:
    result = fp.smoothed_certificate(cases.mlp(), DATA, **FEW)
    loaded = fp.load(fp.save(result, tmp_path / "smoothing.parquet"))
    for name in ("predicted", "radius", "selected", "counts", "labels"):
        assert torch.equal(getattr(loaded, name), getattr(result, name)), name
    assert loaded.settings["arguments"] == {"sigma": 0.25, "alpha": 0.001, "seed": 0} | FEW
    assert list(result.to_frame().columns) == ["sample", "labels", "predicted", "radius", "selected", "counts"]
    assert "certified_accuracy(0.25)=" in repr(loaded)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sigma": 0}, r"sigma must be a positive finite number.*, got 0"),
        ({"sigma": -0.5}, r"sigma must be .*, got -0.5"),
        ({"sigma": math.nan}, r"sigma must be .*, got nan"),
        ({"alpha": 0.0}, "alpha must be a probability of error in"),
        ({"alpha": 1.0}, r"alpha must be .*, got 1\.0"),
        ({"draws": 0}, r"draws must be at least 1.*, got 0"),
        ({"selection": 0}, r"selection must be at least 1.*, got 0"),
        ({"draws": 9}, "draws must be at least 10 at alpha = 0.001, got 9"),
        ({"draws": 1, "alpha": 0.5}, "draws must be at least 2 at alpha = 0.5, got 1"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.smoothed_certificate(cases.mlp(), DATA, **arguments)


def test_bad_radii_and_inputs() -> None:
    result = fp.smoothed_certificate(cases.mlp(), DATA.head(2), draws=10, selection=1)
    for radii in ([0.1, -0.1], [math.nan]):
        with pytest.raises(ValueError, match="radii must be distances >= 0"):
            result.certified_accuracy(radii)
    with pytest.raises(ValueError, match=r"level must be a confidence in .*, got 95"):
        result.band([0.1], 95)

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.table(x).mean(1)

    words = fp.LabelledData(torch.randint(9, (5, 6)), torch.zeros(5, dtype=torch.long), classes=3)
    with pytest.raises(TypeError, match="smoothed_certificate moves the inputs by small amounts"):
        fp.smoothed_certificate(Words().eval(), words)


def test_logits_that_overflow_under_the_noise_name_the_sample_and_the_draw() -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.scale * x.clamp_min(1).log(), (x - 4.5).clamp_max(0).add(1e-9).log()], 1)

    inputs = torch.tensor([[9.0], [9.0], [4.6]])
    data = fp.LabelledData(inputs, torch.zeros(3, dtype=torch.long), classes=2)
    noise = rng.draws_normal(range(2, 3), 0, 10, (1,), 0, "smoothing selection").flatten()
    draw = int((4.6 + 0.25 * noise < 4.5).nonzero()[0])
    with pytest.raises(ValueError, match=f"logits of sample 2 must be finite under the noise of draw {draw}, "):
        fp.smoothed_certificate(Steep().eval(), data, draws=10, selection=10)
