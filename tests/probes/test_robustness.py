"""Gaussian robustness: Phi in closed form, a loop as reference, indexed noise, bands."""

import numpy as np
import pytest
import torch
from scipy import stats

import flatprobe as fp
from flatprobe.probes.robustness import Robustness
from flatprobe.utils import rng
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched, assert_seed_determines

DATA = cases.data_for((1, 8, 8))
GAMMAS = [0.0, 0.3, 1.0]


def test_closed_form_an_affine_binary_classifier_errs_with_probability_phi() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    model = cases.Affine(weight, torch.tensor([0.1, -0.2], dtype=torch.float64))
    inputs = torch.rand(400, 6, generator=generator)
    with torch.no_grad():
        margin = model(inputs.double()) @ torch.tensor([1.0, -1.0], dtype=torch.float64)
    data = fp.LabelledData(inputs, (margin < 0).long(), classes=2)  # every sample right without noise
    gammas, draws = [0.05, 0.2, 1.0], 50
    result = fp.gaussian_robustness(model, data, gammas=[0.0, *gammas], draws=draws)
    assert float(result.mean[0]) == 0
    slope = float((weight[0] - weight[1]).norm())
    for gamma, error in zip(gammas, result.mean[1:].tolist(), strict=True):
        p = stats.norm.cdf(-margin.abs().numpy() / (gamma * slope))
        standard_error = np.sqrt((p * (1 - p)).sum() / draws) / len(data)
        assert standard_error < 0.05 * p.mean()
        assert abs(error - p.mean()) < 4 * standard_error


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_slow_reference_sample_by_sample(name: str) -> None:
    model, data = cases.NETWORKS[name](), DATA.head(30)
    result = fp.gaussian_robustness(model, data, gammas=GAMMAS, draws=2, seed=5)
    for draw in range(2):
        for row, gamma in enumerate(GAMMAS):
            wrong = 0
            for index in range(30):
                noise = rng.sample_normal(index, index + 1, (1, 8, 8), 5, "noise", draw).double()
                z = model(data.inputs[index : index + 1].double() + gamma * noise)
                wrong += int(z.argmax()) != int(data.labels[index])
            assert float(result.error[row, draw]) == wrong / 30


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_untouched_and_batch_size_invariant(name: str) -> None:
    model = cases.NETWORKS[name]()
    assert_model_untouched(model, lambda: fp.gaussian_robustness(model, DATA, gammas=GAMMAS, draws=2))
    assert_batch_size_invariant(
        lambda data, size: fp.gaussian_robustness(model, data, gammas=GAMMAS, draws=2, batch_size=size).error, DATA
    )


def test_property_seed_determines_and_noise_is_that_of_the_sample() -> None:
    model, data = cases.affine(), cases.data_for((7,), classes=5)
    assert_seed_determines(lambda seed: fp.gaussian_robustness(model, data, gammas=[0.5], seed=seed).error)
    few, many = (fp.gaussian_robustness(model, data, gammas=[0.5], draws=draws).error for draws in (2, 4))
    assert torch.equal(few, many[:, :2])
    both = fp.gaussian_robustness(model, data, gammas=[0.1, 0.5], draws=2).error
    assert torch.equal(both[1:], few)  # the same noise at every gamma, whatever the grid


FRONTS = [torch.nn.Hardtanh(0, 1), torch.nn.ReLU(), torch.nn.LayerNorm(64, elementwise_affine=False)]


@pytest.mark.parametrize("front", FRONTS, ids=lambda front: type(front).__name__)
def test_slow_reference_a_first_layer_that_is_not_affine_sees_each_noise_level(front: torch.nn.Module) -> None:
    linear = torch.nn.Linear(64, 10)
    linear.weight.data = cases.affine(10, 64).weight.data
    model = torch.nn.Sequential(torch.nn.Flatten(), front, linear).double().eval()
    data = fp.LabelledData(DATA.inputs, model(DATA.inputs.double()).argmax(1), classes=10)
    result = fp.gaussian_robustness(model, data, gammas=[0.3, 1.0], draws=1)
    noise = rng.sample_normal(0, 130, (1, 8, 8), 0, "noise", 0).double()
    for row, gamma in enumerate((0.3, 1.0)):
        wrong = model(data.inputs.double() + gamma * noise).argmax(1) != data.labels
        assert float(result.error[row, 0]) == float(wrong.double().mean()) > 0


def test_property_the_noise_is_not_clipped_and_normalisation_keeps_it_in_pixels() -> None:
    plain = fp.models.mlp((1, 8, 8), widths=(16,))
    scaled = fp.Normalised(plain, 0.0, 0.5).double().eval()
    halved = fp.LabelledData(DATA.inputs * 2, DATA.labels)
    first = fp.gaussian_robustness(scaled, DATA, gammas=[0.4], draws=3).error
    second = fp.gaussian_robustness(plain.double().eval(), halved, gammas=[0.8], draws=3).error
    assert torch.equal(first, second)


def test_closed_form_bands() -> None:
    model, data = cases.affine(), cases.data_for((7,), classes=5)
    result = fp.gaussian_robustness(model, data, gammas=GAMMAS, draws=5)
    lower, upper = result.band(0.9)
    for row in range(3):
        count = float(result.mean[row]) * 130
        reference = stats.binomtest(round(count), 130).proportion_ci(0.9, method="wilson")
        if count == round(count):
            assert (float(lower[row]), float(upper[row])) == pytest.approx((reference.low, reference.high), rel=1e-9)
    assert float(result.mean[0]) * 130 == round(float(result.mean[0]) * 130)  # no noise: one of them was compared
    perfect = fp.gaussian_robustness(
        model, fp.LabelledData(data.inputs, model(data.inputs.double()).argmax(1)), gammas=[0.0]
    )
    assert float(perfect.band()[0]) == 0 < float(perfect.band()[1])
    low, high = result.band(0.9, method="draws")
    wrong = round(float(result.error[2].sum()) * 130)
    exact = stats.binomtest(wrong, 5 * 130).proportion_ci(0.9, method="exact")
    assert (float(low[2]), float(high[2])) == pytest.approx((exact.low, exact.high), rel=1e-9)
    assert low[0] == high[0] == result.mean[0]  # without noise nothing is drawn
    assert bool((upper - lower > 0).all())


