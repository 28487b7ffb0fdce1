"""The recorder of a pass: functions by keyword, under vmap and autocast, and compiled modules."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.training.penalties import JacobianFrobenius
from flatprobe.utils.rng import generator
from tests.helpers.small_data import clusters


def test_slow_reference_functions_may_be_called_by_keyword_mapped_and_autocast() -> None:
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv1d(1, 2, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = F.conv1d(input=x, weight=self.first.weight, bias=self.first.bias)
            x = x + torch.vmap(lambda row: F.relu(row))(x)
            return F.linear(input=x.mean(1), weight=self.second.weight, bias=self.second.bias)

    network = Keywords()
    passed = fp.ForwardPass(network, torch.randn(3, 1, 6, generator=generator(0)), torch.tensor([0, 1, 0]))
    torch.testing.assert_close(passed.logits, network(passed.inputs))
    with torch.autocast("cpu", torch.bfloat16):
        assert fp.ForwardPass(network, passed.inputs.detach(), passed.labels).logits.dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated:DeprecationWarning")  # torch's own, as it loads its compiler
def test_property_compiled_networks_are_trained_as_what_they_were_made_from() -> None:
    network, data = fp.models.mlp((4,), widths=(8,), classes=3), clusters()
    settings = {"epochs": 1, "penalties": [(0.1, JacobianFrobenius())]}
    run = fp.train(torch.compile(network), data, **settings)
    expected = fp.train(network, data, **settings).model
    assert all(map(torch.equal, run.model.state_dict().values(), expected.state_dict().values()))
    inside = nn.Sequential(torch.compile(nn.Linear(4, 3)))
    with pytest.raises(ValueError, match="the module '0' is compiled, so its operations cannot be recorded"):
        fp.ForwardPass(inside, torch.ones(1, 4), torch.tensor([0]))
