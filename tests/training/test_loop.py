"""train: against a naive loop (slow reference), what it leaves alone and what decides (properties), stops, refusals."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.data import LabelledData
from flatprobe.models import Normalised, mlp, resnet
from flatprobe.training import train
from flatprobe.training.epoch import minibatches
from flatprobe.training.settings import rule_met
from flatprobe.utils.rng import permutation
from tests.helpers.properties import assert_same_state
from tests.helpers.small_data import clusters, noisy_network


@pytest.mark.parametrize("schedule", [None, "cosine"])
def test_slow_reference_against_a_naive_loop(schedule: Any) -> None:
    data, epochs, rate = clusters(), 4, 0.05
    network = mlp((4,), widths=(8,), classes=3)
    run = train(network, data, epochs=epochs, learning_rate=rate, batch_size=8, seed=5, schedule=schedule)
    naive = copy.deepcopy(network)
    optimizer = torch.optim.SGD(naive.parameters(), lr=rate, momentum=0.9)
    for epoch in range(epochs):
        if schedule:
            optimizer.param_groups[0]["lr"] = rate * (1 + torch.cos(torch.tensor(torch.pi * epoch / epochs)).item()) / 2
        order = permutation(37, 5, "shuffle", epoch)
        for positions in (*order[:32].split(8), order[32:]):
            optimizer.zero_grad()
            F.cross_entropy(naive(data.inputs[positions]), data.labels[positions]).backward()
            optimizer.step()
        with torch.no_grad():
            logits = naive(data.inputs)
        row = run.history[epoch]
        assert row["epoch"] == epoch + 1
        assert row["train_loss"] == pytest.approx(F.cross_entropy(logits, data.labels).item(), rel=1e-5)
        assert row["train_accuracy"] == pytest.approx((logits.argmax(1) == data.labels).float().mean().item())
        assert row["learning_rate"] == pytest.approx(optimizer.param_groups[0]["lr"])
    for name, value in run.model.state_dict().items():
        torch.testing.assert_close(value, naive.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_slow_reference_metrics_are_of_the_eval_mode_over_all_data() -> None:
    data, validation = clusters(), clusters(11, key="validation")
    run = train(noisy_network(), data, validation=validation, epochs=2, batch_size=8)
    assert not any(layer.training for layer in run.model.modules())
    assert all(weight.grad is None for weight in run.model.parameters())
    for name, part in (("train", data), ("validation", validation)):
        with torch.no_grad():
            logits = run.model(part.inputs)
        assert run.history[-1][f"{name}_loss"] == pytest.approx(F.cross_entropy(logits, part.labels).item(), rel=1e-5)
        accuracy = (logits.argmax(1) == part.labels).float().mean().item()
        assert run.history[-1][f"{name}_accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("training", [True, False])
def test_property_the_caller_is_left_alone(training: Any) -> None:
    network, data = noisy_network().train(training), clusters()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    inputs, labels = data.inputs.clone(), data.labels.clone()
    random_state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    run = train(network, data, epochs=2, batch_size=8, threads=threads + 1)
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads
    assert all(layer.training is training for layer in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(data.inputs, inputs)
    assert torch.equal(data.labels, labels)
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert not torch.equal(run.model[0].weight, network[0].weight)


def test_property_the_seed_determines() -> None:
    data = clusters()
    runs = []
    for global_seed, seed in ((1, 0), (2, 0), (2, 1)):
        network = noisy_network()
        torch.manual_seed(global_seed)
        runs.append(train(network, data, epochs=2, batch_size=8, seed=seed).model)
    assert_same_state(runs[0], runs[1])
    assert not torch.equal(runs[1][0].weight, runs[2][0].weight)


class Noise(nn.Module):
    """Records the first number that it draws in each training pass."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []

    def forward(self, x):
        if self.training:
            self.drawn.append(float(torch.rand(())))
        return x


