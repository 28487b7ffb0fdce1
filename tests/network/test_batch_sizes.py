"""Batch sizes from the bytes of a sample, counted on the CPU; a GPU takes them."""

import pytest
import torch
from torch import nn

from flatprobe.data import LabelledData
from flatprobe.network import BATCH_SIZES
from flatprobe.network import batch_sizes as module
from flatprobe.network.batch_sizes import bytes_per_sample, default_batch_size
from flatprobe.network.network import Network


def data(*shape: int) -> LabelledData:
    return LabelledData(torch.rand(5, *shape), torch.arange(5) % 2)


def test_closed_form_bytes_of_a_dense_network_are_its_inputs_and_hidden_units() -> None:
    network = Network(nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 3)).eval())
    assert bytes_per_sample(network, data(20)) == 4 * (20 + 50)


def test_closed_form_bytes_of_a_convolution_are_its_inputs_and_the_maps_of_each_layer() -> None:
    layers = [nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 2, 8), nn.Flatten()]
    network = Network(nn.Sequential(*layers).eval().double())
    assert bytes_per_sample(network, data(1, 8, 8)) == 8 * (64 + 6 * 64)


def test_a_network_that_cannot_run_counts_its_inputs() -> None:
    assert bytes_per_sample(Network(nn.Linear(7, 3).eval()), data(20)) == 4 * 20


def test_the_count_changes_neither_weights_nor_states() -> None:
    model = nn.Sequential(nn.Linear(20, 50), nn.BatchNorm1d(50), nn.Linear(50, 3)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network, samples, state = Network(model), data(20), torch.get_rng_state()
    bytes_per_sample(network, samples)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(value.requires_grad for value in network.weights.values())


def test_the_table_is_kept_on_the_cpu_and_bounded_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(nn.Linear(20, 3).eval())
    assert network.batch_size(None, data(20)) == BATCH_SIZES["dense", "cpu"]
    network.device = torch.device("cuda")
    assert default_batch_size(network, None) == BATCH_SIZES["dense", "cuda"]
    monkeypatch.setattr(module, "bytes_per_sample", lambda *_: 2**20)
    assert default_batch_size(network, data(20)) == 4096
    monkeypatch.setattr(module, "bytes_per_sample", lambda *_: 1)
    assert default_batch_size(network, data(20)) == BATCH_SIZES["dense", "cuda"]
