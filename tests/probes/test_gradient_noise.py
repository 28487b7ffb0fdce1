"""Gradient noise: a linear model with known gradients, its covariance and kurtosis, everything refused."""

import copy

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.probes import gradient_noise
from flatprobe.probes.gradient_noise import GradientNoise
from flatprobe.utils import rng
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched, assert_seed_determines

DATA = cases.data_for((1, 8, 8), samples=70)
N = 60
INPUTS = torch.randn(N, 7, generator=rng.generator("noise"), dtype=torch.float64)
LINEAR_DATA = fp.LabelledData(INPUTS, torch.arange(N) % 5, classes=5)
LINEAR = cases.affine(5, 7)
RISK = fp.EmpiricalRisk(LINEAR, LINEAR_DATA, loss="squared", batch_size=64)


def per_sample() -> torch.Tensor:
    """The gradient of ||W x + b - e_y||^2 is 2 (W x + b - e_y) x^T, and without x^T for b; (samples, weights)."""
    residual = 2 * (LINEAR(INPUTS) - torch.nn.functional.one_hot(LINEAR_DATA.labels, 5)).detach()
    return torch.cat([(residual[:, :, None] * INPUTS[:, None, :]).flatten(1), residual], 1)


GRADIENTS = per_sample()
MEAN = GRADIENTS.mean(0)
TRACE = float((GRADIENTS - MEAN).square().sum(1).mean())


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("size", [1, 50])
def test_closed_form_a_linear_models_covariance_and_noise_scale(size: int, replacement: bool) -> None:
    result = fp.gradient_noise(RISK, batch_size=size, draws=200, replacement=replacement)
    assert result.gradient_norm == pytest.approx(float(MEAN.norm()), rel=1e-9)
    expected = TRACE / float(MEAN.square().sum())
    assert result.noise_scale_error < 0.1 * expected
    assert abs(result.noise_scale - expected) < 4 * result.noise_scale_error
    assert result.trace_covariance == pytest.approx(result.noise_scale * result.gradient_norm**2)


def test_closed_form_each_component_is_the_minibatchs_mean_minus_the_full_gradient() -> None:
    result = fp.gradient_noise(RISK, batch_size=8, draws=5, components=1000, seed=2)
    names = [f"weight[{k}]" for k in range(35)] + [f"bias[{k}]" for k in range(5)]
    assert result.components == tuple(names)
    torch.testing.assert_close(result.gradient, MEAN, rtol=1e-9, atol=1e-12)
    for draw in range(5):
        z = rng.permutation(N, 2, "minibatch", draw)[:8]
        xi = GRADIENTS[z].mean(0) - MEAN
        torch.testing.assert_close(result.noise[draw], xi, rtol=1e-9, atol=1e-12)
        assert float(result.squared_lengths[draw]) == pytest.approx(float(xi.square().sum()), rel=1e-9)


def test_closed_form_every_minibatch_of_one_sample_gives_the_covariance_exactly() -> None:
    """Without replacement and with B = n - 1 each xi is one sample's deviation over n - 1."""
    result = fp.gradient_noise(RISK, batch_size=N - 1, draws=100)
    lengths = (GRADIENTS - MEAN).norm(dim=1) / (N - 1)
    nearest = (result.squared_lengths.sqrt()[:, None] - lengths).abs().amin(1)
    assert float(nearest.max()) < 1e-12
    assert result.inflation == pytest.approx((N - 1) ** 2)


def test_some_components_are_kept_and_dead_ones_never() -> None:
    inputs = INPUTS.clone()
    inputs[:, 3] = 0  # an always black pixel
    risk = fp.EmpiricalRisk(LINEAR, fp.LabelledData(inputs, LINEAR_DATA.labels, classes=5), loss="squared")
    result = fp.gradient_noise(risk, batch_size=8, draws=3, components=30)
    assert result.live == 35
    assert len(result.components) == 30 == len(set(result.components))
    dead = {f"weight[{7 * k + 3}]" for k in range(5)}
    assert not dead & set(result.components)
    assert len(fp.gradient_noise(risk, batch_size=8, draws=3).components) == 35
    whole = fp.gradient_noise(risk, batch_size=8, draws=3).squared_lengths
    assert torch.equal(result.squared_lengths, whole)  # the length is of all components
    part = fp.gradient_noise(risk, batch_size=8, draws=3, parameters="bias")
    assert {name.partition("[")[0] for name in part.components} == {"bias"}
    assert bool((part.squared_lengths < whole).all())


@pytest.mark.parametrize("drawn", [8, 64])  # several rounds of rejection, and more than enough in one
def test_property_components_are_distinct_live_and_equally_likely(drawn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient_noise, "_DRAWN", drawn)
    full = {"a": torch.ones(2, 20), "b": torch.zeros(10), "c": torch.ones(()), "d": torch.tensor([1.0, 0.0] * 10)}
    live = [f"a[{k}]" for k in range(40)] + ["c[0]"] + [f"d[{k}]" for k in range(0, 20, 2)]
    counts, seeds, components = dict.fromkeys(live, 0), 600, 17
    for seed in range(seeds):
        chosen = gradient_noise._choose(full, len(live), components, seed).labels
        assert list(chosen) == [name for name in live if name in chosen]
        assert len(chosen) == components
        for name in chosen:
            counts[name] += 1
    share = components / len(live)
    error = (seeds * share * (1 - share)) ** 0.5
    assert all(abs(count - seeds * share) < 4 * error for count in counts.values())


