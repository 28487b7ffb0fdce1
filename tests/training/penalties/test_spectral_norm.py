"""The penalty on the layers' operator norms: closed forms, dense references, memory, refusals."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from flatprobe.graph.operators import Convolution, leading_input, spectral_norm
from flatprobe.training import ForwardPass, train
from flatprobe.training.penalties import PENALTIES, JacobianFrobenius, SpectralNorm
from flatprobe.training.registry import build, describe
from flatprobe.utils.rng import generator
from tests.helpers.penalties import NETWORKS, SLOW, assert_adds_up, assert_value_and_gradient, gradients_of, passed_for
from tests.helpers.properties import assert_same_state
from tests.helpers.small_data import clusters
from tests.training.test_run_folder import interrupted_after, without_seconds

SIZES = {  # the real input sizes of the layers of tests.helpers.penalties.NETWORKS
    "mlp": {"1": None, "3": None, "5": None},
    "cnn": {"0": (5, 5), "4": None},
    "batch_norm": {"first": (5, 5), "second": (7, 7), "skip": (5, 5), "head": None},
}


def dense(layer: nn.Module, size: tuple[int, ...] | None) -> torch.Tensor:
    """The layer as a matrix."""
    weight = layer.weight.detach()
    if size is None:
        return weight
    return Convolution(weight, size, layer.stride, layer.padding, layer.dilation, layer.groups).dense()


@pytest.mark.parametrize("name", NETWORKS)
def test_exact_norms(name: str) -> None:
    """Slow reference: singular values of the layers as matrices, with their stride, dilation and groups."""

    def reference(network, _inputs, _labels):
        layers = ((network.get_submodule(own), size) for own, size in SIZES[name].items())
        return sum(float(torch.linalg.matrix_norm(dense(*pair), 2)) ** 2 for pair in layers)

    assert_value_and_gradient(SpectralNorm(exact=True), reference, NETWORKS[name]())


@pytest.mark.parametrize("name", NETWORKS)
def test_power_iteration_rises_to_the_norms_from_step_to_step(name: str) -> None:
    """Property: from below, never falling at fixed weights; it ends within 1e-6 of the exact form."""
    network, penalty = NETWORKS[name](), SpectralNorm()
    exact = SpectralNorm(exact=True)(passed_for(network))
    plain = [penalty(passed_for(network)).item() for _ in range(40)]
    assert plain[0] < (1 - 1e-3) * exact.item()
    assert all(after >= before * (1 - 1e-12) for before, after in itertools.pairwise(plain))
    assert SpectralNorm(iterations=20)(passed_for(network)).item() == pytest.approx(plain[19], rel=1e-9)
    settled = SpectralNorm(iterations=3000)
    settled.memory.update(penalty.memory)
    value = settled(passed_for(network))
    assert exact.item() * (1 - 1e-6) < value.item() <= exact.item() * (1 + 1e-12)
    expected = gradients_of(exact, network)
    for word, found in gradients_of(value, network).items():  # v errs by the root of the value's error
        torch.testing.assert_close(found, expected[word], rtol=0.0, atol=1e-3 * exact.item())


def test_the_gradient_of_one_iteration() -> None:
    """Closed form: 2 A v v^T, v the normalised A^T u with the u that is remembered."""
    network = nn.Linear(3, 2, bias=False).double()
    penalty, u = SpectralNorm(), torch.tensor([1.0, -2.0], dtype=torch.float64)
    penalty.memory["0.weight.3"] = u[None].clone()
    passed = ForwardPass(network, torch.ones(1, 3, dtype=torch.float64), torch.tensor([0]))
    value = penalty(passed)
    W = network.weight.detach()
    v = W.T @ u / (W.T @ u).norm()
    assert value.item() == pytest.approx(float((W @ v).square().sum()), rel=1e-12)
    torch.testing.assert_close(gradients_of(value, network)["weight"], 2 * torch.outer(W @ v, v), **SLOW)
    torch.testing.assert_close(penalty.memory["0.weight.3"][0], W @ v / (W @ v).norm(), **SLOW)


def test_closed_form_a_zero_layer_has_no_norm_and_is_followed_once_it_grows() -> None:
    network, penalty = nn.Linear(3, 2).double(), SpectralNorm(iterations=50)
    with torch.no_grad():
        network.weight.zero_()
    inputs = torch.ones(1, 3, dtype=torch.float64), torch.tensor([0])
    value = penalty(ForwardPass(network, *inputs))
    assert value.item() == 0
    assert all(bool((found == 0).all()) for found in gradients_of(value, network).values())
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]]))
    assert penalty(ForwardPass(network, *inputs)).item() == pytest.approx(16.0, rel=1e-9)


@pytest.mark.parametrize("exact", [True, False])
def test_layers_count_once_and_tokens_do_not_count(exact: Any) -> None:
    """Closed form: one shared matrix, applied twice to (samples, tokens, features)."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(2, 2, bias=False), nn.Linear(6, 2, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(self.layer(x).tanh()).flatten(1))

    network = Tied().double()
    with torch.no_grad():
        network.layer.weight.copy_(torch.tensor([[0.0, 5.0], [2.0, 0.0]]))
        network.head.weight.copy_(torch.eye(2, 6))
    passed = ForwardPass(network, torch.ones(4, 3, 2, dtype=torch.float64), torch.zeros(4, dtype=torch.int64), key=(0,))
    penalty = SpectralNorm(iterations=60, exact=exact)
    assert penalty(passed).item() == pytest.approx(25 + 1, rel=1e-9)
    assert sorted(penalty.memory) == ([] if exact else ["0.layer.2", "1.head.6"])


