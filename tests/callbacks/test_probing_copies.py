"""The copy that a probe in a training gets shares nothing with the network; what cannot be probed is refused."""

import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flatprobe.callbacks.probing import Probing, check_whole, eval_copy, figures_of

INPUTS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def _one_process(tmp_path: Any) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def compiled_in_place() -> nn.Module:
    model = network()
    model.compile(backend="eager")
    return model


def with_compiled_part() -> nn.Module:
    return nn.Sequential(torch.compile(network(), backend="eager"), nn.Linear(3, 3))


def with_hook() -> nn.Module:
    """A weight that a hook computes at each pass from others: an attribute with a graph."""
    model = network()
    model[0] = nn.utils.spectral_norm(model[0])
    return model


def with_kept_losses() -> nn.Module:
    model = network()
    model.kept = {"losses": [(torch.ones(2, requires_grad=True) * 2,)]}
    model.kept["self"] = model.kept
    return model


def data_parallel() -> nn.Module:
    return nn.parallel.DistributedDataParallel(network())


MAKERS = [network, lambda: torch.compile(network(), backend="eager"), compiled_in_place, with_compiled_part, with_hook,
          with_kept_losses, data_parallel]  # fmt: skip


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__.strip("<>"))
def test_the_copy_computes_the_same_and_shares_nothing(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = make()
    model(INPUTS).float().sum().backward()
    copied = eval_copy(model)
    assert all(layer.training for layer in model.modules())
    assert not any(layer.training for layer in copied.modules())
    assert all(value.grad is None for value in copied.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outputs = copied(INPUTS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.allclose(outputs, model.eval()(INPUTS), rtol=0, atol=1e-6)  # float32, sums of 8
    for value in model.state_dict().values():
        value.zero_()
    assert torch.equal(copied(INPUTS), outputs)


def test_a_forward_that_was_replaced_runs_the_copy_and_not_the_network_itself() -> None:
    model = network()
    inner = model.forward
    model.forward = lambda inputs: 2 * inner(inputs)
    copied = eval_copy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
        inputs = torch.rand(3, next(model.parameters()).shape[1])
        assert not bool(copied(inputs).any())
        assert bool(model.eval()(inputs).any())


@pytest.mark.usefixtures("_one_process")
def test_sharded_weights_are_refused() -> None:
    from torch.distributed.tensor import distribute_tensor, init_device_mesh

    model = network()
    check_whole(model)
    mesh = init_device_mesh("cpu", (1,))
    model[0].weight = nn.Parameter(distribute_tensor(model[0].weight.detach(), mesh))
    with pytest.raises(
        ValueError, match=r"every process must hold all weights .*, got '0\.weight' sharded over processes"
    ):
        check_whole(model)


def probe(model: nn.Module) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("probes", "epochs", "error", "match"),
    [
        ({"one": probe}, 0, ValueError, r"epochs must be at least 1.*, got 0"),
        ({"one": probe}, 1.5, TypeError, r"epochs must be an integer, .*, got 1\.5"),
        ({"one": probe}, True, TypeError, "epochs must be an integer, .*, got True"),
        ({}, 1, ValueError, "probes must hold at least one"),
        ([probe], 1, TypeError, "probes must be functions of a network by name, got list"),
        ({"one": 1.0}, 1, TypeError, "probes must be functions .*, got {'one': 'float'}"),
        ({1: probe}, 1, TypeError, "probes must be functions .*, got {1: 'function'}"),
    ],
)
def test_what_is_no_probing_is_refused(probes: Any, epochs: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Probing(probes, epochs)


def test_epochs_and_figures_may_be_numpys_or_torchs() -> None:
    probing = Probing({"one": probe}, np.int64(3))
    assert [epoch for epoch in range(1, 8) if probing.due(epoch)] == [3, 6]
    assert figures_of({"a": np.float64(2), "b": torch.tensor(3)}) == {"a": 2.0, "b": 3.0}
    for wrong in (None, "3", [1.0], {}, {"a": torch.ones(2)}):
        with pytest.raises(TypeError, match="must return a flatprobe result, a number, or a mapping"):
            figures_of(wrong)


@pytest.mark.parametrize(("library", "missing"), [("lightning", "lightning.pytorch"), ("transformers", "transformers")])
def test_a_missing_library_is_named_with_its_extra(library: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"flatprobe.callbacks.{library}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"needs {library}, which .* pip install 'flatprobe\[{library}\]'"):
        importlib.import_module(f"flatprobe.callbacks.{library}")


def test_the_room_names_what_it_has() -> None:
    import flatprobe as fp

    assert {"lightning", "transformers"} <= set(dir(fp.callbacks))
    with pytest.raises(AttributeError, match="has no attribute 'keras'; it has lightning, transformers"):
        _ = fp.callbacks.keras
