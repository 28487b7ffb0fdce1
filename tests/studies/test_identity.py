"""Records are of one function: whatever changes the numbers is measured again, and nothing else is."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.studies.identity import network_identity
from flatprobe.utils.references import resolve
from tests.helpers import cases, compared

DATA = compared.data()
TEST = cases.data_for((1, 4, 4), samples=25, seed=4)
FACTOR = 1.0


class Small(nn.Module):
    """A network whose function is not told by its weights and its layers."""

    def __init__(self, act: Callable[[torch.Tensor], torch.Tensor] = torch.relu, t: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.act, self.t = nn.Linear(16, 8), nn.Linear(8, 10), act, t

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.act(self.first(x.flatten(1)))) / self.t


class Capped(Small):
    """A network whose attribute matters to large inputs alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).clamp_max(self.t * 1e4)


def scaled(model: nn.Module, data: fp.LabelledData) -> fp.Result:
    return fp.functional_margins(model, fp.LabelledData(data.inputs * FACTOR, data.labels))


def scaled_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs * FACTOR, targets, reduction="none")


def value(folder: Path, probe: object, model: nn.Module, **options: object) -> float:
    """The first figure of a comparison that goes on in a folder; that of a fresh one is the same."""
    data = options.pop("data", DATA)

    def one(out: Path | None) -> float:
        (found,) = fp.compare({"a": model.eval()}, data, probes=probe, out=out, **options).results.values()
        return next(iter(found["a"].summary().values()))

    kept = one(folder)
    assert kept == one(None)
    return kept


def made(folder: Path, **options: Any) -> bool:
    """Whether a comparison measured, in place of reading."""
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.parquet")}
    for path in before:
        os.utime(path, ns=(0, 0))
    model, data = options.pop("model", Small()), options.pop("data", DATA)
    fp.compare({"a": model.eval()}, data, out=folder, **options)
    return any(path.stat().st_mtime_ns for path in folder.glob("*/*.parquet"))


@pytest.mark.parametrize("samples", [None, 7])
def test_the_samples_that_are_measured_are_those_of_the_record(tmp_path: Path, samples: int | None) -> None:
    def margins(on: str) -> fp.Measurement:
        return fp.Measurement("functional_margins", on=on, samples=samples, name="m")

    train = value(tmp_path, margins("train"), Small(), test=TEST)
    test = value(tmp_path, margins("test"), Small(), test=TEST)
    other = cases.data_for((1, 4, 4), samples=25, seed=5)
    assert len({train, test, value(tmp_path, margins("test"), Small(), test=other)}) == 3
    assert not made(tmp_path, probes=margins("test"), test=other)
    with pytest.warns(UserWarning, match="there are none"):
        fp.compare({"a": Small().eval()}, DATA, probes=margins("test"), out=tmp_path)
    assert not list(tmp_path.glob("*/*.parquet"))


def test_a_network_is_its_function(tmp_path: Path) -> None:
    models = [Small(), Small(torch.tanh), Small(t=3.0), Small(torch.tanh, 3.0)]
    assert len({value(tmp_path, "functional_margins", model) for model in models}) == 4
    assert not made(tmp_path, model=Small(torch.tanh, 3.0), probes="functional_margins")
    assert made(tmp_path, model=Capped(torch.tanh, 3.0), probes="functional_margins")
    assert not made(tmp_path, model=Capped(torch.tanh, 3.0), probes="functional_margins")
    assert network_identity(Capped(t=1.0).eval(), DATA)["outputs"] == network_identity(Small().eval(), DATA)["outputs"]
    capped, other = (network_identity(Capped(t=t).eval(), DATA) for t in (1.0, 1.0 + 1e-12))
    assert capped["outputs"] == other["outputs"]
    assert capped["attributes"] != other["attributes"]


def test_the_helpers_and_globals_of_a_forward_are_part_of_its_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helped.py").write_text(
        "import torch\nfrom torch import nn\nCAP = 1e9\ndef act(x): return torch.relu(x).clamp(max=CAP)\n"
        "class Net(nn.Sequential):\n    def forward(self, x): return super().forward(act(x))\n"
    )
    net = resolve(f"{tmp_path / 'helped.py'}:Net", "--model")(nn.Flatten(), nn.Linear(16, 10)).eval()
    first = network_identity(net, DATA)
    assert network_identity(net, DATA) == first
    monkeypatch.setattr(sys.modules[type(net).__module__], "CAP", 1e8)
    other = network_identity(net, DATA)
    assert other["outputs"] == first["outputs"]
    assert other != first


def test_training_marks_and_threads_do_not_make_another_network() -> None:
    one, other = Small().eval(), Small().eval()
    other.trained_on = "these"
    before, state = torch.get_num_threads(), torch.get_rng_state()
    assert network_identity(one, DATA) == network_identity(other, DATA)
    assert (torch.get_num_threads(), True) == (before, torch.equal(state, torch.get_rng_state()))
    assert network_identity(nn.Linear(3, 3).eval(), DATA) is None


def test_a_landscape_is_of_the_functions_of_its_networks(tmp_path: Path) -> None:
    def loss(act: Callable[[torch.Tensor], torch.Tensor], folder: Path | None) -> float:
        nets = {"a": Small(act).eval(), "b": Small(act).eval()}
        with torch.no_grad():
            nets["b"].first.weight.add_(1)
        found = fp.compare(nets, DATA, probes="landscape", out=folder).results["landscape"]["networks"]
        return float(found.loss.sum())

    first, second = loss(torch.relu, tmp_path), loss(torch.tanh, tmp_path)
    assert (first, second) == (loss(torch.relu, None), loss(torch.tanh, None))
    assert first != second


def test_a_loss_and_a_probe_are_what_their_globals_make_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def both() -> tuple[float, float]:
        curve = value(tmp_path / "loss", "hessian_trace", Small(), loss=scaled_loss)
        return curve, value(tmp_path / "probe", scaled, Small())

    first = both()
    assert not made(tmp_path / "loss", probes="hessian_trace", loss=scaled_loss)
    assert not made(tmp_path / "probe", probes=scaled)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 2.0)
    second = both()
    assert (first[0] != second[0], first[1] != second[1]) == (True, True)


def test_another_file_of_the_probe_or_its_helpers_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)

    def probe(factor: float, comment: str = "") -> Callable[..., fp.Result]:
        for name in ("helper_of_probe", "own_probe"):
            sys.modules.pop(name, None)
        (tmp_path / "helper_of_probe.py").write_text(f"def factor(): return {factor}\n{comment}\n")
        (tmp_path / "own_probe.py").write_text(
            "import flatprobe as fp\nimport helper_of_probe\n"
            "def margins(model, data):\n"
            "    inputs = data.inputs * helper_of_probe.factor()\n"
            "    return fp.functional_margins(model, fp.LabelledData(inputs, data.labels))\n"
        )
        return __import__("own_probe").margins

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert value(tmp_path / "out", probe(1.0), Small()) != value(tmp_path / "out", probe(2.0), Small())
    assert not made(tmp_path / "out", probes=probe(2.0))
    assert made(tmp_path / "out", probes=probe(2.0, "# another file"))


def test_a_probe_without_a_file_is_measured_again(tmp_path: Path) -> None:
    held: dict[str, object] = {"fp": fp, "__name__": "notebook"}
    exec("def margins(model, data): return fp.functional_margins(model, data)", held)
    fp.compare({"a": Small().eval()}, DATA, probes=held["margins"], out=tmp_path)
    assert made(tmp_path, probes=held["margins"])
