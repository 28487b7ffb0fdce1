"""The measured output: by default, by key, attribute, index or function, one logit, and what is refused."""

from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.network.network import Network
from tests.helpers import cases, strange
from tests.helpers.properties import assert_model_untouched
from tests.helpers.tasks import drawn, integers

Pair = namedtuple("Pair", ["features", "scores"])
DATA = strange.data(30)


class Several(nn.Module):
    """A network that returns its logits among other things."""

    def __init__(self, pack: Any) -> None:
        super().__init__()
        self.body, self.pack = cases.mlp(), pack

    def forward(self, x: Tensor) -> Any:
        return self.pack(x.flatten(1), self.body(x))


PACKS: dict[str, tuple[Any, Any]] = {
    "key": (lambda h, z: {"h": h, "out": z}, "out"),
    "attribute": (lambda h, z: Pair(h, z), "scores"),
    "index": (lambda h, z: (h, z), 1),
    "list": (lambda h, z: [h, z], -1),
    "function": (lambda h, z: {"deep": (h, [z])}, lambda outputs: outputs["deep"][1][0]),
    "logits": (lambda h, z: {"h": h, "logits": z}, None),
}


@pytest.mark.parametrize("name", PACKS)
def test_slow_reference_every_probe_measures_the_named_output(name: str) -> None:
    pack, output = PACKS[name]
    data = cases.data_for((1, 8, 8), samples=30)
    several = Several(pack).eval()
    plain = several.body
    wrapped = several if output is None else fp.WithOutput(several, output)
    risk, expected = fp.EmpiricalRisk(several, data, output=output), fp.EmpiricalRisk(plain, data)
    assert risk() == expected()
    assert fp.EmpiricalRisk(wrapped, data)() == expected()
    assert [*risk.center] == [f"body.{weight}" for weight in expected.center]
    assert [*fp.EmpiricalRisk(wrapped, data).center] == [*risk.center]
    assert torch.equal(fp.functional_margins(wrapped, data).values, fp.functional_margins(plain, data).values)
    norms, own = fp.weight_norms(wrapped, (1, 8, 8)), fp.weight_norms(plain, (1, 8, 8))
    assert norms.path == pytest.approx(own.path)
    assert norms.names == tuple(f"body.{layer}" for layer in own.names)
    lower = fp.geometric_margins(wrapped, data).lower
    torch.testing.assert_close(lower, fp.geometric_margins(plain, data).lower, rtol=1e-9, atol=0)
    said = risk.describe()["network"]["output"]
    assert said == {"key": "out", "attribute": "scores", "index": 1, "list": -1, "logits": "logits"}.get(name, said)
    line = fp.interpolate(risk, [several, several.state_dict()], fp.segment(steps=2))
    assert line.loss.tolist() == pytest.approx([expected().loss] * 2, rel=1e-12)
    assert_model_untouched(several, lambda: fp.EmpiricalRisk(several, data, output=output).gradient())


def test_property_a_network_inside_serves_training_and_audits() -> None:
    data = cases.data_for((1, 8, 8), samples=30)
    wrapped = fp.WithOutput(Several(PACKS["key"][0]).eval(), "out")
    run = fp.train(wrapped, data, epochs=2, learning_rate=0.1)
    assert isinstance(run.model, fp.WithOutput)
    assert run.history[-1]["train_loss"] == pytest.approx(fp.EmpiricalRisk(run.model, data)().loss, rel=1e-5)
    audit = fp.audit(wrapped, data, probes=["functional_margins"])
    assert len(audit.to_frame())


