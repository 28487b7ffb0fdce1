"""Defects that a review of the shared pass found, each on the network that showed it."""

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import flatprobe as fp
from flatprobe.training.forward import Mixture
from flatprobe.training.objective import named_penalties
from flatprobe.training.penalties import DoubleBackpropagation, JacobianFrobenius, TikhonovDifferences
from flatprobe.training.transforms import FGSM, PGD
from flatprobe.training.transforms.budgets import uphill
from flatprobe.utils.rng import generator
from tests.helpers.cases import batch, normalised_network
from tests.helpers.small_data import clusters


def test_a_pass_over_batch_norm_frees_its_graph():
    """A circle through autograd's graph is invisible to Python's collector: each pass would stay for good."""
    network = normalised_network()
    inputs, labels = batch()
    passed = fp.ForwardPass(network, inputs, labels)
    FGSM(0.1)(passed)
    means = [weakref.ref(mean) for mean, _ in passed._statistics._taken]
    assert means
    del passed
    gc.collect()
    assert [mean() for mean in means] == [None] * len(means)


def test_passes_repeat_whatever_the_first_one_wrote():
    """A spectral norm takes a step of its power iteration in each forward pass; InstanceNorm keeps averages."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [parametrizations.spectral_norm(nn.Conv2d(2, 3, 3)), nn.InstanceNorm2d(3, track_running_stats=True)]
        network = nn.Sequential(*layers, nn.Flatten(), parametrizations.spectral_norm(nn.Linear(27, 3))).double()
    inputs, labels = batch()
    passed = fp.ForwardPass(network.train(), inputs, labels)
    first = passed.logits.detach()
    after = copy.deepcopy(dict(network.named_buffers()))
    torch.testing.assert_close(passed.again(inputs).detach(), first, rtol=1e-9, atol=1e-11)
    _ = fp.ForwardPass(network, inputs, labels, updates=False).logits
    for name, value in network.named_buffers():
        assert torch.equal(value, after[name]), name


@pytest.mark.parametrize("lead", [20.0, 110.0, 800.0])
@pytest.mark.parametrize("before", [[], [DoubleBackpropagation()]], ids=["alone", "after another"])
def test_attacks_climb_certain_networks_whoever_asked_first(lead, before):
    """Closed form in float32, where p_y is 1: z = x, so the loss grows along (-1, 1)."""
    passed = fp.ForwardPass(nn.Identity(), torch.tensor([[lead, 0.0]]), torch.tensor([0]))
    for penalty in before:
        penalty(passed)
    for attack in (FGSM(0.5), PGD(0.5, steps=2, random_start=False)):
        assert (attack(passed)[0] - passed.inputs.detach()).tolist() == [[-0.5, 0.5]]


def test_attacks_climb_the_loss_of_a_mixture():
    """Against the gradient of the mixed loss itself, whose parts have slopes of their own; a constant factor aside."""
    inputs = torch.tensor([[3.0, 0.0, -1.0], [0.5, 2.0, 0.0]], dtype=torch.float64)
    weights = torch.tensor([0.3, 0.6], dtype=torch.float64)
    mixture = Mixture(((weights, torch.tensor([0, 2])), (1 - weights, torch.tensor([1, 0]))))
    passed = fp.ForwardPass(nn.Identity(), inputs, mixture)
    found = uphill(passed)
    slope = passed.gradient(create_graph=False)
    torch.testing.assert_close(found, slope / slope.abs().amax(1, keepdim=True), rtol=1e-12, atol=0)


def test_draws_do_not_depend_on_torchs_default_type():
    passed = fp.ForwardPass(nn.Identity(), torch.zeros(2, 3), torch.tensor([0, 1]), key=(0,))
    before = torch.get_default_dtype()
    found = []
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        try:
            found.append([draw((4,), "word") for draw in (passed.normal, passed.uniform, passed.signs)])
        finally:
            torch.set_default_dtype(before)
    for one, other in zip(*found, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


def test_differences_keep_their_direction_in_single_precision():
    """Against float64, on a network so certain that the loss' own gradient loses an entry."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
    with torch.no_grad():
        network[2].weight.mul_(200)
    inputs, labels = torch.randn(8, 4, generator=generator(0)), torch.arange(8) % 3
    single = TikhonovDifferences(0.5)(fp.ForwardPass(network, inputs, labels))
    double = TikhonovDifferences(0.5)(fp.ForwardPass(copy.deepcopy(network).double(), inputs.double(), labels))
    assert float(single.detach()) == pytest.approx(float(double.detach()), rel=1e-3)


