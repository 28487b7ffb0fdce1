"""The empirical risk and the network wrapper: values, derivatives, the split evaluation, and everything refused."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.data import check_data
from flatprobe.network.network import Network
from flatprobe.network.weights import combined, norm, weights_of
from flatprobe.risk.lines import split_for
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched
from tests.helpers.references import loss_and_error

DATA = cases.data_for((1, 8, 8))


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_slow_reference_loss_and_error_at_moved_weights(name: str) -> None:
    model = cases.NETWORKS[name]()
    weights = {key: value * 1.1 + 0.01 for key, value in weights_of(model).items()}
    risk = fp.EmpiricalRisk(model, DATA)(weights)
    loss, error = loss_and_error(model, weights, DATA)
    assert risk.loss == pytest.approx(loss, rel=1e-9)
    assert risk.error == error


def test_closed_form_losses() -> None:
    data = fp.LabelledData(torch.eye(3, dtype=torch.float64), torch.tensor([0, 1, 1]))
    model = cases.Affine(2 * torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    cross = math.log(math.exp(2) + 2)
    assert fp.EmpiricalRisk(model, data)().loss == pytest.approx((2 * (cross - 2) + cross) / 3, rel=1e-12)
    assert fp.EmpiricalRisk(model, data, loss="squared")().loss == pytest.approx((1 + 1 + 5) / 3, rel=1e-12)
    assert fp.EmpiricalRisk(model, data, loss="hinge")().loss == pytest.approx((0 + 0 + 3) / 3, rel=1e-12)
    assert fp.EmpiricalRisk(model, data)().error == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_slow_reference_gradient_and_hessian_product(name: str) -> None:
    model = cases.NETWORKS[name]()
    data = DATA.head(40)
    risk = fp.EmpiricalRisk(model, data, batch_size=16)
    gradient = risk.gradient()
    loss = F.cross_entropy(model(data.inputs.double()), data.labels)
    expected = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    direction = {key: torch.ones_like(value) for key, value in gradient.items()}
    product = torch.autograd.grad(sum(g.sum() for g in expected), list(model.parameters()))
    for key, grad, hv in zip(gradient, expected, product, strict=True):
        torch.testing.assert_close(gradient[key], grad.detach(), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(risk.hvp(None, direction)[key], hv, rtol=1e-9, atol=1e-12)


def test_property_hessian_product_is_the_gradients_derivative_and_takes_partial_directions() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)).double().eval()
    risk = fp.EmpiricalRisk(model, DATA)
    u = {"1.weight": torch.ones_like(risk.center["1.weight"])}
    h = 1e-5
    plus, minus = (risk.gradient(combined([risk.center, u], [1.0, s])) for s in (h, -h))
    for name, value in risk.hvp(None, u).items():
        torch.testing.assert_close(value, (plus[name] - minus[name]) / (2 * h), rtol=1e-5, atol=1e-8)


def test_a_loss_that_is_affine_in_the_weights_has_no_curvature() -> None:
    model = cases.Affine(torch.zeros(2, 64, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    data = fp.LabelledData(torch.rand(4, 64), torch.zeros(4, dtype=torch.long), classes=2)
    risk = fp.EmpiricalRisk(model, data, loss="hinge")
    assert norm(risk.hvp(None, {"weight": torch.ones(2, 64, dtype=torch.float64)})) == 0


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_batch_size_invariant(name: str) -> None:
    model = cases.NETWORKS[name]()

    def values(data: fp.LabelledData, size: int) -> Tensor:
        risk = fp.EmpiricalRisk(model, data, batch_size=size)
        return torch.tensor([risk().loss, risk().error, norm(risk.gradient())], dtype=torch.float64)

    assert_batch_size_invariant(values, DATA)


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_model_untouched(name: str) -> None:
    model = cases.NETWORKS[name]()

    def probe() -> None:
        risk = fp.EmpiricalRisk(model, DATA)
        risk.hvp(None, risk.gradient())
        with torch.no_grad():
            for value in risk.center.values():  # the center is a snapshot: even writing to it does not reach the model
                value.zero_()

    assert_model_untouched(model, probe)


class Returns(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.layer, self.output = nn.Linear(64, 10), output

    def forward(self, x: Tensor) -> object:
        z = self.layer(x.flatten(1))
        return self.output(z) if callable(self.output) else self.output


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.layer(x.flatten(1)), training=True)


def _infinite() -> nn.Module:
    model = cases.mlp()
    with torch.no_grad():
        model[3].bias[2:4] = torch.inf
    return model


def _batch_statistics() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False), nn.Linear(64, 10)).eval()


REFUSED = {
    "training": (lambda: cases.mlp().train(), r"Sequential cannot be probed: it is in training mode.*model.eval\(\)"),
    "submodule": (lambda: _submodule(), r"its submodule 'relu1' is in training mode"),
    "infinite": (_infinite, "2 NaN or infinite values among the 16 of 'linear2.bias'"),
    "statistics": (_batch_statistics, "BatchNorm layer '1' of Sequential keeps no running statistics"),
    "tuple": (
        lambda: Returns(lambda z: (z, z)).eval(),
        r"output of Returns is a tuple of 2; expected floating logits .*such as `return self.network\(x\)\[0\]`",
    ),
    "dict": (lambda: Returns(lambda z: {"out": z}).eval(), r"is a dict with 'out'; .*, or under the key 'logits'"),
    "one logit": (
        lambda: Returns(lambda z: z[:, :1]).eval(),
        r"shape \(130, 1\).*of one logit z, whose logits are",
    ),
    "one flat logit": (lambda: Returns(lambda z: z[:, 0]).eval(), r"shape \(130,\).*of one logit z"),
    "dense": (lambda: Returns(lambda z: z[:, :, None]).eval(), r"shape \(130, 10, 1\).*several parts of a sample"),
    "shape": (lambda: Returns(lambda z: z[:, None]).eval(), r"shape \(130, 1, 10\)"),
    "integers": (lambda: Returns(lambda z: z.argmax(1)).eval(), r"shape \(130,\), torch.int64"),
    "rows": (lambda: Returns(lambda z: z[1:]).eval(), "129 rows of logits for a batch of 130"),
    "classes": (lambda: Returns(lambda z: z[:, :9]).eval(), "10 classes .largest label 9., but the network returns 9"),
    "nan": (
        lambda: Returns(lambda z: z.index_fill(0, torch.tensor([3]), torch.nan)).eval(),
        "logits of sample 3 are not",
    ),
    "inputs": (
        lambda: cases.mlp((1, 9, 9)),
        r"cannot be run on inputs of shape \(130, 1, 8, 8\).*is this the network for",
    ),
    "noise": (lambda: Noisy().eval(), "two passes of Noisy over the same 130 inputs differ by up to"),
}


def _submodule() -> nn.Module:
    model = cases.mlp()
    model[2].train()
    return model


PROBES = {
    "risk": lambda model: fp.EmpiricalRisk(model, DATA),
    "margins": lambda model: fp.functional_margins(model, DATA),
    "jacobian": lambda model: fp.jacobian_norms(model, DATA),
    "robustness": lambda model: fp.gaussian_robustness(model, DATA, gammas=[0.1]),
}


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("fault", REFUSED)
def test_every_probe_refuses_with_the_thing_and_the_cure(fault: str, probe: str) -> None:
    build, message = REFUSED[fault]
    state = torch.get_rng_state()
    model = build()
    torch.set_rng_state(state)
    with pytest.raises(ValueError, match=message):
        PROBES[probe](model.float())
    assert torch.equal(torch.get_rng_state(), state)


def test_other_kinds_of_models_and_data_are_refused() -> None:
    with pytest.raises(TypeError, match=r"the model is a OrderedDict; expected a torch\.nn\.Module"):
        Network(cases.mlp().state_dict())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(DATA.inputs, DATA.labels), shuffle=True)
    with pytest.raises(TypeError, match="the data are a DataLoader; expected LabelledData"):
        check_data(loader)


def test_unknown_losses_and_batch_sizes() -> None:
    with pytest.raises(ValueError, match="loss is 'mse'; expected one of 'cross_entropy'"):
        fp.EmpiricalRisk(cases.mlp(), DATA, loss="mse")
    with pytest.raises(ValueError, match="batch_size is 0; expected at least 1"):
        fp.EmpiricalRisk(cases.mlp(), DATA, batch_size=0)


def test_an_overflow_in_a_later_batch_is_named() -> None:
    model = cases.Affine(torch.full((2, 1), 1e308, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    data = fp.LabelledData(torch.tensor([[0.0], [1.0], [100.0]]), torch.zeros(3, dtype=torch.long), classes=2)
    risk = fp.EmpiricalRisk(model, data, batch_size=1)
    with pytest.raises(ValueError, match="logits of sample 2 are not finite"):
        risk()


def test_inputs_follow_the_weights_dtype_and_models_with_logits_attributes_are_taken() -> None:
    class Output:
        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    model = Returns(Output).double().eval()
    assert math.isfinite(fp.EmpiricalRisk(model, DATA)().loss)
    assert fp.EmpiricalRisk(Returns(Output).half().eval(), DATA).network.dtype == torch.float16


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


def test_convolutions_followed_by_a_view_are_run_in_the_usual_layout() -> None:
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.layer = nn.Conv2d(1, 4, 3), nn.Linear(144, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.conv(x).view(len(x), -1))

    model = Viewed().double().eval()
    risk = fp.EmpiricalRisk(model, DATA)
    loss, _ = loss_and_error(model, weights_of(model), DATA)
    assert risk().loss == pytest.approx(loss, rel=1e-9)
    assert risk.describe()["network"]["layout"] == "contiguous"
    assert fp.EmpiricalRisk(cases.cnn(), DATA).describe()["network"]["layout"] == "channels last"
    assert fp.train(model, DATA, epochs=1).history[0]["train_loss"] > 0


def test_logits_that_are_not_finite_give_no_error_rate() -> None:
    model = cases.affine(10, 64)
    risk = fp.EmpiricalRisk(model, DATA)
    wild = risk({"weight": torch.full_like(model.weight, torch.nan)})
    assert math.isnan(wild.error)
    assert math.isnan(wild.loss)
    half = cases.Affine(torch.full((2, 64), 900.0), torch.zeros(2)).half()
    data = fp.LabelledData(torch.zeros(3, 64), torch.zeros(3, dtype=torch.long), classes=2)
    with pytest.raises(ValueError, match="logits of sample 0 are not finite"):
        fp.gaussian_robustness(half, data, gammas=[100.0], draws=1)


def test_names_that_the_network_lacks_are_refused() -> None:
    risk = fp.EmpiricalRisk(cases.mlp(), DATA)
    for call in (lambda w: risk(w), lambda w: risk.gradient(w), lambda w: risk.hvp(None, w)):
        with pytest.raises(ValueError, match=r"no parameter 'linear1\.wieght'; expected names among linear1\.weight"):
            call({"linear1.wieght": torch.zeros(24, 64)})


def test_sums_are_taken_in_double_precision() -> None:
    """10,000 equal single-precision losses: a float32 sum would be off by rounding."""
    model = cases.Affine(torch.zeros(3, 1), torch.zeros(3))
    data = fp.LabelledData(torch.zeros(10_001, 1), torch.zeros(10_001, dtype=torch.long), classes=3)
    single = float(torch.tensor(3.0).log())
    assert fp.EmpiricalRisk(model, data, batch_size=10_001)().loss == pytest.approx(single, rel=1e-12)


def test_logits_are_found_under_their_key() -> None:
    model = Returns(lambda z: z).eval()
    expected = fp.functional_margins(model, DATA).values
    model.output = lambda z: {"loss": z.sum(), "logits": z}
    assert torch.equal(fp.functional_margins(model, DATA).values, expected)


def test_the_fix_for_one_logit_gives_its_loss() -> None:
    class Two(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:  # as the message has it
            z = self.network(x).reshape(-1, 1)
            return torch.cat((torch.zeros_like(z), z), 1)

    torch.manual_seed(0)
    one = nn.Sequential(nn.Flatten(), nn.Linear(64, 1)).eval()
    data = fp.LabelledData(DATA.inputs, (DATA.labels > 4).long())
    logits, targets = one(data.inputs).squeeze(1), data.labels.float()
    expected = float(F.binary_cross_entropy_with_logits(logits, targets).detach())
    assert fp.EmpiricalRisk(Two(one).eval(), data)().loss == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_modules_that_were_compiled_ahead_are_refused() -> None:
    model, inputs = cases.mlp(), DATA.inputs.to(next(cases.mlp().parameters()))
    for kind, made in (
        ("TorchScript", torch.jit.trace(model, inputs)),
        ("TorchScript", torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval())),
        ("torch.export", torch.export.export(model, (inputs,)).module()),
    ):
        with pytest.raises(ValueError, match=rf"is a {kind} module.*expected the nn.Module.*load_state_dict"):
            fp.functional_margins(made, DATA)


def test_the_fix_for_pictures_of_bytes_gives_the_same_numbers() -> None:
    class Casts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1).float() / 255)

    torch.manual_seed(0)
    model = Casts().eval()
    stored = (DATA.inputs * 255).to(torch.uint8)
    raw = fp.LabelledData(stored, DATA.labels, classes=10)
    expected = fp.functional_margins(model, raw).values
    message = r"make the images floating, inputs.float\(\) / 255, with fp.Normalised.*\(mean 0 and std 1 / 255 where"
    for probe in (fp.jacobian_norms, fp.geometric_margins, fp.gaussian_robustness):
        with pytest.raises(TypeError, match=message):
            probe(model, raw)
    with pytest.raises(ValueError, match=rf"embeds nothing; {message}"):
        fp.at_embedding(model, raw)
    with pytest.raises(ValueError, match=rf"cannot be run on inputs of shape .*uint8.*{message}"):
        fp.functional_margins(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), raw)
    data = fp.LabelledData(stored.float() / 255, DATA.labels, classes=10)
    found = fp.functional_margins(fp.Normalised(model, 0, 1 / 255).eval(), data).values
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_first_layers_outputs_are_kept_up_to_the_bound_only(monkeypatch: pytest.MonkeyPatch) -> None:
    risk = fp.EmpiricalRisk(cases.mlp(), DATA)
    vectors = [risk.center, risk.center]
    needed = 2 * len(DATA) * 24 * 8  # two vectors, 24 units, float64
    for bound, kept in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr("flatprobe.risk.lines._STORE", bound)
        assert (split_for(risk.network, risk.data, vectors) is not None) == kept
        assert risk.along(vectors)((0.5, 0.5)).loss == pytest.approx(risk().loss, rel=1e-9)
