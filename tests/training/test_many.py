"""train_many: against `train` one by one (slow reference), who leaves the stack and when (properties), refusals."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from tests.helpers import strange, strange_modules
from tests.helpers.properties import assert_same_state
from tests.helpers.small_data import clusters, noisy_network

ROUNDING = 1e-10  # of float64 sums in another order, after some dozen steps
RATES, DECAYS, SEEDS = [0.02, 0.05, 0.1], [0.0, 1e-2, 1e-3], [5, 6, 9]


def doubled(data: fp.LabelledData) -> fp.LabelledData:
    assert isinstance(data.inputs, Tensor)
    return fp.LabelledData(data.inputs.double(), data.labels, classes=3)


DATA = doubled(clusters())


def networks(count: int = 3) -> list[nn.Module]:
    return [fp.models.mlp((4,), widths=(8,), classes=3, seed=seed).double() for seed in range(count)]


def assert_close(found: fp.TrainingRun, alone: fp.TrainingRun, tolerance: float = ROUNDING) -> None:
    assert found.reached == alone.reached
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(found.model.state_dict()[name], value, rtol=0, atol=tolerance)
    for one, other in zip(found.history, alone.history, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds"}:
            assert one[name] == pytest.approx(other[name], rel=tolerance, abs=tolerance)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.0, "schedule": "cosine"},
        {"optimizer": "nesterov", "schedule": {"name": "inverse", "decay": 0.1}},
        {"optimizer": "adam"},
        {"objective": "squared", "batch_size": 5},
        {"objective": nn.CrossEntropyLoss(label_smoothing=0.1)},
        {"batch_size": 36},  # a last batch of one sample joins the batch before it
    ],
)
def test_slow_reference_one_by_one(settings: dict[str, Any]) -> None:
    settings = {"epochs": 4, "batch_size": 8, **settings}
    runs = fp.train_many(networks(), DATA, learning_rate=RATES, weight_decay=DECAYS, seeds=SEEDS, **settings)
    for network, run, rate, decay, seed in zip(networks(), runs, RATES, DECAYS, SEEDS, strict=True):
        alone = fp.train(network, DATA, learning_rate=rate, weight_decay=decay, seed=seed, **settings)
        assert_close(run, alone)
        assert run.settings["settings"] == alone.settings["settings"]
        assert run.settings["lockstep"] == 3
        assert run.path is None


@pytest.mark.parametrize("kind", ["labels", "inputs", "dict"])
def test_slow_reference_with_data_of_each_network(kind: str) -> None:
    members, data = networks(), [DATA.with_random_labels(seed=seed) for seed in range(3)]
    if kind != "labels":
        data = [fp.LabelledData(DATA.inputs * (k + 1), DATA.labels) for k in range(3)]  # type: ignore[operator]
    if kind == "dict":
        members = [Named(member) for member in members]
        data = [fp.LabelledData({"features": own.inputs}, own.labels) for own in data]  # type: ignore[dict-item]
    runs = fp.train_many(members, data, epochs=3, batch_size=8)
    for k, (member, own) in enumerate(zip(members, data, strict=True)):
        assert_close(runs[k], fp.train(member, own, epochs=3, batch_size=8, seed=k))


class Named(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.network(features)
        return result


def test_slow_reference_for_images_frozen_layers_and_eval_mode() -> None:
    images = doubled(clusters(shape=(1, 4, 4)))

    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        layers = [nn.ReLU(inplace=True), nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Flatten()]
        network = nn.Sequential(*layers, nn.Linear(16, 3)).double()
        network[1].requires_grad_(False)
        network[2].eval()
        return network

    members, before = [build(seed) for seed in range(2)], images.inputs.clone()  # type: ignore[union-attr]
    runs = fp.train_many(members, images, epochs=3, batch_size=8)
    assert torch.equal(images.inputs, before)  # type: ignore[arg-type]
    for k, member in enumerate(members):
        assert_close(runs[k], fp.train(member, images, epochs=3, batch_size=8, seed=k))
        assert torch.equal(runs[k].model[1].weight, member[1].weight)  # type: ignore[index]


def test_property_a_network_that_is_done_leaves_the_stack() -> None:
    options: dict[str, Any] = {"epochs": 60, "until": "loss", "target_loss": 0.3, "batch_size": 8}
    rates = RATES[::-1]  # The first network leaves first, so that the others change their places.
    runs = fp.train_many(networks(), DATA, learning_rate=rates, optimizer="adam", **options)
    lengths = [run.epochs for run in runs]
    assert len({*lengths}) == 3
    assert max(lengths) < 60
    for k, (network, run) in enumerate(zip(networks(), runs, strict=True)):
        assert_close(run, fp.train(network, DATA, learning_rate=rates[k], optimizer="adam", seed=k, **options))
        measured = fp.EmpiricalRisk(run.model, DATA)()
        assert measured.loss == pytest.approx(run.history[-1]["train_loss"], rel=ROUNDING)


def test_property_the_networks_are_untouched_and_independent() -> None:
    members = networks()
    runs = fp.train_many(members, DATA, epochs=3, seeds=SEEDS)
    for member, same in zip(members, networks(), strict=True):
        assert_same_state(member, same)
    assert not any(weight.grad is not None for run in runs for weight in run.model.parameters())
    turned = fp.train_many(members[::-1], DATA, epochs=3, seeds=SEEDS[::-1])[::-1]
    for run, other in zip(runs, turned, strict=True):
        assert_close(run, other)
    again = fp.train_many(members, DATA, epochs=3, seeds=np.array(SEEDS))
    for run, other in zip(runs, again, strict=True):
        assert_same_state(run.model, other.model)


def test_property_a_stop_that_is_not_reached_is_an_error_or_a_flag() -> None:
    options: dict[str, Any] = {"epochs": 2, "until": "interpolation", "learning_rate": [0.5, 1e-6], "batch_size": 8}
    with pytest.raises(RuntimeError, match=r"network 1: the training did not reach 100 % training accuracy"):
        fp.train_many(networks(2), DATA, **{**options, "epochs": 10})
    assert not fp.train_many(networks(2), DATA, **options, on_failure="flag")[1].reached


def test_a_network_that_diverges_is_named() -> None:
    with pytest.raises(fp.DivergedError, match=r"the loss of network 1 is not finite in epoch \d+; expected finite"):
        fp.train_many(networks(), DATA, epochs=20, objective="squared", learning_rate=[0.01, 1e200, 0.01])


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3).double()

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.layer(inputs)
        return logits if float(logits.detach().sum()) < math.inf else -logits


class Louder(nn.Linear):
    """Another function in training, by 1 % and without random numbers or buffers."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) * (1.01 if self.training else 1)