def test_property_noise_differs_between_steps_epochs_and_seeds_and_only_in_training_mode() -> None:
    drawn = [
        train(nn.Sequential(Noise(), nn.Linear(4, 3)), clusters(16), epochs=2, batch_size=8, seed=seed).model[0].drawn
        for seed in (0, 1, 0)
    ]
    assert len({*drawn[0], *drawn[1]}) == 8  # two steps, two epochs, two seeds
    assert drawn[0] == drawn[2]


def test_property_batch_norm_statistics_are_trained() -> None:
    run = train(noisy_network(), clusters(), epochs=3, batch_size=8)
    assert int(run.model[1].num_batches_tracked) == 3 * 5


def test_property_inside_no_grad_and_inference_mode() -> None:
    data, network = clusters(), mlp((4,), classes=3)
    with torch.no_grad():
        first = train(network, data, epochs=1).model
    with torch.inference_mode():
        second = train(network, data, epochs=1).model
    assert_same_state(first, second)


def test_closed_form_every_sample_once_and_no_batch_of_one() -> None:
    for count, size, lengths in ((9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (3, 1, [1, 1, 1]), (1, 4, [1])):
        batches = list(minibatches(count, size, seed=0, epoch=0))
        assert [len(batch) for batch in batches] == lengths
        assert sorted(torch.cat(batches).tolist()) == list(range(count))
    orders = [torch.cat(list(minibatches(20, 4, seed, epoch))).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_property_batch_norm_with_one_sample_left_over() -> None:
    data = clusters(9, shape=(1, 4, 4))
    run = train(resnet((1, 4, 4), depth=10, width=2, classes=3), data, epochs=1, batch_size=4)
    assert run.epochs == 1


class Sum(nn.Module):
    """A linear layer on the sum of two inputs, however they are passed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, first, second):
        return self.linear(first + second)


def test_property_streamed_dictionary_and_tuple_inputs_train_alike() -> None:
    whole, halves = clusters(), Sum()
    half = whole.inputs / 2
    single = nn.Sequential(copy.deepcopy(halves.linear))
    expected = train(single, whole, epochs=2, batch_size=8).model[0].weight
    streamed = LabelledData.from_dataset([(x, int(y)) for x, y in zip(whole.inputs, whole.labels, strict=True)])
    assert torch.equal(train(single, streamed, epochs=2, batch_size=8).model[0].weight, expected)
    for inputs in ({"second": half, "first": half}, (half, half)):
        run = train(halves, LabelledData(inputs, whole.labels), epochs=2, batch_size=8)
        torch.testing.assert_close(run.model.linear.weight, expected)


def test_closed_form_stops_at_the_first_interpolating_epoch() -> None:
    run = train(mlp((4,), widths=(32,), classes=3), clusters(), until="interpolation", learning_rate=0.1, batch_size=8)
    assert run.interpolated
    assert run.reached
    assert run.epochs < 100
    assert all(row["train_accuracy"] < 1 for row in run.history[:-1])
    frame = run.to_frame()
    assert list(frame["epoch"]) == list(range(1, run.epochs + 1))
    assert frame["train_accuracy"].iloc[-1] == 1.0


def test_closed_form_one_wrong_sample_in_sixty_thousand_is_not_interpolated() -> None:
    rule = {"until": "interpolation", "target_loss": None, "epochs": 9}
    assert not rule_met(rule, {"train_accuracy": 1 - 1 / 60_000})
    assert rule_met(rule, {"train_accuracy": 1 - 0 / 60_000})


def test_property_stops_at_the_target_loss() -> None:
    run = train(mlp((4,), widths=(32,), classes=3), clusters(), until="loss", target_loss=0.3, learning_rate=0.1)
    assert run.reached
    assert run.history[-1]["train_loss"] <= 0.3
    assert all(row["train_loss"] > 0.3 for row in run.history[:-1])


@pytest.mark.filterwarnings("ignore:the outputs of")
def test_property_a_fixed_number_of_epochs_need_not_interpolate() -> None:
    data = clusters().with_random_labels(seed=1)
    run = train(mlp((4,), widths=(2,), classes=3), data, epochs=3)
    assert (run.epochs, run.reached, run.interpolated, run.path) == (3, True, False, None)


@pytest.mark.filterwarnings("ignore:the outputs of")
def test_not_reached_is_an_error_or_a_flag() -> None:
    data = clusters().with_random_labels(seed=1)
    network = mlp((4,), widths=(2,), classes=3)
    message = r"did not reach 100 % training accuracy within 3 epochs: .* % and loss .*more epochs.*learning rate.*adam"
    with pytest.raises(RuntimeError, match=message):
        train(network, data, epochs=3, until="interpolation")
    with pytest.raises(RuntimeError, match=r"did not reach a training loss of 0.001 within 3 epochs"):
        train(network, data, epochs=3, until="loss", target_loss=0.001)
    run = train(network, data, epochs=3, until="interpolation", on_failure="flag")
    assert (run.epochs, run.reached, run.interpolated) == (3, False, False)


def test_divergence_names_the_epoch_and_the_cure() -> None:
    assert issubclass(fp.DivergedError, RuntimeError)
    with pytest.raises(fp.DivergedError, match=r"loss is nan at the end of epoch \d; .* lower the learning rate"):
        train(mlp((4,), classes=3), clusters(), learning_rate=1e30, objective="squared", epochs=9)


def test_property_float64_and_normalised_networks_train_in_their_dtype() -> None:
    network = Normalised(mlp((4,), classes=3).double(), 0.5, 0.3)
    run = train(network, clusters(), epochs=1)
    assert all(parameter.dtype == torch.float64 for parameter in run.model.parameters())
    assert run.settings["network"]["recipe"]["name"] == "normalised"


def test_closed_form_settings_are_recorded() -> None:
    run = train(mlp((4,), classes=3), clusters(), epochs=1, threads=1, schedule={"name": "step", "stages": [(1, 1)]})
    assert run.settings["environment"]["threads"] == 1
    assert run.settings["environment"]["versions"]["torch"] == torch.__version__
    assert run.settings["settings"]["schedule"] == {"name": "step", "stages": [[1, 1]]}
    assert run.settings["data"]["samples"] == 37


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, r"epochs must be at least 1.*, got 0"),
        ({"batch_size": 0}, r"batch_size must be at least 1.*, got 0"),
        ({"learning_rate": 0.0}, r"learning_rate must be a positive finite number.*, got 0.0"),
        ({"learning_rate": float("nan")}, r"learning_rate must be .*, got nan"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, got 1.0"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number, at least 0, got -1.0"),
        ({"until": "loss"}, "until is 'loss' and target_loss None; expected a loss"),
        ({"target_loss": 0.1}, "until is None and target_loss 0.1"),
        ({"until": "loss", "target_loss": 0.0}, r"target_loss must be a positive.*, got 0.0"),
        ({"objective": "l1"}, "cross_entropy.*'l1'"),
        ({"optimizer": "lbfgs"}, r"optimizer must be .*, got 'lbfgs'"),
        ({"schedule": "linear"}, "the schedule 'linear' is unknown"),
        ({"threads": 0}, r"threads must be at least 1.*, got 0"),
    ],
)
def test_unsuitable_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(mlp((4,), classes=3), clusters(), **settings)


def test_unsuitable_networks() -> None:
    with pytest.raises(ValueError, match="expected every label below the number of logits"):
        train(mlp((4,), classes=2), clusters(), epochs=1)
    broken = mlp((4,), classes=3)
    with torch.no_grad():
        broken.linear1.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinite values .* 'linear1\.weight'"):
        train(broken, clusters(), epochs=1)


def test_closed_form_progress_names_loss_and_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    run = train(mlp((4,), classes=3), clusters(), epochs=2, progress=True)
    last = run.history[-1]
    figures = f"loss {last['train_loss']:.4g}, accuracy {100 * last['train_accuracy']:.1f} %"
    assert capsys.readouterr().err.splitlines()[-1] == f"epoch 2/2: {figures}, at most 0 s left"
