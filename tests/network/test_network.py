"""The network as a function of inputs and weights: precisions, single samples, buffers, and the caller's data."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.network.network import Network
from flatprobe.network.weights import weights_of
from tests.helpers import cases, foreign, strange
from tests.helpers.references import loss_and_error

DATA = cases.data_for((1, 8, 8), samples=20)
VECTORS = fp.LabelledData(torch.randn(20, 4, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["vit", "bert"])
def test_every_probe_runs_in_half_precision(name: str, dtype: torch.dtype) -> None:
    model, data = foreign.MODELS[name]().to(dtype), foreign.data(name)
    risk = fp.EmpiricalRisk(model, data)
    assert all(value.dtype == dtype for value in risk.gradient().values())
    line = fp.interpolate(risk, [model, foreign.MODELS[name](1).to(dtype)], fp.segment(steps=3))
    assert float(line.loss[0]) == risk().loss
    single = fp.at_embedding(model, data) if name == "bert" else (model, data)
    norms = fp.jacobian_norms(*single)
    double = foreign.MODELS[name](), data
    reference = fp.jacobian_norms(*(fp.at_embedding(*double) if name == "bert" else double))
    np.testing.assert_allclose(norms, reference, rtol=0.2)  # bfloat16 keeps two digits; a wrong sample is far off
    assert fp.gaussian_robustness(*single, gammas=[0.1], draws=1).error.shape == (1, 1)


class Mixed(nn.Module):
    """Half-precision layers with a normalisation in float32, as mixed-precision checkpoints have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(64, 16), nn.LayerNorm(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == self.layer.weight.dtype
        return self.head(self.norm(self.layer(x.flatten(1)).float()).to(self.head.weight.dtype))


def test_networks_in_several_precisions_take_inputs_in_the_first_layers() -> None:
    model = foreign.built(Mixed).bfloat16()
    model.norm.float()
    risk = fp.EmpiricalRisk(model, DATA)
    assert risk.describe()["network"]["dtype"] == "bfloat16, float32"
    assert {name: value.dtype for name, value in risk.gradient().items()} == {
        name: value.dtype for name, value in model.named_parameters()
    }
    assert len(fp.jacobian_norms(model, DATA)) == 20


def test_property_a_first_layer_that_works_in_place_does_not_reach_the_data() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Threshold(0.5, 0.0, inplace=True), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10)]
    model = nn.Sequential(*layers).double().eval()
    inputs = torch.rand(30, 1, 8, 8, dtype=torch.float64)
    data = fp.LabelledData(inputs, torch.arange(30) % 10)
    before = inputs.clone()
    risk = fp.EmpiricalRisk(model, data)
    other = {name: value + 0.1 for name, value in risk.center.items()}
    assert risk.along([risk.center, other])([0.0, 1.0]).loss == pytest.approx(risk(other).loss, rel=1e-12)
    fp.functional_margins(model, data)
    fp.gaussian_robustness(model, data, gammas=[0.0, 0.1], draws=2)
    assert torch.equal(inputs, before)
    assert len(data.inputs) == 30  # the data would tell of a change


def test_property_training_the_model_on_does_not_reach_the_risk() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 10)]
    model = nn.Sequential(*layers).double().eval()
    risk = fp.EmpiricalRisk(model, DATA)
    before = risk()
    with torch.no_grad():
        model[1].weight.mul_(2)
    assert risk() == before
    model.train()
    assert risk() == before


class Squeezed(nn.Module):
    def __init__(self, *, inside: bool) -> None:
        super().__init__()
        self.first, self.head, self.inside = nn.Conv2d(1, 6, 4), nn.Linear(6, 3), inside

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        return self.head(z.squeeze().flatten(1)) if self.inside else self.head(z.flatten(1))[..., None].squeeze()


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("samples", "size"), [(9, 4), (9, 1), (1, None)])
def test_a_single_sample_is_not_squeezed_away(samples: int, size: int | None, *, inside: bool) -> None:
    model = strange.seeded(lambda: Squeezed(inside=inside).double())
    images = torch.randn(9, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = fp.LabelledData(images[:samples], torch.arange(samples) % 3, classes=3)
    with torch.no_grad():
        logits = model(images)[:samples]
    risk = fp.EmpiricalRisk(model, data, batch_size=size)
    assert risk().loss == pytest.approx(float(F.cross_entropy(logits, data.labels)), rel=1e-12)
    assert risk.gradient().keys() == dict(model.named_parameters()).keys()
    whole = fp.jacobian_norms(model, data, batch_size=9).values
    torch.testing.assert_close(fp.jacobian_norms(model, data, batch_size=size).values, whole, rtol=1e-9, atol=0)
    assert len(fp.geometric_margins(model, data, lower=(), upper="deepfool", batch_size=size).upper) == samples


def test_a_squeeze_behind_plain_layers_is_none_either() -> None:
    class Squeeze(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.squeeze()

    model = strange.seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3), Squeeze()).double())
    small, whole = (fp.EmpiricalRisk(model, VECTORS, batch_size=size) for size in (19, 20))
    line = fp.interpolate(small, [model, small.center], fp.segment(steps=2)).loss.tolist()
    assert line == pytest.approx([whole().loss] * 2, rel=1e-12)


def test_what_a_single_sample_cannot_repair_is_told_as_before() -> None:
    data = fp.LabelledData(torch.zeros(1, 4), torch.tensor([0]), classes=2)
    with pytest.raises(ValueError, match=r"the output of Sequential is of shape \(1, 1, 4\) per sample, for several"):
        fp.functional_margins(nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (1, 4))).eval(), data)


def test_a_copy_of_the_network_shares_nothing_and_has_its_weights() -> None:
    network, data = Network(strange.network("counts")), strange.data(40)
    inputs = network.prepare(data.inputs)
    copied = network.copy()
    assert torch.equal(copied(inputs), network(inputs))
    copied(inputs, {name: 2 * value for name, value in copied.weights.items()})
    assert torch.equal(copied(inputs), network(inputs))
    single = network.copy(dtype=torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single(single.prepare(data.inputs)).double(), network(inputs), rtol=1e-5, atol=1e-5)


class Counting(nn.Module):
    """Adds to a buffer in place at every pass, and by assignment to another."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.register_buffer("written", torch.ones(10, dtype=torch.float64))
        self.register_buffer("assigned", torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        z = self.layer(x.flatten(1)) * self.written.log1p() * self.assigned
        self.written += torch.arange(10)
        self.assigned = self.assigned + 1
        return z


@pytest.mark.parametrize("sequence", [False, True])
def test_property_buffers_that_a_pass_writes_to_start_from_the_callers_values_at_every_pass(sequence: bool) -> None:
    model = foreign.built(Counting)
    if sequence:  # taken apart after its first layer by `along`
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64).double(), model).eval()
    by_hand = loss_and_error(copy.deepcopy(model), weights_of(model), DATA.head(1))
    before = copy.deepcopy(model.state_dict())
    risk = fp.EmpiricalRisk(model, DATA.head(1))
    assert risk().loss == pytest.approx(by_hand[0], rel=1e-12)
    assert len({risk().loss for _ in range(3)} | {risk.along([risk.center])([1.0]).loss for _ in range(2)}) == 1
    fp.flatness_radius(risk, directions=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(risk.buffers[next(n for n in risk.buffers if n.endswith("written"))], torch.ones(10).double())
