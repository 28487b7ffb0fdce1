"""Operations read as steps: names of unknown ones, precisions, paddings and offsets."""

import pytest
import torch
from torch import Tensor, nn

from flatprobe.graph import trace
from flatprobe.graph.lipschitz import certified_margins


def test_unknown_operations_keep_their_names() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)).eval()
    step = trace(network, (3,)).steps[-1]
    assert step.kind == "other"
    message = r"the Lipschitz constant is not known for the operation aten.softmax.int in the layer '1'"
    with pytest.raises(ValueError, match=message):
        step.refuse("the Lipschitz constant")
    circular = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular"), nn.Flatten()).eval()
    assert any(step.kind == "other" for step in trace(circular, (1, 6)).steps)


def test_casts_to_another_precision_are_followed_and_not_certified() -> None:
    class Cast(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.float() * 2).double()

    network = nn.Sequential(nn.Linear(3, 3), Cast()).double().eval()
    steps = trace(network, (3,)).steps
    assert [step.kind for step in steps] == ["input", "linear", "rearrange", "affine", "rearrange"]
    assert [step.dtype for step in steps] == [None, None, torch.float32, torch.float32, None]
    with pytest.raises(
        ValueError, match=r"aten.to.dtype in .* '1' in torch.float32, and takes its inputs in torch.float64"
    ):
        certified_margins(network, (3,))


def test_a_padding_on_one_side_is_no_convolution_that_is_known() -> None:
    network = nn.Sequential(nn.Conv1d(1, 2, 2, padding="same"), nn.Flatten()).eval()
    assert [step.kind for step in trace(network, (1, 6)).steps][1] == "other"


def test_closed_form_the_offset_of_a_normalisation_is_as_large_as_what_cancels_in_it() -> None:
    norm = nn.BatchNorm1d(2, eps=0.0).double().eval()
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([1e3, -1e3]))
        norm.bias.copy_(norm.running_mean)
    step = trace(norm, (2,)).steps[-1]
    assert step.tensors["shift"].flatten().tolist() == [0.0, 0.0]
    assert step.tensors["magnitude"].flatten().tolist() == [2e3, 2e3]
