"""The measured output: by default, by key, attribute, index or function, and what is refused."""

from collections import namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.network.network import Network
from tests.helpers import cases, strange
from tests.helpers.properties import assert_model_untouched

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
