"""Networks that would change the caller's state or give two answers: counters, fast paths, wrappers, tied weights."""

import copy
import random
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.data import LabelledData
from flatprobe.network.network import Network
from flatprobe.network.weights import moved, norm, weights_of
from flatprobe.utils import rng
from tests.helpers import cases, foreign
from tests.helpers.references import loss_and_error

DATA = cases.data_for((1, 8, 8), samples=20)


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


class Draws(nn.Module):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.layer, self.source = nn.Linear(64, 10), source

    def forward(self, x: Tensor) -> Tensor:
        noise = {"numpy": np.random.rand, "python": random.random, "torch": lambda: float(torch.rand(()))}
        return self.layer(x.flatten(1)) * (1 + noise[self.source]())


@pytest.mark.parametrize("source", ["numpy", "python", "torch"])
def test_networks_that_draw_from_a_global_state_are_refused_and_the_state_is_kept(source: str) -> None:
    states = (torch.get_rng_state(), str(np.random.get_state()))
    model = foreign.built(lambda: Draws(source))
    with pytest.raises(ValueError, match="two passes of Draws over the same 20 inputs differ"):
        fp.functional_margins(model, DATA)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state()) == states[1]  # Python's own is drawn from by beartype


def test_torchs_encoder_is_one_function_with_and_without_gradients_whatever_the_batch() -> None:
    """Torch's fast path cuts padded tokens off: 0.27 in the logits, and a length that is the batch's own."""
    model, data = foreign.MODELS["encoder"](), foreign.data("encoder")
    with_gradients = model(*data.inputs).detach()
    before = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nested tensors are a prototype
        assert float((model(*data.inputs) - with_gradients).abs().max()) > 1e-2
    network = Network(model)
    with torch.no_grad():
        found = torch.cat([network(batch.inputs) for batch in data.batches(3)])
    torch.testing.assert_close(found, with_gradients, rtol=0, atol=1e-12)
    assert torch.backends.mha.get_fastpath_enabled() is before is True


WRAPPERS = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "data parallel": nn.DataParallel,
    "both": lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrapped_networks_are_measured_and_interpolated_as_what_is_inside(name: str) -> None:
    first, second = cases.mlp(), cases.mlp(seed=1)
    wrapped = [WRAPPERS[name](model).eval() for model in (first, second)]
    risk, plain = fp.EmpiricalRisk(wrapped[0], DATA), fp.EmpiricalRisk(first, DATA)
    assert list(risk.center) == list(plain.center)
    assert risk.describe() == plain.describe()
    expected = fp.interpolate(plain, [first, second], fp.segment(steps=3)).loss
    for endpoints in (wrapped, [first, wrapped[1].state_dict()], [first, second]):
        assert torch.equal(fp.interpolate(risk, endpoints, fp.segment(steps=3)).loss, expected)
        assert torch.equal(fp.interpolate(plain, endpoints, fp.segment(steps=3)).loss, expected)


# Tied weights: one tensor under two names.


def tied(seed: int = 0) -> nn.Module:
    return foreign.built(foreign.Tied, seed)


def test_closed_form_tied_weights_move_together_and_count_once() -> None:
    model, data = tied(), foreign.data("tied")
    risk = fp.EmpiricalRisk(model, data)
    assert "last.weight" not in risk.center
    assert sum(value.numel() for value in risk.center.values()) == sum(p.numel() for p in model.parameters())
    u = {"first.weight": torch.full_like(risk.center["first.weight"], 0.02)}
    by_hand = copy.deepcopy(model)
    with torch.no_grad():
        by_hand.first.weight += 0.02
    assert by_hand.last.weight is by_hand.first.weight
    assert risk(moved(risk.center, u, 1.0)) == fp.EmpiricalRisk(by_hand, data)()
    assert risk.along([risk.center, u])([1.0, 1.0]) == fp.EmpiricalRisk(by_hand, data)()
    h = 1e-6
    slope = (risk(moved(risk.center, u, h)).loss - risk(moved(risk.center, u, -h)).loss) / (2 * h)
    gradient = risk.gradient()["first.weight"]  # through both places
    assert float((gradient * u["first.weight"]).sum()) == pytest.approx(slope, rel=1e-6)
    radii = fp.flatness_radius(risk, directions=2)
    assert norm({name: value for name, value in risk.center.items() if name in radii.settings["selected"]}) == norm(
        weights_of(model)
    )


def test_tied_endpoints_are_given_under_either_name_and_must_be_tied_there_too() -> None:
    first, second, data = tied(), tied(1), foreign.data("tied")
    risk = fp.EmpiricalRisk(first, data)
    state = second.state_dict()
    expected = fp.interpolate(risk, [first, second], fp.segment(steps=3)).loss
    assert float(expected[2]) == fp.EmpiricalRisk(second, data)().loss
    for dropped in ("first.weight", "last.weight"):  # writers keep one of the names
        kept = {name: value for name, value in state.items() if name != dropped}
        assert torch.equal(fp.interpolate(risk, [first, kept], fp.segment(steps=3)).loss, expected)
    untied = {**state, "last.weight": state["last.weight"] + 1}
    with pytest.raises(ValueError, match=r"'last.weight' and 'first.weight' differ in endpoint 1; expected the same"):
        fp.interpolate(risk, [first, untied], fp.segment(steps=3))


# Precision.


def trained_mlp() -> tuple[nn.Module, LabelledData]:
    data = fp.load_data("digits", limit=300)
    run = fp.train(fp.models.mlp((1, 8, 8), widths=(32,)), data, epochs=30, learning_rate=0.1)
    return run.model, data


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_radii_in_other_precisions_are_those_of_float32_or_are_refused(dtype: torch.dtype) -> None:
    """A wide step in half precision is measured; a step that its rounding drowns is an error, not a radius."""
    model, data = trained_mlp()
    other = copy.deepcopy(model).to(dtype)
    expected = fp.flatness_radius(fp.EmpiricalRisk(model, data), epsilon=0.5, directions=4).radii
    found = fp.flatness_radius(fp.EmpiricalRisk(other, data), epsilon=0.5, directions=4).radii
    # The weights' own rounding, relative to the loss's change, and the certified 1 % of both searches.
    np.testing.assert_allclose(found, expected, rtol=0.05)
    small = fp.EmpiricalRisk(other, data)
    if dtype == torch.float64:
        assert bool(fp.flatness_radius(small, epsilon=1e-6, directions=1).reached.all())
        return
    message = rf"of which .* is rounding in {str(dtype).removeprefix('torch.')}; .*model\.float\(\)"
    with pytest.raises(ValueError, match=message):
        fp.flatness_radius(small, epsilon=1e-6, directions=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_slow_reference_half_precision_losses_are_those_of_the_half_precision_logits(dtype: torch.dtype) -> None:
    model = cases.mlp().to(dtype)
    with torch.no_grad():
        z = model(DATA.inputs.to(dtype)).double()
    expected = float(nn.functional.cross_entropy(z, DATA.labels))
    assert fp.EmpiricalRisk(model, DATA)().loss == pytest.approx(expected, rel=1e-6)  # float32 losses
    margins = fp.functional_margins(model, DATA).values
    own = z.gather(1, DATA.labels[:, None])[:, 0] - z.scatter(1, DATA.labels[:, None], -torch.inf).amax(1)
    assert torch.equal(margins, own)


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


def test_global_random_states_are_kept() -> None:
    drawn = []
    for _ in range(2):
        with rng.keep_global_states():
            drawn.append((np.random.rand(), random.random(), float(torch.rand(()))))
    assert drawn[0] == drawn[1]