def test_property_the_batch_does_not_matter() -> None:
    network = NETWORKS["cnn"]()
    few = ForwardPass(network, torch.zeros(2, 2, 5, 5, dtype=torch.float64), torch.tensor([0, 1]), key=(0,))
    torch.testing.assert_close(SpectralNorm()(few), SpectralNorm()(passed_for(network)), **SLOW)


def test_property_one_object_for_two_networks_keeps_layers_of_other_shapes_apart() -> None:
    penalty = SpectralNorm()
    for name in ("mlp", "cnn"):
        penalty(passed_for(NETWORKS[name]()))
    assert sorted(penalty.memory) == ["0.0.2x5x5", "0.1.50", "1.3.6", "1.4.12", "2.5.5"]


@pytest.mark.parametrize("shape", [(20, 30), (700, 520), (520, 700)])
def test_the_leading_input_of_a_matrix(shape: Any) -> None:
    """Closed form: a known pair, from the dense values and from Lanczos on either side."""
    u, v = (torch.randn(n, generator=generator(n, "pair"), dtype=torch.float64) for n in shape)
    noise = torch.randn(shape, generator=generator(0, "noise"), dtype=torch.float64)
    matrix = torch.outer(u, v) + 1e-3 * noise
    found = leading_input(matrix)
    assert float(found.norm()) == pytest.approx(1.0, rel=1e-12)
    assert float((matrix @ found).norm()) == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=1e-9)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("channels", [2, 32])
def test_slow_reference_the_leading_input_of_a_convolution(groups: Any, channels: Any) -> None:
    """The norm itself is tested elsewhere; 32 channels take Lanczos."""
    weight = torch.randn(channels, channels // groups, 3, 3, generator=generator(0, "kernel"), dtype=torch.float64)
    weight[channels // 2 :] *= 2  # the second group's, where there are two
    op = Convolution(weight, (8, 9), (1, 2), (1, 0), (1, 1), groups)
    found = leading_input(op)
    assert found.shape == op.input_shape
    assert float(op.apply(found).norm()) == pytest.approx(spectral_norm(op), rel=1e-6)
    assert not leading_input(Convolution(0 * weight, (8, 9), (1, 2), (1, 0), (1, 1), groups)).any()


def test_property_composition_and_json() -> None:
    assert_adds_up(SpectralNorm(), JacobianFrobenius())
    for penalty in (SpectralNorm(), SpectralNorm(iterations=3, exact=True)):
        assert build("penalty", describe(penalty, PENALTIES), PENALTIES) == penalty


def test_resuming_goes_on_from_the_remembered_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Property: to the last bit; without the memory the first step would start anew."""
    network, data = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), clusters()
    penalty = SpectralNorm()

    def train_it(out):
        return train(network, data, epochs=3, batch_size=8, penalties=[(0.05, penalty)], out=out, save_every=0)

    whole = train_it(None)
    interrupted_after(monkeypatch, 2, lambda: train_it(tmp_path / "run"))
    run = train_it(tmp_path / "run")
    assert_same_state(run.model, whole.model)
    assert without_seconds(run) == without_seconds(whole)
    assert not penalty.memory  # the trainer copies it


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"iterations must be at least 1.*, got 0"):
        SpectralNorm(iterations=0)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.embedding(x))

    passed = ForwardPass(Tokens(), torch.tensor([0, 1]), torch.tensor([0, 1]))
    with pytest.raises(
        ValueError, match=r"penalty 'spectral_norm' met the layer 'embedding', which .*jacobian_spectral"
    ):
        SpectralNorm()(passed)
    with pytest.raises(ValueError, match=r"penalty 'spectral_norm' met no linear layer and no convolution"):
        SpectralNorm()(ForwardPass(nn.Identity(), torch.ones(2, 2), torch.tensor([0, 1])))