def test_result_survives_the_record(tmp_path) -> None:
    result = fp.gaussian_robustness(cases.mlp(), DATA, gammas=GAMMAS, draws=3)
    loaded = fp.load(fp.save(result, tmp_path / "robustness.parquet"))
    assert torch.equal(loaded.error, result.error)
    assert torch.equal(loaded.gammas, result.gammas)
    assert loaded.samples == 130
    assert list(result.to_frame().columns) == ["gamma", "draw", "error"]
    assert "error(0.3)" in repr(loaded)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gammas": []}, r"gammas must be one or more finite standard deviations >= 0, got \[\]"),
        ({"gammas": [-0.1]}, r"gammas must be .*, got \[-0\.1\]"),
        ({"gammas": [float("nan")]}, r"gammas must be .*, got \[nan\]"),
        ({"gammas": [0.1], "draws": 0}, r"draws must be at least 1.*, got 0"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.gaussian_robustness(cases.mlp(), DATA, **arguments)


def test_bad_bands() -> None:
    result = fp.gaussian_robustness(cases.mlp(), DATA, gammas=[0.1], draws=1)
    with pytest.raises(ValueError, match=r"level must be a confidence in .*, got 95\.0"):
        result.band(95)
    with pytest.raises(ValueError, match=r"method must be one of 'wilson', 'draws'.*, got 'wald'"):
        result.band(method="wald")
    with pytest.raises(ValueError, match=r"level must be a confidence in .*, got 95\.0"):
        result.band(95, method="draws")
    low, high = result.band(method="draws")  # one draw is a trial a sample
    assert bool(((low < result.mean) & (result.mean < high)).all())


@pytest.mark.parametrize("draws", [1, 2, 10])
@pytest.mark.parametrize("sure", [0, 180, 199])
def test_the_band_over_draws_covers_as_often_as_it_says(sure: int, draws: int) -> None:
    """Simulation: 200 samples of which some never err and the others do with a probability of their own."""
    generator = rng.generator(sure, "coverage", draws)
    for largest in (0.05, 0.2, 1.0):
        p = torch.cat([torch.zeros(sure), largest * torch.rand(200 - sure, generator=generator)]).double()
        error = (torch.rand(400, draws, 200, generator=generator) < p).double().mean(2)
        result = Robustness(gammas=torch.full((400,), 0.1).double(), error=error, samples=200, settings={})
        low, high = result.band(0.95, method="draws")
        covered = float(((low <= p.mean()) & (p.mean() <= high)).double().mean())
        assert covered >= 0.95 - 3 * (0.95 * 0.05 / 400) ** 0.5
        assert float(high.max()) < 1  # and it says something


def test_bands_of_training_samples_warn_and_others_do_not() -> None:
    data = cases.data_for((1, 8, 8), samples=60)
    fresh = cases.data_for((1, 8, 8), samples=60, seed=1)
    run = fp.train(fp.models.mlp((1, 8, 8), widths=(8,)), data, epochs=1, learning_rate=0.01)
    wrapped = fp.Normalised(run.model, 0.1, 0.5)
    results = {
        "robustness": lambda model, own: fp.gaussian_robustness(model, own, gammas=[0.1], draws=2),
        "adversarial": lambda model, own: fp.adversarial_accuracy(model, own, budgets=[0.1], steps=1),
        "smoothed": lambda model, own: fp.smoothed_certificate(model, own, draws=20),
    }
    for name, probe in results.items():
        arguments = ([0.1],) if name == "smoothed" else ()
        for model in (run.model, wrapped):
            with pytest.warns(UserWarning, match="the network was trained on these samples: .* probe held-out data"):
                band = probe(model, data).band(*arguments)
            assert torch.equal(band[0], probe(model, data).interval(*arguments)[0])
        probe(run.model, fresh).band(*arguments)  # a warning would be an error
    with pytest.warns(UserWarning, match="trained on"):
        fp.gaussian_robustness(run.model, data, gammas=[0.1], draws=2).band()
    fp.gaussian_robustness(run.model, data, gammas=[0.1], draws=2).band(method="draws")  # of these very samples


def test_a_network_read_from_its_run_folder_knows_its_samples(tmp_path) -> None:
    data = cases.data_for((1, 8, 8), samples=60)
    fp.train(fp.models.mlp((1, 8, 8), widths=(8,)), data, epochs=1, learning_rate=0.01, out=tmp_path / "run")
    result = fp.gaussian_robustness(fp.load_checkpoint(tmp_path / "run"), data, gammas=[0.1], draws=2)
    loaded = fp.load(fp.save(result, tmp_path / "robustness.parquet"))
    with pytest.warns(UserWarning, match="trained on"):
        loaded.band()


def test_property_without_noise_all_draws_are_the_one_pass() -> None:
    model = cases.cnn()
    result = fp.gaussian_robustness(model, DATA, gammas=[0.3, 0.0], draws=3)
    clean = float((fp.functional_margins(model, DATA).values < 0).double().mean())
    assert result.error[1].tolist() == [clean] * 3
    alone = fp.gaussian_robustness(model, DATA, gammas=[0.3], draws=3)
    assert torch.equal(result.error[0], alone.error[0])
