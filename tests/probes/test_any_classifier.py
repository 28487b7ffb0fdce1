"""Any classifier: every probe on dict, tuple and tensor inputs, `.logits`, attention, tied weights and buffers."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.data import LabelledData
from flatprobe.data.inputs import map_tensors, tensors
from flatprobe.network.network import Network
from flatprobe.network.weights import Weights, combine, norm
from flatprobe.risk.directions import direction
from flatprobe.utils import rng
from tests.helpers import foreign
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched, streamed

GAMMAS = [0.0, 0.5]


def one(inputs: object, index: int) -> object:
    return map_tensors(lambda part: part[index : index + 1], inputs)


def with_weights(model: nn.Module, weights: Weights) -> nn.Module:
    """A copy with these weights written into its parameters."""
    network = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name])
    return network


def losses(model: nn.Module, data: LabelledData) -> list[float]:
    """Sample by sample, with gradients enabled, each on a network of its own (a counter may count)."""
    outputs = [foreign.logits(copy.deepcopy(model), one(data.inputs, i)) for i in range(len(data))]
    return [F.cross_entropy(z, data.labels[i : i + 1]).item() for i, z in enumerate(outputs)]


def movable(name: str) -> tuple[nn.Module, LabelledData]:
    """The network and data that the input-space probes take."""
    model, data = foreign.MODELS[name](), foreign.data(name)
    return fp.at_embedding(model, data) if name in foreign.TEXT else (model, data)


@pytest.mark.parametrize("name", foreign.MODELS)
def test_slow_reference_risk_gradient_and_radius(name: str) -> None:
    model, data = foreign.MODELS[name](), foreign.data(name)
    risk = fp.EmpiricalRisk(model, data)
    assert risk().loss == pytest.approx(math.fsum(losses(model, data)) / len(data), rel=1e-9)
    u = direction(risk.center, tuple(risk.center), "isotropic", 0, 0)
    moved = combine([risk.center, u], (1.0, 0.3))
    expected = math.fsum(losses(with_weights(model, moved), data)) / len(data)
    assert risk(moved).loss == pytest.approx(expected, rel=1e-9)
    assert risk.along([risk.center, u])((1.0, 0.3)).loss == pytest.approx(expected, rel=1e-9)
    h = 1e-5  # the central difference is wrong by h^2, and by 1e-16 / h of rounding
    plus, minus = (risk(combine([risk.center, u], (1.0, s))).loss for s in (h, -h))
    slope = sum(float((g * u[key]).sum()) for key, g in risk.gradient().items())
    assert slope == pytest.approx((plus - minus) / (2 * h), rel=1e-5, abs=1e-8)
    radii = fp.flatness_radius(risk, directions=1, rtol=1e-3)
    at = risk(combine([risk.center, u], (1.0, float(radii.radii[0]))))
    assert abs(at.loss - radii.start.loss) == pytest.approx(0.05, rel=1e-2)  # rtol, times the slope of the loss


@pytest.mark.parametrize("name", foreign.MODELS)
def test_property_corners_of_an_interpolation_are_the_endpoints_own_values(name: str) -> None:
    first, second, data = foreign.MODELS[name](), foreign.MODELS[name](seed=1), foreign.data(name)
    line = fp.interpolate(fp.EmpiricalRisk(first, data), [first, second.state_dict()], fp.segment(steps=3))
    own = [fp.EmpiricalRisk(model, data)() for model in (first, second)]
    assert [float(line.loss[0]), float(line.loss[2])] == [risk.loss for risk in own]
    half = combine([Network(first).weights, Network(second).weights], (0.5, 0.5))
    assert float(line.loss[1]) == pytest.approx(np.mean(losses(with_weights(first, half), data)), rel=1e-9)


def weight_space(model: nn.Module, data: LabelledData, size: int | None = None) -> Tensor:
    risk = fp.EmpiricalRisk(model, data, batch_size=size)
    radii = fp.flatness_radius(risk, directions=1, law="adaptive", rtol=0.1).radii
    return torch.cat([torch.tensor([risk().loss, norm(risk.gradient())], dtype=torch.float64), radii])


def input_space(model: nn.Module, data: LabelledData, size: int | None = None) -> Tensor:
    lanczos = fp.jacobian_norms(model, data, method="lanczos", batch_size=size).values
    gram = fp.jacobian_norms(model, data, batch_size=size).values
    torch.testing.assert_close(lanczos, gram, rtol=1e-7, atol=0)  # Lanczos stops at sqrt(eps)
    parts = [
        fp.functional_margins(model, data, batch_size=size).values,
        fp.scores(model, data, batch_size=size).values,
        gram,
        fp.jacobian_norms(model, data, norm="frobenius", batch_size=size).values,
        fp.gaussian_robustness(model, data, gammas=GAMMAS, draws=1, batch_size=size).error.flatten(),
    ]
    return torch.cat(parts)


@pytest.mark.parametrize("name", ["vit", *foreign.TEXT, "tied"])
def test_property_weight_space_probes_leave_the_network_and_do_not_depend_on_the_batch(name: str) -> None:
    model, data = foreign.MODELS[name](), foreign.data(name)
    assert_batch_size_invariant(lambda data, size: weight_space(model, data, size), data)
    assert_model_untouched(model, lambda: weight_space(model, data))


@pytest.mark.parametrize("name", ["vit", *foreign.TEXT])
def test_property_input_space_probes_leave_the_network_and_do_not_depend_on_the_batch(name: str) -> None:
    model, data = movable(name)
    assert_batch_size_invariant(lambda data, size: input_space(model, data, size), data)
    assert_model_untouched(model, lambda: input_space(model, data))


@pytest.mark.parametrize("name", foreign.MODELS)
def test_slow_reference_input_space_sample_by_sample(name: str) -> None:
    model, data = movable(name)
    data = data.head(3)
    moving = tensors(data.inputs)[0]  # the floating one stands first in all of them
    margins, norms = fp.functional_margins(model, data), fp.jacobian_norms(model, data)
    wrong = 0
    for i, y in enumerate(data.labels.tolist()):

        def function(x: Tensor, i: int = i) -> Tensor:
            inputs = one(data.inputs, i)
            if isinstance(inputs, dict):
                inputs = {**inputs, next(iter(inputs)): x}
            elif isinstance(inputs, tuple):
                inputs = (x, *inputs[1:])
            else:
                inputs = x
            return foreign.logits(copy.deepcopy(model), inputs)[0]

        x = moving[i : i + 1]
        z = function(x).detach()
        assert float(margins.values[i]) == pytest.approx(float(z[y] - max(z[j] for j in range(4) if j != y)), abs=1e-9)
        matrix = torch.autograd.functional.jacobian(function, x).flatten(1)
        assert float(norms.values[i]) == pytest.approx(float(torch.linalg.svdvals(matrix)[0]), rel=1e-9)
        noise = rng.sample_normal(i, i + 1, x.shape[1:], 0, "noise", 0).double()
        wrong += int(function(x + 0.5 * noise).argmax()) != y
    assert float(fp.gaussian_robustness(model, data, gammas=[0.5], draws=1).error) == wrong / 3


def test_every_measurement_of_a_comparison_takes_text_at_its_embedding_and_pictures_in_a_dict() -> None:
    models, data = zip(*(movable(name) for name in ("vit", "bert")), strict=True)
    probes = ["flatness_radius_last_layer", "functional_margins", "scores", "jacobian_norms", "gaussian_robustness"]
    own = dict(zip(("vit", "bert"), data, strict=True))
    results = fp.compare(dict(zip(own, models, strict=True)), own, probes=probes).results
    assert {probe: [*found] for probe, found in results.items()} == {probe: ["vit", "bert"] for probe in probes}


def test_inputs_that_cannot_be_told_apart_are_refused_with_the_cure() -> None:
    model, data = foreign.MODELS["bert"](), foreign.data("bert")
    cure = r"inputs\['input_ids'\] \(torch.int64\), .*: measure at the embedding, .* = fp.at_embedding\(model, data\)"
    for probe in (fp.jacobian_norms, lambda m, d: fp.gaussian_robustness(m, d, gammas=[0.1])):
        with pytest.raises(TypeError, match=cure):
            probe(model, data)

    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    pair = LabelledData((torch.eye(3), torch.eye(3)), torch.arange(3))
    with pytest.raises(TypeError, match=r"one floating tensor, got .*\(torch.float32\).*: wrap the network so that"):
        fp.jacobian_norms(Two().eval(), pair)


def test_other_samples_than_the_held_ones_are_refused() -> None:
    model, data = movable("encoder")
    network = Network(model)
    held, inputs = network.holding(network.prepare(data.inputs))
    assert torch.equal(held(inputs), network(network.prepare(data.inputs)))
    with pytest.raises(ValueError, match=r"the input 0 must have 10 samples, .*got 3"):
        held(inputs[:3])


def test_streamed_dicts_are_measured_as_those_in_memory() -> None:
    model, data = foreign.MODELS["vit"](), foreign.data("vit")
    assert torch.equal(
        fp.functional_margins(model, streamed(data), batch_size=5).values,
        fp.functional_margins(model, data, batch_size=5).values,
    )


def test_a_dict_is_trained_on() -> None:
    run = fp.train(foreign.MODELS["vit"](), foreign.data("vit"), epochs=2, learning_rate=0.05)
    assert run.history[1]["train_loss"] < run.history[0]["train_loss"]