def activated(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), layer).double()


@pytest.mark.parametrize(
    ("members", "data", "settings", "message"),
    [
        (networks(), DATA, {"penalties": []}, r"train_many must be called without penalties, got .*one by one"),
        (networks(), DATA, {"optimizer": "sgdl"}, "optimizer must be one of 'sgd', 'nesterov', 'adam'"),
        (networks(), DATA, {"learning_rate": [0.1]}, "learning_rate must have one entry per network, 3, got 1"),
        (networks(), [DATA], {}, "data must have one entry per network, 3, got 1"),
        (networks(2), [DATA, DATA.head(9)], {}, r"data must have one size for all networks, got .*\(37, 4\).*\(9, 4\)"),
        ([], DATA, {}, "networks must hold at least one network, got none"),
        ([networks()[0], fp.models.mlp((4,), widths=(9,), classes=3).double()], DATA, {}, "got other parameters"),
        ([noisy_network(), noisy_network()], clusters(), {}, "must act in training as in evaluation, got dropout"),
        ([activated(nn.Dropout(0.5))] * 2, DATA, {}, "must act in training as in evaluation, got dropout"),
        ([Louder(4, 3).double()] * 2, DATA, {}, "must act in training as in evaluation, got dropout"),
        ([Branching(), Branching()], DATA, {}, r"operations that torch\.vmap stacks, got one without"),
        ([activated(nn.ReLU()), activated(nn.Tanh())], DATA, {}, "got another function in network 1"),
        (networks(), fp.LabelledData.from_dataset([(DATA.inputs[k], 1) for k in range(3)], classes=3), {}, "in memory"),  # type: ignore[index]
    ],
)  # fmt: skip
def test_refusals(members: list[nn.Module], data: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.train_many(members, data, epochs=1, **settings)


def test_a_single_network_is_refused() -> None:
    with pytest.raises(TypeError, match="networks must be a list of networks, got a Sequential"):
        fp.train_many(networks()[0], DATA)  # type: ignore[arg-type]


# Networks that act otherwise in training, and operations that torch cannot batch.
ALONE = {"spectral norm", "spectral norm by a hook", "counts", "batch norm", "dropout", "encoder"}
ALONE |= {"recurrent", "checkpointed"}
NETWORKS = {**strange.NETWORKS, "encoder without dropout": lambda: strange_modules.Attends(ENCODER(dropout=0.0))}
ENCODER = partial(nn.TransformerEncoderLayer, strange_modules.WIDTH, 2, 16, batch_first=True)


@pytest.mark.filterwarnings("ignore:Full backward hook")
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ALONE | {"caches", "bfloat16"}])
def test_slow_reference_networks_of_all_kinds(name: str) -> None:
    """Weight norm and the encoder have operations that torch runs once per network; its warning is not shown."""
    member, data = strange.built(NETWORKS[name]), strange.data()
    if name == "float32":
        member.float()
    runs = fp.train_many([member, member], data, epochs=2)
    for seed, run in enumerate(runs):
        assert_close(run, fp.train(member, data, epochs=2, seed=seed), 1e-5)  # float32


@pytest.mark.parametrize("name", sorted(ALONE))
def test_networks_that_train_alone_are_refused(name: str) -> None:
    member = strange.network(name)
    with pytest.raises(ValueError, match=r"networks one by one with fp\.train"):
        fp.train_many([member, member], strange.data(), epochs=1)
