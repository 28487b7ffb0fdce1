"""Endpoints that are modules: those of another function are named, and others are taken in whatever wrapper."""

import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn

import flatprobe as fp
from tests.helpers import foreign


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def _scaled() -> nn.Module:
    model = dense()
    model[0].register_forward_hook(lambda _layer, _args, output: 2 * output)
    return model


def _replaced() -> nn.Module:
    model = dense()
    before = model.forward
    model.forward = lambda x: 2 * before(x)
    return model


class Sharpened(nn.Module):
    """A network with a number that no state_dict holds."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.first, self.factor = nn.Linear(4, 3), factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.first(x)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (dense(), nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))),
        (dense(), _scaled()),
        (dense(), _replaced()),
        (Sharpened(1.0), Sharpened(2.0)),
        (Sharpened(1.0), nn.Sequential(OrderedDict(first=nn.Linear(4, 3), last=nn.Softmax(1)))),
    ],
    ids=["activation", "hook", "replaced forward", "attribute", "softmax"],
)
def test_a_module_that_is_another_function_is_named(first: nn.Module, second: nn.Module) -> None:
    models = [model.to(next(first.parameters()).dtype).eval() for model in (first, second)]
    data = fp.LabelledData(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3)
    risk = fp.EmpiricalRisk(models[0], data)
    with pytest.raises(ValueError, match=r"endpoint 1 is another function than the risk's model: its logits of 8"):
        fp.interpolate(risk, models, fp.segment(steps=3))
    fp.interpolate(risk, [models[0], models[1].state_dict()], fp.segment(steps=3))  # its weights alone


def test_a_module_that_cannot_be_run_is_named() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3))

    model = nn.Linear(4, 3).eval()
    risk = fp.EmpiricalRisk(model, fp.LabelledData(torch.randn(6, 4), torch.arange(6) % 3))
    with pytest.raises(ValueError, match=r"endpoint 1 cannot be run on the risk's data .*its state_dict\(\)"):
        fp.interpolate(risk, [model, Holder().eval()], fp.segment(steps=3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(nn.Linear(4, 3)).eval()
    fp.interpolate(risk, [model, scripted], fp.segment(steps=3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_in_another_precision_or_layout_and_wrapped_ones_are_taken(dtype: torch.dtype) -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.last = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(64, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.norm(self.first(x)).relu().view(len(x), -1))

    first, second = Viewing().eval(), Viewing().eval()
    second.norm.running_mean.fill_(0.5)
    data = fp.LabelledData(torch.randn(12, 1, 6, 6), torch.arange(12) % 3)
    risk = fp.EmpiricalRisk(first, data)
    averaged = torch.optim.swa_utils.AveragedModel(second).eval()
    for endpoint in (second, averaged, nn.DataParallel(second).eval(), second.to(dtype)):
        for policy in ("interpolate", "recalibrate"):
            fp.interpolate(risk, [first, endpoint], fp.segment(steps=2), batch_norm=policy)


def test_tied_endpoints_are_given_under_either_name_and_must_be_tied_there_too() -> None:
    first, second, data = foreign.MODELS["tied"](), foreign.MODELS["tied"](1), foreign.data("tied")
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