@pytest.mark.parametrize(
    ("pack", "output", "message"),
    [
        (lambda h, z: (h, z), None, r"is a tuple of 2: \(30, 64\), \(30, 10\); expected .*WithOutput\(network, 0\)"),
        (lambda h, z: {"h": h, "out": z}, None, r"is a dict with 'h', 'out'; expected .*output='h' of fp.Empirical"),
        (lambda h, z: {"h": h, "out": z}, "o", r"dict with 'h', 'out', of which output='o' is missing; expected"),
        (lambda h, z: (h, z), 2, "is a tuple of 2: .*, of which output=2 is missing"),
        (lambda h, z: (h, z.argmax(1)), 1, r"of which output=1 is a tensor of shape \(30,\), torch.int64"),
        (lambda h, z: Pair(h, z), "logit", "of which output='logit' is missing"),
    ],
)
def test_outputs_that_are_not_there_are_refused(pack: Any, output: Any, message: str) -> None:
    data = cases.data_for((1, 8, 8), samples=30)
    with pytest.raises(ValueError, match=message.replace("30", r"\d+")):
        fp.EmpiricalRisk(Several(pack).eval(), data, output=output)


def test_a_wrapped_network_in_training_mode_is_refused_and_only_modules_are_taken() -> None:
    with pytest.raises(ValueError, match="is in training mode"):
        Network(fp.WithOutput(nn.Linear(2, 2), 0))
    with pytest.raises(TypeError, match=r"network must be a torch.nn.Module, got a dict. Load a state_dict"):
        fp.WithOutput({}, 0)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("kind", ["integers", "booleans", "floats"])
def test_closed_form_one_logit_is_the_network_of_two(kind: str, columns: bool) -> None:
    """The logits (0, z) have the cross-entropy log(1 + exp(-s z)) and the margin s z, s = 2 y - 1."""
    one = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1), *([] if columns else [nn.Flatten(0)]))
    one = one.double().eval()
    two = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double().eval()
    with torch.no_grad():
        for place in (0, 2):
            for name in ("weight", "bias"):
                own, value = getattr(two[place], name), getattr(one[place], name)
                own.copy_(value if place == 0 else torch.cat((torch.zeros_like(value), value)))
    x, y = drawn(30, 3).float(), integers(2, 30)
    own = fp.LabelledData(x, {"integers": y, "booleans": y > 0, "floats": y.double()}[kind])
    data = fp.LabelledData(x, y)
    risk = fp.EmpiricalRisk(one, own)
    assert risk().loss == pytest.approx(fp.EmpiricalRisk(two, data)().loss, rel=1e-12)
    assert risk().error == fp.EmpiricalRisk(two, data)().error
    z = one(x.double()).flatten().detach()
    assert risk().loss == pytest.approx(float(F.softplus(-(2 * y - 1) * z).mean()), rel=1e-12)
    assert risk().loss == pytest.approx(
        fp.EmpiricalRisk(one, fp.LabelledData(x, y.double()), "binary_cross_entropy")().loss, rel=1e-12
    )
    assert risk.describe()["network"]["logits"] == "(0, z) of one output z"
    margins = fp.functional_margins(one, own)
    torch.testing.assert_close(margins.values, (2 * y - 1) * z, rtol=1e-12, atol=0)
    for probe in (
        lambda m, d: fp.scores(m, d).values, lambda m, d: fp.jacobian_norms(m, d).values,
        lambda m, d: fp.geometric_margins(m, d).lower,
        lambda m, d: fp.geometric_margins(m, d, lower=(), upper="deepfool").upper,
        lambda m, d: fp.gaussian_robustness(m, d, gammas=[0.3], draws=2).error,
        lambda m, d: fp.adversarial_accuracy(m, d, budgets=[0.1], attack="fgsm").accuracy,
    ):  # fmt: skip
        found, expected = probe(one, own), probe(two, data)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match=r"3 classes .*but the network returns one logit per sample"):
        fp.functional_margins(one, fp.LabelledData(x, integers(3, 30)))


def test_property_a_network_of_one_logit_can_be_trained() -> None:
    x = drawn(40, 3).float()
    data = fp.LabelledData(x, (x[:, 0] > 0).float())
    run = fp.train(nn.Linear(3, 1), data, epochs=30, learning_rate=1.0, batch_size=8)
    assert run.history[-1]["train_accuracy"] > 0.95
    assert run.model(x).shape == (40, 1)
