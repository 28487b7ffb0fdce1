"""What one look at a network must see for later passes: attributes, buffers, layouts, memory and where weights are."""

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatprobe as fp
from flatprobe.network.inspection import inspected
from flatprobe.network.network import Network
from tests.helpers import strange

DATA = strange.data(40)
X = DATA.inputs


def built(make: Any, *arguments: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*arguments).double().eval()  # type: ignore[no-any-return]


class Caches(strange.Nested):
    """Keeps the norm of its weights where an attribute is missing, in a list that is as long before, or in a set."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.entries, self.members = how, [None], {"none"}

    def forward(self, x: Tensor) -> Tensor:
        norm: Any = self.head.weight.norm()
        if self.how == "attribute":
            if not hasattr(self, "kept"):
                self.kept = norm
            norm = self.kept
        elif self.how == "list":
            if self.entries[0] is None:
                self.entries[0] = norm
            norm = self.entries[0]
        elif "none" in self.members:
            self.members.remove("none")
        else:
            norm = 0 * norm
        return super().forward(x) / (1 + norm)  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["attribute", "list", "set"])
def test_slow_reference_what_a_pass_keeps_does_not_reach_the_next_one(how: str) -> None:
    network = Network(built(Caches, how))
    inspected(network, X)
    for scale in (2.0, 3.0):
        model = built(Caches, how)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
            found = network(X, {name: scale * value for name, value in network.weights.items()})
            torch.testing.assert_close(found, model(X), rtol=1e-12, atol=1e-12)


class Buffered(strange.Nested):
    """One buffer in two places, of which a pass replaces one; or written to where a value is negative; or by `out`."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("count", torch.ones(()))
        self.body.register_buffer("count", self.count)

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x) * (self.count + 0)
        if self.how == "two places":
            self.count = self.count + 1
        elif self.how == "out":
            torch.add(self.count, torch.ones_like(self.count), out=self.count)
        elif bool((x < 0).any()):
            self.count += 1
        return z


@pytest.mark.parametrize("how", ["two places", "values", "out"])
def test_property_a_buffer_starts_each_pass_as_the_caller_has_it(how: str) -> None:
    network, expected = Network(built(Buffered, how)), built(Buffered, how)(X)
    inspected(network, X.abs() if how == "values" else X)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(network(X), expected.detach(), rtol=1e-12, atol=1e-12)


class Looks(strange.Nested):
    """Writes to its inputs where they are not those that it knows, by one way of asking."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "equal":
            found = not torch.equal(x, x.abs())
        elif self.how == "nonzero":
            found = len((x < 0).nonzero()) > 0
        else:
            found = len(x[x < 0]) > 0
        if found:
            x.abs_()
        return super().forward(x)


@pytest.mark.parametrize("how", ["equal", "nonzero", "mask"])
def test_whichever_way_a_network_looks_at_values_its_inputs_are_kept(how: str) -> None:
    network = Network(built(Looks, how))
    inspected(network, X.abs())
    given = X.clone()
    with torch.no_grad():
        network(given)
    assert torch.equal(given, X)


def test_entries_that_are_chosen_by_number_are_no_look_at_values() -> None:
    class Chosen(strange.Nested):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, torch.tensor([2, 0, 1])]

    network = Network(built(Chosen))
    inspected(network, X)
    assert not network.in_place


class Pairs(strange.Nested):
    """Adds to the second sample of each pair the first."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x).unflatten(0, (-1, 2))
        return torch.stack([z[:, 0], z[:, 0] + z[:, 1]], 1).flatten(0, 1)


class Scaled(strange.Nested):
    def __init__(self, scale: float, mean: float) -> None:
        super().__init__()
        self.scale, self.mean = scale, mean

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return self.scale * (z - self.mean * z.mean(0))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = self.head(self.table(x).tanh()).sum(1)
        return z - z.mean(0)  # type: ignore[no-any-return]


def test_company_is_seen_in_pairs_at_any_scale_and_among_words() -> None:
    alone = "expected each sample's logits to depend on that sample alone"
    with pytest.raises(ValueError, match=alone):
        fp.functional_margins(built(Pairs), DATA)
    for scale in (1e-6, 1e6):
        with pytest.raises(ValueError, match=alone):
            fp.functional_margins(built(Scaled, scale, 1.0), DATA)
        single = fp.LabelledData(X.float(), DATA.labels)
        assert len(fp.functional_margins(built(Scaled, scale, 0.0).float(), single)) == 40
    words = fp.LabelledData(torch.arange(60).view(12, 5) % 9, torch.arange(12) % 3)
    for size in (1, 4, 12):
        with pytest.raises(ValueError, match=alone):
            fp.functional_margins(built(Words), words, batch_size=size)


def test_half_a_networks_precision_is_allowed_for() -> None:
    """A bfloat16 body rounds its features to 8 bits, whatever the head has."""

    class Mixed(strange.Nested):
        def forward(self, x: Tensor) -> Tensor:
            noise = 2e-3 * len(x)  # as a kernel that rounds otherwise in another batch size
            return self.head(self.body(x).float() * (1 + noise / 40))  # type: ignore[no-any-return]

    model = built(Mixed).float()
    model.body.bfloat16()
    assert len(fp.functional_margins(model, DATA)) == 40
    with pytest.raises(ValueError, match="depend on that sample alone"):
        fp.functional_margins(model.float(), DATA)


