"""The first batch of a network: dependence on other samples, randomness, and writes to its inputs."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.network.inspection import inspect_network
from flatprobe.network.network import Network
from tests.helpers import cases, foreign, strange, strange_modules

DATA = strange.data(40)


IMAGES = cases.data_for((1, 8, 8), samples=20)


class Company(strange_modules.Nested):
    """Its logits depend on the other samples of the batch."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "max":
            x = 3 * x / x.abs().max()
        z = self.body(x)
        if self.how == "mean":
            z = z - z.mean(0)
        elif self.how == "softmax":
            z = z * z.softmax(0)
        elif self.how == "batch norm":
            z = F.batch_norm(z, None, None, training=True)
        elif self.how == "before":
            z = z.cumsum(0)
        elif self.how == "neighbour":
            z = z + z.roll(1, 0)
        return self.head(z)


class TimeFirst(nn.Module):
    """A recurrent network that takes the batch for time."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.rnn, self.head = kind(2, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.reshape(len(x), 3, 2))[0][:, -1])


@pytest.mark.parametrize("size", [40, 8, 3, 2, 1])
@pytest.mark.parametrize("how", ["mean", "max", "softmax", "batch norm", "before", "neighbour"])
def test_a_network_whose_logits_depend_on_the_batch_is_refused_at_every_batch_size(how: str, size: int) -> None:
    if how == "batch norm" and size == 1:
        return  # refused by torch itself
    model = Company(how).double().eval()
    for call in (fp.EmpiricalRisk, fp.functional_margins):
        kwargs: dict[str, Any] = {"batch_size": size}
        if how == "batch norm" and size in {2, 3}:
            kwargs["batch_size"] = 4
        with pytest.raises(ValueError, match="expected each sample's logits to depend on that sample alone"):
            call(model, DATA, **kwargs)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_network_that_takes_the_batch_for_time_is_refused(kind: type[nn.Module]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TimeFirst(kind).double().eval()
    for size in (40, 7, 1):
        with pytest.raises(ValueError, match="a recurrent layer without batch_first=True"):
            fp.functional_margins(model, DATA, batch_size=size)


class Rows(strange_modules.Nested):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[: max(1, len(x) - 1)]


def test_a_row_too_few_is_told() -> None:
    with pytest.raises(ValueError, match="returns 39 rows of logits for a batch of 40 samples; expected one row per"):
        fp.functional_margins(Rows().double().eval(), DATA)


class Pairs(strange_modules.Nested):
    """Adds to the second sample of each pair the first."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x).unflatten(0, (-1, 2))
        return torch.stack([z[:, 0], z[:, 0] + z[:, 1]], 1).flatten(0, 1)


class Scaled(strange_modules.Nested):
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
        return z - z.mean(0)


def test_company_is_seen_in_pairs_at_any_scale_and_among_words() -> None:
    alone = "expected each sample's logits to depend on that sample alone"
    with pytest.raises(ValueError, match=alone):
        fp.functional_margins(strange.built(Pairs), DATA)
    for scale in (1e-6, 1e6):
        with pytest.raises(ValueError, match=alone):
            fp.functional_margins(strange.built(Scaled, scale, 1.0), DATA)
        single = fp.LabelledData(DATA.inputs.float(), DATA.labels)
        assert len(fp.functional_margins(strange.built(Scaled, scale, 0.0).float(), single)) == 40
    words = fp.LabelledData(torch.arange(60).view(12, 5) % 9, torch.arange(12) % 3)
    for size in (1, 4, 12):
        with pytest.raises(ValueError, match=alone):
            fp.functional_margins(strange.built(Words), words, batch_size=size)


def test_half_a_networks_precision_is_allowed_for() -> None:
    """A bfloat16 body rounds its features to 8 bits, whatever the head has."""

    class Mixed(strange_modules.Nested):
        def forward(self, x: Tensor) -> Tensor:
            noise = 2e-3 * len(x)  # as a kernel that rounds otherwise in another batch size
            return self.head(self.body(x).float() * (1 + noise / 40))

    model = strange.built(Mixed).float()
    model.body.bfloat16()
    assert len(fp.functional_margins(model, DATA)) == 40
    with pytest.raises(ValueError, match="depend on that sample alone"):
        fp.functional_margins(model.float(), DATA)


