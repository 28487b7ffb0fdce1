"""Checks of logits and losses: probabilities taken for logits, and values that are not finite."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from tests.helpers import strange, strange_modules

DATA = strange.data(40)


@pytest.mark.parametrize(
    ("ending", "fix"), [(nn.Softmax(1), r"return probabilities\.log\(\)"), (nn.Sigmoid(), "leave out the sigmoid")]
)
def test_probabilities_are_not_taken_for_logits_without_a_word(ending: nn.Module, fix: str) -> None:
    model = nn.Sequential(strange.network("plain"), ending).eval()
    for call in (fp.EmpiricalRisk, fp.functional_margins, fp.jacobian_norms):
        with pytest.warns(UserWarning, match=f"are measured as logits.*{fix}"):
            call(model, DATA)
    logs = nn.Sequential(strange.network("plain"), nn.LogSoftmax(1)).eval()  # the fix: the same losses and margins
    expected = fp.functional_margins(strange.network("plain"), DATA).values
    torch.testing.assert_close(fp.functional_margins(logs, DATA).values, expected)


def test_what_looks_like_probabilities_by_chance_is_measured_without_a_word() -> None:
    class Given(strange_modules.Nested):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :3] + 0 * super().forward(x)

    def measured(rows: Tensor) -> None:
        fp.functional_margins(
            strange.built(Given), fp.LabelledData(rows.double().repeat(1, 2), torch.arange(len(rows)) % 3)
        )

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured(torch.tensor([[0.2, 0.3, 0.5]]))  # one row
        measured(torch.eye(3).repeat(8, 1))  # numbers 0 and 1 alone
        measured(torch.rand(40, 3, generator=torch.Generator().manual_seed(0)))  # between 0 and 1, without a sigmoid
    for ending in (nn.Sigmoid(), nn.Sequential(nn.Sigmoid(), nn.Unflatten(1, (1, 3)), nn.Flatten()), nn.Hardsigmoid()):
        with pytest.warns(UserWarning, match="between 0 and 1 throughout, as a sigmoid gives"):
            fp.functional_margins(nn.Sequential(strange.built(strange_modules.Nested), ending).eval(), DATA.head(3))
    half = nn.Sequential(strange.built(strange_modules.Nested), nn.Softmax(1)).bfloat16().eval()
    with pytest.warns(UserWarning, match=r"probabilities \(each row in \[0, 1\], with sum 1\)"):
        fp.functional_margins(half, DATA)


def undefined(value: float) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        values = F.cross_entropy(logits, labels, reduction="none")
        return torch.where((labels == 2) & (torch.arange(len(labels)) >= 0), value, values)

    return loss


PROBES: dict[str, Callable[[fp.EmpiricalRisk], object]] = {
    "risk": lambda risk: risk(),
    "radius": lambda risk: fp.flatness_radius(risk, directions=1),
    "slice": lambda risk: fp.random_slice(risk, dimensions=1, steps=3),
    "gradient": lambda risk: risk.gradient(),
    "eigenvalues": fp.hessian_eigenvalues,
    "trace": lambda risk: fp.hessian_trace(risk, draws=2),
    "noise": lambda risk: fp.gradient_noise(risk, batch_size=4, draws=2),
    "sharpness": fp.worst_case_sharpness,
}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("probe", PROBES)
def test_a_loss_that_is_not_finite_is_named_with_the_sample(probe: str, value: float) -> None:
    """Its gradient there is 0, so that derivatives alone do not show it."""
    labels = torch.zeros(20, dtype=torch.long)
    labels[17] = 2
    data = fp.LabelledData(DATA.inputs[:20, :4].float(), labels, classes=3)
    risk = fp.EmpiricalRisk(strange.seeded(lambda: nn.Linear(4, 3)), data, loss=undefined(value), batch_size=8)
    message = rf"the loss \S*undefined\S* of sample 17 \(label 2\) is {value} at the network's own weights though"
    with pytest.raises(ValueError, match=message):
        PROBES[probe](risk)


COUNTED: list[int] = []


class Counting(nn.Module):
    """Lists the sizes of its batches, and writes to a buffer in small batches."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("small", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        COUNTED.append(len(x))
        if len(x) < 8:
            self.small += 1
        return self.layer(x)


def test_a_risk_passes_a_few_samples_of_a_large_first_batch() -> None:
    COUNTED.clear()
    fp.EmpiricalRisk(strange.built(Counting), DATA)
    assert sum(COUNTED) <= 24


def test_a_buffer_that_only_the_second_pass_writes_to_is_restored() -> None:
    data = DATA.head(20)
    risk = fp.EmpiricalRisk(strange.built(Counting), data)
    assert float(risk.buffers["small"]) == 0
    assert "small" in risk.network.slots.written
    risk()
    assert float(risk.buffers["small"]) == 0
