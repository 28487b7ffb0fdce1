"""Networks taken apart after their first layer: the same values, and everything that must not be taken apart."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.network.inspection import inspect_network
from flatprobe.network.network import Network
from flatprobe.network.sequential import run_steps, steps_of
from flatprobe.network.weights import combine
from tests.helpers import cases

DATA = cases.data_for((1, 8, 8))


def test_property_the_split_evaluation_is_the_whole_one() -> None:
    model = cases.normalised()
    risk = fp.EmpiricalRisk(model, DATA, batch_size=32)
    assert risk.network.first_linear() is not None
    other = {name: value + 0.1 for name, value in risk.center.items()}
    at = risk.along([risk.center, other])
    for coefficients in ([1.0, 0.0], [0.0, 1.0], [0.3, 0.7], [1.0, -2.5]):
        whole = risk(combine([risk.center, other], coefficients))
        assert at(coefficients).loss == pytest.approx(whole.loss, rel=1e-12)
        assert at(coefficients).error == whole.error
    assert at([1.0, 0.0]) == risk()
    partial = {"network.linear2.bias": torch.ones_like(risk.center["network.linear2.bias"])}
    assert risk.along([risk.center, partial])([1.0, 0.5]).loss == pytest.approx(
        risk(combine([risk.center, partial], [1.0, 0.5])).loss, rel=1e-12
    )


def test_property_the_first_vector_is_passed_once_for_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cases.normalised()
    risk = fp.EmpiricalRisk(model, DATA, batch_size=87)
    others = [{name: value + shift for name, value in risk.center.items()} for shift in (0.1, 0.2, 0.3)]
    expected = [risk.along([risk.center, other])([0.3, 0.7]) for other in others]
    passes: list[int] = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(
        torch.nn.functional, "linear", lambda x, *tensors: (passes.append(len(x)), linear(x, *tensors))[1]
    )
    kept: list[torch.Tensor | None] = []
    for number, other in enumerate(others):
        passes.clear()
        at = risk.along([risk.center, other], kept)
        assert sum(passes) == (2 if number == 0 else 1) * len(DATA) + 1  # one sample tells the size of what is kept
        assert at([0.3, 0.7]) == expected[number]
    risk.batch_size = 43  # as after memory ran out; the second batch has the length of the earlier one
    assert risk.along([risk.center, others[0]], kept)([0.3, 0.7]).loss == pytest.approx(expected[0].loss, rel=1e-12)


def _hooked_inside() -> nn.Module:
    model = cases.mlp()
    model[1].register_forward_hook(lambda _layer, _inputs, output: output.clamp(-0.1, 0.1))
    return model


def _weight_normalised() -> nn.Module:
    model = cases.mlp()
    nn.utils.parametrizations.weight_norm(model[1])
    return model.eval()


def _twice_normalised() -> nn.Module:
    twice = nn.BatchNorm1d(64, affine=False)
    layers = [nn.Flatten(), nn.Linear(64, 64), twice, nn.ReLU(), twice, nn.Linear(64, 10)]
    return nn.Sequential(*layers).double().eval()


def _hooked() -> nn.Module:
    model = cases.mlp()
    model.register_forward_hook(lambda *_: None)
    return model


def _tied() -> nn.Module:
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    second.weight = first.weight
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second, nn.ReLU(), nn.Linear(64, 10)).double().eval()


def _reused() -> nn.Module:
    layer = nn.Linear(64, 64)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, nn.Linear(64, 10)).double().eval()


class Called(nn.Sequential):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * super().__call__(x)


class Backwards(nn.Sequential):
    def __iter__(self) -> Iterator[nn.Module]:
        return iter(list(self._modules.values())[::-1])


class Forward(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * super().forward(x)


class Implemented(nn.Sequential):
    def _call_impl(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * super()._call_impl(x)


def _own(kind: type[nn.Sequential], nested: bool) -> nn.Module:
    layers = list(cases.mlp())
    inner = kind(*layers[3:]) if kind is not Backwards else kind(*layers[3:][::-1])
    return (
        nn.Sequential(*layers[:3], inner).eval() if nested else kind(*(layers[::-1] if kind is Backwards else layers))
    )


def _replaced(nested: bool) -> nn.Module:
    model = cases.mlp()
    part = nn.Sequential(*model[3:]) if nested else model
    before = part.forward
    part.forward = lambda x: 3 * before(x)
    return (nn.Sequential(*model[:3], part) if nested else model).eval()


OWN = [lambda nested, kind=kind: _own(kind, nested) for kind in (Called, Backwards, Forward, Implemented)] + [_replaced]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("build", OWN)
def test_what_is_called_is_measured_along_lines_too(build, nested: bool) -> None:
    model = build(nested).eval()
    risk = fp.EmpiricalRisk(model, DATA, batch_size=64)
    assert nested or risk.network.first_linear() is None
    with torch.no_grad():
        loss = float(nn.functional.cross_entropy(model(DATA.inputs.double()), DATA.labels))
    assert risk().loss == pytest.approx(loss, rel=1e-9)
    other = {name: value + 0.1 for name, value in risk.center.items()}
    assert risk.along([risk.center, other])([1.0, 0.0]).loss == pytest.approx(loss, rel=1e-9)
    middle = risk(combine([risk.center, other], [0.3, 0.7])).loss
    assert risk.along([risk.center, other])([0.3, 0.7]).loss == pytest.approx(middle, rel=1e-9)
    assert float(fp.interpolate(risk, [risk.center, other], fp.segment(steps=2)).loss[0]) == pytest.approx(
        loss, rel=1e-9
    )
    surface = fp.random_slice(risk, dimensions=1, steps=3)
    assert float(surface.loss.flatten()[1]) == pytest.approx(loss, rel=1e-9)


UNLIKE = [_hooked_inside, _weight_normalised, _twice_normalised]


@pytest.mark.parametrize("build", [cases.cnn, cases.residual, _hooked, _tied, _reused, cases.affine, *UNLIKE])
def test_networks_that_cannot_be_split_are_run_whole(build) -> None:
    assert Network(build()).first_linear() is None


@pytest.mark.parametrize("build", [_tied, _reused])
def test_shared_weights_move_together(build) -> None:
    model = build()
    risk = fp.EmpiricalRisk(model, DATA)
    moved = {name: value * 1.5 for name, value in risk.center.items()}
    twin = build()
    twin.load_state_dict({k: v * 1.5 for k, v in model.state_dict().items()})
    assert risk.along([moved])([1.0]).loss == pytest.approx(fp.EmpiricalRisk(twin, DATA)().loss, rel=1e-9)


@pytest.mark.parametrize("build", UNLIKE)
def test_networks_that_only_look_like_plain_sequences_keep_their_own_values(build) -> None:
    model = build()
    risk = fp.EmpiricalRisk(model, DATA)
    assert risk.along([risk.center])([1.0]) == risk()
    assert math.isfinite(fp.flatness_radius(risk, directions=1).mean)
    assert fp.gaussian_robustness(model, DATA, gammas=[0.0], draws=1).error.item() == risk().error


def _plain(*, last: nn.Module | None = None) -> nn.Sequential:
    layers = [nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Sequential(nn.Linear(8, 10, bias=False), nn.GELU())]
    return nn.Sequential(*layers, *([] if last is None else [last])).double().eval()


def _without_registered_bias() -> nn.Module:
    model = _plain()
    bias = model[1].bias.detach()
    del model[1].bias
    model[1].bias = bias
    return model


def _subclass_of_tensor() -> nn.Module:
    class Scaled(nn.Parameter):
        pass

    model = _plain()
    model[1].weight = Scaled(model[1].weight.detach())
    return model


def _other_flatten() -> nn.Module:
    return nn.Sequential(nn.Flatten(1, 2), *_plain()).eval()


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def _as_doubled() -> nn.Module:
    model = _plain()
    model[1].__class__ = Doubled
    return model


def _convolutional(*layers: nn.Module) -> nn.Module:
    first = nn.Conv2d(1, 2, 3, stride=2, padding=1, dilation=1, bias=False)
    model = nn.Sequential(first, *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.LazyLinear(10)).double()
    model(torch.rand(2, 1, 8, 8, dtype=torch.float64))
    return model.eval()


def _with_statistics(*, affine: bool) -> nn.Module:
    layers = [
        nn.BatchNorm2d(2, affine=affine),
        nn.ReLU(),
        nn.Dropout(),
        nn.Conv2d(2, 4, 2, groups=2),
        nn.AvgPool2d(2, 1),
    ]
    model = fp.Normalised(_convolutional(*layers, nn.BatchNorm2d(4), nn.MaxPool2d(2, 1)), 0.3, 0.2)
    torch.manual_seed(0)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 2.0)
    for name, parameter in model.named_parameters():
        if "bias" in name:
            parameter.data.uniform_(0.5, 2.0)  # BatchNorm's is 0 at first, which twice its value is too.
    return model


UNKNOWN = {
    "hook": _hooked,
    "hook inside": _hooked_inside,
    "parametrised": _weight_normalised,
    "tied": _tied,
    "reused": _reused,
    "call": lambda: Called(*_plain()).eval(),
    "order": lambda: Backwards(*_plain()).eval(),
    "in place": lambda: _plain(last=nn.ReLU(inplace=True)),
    "padding by values": lambda: _convolutional(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")),
    "unsafe in channels last": lambda: _convolutional(nn.Conv2d(2, 3, 1, stride=2)),
    "dropout in training": lambda: _plain(last=nn.Dropout()),
    "subclass of a layer": lambda: _plain(last=Doubled(10, 10)),
    "buffer": _without_registered_bias,
    "subclass": _subclass_of_tensor,
    "flatten": _other_flatten,
    "class": _as_doubled,
}


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_network_whose_function_torch_alone_does_not_define_is_passed_as_a_module(kind: str) -> None:
    model = UNKNOWN[kind]()
    network = Network(model.eval())
    network.slots.module.train(kind == "dropout in training")
    assert steps_of(network.slots.module, network.slots.state) is None


@pytest.mark.parametrize("ending", [None, nn.Sigmoid(), nn.Softplus()])
def test_property_known_steps_give_the_logits_of_the_module_at_any_weights(ending: nn.Module | None) -> None:
    model, inputs = _plain(last=ending), DATA.inputs.double()
    network = Network(model)
    assert torch.equal(inspect_network(network, inputs), model(inputs))
    assert network.steps is not None
    assert (network.classes, network.in_place, network.plain, network.slots.written) == (10, False, False, frozenset())
    assert network.sigmoid == isinstance(ending, nn.Sigmoid)
    moved = {name: value + 0.1 for name, value in network.weights.items() if name != "1.bias"}
    expected = torch.func.functional_call(model, moved, (inputs,))
    assert torch.equal(network(inputs, moved), expected)
    assert torch.equal(network(inputs), model(inputs))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network(inputs), model.double()(inputs))
    copied = network.copy()
    copied.module[1].register_forward_hook(lambda _layer, _inputs, output: 2 * output)
    assert not torch.equal(copied(inputs), network(inputs))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_property_known_layers_with_buffers_give_the_logits_of_the_module_at_any_state(
    affine: bool, last: bool
) -> None:
    model, inputs = _with_statistics(affine=affine), DATA.inputs.double()
    network = Network(model)
    network.lay_out(last=last)
    own = inspect_network(network, inputs)
    assert network.steps is not None
    torch.testing.assert_close(own, model(inputs), rtol=1e-12, atol=0)
    moved = {name: value * 1.25 for name, value in network.slots.state.items() if value.is_floating_point()}
    del moved["network.0.weight"]
    expected = torch.func.functional_call(model, moved, (inputs,))
    torch.testing.assert_close(network(inputs, moved), expected, rtol=1e-12, atol=0)
    whole = network.copy()
    assert whole.steps is None
    assert torch.equal(network(inputs, moved), whole(inputs, moved))
    changed = [name for name in moved if not torch.equal(network(inputs, {name: 2 * moved[name]}), own)]
    assert set(changed) == set(moved)  # Each tensor is read where it is given, buffers too.


def test_a_batch_without_channels_is_no_sample() -> None:
    model = nn.Sequential(nn.Conv2d(16, 2, 3), nn.Flatten()).eval()  # Torch takes 16 images for 16 channels of one.
    with pytest.raises(ValueError, match="dim"):
        run_steps(steps_of(model, model.state_dict()), torch.rand(16, 8, 8), model.state_dict())
