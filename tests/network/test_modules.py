"""Modules before they are measured: wrappers, modes, weights and outputs, and what is refused of them."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.data import check_data
from flatprobe.network.copies import structural_copy
from flatprobe.network.network import Network
from tests.helpers import cases, strange, strange_modules

DATA = cases.data_for((1, 8, 8))


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


def _submodule() -> nn.Module:
    model = cases.mlp()
    model[2].train()
    return model


REFUSED = {
    "training": (lambda: cases.mlp().train(), r"Sequential cannot be probed: it is in training mode.*model.eval\(\)"),
    "submodule": (lambda: _submodule(), r"its submodule 'relu1' is in training mode"),
    "infinite": (_infinite, "2 NaN or infinite values among the 16 of 'linear2.bias'"),
    "statistics": (_batch_statistics, "BatchNorm layer '1' of Sequential keeps no running statistics"),
    "tuple": (
        lambda: Returns(lambda z: (z, z)).eval(),
        r"of Returns is a tuple of 2: .*; expected a floating tensor, .*fp.WithOutput\(network, 0\), by output=0",
    ),
    "dict": (
        lambda: Returns(lambda z: {"out": z}).eval(),
        r"is a dict with 'out'; expected .*WithOutput\(network, 'out'\)",
    ),
    "one logit": (
        lambda: Returns(lambda z: z[:, :1]).eval(),
        "10 classes .largest label 9., but the network returns one logit per sample, .*labels 0 and 1, or, for a regr",
    ),
    "one flat logit": (lambda: Returns(lambda z: z[:, 0]).eval(), "10 classes .*, but the network returns one logit"),
    "dense": (lambda: Returns(lambda z: z[:, :, None]).eval(), r"shape \(\d+, 10, 1\) per sample, for several parts"),
    "shape": (lambda: Returns(lambda z: z[:, None]).eval(), r"shape \(\d+, 1, 10\) per sample"),
    "integers": (
        lambda: Returns(lambda z: z.argmax(1)).eval(),
        r"a tensor of shape \(\d+,\), torch.int64; expected a fl",
    ),
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


def test_inputs_follow_the_weights_dtype_and_models_with_logits_attributes_are_taken() -> None:
    class Output:
        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    model = Returns(Output).double().eval()
    assert math.isfinite(fp.EmpiricalRisk(model, DATA)().loss)
    assert fp.EmpiricalRisk(Returns(Output).half().eval(), DATA).network.dtype == torch.float16


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


WRAPPERS: dict[str, Any] = {
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


def test_what_compilation_and_mixed_precision_put_around_a_layer_is_taken_off() -> None:
    plain = strange.network("plain")
    expected = plain(strange.data().inputs).detach()
    compiled = strange.network("plain")
    compiled.compile(backend="eager")
    assert structural_copy(compiled)._compiled_call_impl is None

    class Decorated(strange_modules.Nested):
        @torch.compile(backend="eager")  # type: ignore[untyped-decorator]
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        decorated = Decorated().double().eval()
    copied = structural_copy(decorated)
    assert not hasattr(copied.forward, "_torchdynamo_orig_callable")
    assert torch.equal(copied(strange.data().inputs), expected)

    rounding: Any = strange.network("plain")  # as accelerate does in mixed precision
    rounding._original_forward = rounding.forward
    rounding.forward = lambda x: rounding._original_forward(x).bfloat16().double()
    assert not torch.equal(rounding(strange.data().inputs), expected)
    copied = structural_copy(rounding)
    assert torch.equal(copied(strange.data().inputs), expected)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(copied(strange.data().inputs), torch.zeros_like(expected))

    lightning: Any = strange.network("plain")  # as Lightning does to a module that is compiled whole
    lightning._compiler_ctx = {"compiler": "dynamo", "original_forward": lightning.forward}
    lightning.forward = lambda x: 2 * lightning.body(x)
    assert torch.equal(structural_copy(lightning)(strange.data().inputs), expected)


def test_description_names_the_class_within_a_normalization_and_its_numbers() -> None:
    wrapped = fp.Normalised(cases.mlp(), 0.1307, 0.3081).eval()
    said = fp.EmpiricalRisk(wrapped, DATA).describe()["network"]
    assert (said["class"], said["inner_class"]) == ("Normalised", type(cases.mlp()).__name__)
    assert said["normalised"] == {"mean": [0.1307], "std": [0.3081]}  # as given, not as float32 rounds them
    exact = fp.EmpiricalRisk(fp.Normalised(cases.mlp().double(), 1 / 3, 0.5).eval(), DATA).describe()["network"]
    assert exact["normalised"]["mean"] == pytest.approx([1 / 3], abs=1e-15)
    plain: Any = fp.EmpiricalRisk(cases.mlp(), DATA).describe()["network"]
    assert not {"inner_class", "normalised"} & plain.keys()