def test_slow_reference_single_precision_minibatches_of_several_batches() -> None:
    model = cases.mlp()
    precise = copy.deepcopy(model).double()
    own, other = (
        fp.gradient_noise(fp.EmpiricalRisk(m, DATA, batch_size=size), batch_size=20, draws=3, parameters="last")
        for m, size in ((model.float(), 8), (precise, 64))
    )
    assert own.components == other.components
    size = float(other.squared_lengths.mean()) ** 0.5
    torch.testing.assert_close(own.noise, other.noise, rtol=0, atol=1e-5 * size)  # single precision
    torch.testing.assert_close(own.squared_lengths, other.squared_lengths, rtol=1e-5, atol=0)


def made_up(noise: torch.Tensor) -> GradientNoise:
    return GradientNoise(
        noise=noise, components=tuple(map(str, range(noise.shape[1]))), gradient=torch.ones(noise.shape[1]).double(),
        squared_lengths=noise.square().sum(1), gradient_norm=1.0, inflation=1.0, live=noise.shape[1], settings={},
    )  # fmt: skip


def test_closed_form_kurtosis_tells_normal_from_uniform_and_laplace_noise() -> None:
    generator = rng.generator("kurtosis")
    normal = torch.randn(400, 50, generator=generator, dtype=torch.float64)
    uniform = torch.rand(400, 50, generator=generator, dtype=torch.float64) - 0.5
    for noise, expected in ((normal, 0.0), (uniform, 1.8 * 402 / 400 - 3)):
        result = made_up(noise)
        assert result.mean_kurtosis_error < 0.05
        assert abs(result.mean_kurtosis - expected) < 4 * result.mean_kurtosis_error + 0.01
    assert float(made_up(normal).kurtosis.std()) == pytest.approx((24 / 400) ** 0.5, rel=0.3)
    copies = made_up(normal[:, :1].expand(400, 50))  # components that say the same do not make the figure surer
    assert copies.mean_kurtosis_error > 3 * made_up(normal).mean_kurtosis_error
    signs = made_up(normal.sign())
    assert torch.allclose(signs.kurtosis, torch.full((50,), 402 / 400 - 3).double())


def test_the_central_limit_the_kurtosis_falls_with_the_size_of_the_minibatch() -> None:
    risk = fp.EmpiricalRisk(cases.mlp(), DATA)
    small, large = (
        fp.gradient_noise(risk, batch_size=size, draws=100, replacement=True).mean_kurtosis for size in (1, 64)
    )
    assert small > 2
    assert abs(large) < 0.5


def test_property_untouched_batch_size_and_seed() -> None:
    for name in ("cnn", "residual"):
        model = cases.NETWORKS[name]()
        assert_model_untouched(
            model, lambda m=model: fp.gradient_noise(fp.EmpiricalRisk(m, DATA), batch_size=9, draws=2)
        )
    model = cases.mlp()
    for replacement in (False, True):
        assert_batch_size_invariant(
            lambda data, size, r=replacement: (
                fp.gradient_noise(
                    fp.EmpiricalRisk(model, data, batch_size=size), batch_size=20, draws=3, replacement=r
                ).noise
            ),
            DATA,
        )
        assert_seed_determines(
            lambda seed, r=replacement: fp.gradient_noise(RISK, batch_size=4, draws=2, replacement=r, seed=seed).noise
        )


def test_record_round_trips(tmp_path) -> None:
    result = fp.gradient_noise(RISK, batch_size=8, draws=4, components=6)
    loaded = fp.load(fp.save(result, tmp_path / "noise.parquet"))
    for name in ("noise", "gradient", "squared_lengths"):
        assert torch.equal(getattr(loaded, name), getattr(result, name))
    assert loaded.components == result.components
    assert loaded.summary() == result.summary()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be at least 1.*, got 0"),
        ({"batch_size": N}, "batch_size must be below the number of samples, 60, got 60.*replacement=True"),
        ({"batch_size": 8, "draws": 1}, r"draws must be at least 2.*, got 1"),
        ({"batch_size": 8, "components": 0}, r"components must be at least 1.*, got 0"),
        ({"batch_size": 8, "parameters": "conv*"}, "matches no parameter"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.gradient_noise(RISK, **options)


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.gate = factor, nn.Parameter(torch.zeros(1).double())
        self.register_buffer("weight", torch.ones(7, 5).double())
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + (self.gate.abs().sqrt() if self.factor else 0 * self.gate)


@pytest.mark.parametrize(
    ("factor", "found"),
    [(0.0, "do not act on the loss"), (1.0, "gradient must be .*, got one that is not finite")],
)
def test_gradients_that_say_nothing_are_refused(factor: float, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        fp.gradient_noise(fp.EmpiricalRisk(Scaled(factor), LINEAR_DATA), batch_size=8)