class Draws(nn.Module):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.layer, self.source = nn.Linear(64, 10), source

    def forward(self, x: Tensor) -> Tensor:
        noise = {"numpy": np.random.rand, "python": random.random, "torch": lambda: float(torch.rand(()))}
        return self.layer(x.flatten(1)) * (1 + noise[self.source]())


@pytest.mark.parametrize("source", ["numpy", "python", "torch"])
def test_networks_that_draw_from_a_global_state_are_refused_and_the_state_is_kept(source: str) -> None:
    states = (torch.get_rng_state(), str(np.random.get_state()))
    model = foreign.built(lambda: Draws(source))
    with pytest.raises(ValueError, match="two passes of Draws over the same 20 inputs differ"):
        fp.functional_margins(model, IMAGES)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state()) == states[1]  # Python's own is drawn from by beartype


class InPlace(strange_modules.Nested):
    """Writes to its inputs where a value is negative, which the first batch may not have."""

    def __init__(self, *, looks: bool) -> None:
        super().__init__()
        self.looks = looks

    def forward(self, x: Tensor) -> Tensor:
        if not self.looks:
            x = F.relu_(x)
        elif bool((x < 0).any()):
            x.abs_()
        return super().forward(x)


@pytest.mark.parametrize("looks", [False, True])
def test_inputs_are_kept_where_only_later_batches_would_show_that_they_are_written_to(looks: bool) -> None:
    inputs = torch.rand(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inputs[20:] -= 0.5
    data = fp.LabelledData(inputs, torch.arange(40) % 3)
    model, kept = InPlace(looks=looks).double().eval(), inputs.clone()
    found = fp.functional_margins(model, data, batch_size=8).values
    assert torch.equal(data.inputs, kept)
    assert torch.equal(inputs, kept)
    logits = model(kept.clone()).detach()
    others = logits.masked_fill(F.one_hot(data.labels, 3).bool(), -torch.inf).max(1).values
    torch.testing.assert_close(found, logits.gather(1, data.labels[:, None]).squeeze(1) - others)
    assert len(fp.functional_margins(model, fp.LabelledData(kept.abs(), data.labels))) == 40  # pixels that it leaves


class Looks(strange_modules.Nested):
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
    network = Network(strange.built(Looks, how))
    inspect_network(network, DATA.inputs.abs())
    given = DATA.inputs.clone()
    with torch.no_grad():
        network(given)
    assert torch.equal(given, DATA.inputs)


def test_entries_that_are_chosen_by_number_are_no_look_at_values() -> None:
    class Chosen(strange_modules.Nested):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, torch.tensor([2, 0, 1])]

    network = Network(strange.built(Chosen))
    inspect_network(network, DATA.inputs)
    assert not network.in_place


def test_the_fix_for_pictures_of_bytes_gives_the_same_numbers() -> None:
    class Casts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.flatten(1).float() / 255)

    torch.manual_seed(0)
    model = Casts().eval()
    stored = (IMAGES.inputs * 255).to(torch.uint8)
    raw = fp.LabelledData(stored, IMAGES.labels, classes=10)
    expected = fp.functional_margins(model, raw).values
    message = r"make the images floating, inputs.float\(\) / 255, .*\(mean 0 and std 1 / 255 where it divides"
    for probe in (fp.jacobian_norms, fp.geometric_margins, fp.gaussian_robustness):
        with pytest.raises(TypeError, match=message):
            probe(model, raw)
    with pytest.raises(ValueError, match=rf"embeds nothing; {message}"):
        fp.at_embedding(model, raw)
    with pytest.raises(ValueError, match=rf"cannot be run on inputs of shape .*uint8.*{message}"):
        fp.functional_margins(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval(), raw)
    data = fp.LabelledData(stored.float() / 255, IMAGES.labels, classes=10)
    found = fp.functional_margins(fp.Normalised(model, 0, 1 / 255).eval(), data).values
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
