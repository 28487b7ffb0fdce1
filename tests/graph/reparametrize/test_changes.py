"""Changes of the weights: the same function from another network, and layers that cannot be changed left alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from flatprobe.graph.reparametrize import CHANGES, layout, reparametrize
from tests.helpers import cases
from tests.helpers.properties import assert_model_untouched, assert_seed_determines, rescaled_relu

IMAGE = (1, 8, 8)


def built(*layers: Callable[[], nn.Module]) -> nn.Module:
    """A float64 network whose BatchNorm statistics and affine parameters are not the initial ones."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(*(layer() for layer in layers)).double()
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 2)
                nn.init.normal_(layer.bias)
        network(torch.rand(64, *IMAGE, dtype=torch.float64))
    return network.eval()


class ChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 1, 1, 0)).permute(0, 2, 3, 1).flatten(1)


class Shuffle(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (2, 3)).transpose(1, 2).flatten(1)


class Tokens(nn.Module):
    """Rows of pixels as tokens: linear layers on the last of two dimensions, the mean over the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(8, 6), nn.Linear(6, 4), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(F.gelu(self.second(F.relu(self.first(x[:, 0])))).mean(1))
        return z


def conv(inputs: int, outputs: int, **options: int) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def dense(inputs: int, outputs: int = 10) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(inputs, outputs)


# Network -> how many layers (rescaling, batch_norm, permutation) change.
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "mlp": (cases.mlp, (2, 0, 2)),
    "cnn": (cases.cnn, (1, 0, 1)),
    "residual": (cases.residual, (3, 9, 3)),
    "normalised": (cases.normalised, (1, 0, 1)),
    "leaky": (lambda: built(nn.Flatten, dense(64, 7), nn.LeakyReLU, dense(7, 5), dense(5)), (2, 0, 2)),
    "tanh": (lambda: built(nn.Flatten, dense(64, 7), nn.Tanh, dense(7)), (0, 0, 1)),
    "BatchNorm after ReLU": (
        lambda: built(
            conv(1, 4), nn.ReLU, lambda: nn.BatchNorm2d(4), lambda: nn.AvgPool2d(3, 2, 1), conv(4, 6),
            lambda: nn.BatchNorm2d(6), nn.ReLU, lambda: nn.AdaptiveMaxPool2d(2), ChannelsLast, dense(54),
        ),
        (2, 2, 2),
    ),
    "two BatchNorms": (
        lambda: built(
            nn.Flatten, dense(64, 7), lambda: nn.BatchNorm1d(7), nn.Tanh, lambda: nn.BatchNorm1d(7, affine=False),
            nn.ReLU, dense(7),
        ),
        (0, 1, 1),
    ),
    "groups": (lambda: built(conv(1, 4), nn.ReLU, conv(4, 4, groups=2), nn.ReLU, nn.Flatten, dense(256)), (0, 0, 0)),
    "pooled head": (
        lambda: built(conv(1, 4), nn.ReLU, conv(4, 10), nn.ReLU, lambda: nn.AdaptiveAvgPool2d(1), nn.Flatten),
        (1, 0, 1),
    ),
    "shuffled": (lambda: built(nn.Flatten, dense(64, 6), nn.ReLU, Shuffle, dense(6)), (1, 0, 1)),
    "BatchNorm on shuffled units": (
        lambda: built(nn.Flatten, dense(64, 6), nn.ReLU, Shuffle, lambda: nn.BatchNorm1d(6), dense(6)), (0, 0, 0)
    ),
    "tokens": (lambda: Tokens().double().eval(), (1, 0, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_closed_form_the_function_stays(name: str) -> None:
    build, counts = CASES[name]
    network, inputs = build(), torch.rand(9, *IMAGE, dtype=torch.float64)
    found = layout(network, IMAGE)
    assert tuple(len(CHANGES[change].places(found)) for change in list(CHANGES)[:3]) == counts
    with torch.no_grad():
        logits = network(inputs)
        for change, kind in CHANGES.items():
            if not kind.places(found):
                continue
            copy = reparametrize(network, found, change, factor=3.0, seed=1)
            scale = 3.0 if change == "logit_scale" else 1.0
            torch.testing.assert_close(copy(inputs), scale * logits, rtol=0, atol=1e-9 * float(logits.abs().max()))
            for place in kind.places(found):  # and each place is another
                own, other = (module.get_submodule(place).state_dict() for module in (network, copy))
                following = place in found.norms or any(c.layer == place and c.norms for c in found.chains)
                assert following or any(not torch.equal(own[key], other[key]) for key in own)
            assert any(not torch.equal(a, b) for a, b in zip(network.parameters(), copy.parameters(), strict=True))


def test_slow_reference_every_second_unit_is_rescaled() -> None:
    network = cases.mlp()
    assert isinstance(network, nn.Sequential)
    copy = reparametrize(network, layout(network, IMAGE), "rescaling", factor=5.0)
    expected = rescaled_relu(rescaled_relu(network, 5.0), 1.0)
    assert torch.equal(copy.linear1.weight, expected.linear1.weight)
    assert torch.equal(copy.linear1.bias, expected.linear1.bias)
    torch.testing.assert_close(copy.linear2.weight[1::2], expected.linear2.weight[1::2], rtol=1e-15, atol=0)
    torch.testing.assert_close(copy.linear2.weight[::2], 5 * expected.linear2.weight[::2], rtol=1e-15, atol=0)


def test_closed_form_a_power_of_two_rounds_nothing_in_float32() -> None:
    network = cases.mlp().float()
    found, inputs = layout(network, IMAGE), torch.rand(9, *IMAGE)
    assert torch.equal(reparametrize(network, found, "rescaling")(inputs), network(inputs))
    assert torch.equal(reparametrize(network, found, "logit_scale")(inputs), 4 * network(inputs))


def test_closed_form_batch_norm_absorbs_the_scale_with_its_epsilon() -> None:
    network = built(nn.Flatten, dense(64, 4), lambda: nn.BatchNorm1d(4, eps=0.5), dense(4))
    copy = reparametrize(network, layout(network, IMAGE), "batch_norm", factor=2.0)
    a = torch.tensor([2, 1, 2, 1], dtype=torch.float64)
    old, new = network[2], copy[2]
    assert torch.equal(copy[1].weight, a[:, None] * network[1].weight)
    assert torch.equal(copy[1].bias, a * network[1].bias)
    torch.testing.assert_close(new.running_mean, a * old.running_mean)
    torch.testing.assert_close(new.running_var, a**2 * (old.running_var + 0.5) - 0.5)
    assert torch.equal(new.weight, old.weight)


def test_closed_form_a_permutation_moves_units_with_their_batch_norm() -> None:
    network = CASES["BatchNorm after ReLU"][0]()
    found = layout(network, IMAGE)
    copy = reparametrize(network, found, "permutation", seed=1)
    old, new = network[2], copy[2]
    order = [old.running_mean.tolist().index(value) for value in new.running_mean.tolist()]
    assert sorted(order) == [0, 1, 2, 3] != order
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(new, name), getattr(old, name)[order])
    assert torch.equal(copy[0].weight, network[0].weight[order])


def test_the_stem_of_a_residual_network_is_left_out() -> None:
    found = layout(cases.residual(), IMAGE)
    bodies = tuple(f"block{stage}_1.body.0" for stage in (1, 2, 3))
    assert CHANGES["rescaling"].places(found) == CHANGES["permutation"].places(found) == bodies
    assert len(found.layers) == 9
    assert CHANGES["batch_norm"].places(found) == found.norms
    assert found.last == "linear"


class Special(nn.Module):
    """Layers that may not be changed on their own."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.second, self.last = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 10)
        if kind == "tied":
            self.other = nn.Linear(8, 8)
            self.other.weight = self.second.weight
        if kind == "computed":
            self.second = weight_norm(self.second)
        if kind == "softmax":
            self.last = nn.Sequential(self.last, nn.Softmax(1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(F.relu(self.first(x.flatten(1)))))
        if self.kind == "tied":
            x = F.relu(self.other(x))
        if self.kind == "twice":
            x = F.relu(self.second(x))
        if self.kind == "skip":
            x = x + x
        z: Tensor = self.last(x)
        return z


@pytest.mark.parametrize(
    ("kind", "places", "last"),
    [
        ("tied", (), "last"),
        ("computed", (), "last"),
        ("twice", (), "last"),
        ("skip", ("first",), "last"),
        ("plain", ("first", "second"), "last"),
        ("softmax", ("first", "second"), None),
    ],
)
def test_tied_computed_and_repeated_layers_are_left_out(kind: str, places: tuple[str, ...], last: str | None) -> None:
    found = layout(Special(kind).eval(), IMAGE)
    assert CHANGES["rescaling"].places(found) == places
    assert CHANGES["permutation"].places(found) == places
    assert found.last == last


class Mixing(nn.Module):
    """Pools across units, or drops some."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first: nn.Module = nn.Linear(64, 8)
        self.last = nn.Linear(6 if kind == "average" else 4, 10)
        if kind == "average":
            self.first = nn.Conv1d(1, 2, 62)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x.flatten(1)[:, None] if self.kind == "average" else x.flatten(1))).flatten(1)
        if self.kind == "maximum":
            x = F.max_pool1d(x[:, None], 2)[:, 0]
        if self.kind == "average":  # of the two units at the borders between them alone
            x = F.avg_pool1d(x[:, None], 3, 1, 1)[:, 0]
        if self.kind == "dropped":
            x = x[:, ::2]
        z: Tensor = self.last(x)
        return z


@pytest.mark.parametrize("kind", ["maximum", "average", "dropped"])
def test_pools_across_units_and_dropped_units_end_a_chain(kind: str) -> None:
    assert layout(Mixing(kind).eval(), IMAGE).chains[0].target is None


def test_property_the_model_is_untouched_and_the_seed_determines() -> None:
    network = cases.residual()
    found = layout(network, IMAGE)
    for change in CHANGES:
        assert_model_untouched(network, lambda change=change: reparametrize(network, found, change))
    assert_model_untouched(network, lambda: layout(network, IMAGE))
    name = "block3_1.body.0.weight"
    assert_seed_determines(
        lambda seed: reparametrize(network, found, "permutation", seed=seed).get_parameter(name).detach()
    )


def test_bad_changes() -> None:
    network = cases.mlp()
    found = layout(network, IMAGE)
    with pytest.raises(ValueError, match=r"change must be one of 'rescaling', 'batch_norm'.*, got 'shear'"):
        reparametrize(network, found, "shear")
    for factor in (1.0, 0.5, float("inf")):
        with pytest.raises(ValueError, match=f"factor must be a finite number above 1, got {factor}"):
            reparametrize(network, found, "rescaling", factor=factor)
    with pytest.raises(ValueError, match="batch_norm does not apply to Sequential: no BatchNorm follows a layer"):
        reparametrize(network, found, "batch_norm")