def test_a_view_of_a_weight_is_seen_in_a_list_too() -> None:
    class Joined(strange.Nested):
        row: Tensor

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) @ torch.stack([self.row, self.row, self.row])

    model: Any = built(Joined)
    model.row = model.head.weight.data[0, :3]
    with pytest.raises(ValueError, match=r"reads 'head\.weight' through a view"):
        fp.EmpiricalRisk(model, DATA)


def test_a_weight_that_is_not_registered_is_counted_once_however_often_it_is_used() -> None:
    class Loose(strange.Nested):
        def __init__(self) -> None:
            super().__init__()
            self.kept = [torch.eye(3, dtype=torch.float64, requires_grad=True)]

        def forward(self, x: Tensor) -> Tensor:
            z = super().forward(x) @ self.kept[0]
            for _ in range(60):  # as many ways through the graph as 2^60
                z = (z + z.tanh()) / 2
            return z @ self.kept[0]

    with pytest.raises(ValueError, match=r"depend on 1 tensors .* of shapes \(3, 3\);"):
        fp.EmpiricalRisk(built(Loose), DATA)


def test_empty_and_sparse_tensors() -> None:
    model = built(strange.Nested)
    expected = fp.EmpiricalRisk(model, DATA)().loss
    flat = torch.ones(10, dtype=torch.float64)
    for name, value in (("a", torch.empty(0)), ("b", torch.empty(0)), ("c", flat[:0]), ("d", flat[:0].view(0, 6))):
        model.register_buffer(name, value)

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = model

        def forward(self, x: Tensor) -> Tensor:
            return self.inside(x) + torch.empty(0).sum() + self.inside.a.sum()  # type: ignore[no-any-return]

    assert fp.EmpiricalRisk(Reads().eval(), DATA)().loss == expected
    model.register_buffer("adjacency", torch.eye(3).to_sparse())
    with pytest.raises(
        ValueError, match=r"holds 'adjacency' in the layout torch\.sparse_coo; .*adjacency\.to_dense\(\)"
    ):
        fp.EmpiricalRisk(model, DATA)
    model.register_buffer("adjacency", model.adjacency.to_dense())
    assert fp.EmpiricalRisk(model, DATA)().loss == expected


def test_of_three_tensors_in_one_memory_the_two_that_overlap_are_named() -> None:
    flat, model = torch.randn(20, dtype=torch.float64), built(strange.Nested)
    for name, value in (("first", flat[:4]), ("second", flat[4:10]), ("third", flat[8:])):
        model.register_buffer(name, value)
    with pytest.raises(ValueError, match="'second' and 'third' of Nested are different tensors in the same memory"):
        fp.EmpiricalRisk(model, DATA)


@pytest.mark.parametrize(
    ("layer", "layout"),
    [
        (nn.Conv2d(4, 4, 1, stride=2), "contiguous"),
        (nn.Conv2d(4, 16, 1, stride=(1, 2)), "contiguous"),
        (nn.Conv2d(16, 16, 1, stride=2, groups=4), "contiguous"),
        (nn.Conv2d(4, 4, 1), "channels last"),
        (nn.Conv2d(4, 4, 3, stride=2), "channels last"),
        (nn.Conv2d(8, 4, 1, stride=2), "channels last"),
    ],
)
def test_the_layout_is_given_up_for_strided_pointwise_convolutions_of_few_channels_only(
    layer: nn.Module, layout: str
) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, layer.in_channels, 3, padding=1), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(3)
    )  # fmt: skip
    images = torch.rand(12, 1, 6, 6)
    model(images)
    risk = fp.EmpiricalRisk(model.eval(), fp.LabelledData(images, torch.arange(12) % 3))
    assert risk.describe()["network"]["layout"] == layout


def test_what_looks_like_probabilities_by_chance_is_measured_without_a_word() -> None:
    class Given(strange.Nested):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :3] + 0 * super().forward(x)

    def measured(rows: Tensor) -> None:
        fp.functional_margins(built(Given), fp.LabelledData(rows.double().repeat(1, 2), torch.arange(len(rows)) % 3))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured(torch.tensor([[0.2, 0.3, 0.5]]))  # one row
        measured(torch.eye(3).repeat(8, 1))  # numbers 0 and 1 alone
        measured(torch.rand(40, 3, generator=torch.Generator().manual_seed(0)))  # between 0 and 1, without a sigmoid
    for ending in (nn.Sigmoid(), nn.Sequential(nn.Sigmoid(), nn.Unflatten(1, (1, 3)), nn.Flatten()), nn.Hardsigmoid()):
        with pytest.warns(UserWarning, match="between 0 and 1 throughout, as a sigmoid gives"):
            fp.functional_margins(nn.Sequential(built(strange.Nested), ending).eval(), DATA.head(3))
    half = nn.Sequential(built(strange.Nested), nn.Softmax(1)).bfloat16().eval()
    with pytest.warns(UserWarning, match=r"probabilities \(each row in \[0, 1\], with sum 1\)"):
        fp.functional_margins(half, DATA)
