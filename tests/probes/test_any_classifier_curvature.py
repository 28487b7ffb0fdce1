"""A vision and a text transformer through the probes of curvature, norms, attacks and certificates."""

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.data import LabelledData
from tests.helpers import foreign
from tests.helpers.properties import assert_model_untouched
from tests.probes.test_any_classifier import movable

NAMES = ["vit", *foreign.TEXT]


def weight_space(model: nn.Module, data: LabelledData) -> list[float]:
    risk = fp.EmpiricalRisk(model, data)
    return [
        float(fp.hessian_eigenvalues(risk, tolerance=0.1).eigenvalues[0]),
        fp.hessian_trace(risk, draws=2).trace,
        fp.worst_case_sharpness(risk, steps=2, restarts=1).sharpness,
        fp.gradient_noise(risk, batch_size=4, draws=3).noise_scale,
        float(fp.random_slice(risk, dimensions=1, steps=3).loss.mean()),
        fp.weight_norms(model, None, path=False).product(),
    ]


def input_space(model: nn.Module, data: LabelledData) -> list[float]:
    margins = fp.geometric_margins(model, data, lower=("gradient",), upper=("fab", "ddn"), steps=6, points=2)
    assert margins.violations_of("gradient") <= len(data)
    smoothed = fp.smoothed_certificate(model, data, sigma=0.05, draws=40, selection=8, alpha=0.1)
    return [
        margins.summary()["median_upper"],
        float(fp.adversarial_accuracy(model, data, budgets=[0.0, 0.5], steps=2).accuracy.mean()),
        float(smoothed.radius.mean()),
        fp.jacobian_maximum(model, data).maximum,
    ]


@pytest.mark.filterwarnings("ignore:.*whose norms are not known")  # embeddings and attention
@pytest.mark.parametrize("name", NAMES)
def test_property_every_probe_runs_and_leaves_the_network_alone(name: str) -> None:
    model, data = foreign.MODELS[name](), foreign.data(name)
    values: list[float] = []
    assert_model_untouched(model, lambda: values.extend(weight_space(model, data)))
    moving, moved = movable(name)
    assert_model_untouched(moving, lambda: values.extend(input_space(moving, moved)))
    assert torch.tensor(values).isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_slow_reference_attacked_points_are_adversarial_beside_their_other_inputs(name: str) -> None:
    """The margin does not depend on which samples share a batch, so each was attacked beside its own mask."""
    model, data = movable(name)
    whole = fp.geometric_margins(model, data, lower=(), upper=("fab",), steps=4).upper
    alone = fp.geometric_margins(model, data, lower=(), upper=("fab",), steps=4, batch_size=1).upper
    torch.testing.assert_close(whole, alone, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_certificate_says_so(name: str) -> None:
    model, data = movable(name)
    with pytest.warns(UserWarning, match="certified lower bounds exist for networks of one tensor"):
        margins = fp.geometric_margins(model, data, steps=3)
    assert list(margins.uncertified) == ["spectral"]
    assert not bool(margins.lower.any())


def test_segments_between_samples_of_different_words_are_refused() -> None:
    model, data = movable("bert")
    with pytest.raises(ValueError, match=r"must agree in .* Measure along=\"samples\""):
        fp.jacobian_maximum(model, data, along="segments", pairs=4)


@pytest.mark.filterwarnings("ignore:.*whose norms are not known")  # embeddings and attention
@pytest.mark.parametrize("name", ["bert", "vit of a tensor"])
def test_compare_measures_the_norms_that_there_are(name: str) -> None:
    model, data = foreign.MODELS[name](), foreign.data(name)
    comparison = fp.compare({"x": model}, data, probes=["weight_norms", "gradient_noise", "hessian_eigenvalues"])
    norms = comparison.results["weight_norms"]["x"]
    assert norms.names[-1].endswith("classifier")
    assert torch.tensor(norms.path).isnan()
    assert norms.settings["arguments"]["path"] is False