def test_names_neither_hide_one_another_nor_a_column():
    def decay(passed: fp.ForwardPass) -> Tensor:
        return passed.logits.square().mean()

    def decay_2(passed: fp.ForwardPass) -> Tensor:
        return passed.logits.square().mean()

    def train_accuracy(passed: fp.ForwardPass) -> Tensor:
        return 1 + 0 * passed.logits.sum()

    found = named_penalties([(1.0, decay_2), (2.0, decay), (3.0, decay), (4.0, train_accuracy)])
    assert {name: strength for name, (strength, _) in found.items()} == {
        "decay_2": 1.0,
        "decay": 2.0,
        "decay_3": 3.0,
        "train_accuracy_2": 4.0,
    }


def test_a_penalty_on_the_gradient_in_the_weights_goes_through_batch_norm():
    """Slow reference: torch's own BatchNorm differentiates twice where nothing is held."""
    inputs, labels = batch()
    network = normalised_network()
    plain = copy.deepcopy(network)

    def squares(loss: Tensor, module: nn.Module) -> Tensor:
        return sum(g.square().sum() for g in torch.autograd.grad(loss, list(module.parameters()), create_graph=True))

    squares(fp.ForwardPass(network, inputs, labels).loss, network).backward()
    squares(F.cross_entropy(plain(inputs), labels), plain).backward()
    for (name, own), expected in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, expected.grad, rtol=1e-8, atol=1e-10, msg=name)


def test_functions_may_be_called_by_keyword_mapped_and_autocast():
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv1d(1, 2, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = F.conv1d(input=x, weight=self.first.weight, bias=self.first.bias)
            x = x + torch.vmap(lambda row: F.relu(row))(x)
            return F.linear(input=x.mean(1), weight=self.second.weight, bias=self.second.bias)

    network = Keywords()
    passed = fp.ForwardPass(network, torch.randn(3, 1, 6, generator=generator(0)), torch.tensor([0, 1, 0]))
    torch.testing.assert_close(passed.logits, network(passed.inputs))
    with torch.autocast("cpu", torch.bfloat16):
        assert fp.ForwardPass(network, passed.inputs.detach(), passed.labels).logits.dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.torch.jit.*deprecated:DeprecationWarning")  # torch's own, as it loads its compiler
def test_compiled_networks_are_trained_as_what_they_were_made_from():
    network, data = fp.models.mlp((4,), widths=(8,), classes=3), clusters()
    settings = {"epochs": 1, "penalties": [(0.1, JacobianFrobenius())]}
    run = fp.train(torch.compile(network), data, **settings)
    expected = fp.train(network, data, **settings).model
    assert all(map(torch.equal, run.model.state_dict().values(), expected.state_dict().values()))
    inside = nn.Sequential(torch.compile(nn.Linear(4, 3)))
    with pytest.raises(ValueError, match="the module '0' is compiled, so its operations cannot be watched"):
        fp.ForwardPass(inside, torch.ones(1, 4), torch.tensor([0]))


def test_weights_that_are_not_finite_are_blamed_on_the_step_and_the_epoch_before_is_kept(tmp_path):
    """The penalty cannot take NaN weights, and raises an error of its own before the terms are looked at."""
    network, data = fp.models.mlp((4,), widths=(8,), classes=3), clusters()

    def breaking(passed: fp.ForwardPass) -> Tensor:
        if not bool(passed.logits.isfinite().all()):
            raise KeyError
        return passed.logits.square().mean()

    schedule = {"name": "step", "stages": [(1e-3, 1), (1e30, 1)]}
    settings = {"batch_size": 8, "schedule": schedule, "penalties": [(0.1, breaking)]}
    with pytest.raises(RuntimeError, match=r"'loss' is (inf|nan) in step .* holds the weights of epoch 1"):
        fp.train(network, data, epochs=2, out=tmp_path / "run", **settings)
    assert fp.load_checkpoint(tmp_path / "run") is not None
