"""Weights that do not act: counted in closed form, held so that the function alone decides, named, refused."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.network.weights import norm
from flatprobe.risk.directions import LAWS, direction
from flatprobe.risk.inactive import inactive_entries
from tests.helpers import cases
from tests.helpers.inactive import TEXTS, TOKENS, VECTORS, WORDS, Auxiliary, Words, dense, of_texts, pruned


@pytest.mark.parametrize("law", LAWS)
def test_property_held_unused_words_leave_the_radii_of_the_small_vocabulary(law: str) -> None:
    """The numbers of a direction are drawn in order, so that those of the first words are the same in all three."""
    small = fp.flatness_radius(of_texts(WORDS), directions=4, law=law, inactive="hold")
    assert small.inactive == {}
    for vocabulary in (100, 3000):
        held = fp.flatness_radius(of_texts(vocabulary), directions=4, law=law, inactive="hold")
        assert held.inactive == {"table.weight": 4 * (vocabulary - WORDS)}
        assert held.frozen == small.frozen
        assert held.settings["arguments"]["max_radius"] == pytest.approx(small.settings["arguments"]["max_radius"])
        torch.testing.assert_close(held.radii, small.radii, rtol=1e-5, atol=0)


def test_closed_form_moved_unused_words_are_named_and_lengthen_the_radius() -> None:
    small, large = (fp.flatness_radius(of_texts(size), directions=4, rtol=1e-3) for size in (WORDS, 3000))
    assert (small.inactive, large.inactive) == ({}, {"table.weight": 4 * (3000 - WORDS)})
    assert large.settings["inactive_samples"] == 60
    acting = 4 * WORDS + 10
    longer = math.sqrt((4 * 3000 + 10) / acting)
    assert large.mean / small.mean == pytest.approx(longer, rel=0.2)  # of each direction, 1 / the acting part's length
    assert "inactive: 11952 of table.weight" in repr(large)
    assert "inactive" not in repr(small)


def test_slow_reference_a_pruned_network_held_leaves_the_band_where_its_own_weights_do() -> None:
    """Against directions over the weights that the mask lets through, drawn, cut and normalised here."""
    network = pruned(0.5)
    risk = fp.EmpiricalRisk(network, VECTORS)
    found = fp.flatness_radius(risk, directions=3, inactive="hold", epsilon=0.02)
    assert found.inactive == {"0.weight_orig": 24}
    assert found.parametrised == ("0.weight",)
    assert "parametrised: 0.weight" in repr(found)
    base, names = risk().loss, tuple(risk.center)
    for index in range(3):
        u = direction(risk.center, names, "isotropic", 0, index)
        u["0.weight_orig"] *= network[0].weight_mask
        unit = {name: value / norm(u) for name, value in u.items()}
        for radius, outside in ((found.lower[index], False), (found.upper[index], True)):
            at = {name: value + float(radius) * unit[name] for name, value in risk.center.items()}
            assert (abs(risk(at).loss - base) > 0.02) == outside


def test_property_a_head_for_training_only_changes_nothing_where_it_is_held() -> None:
    alone = fp.flatness_radius(fp.EmpiricalRisk(dense(), VECTORS), directions=4)
    both = fp.EmpiricalRisk(Auxiliary(30), VECTORS)
    held = fp.flatness_radius(both, directions=4, inactive="hold")
    torch.testing.assert_close(held.radii, alone.radii, rtol=1e-5, atol=0)
    assert held.inactive == {"second.weight": 180, "second.bias": 30}
    assert held.frozen == ()
    assert fp.flatness_radius(both, directions=4).mean > 1.3 * alone.mean


def test_property_slices_name_and_hold_them_likewise() -> None:
    small, moved = (
        fp.random_slice(of_texts(WORDS), law="layer", steps=3),
        fp.random_slice(of_texts(100), law="layer", steps=3),
    )
    held = fp.random_slice(of_texts(100), law="layer", steps=3, inactive="hold")
    torch.testing.assert_close(held.loss, small.loss, rtol=1e-6, atol=0)
    assert held.inactive == {"table.weight": 352}
    assert moved.inactive is None  # not looked for
    assert not torch.allclose(moved.loss, small.loss, rtol=1e-3)


def test_the_records_keep_what_does_not_act_and_old_ones_do_not_say(tmp_path) -> None:
    risk = of_texts(100)
    for result in (fp.flatness_radius(risk, directions=2), fp.random_slice(risk, steps=3, inactive="hold")):
        loaded = fp.load(fp.save(result, tmp_path / "result.parquet"))
        assert loaded.inactive == result.inactive == {"table.weight": 352}
        old = {key: value for key, value in result.settings.items() if not key.startswith("inactive")}
        assert type(result).from_frame(result.to_frame(), old).inactive is None  # type: ignore[attr-defined]


def test_all_data_are_looked_at_before_anything_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word of the last text alone acts, though the first samples do not show it."""
    monkeypatch.setattr("flatprobe.risk.inactive._SAMPLES", 8)
    tokens = TOKENS.clone()
    tokens[-1, 0] = 50
    risk = fp.EmpiricalRisk(Words(100).eval(), fp.LabelledData(tokens, TEXTS.labels, classes=2))
    moved = fp.flatness_radius(risk, directions=1)
    assert moved.settings["inactive_samples"] == 8
    unused = 100 - len(tokens[:8].unique())
    assert moved.inactive == {"table.weight": 4 * unused}
    held = fp.flatness_radius(risk, directions=1, inactive="hold")
    assert held.settings["inactive_samples"] == 60
    assert held.inactive == {"table.weight": 4 * (100 - len(tokens.unique()))}


@pytest.mark.parametrize("word", [3, WORDS + 2])
def test_a_padding_word_acts_where_it_is_in_the_texts_though_its_gradient_is_0(word: int) -> None:
    names = ("head.weight", "head.bias", "table.weight")
    found = inactive_entries(of_texts(100, padding_idx=word), names, "isotropic", whole=True)
    assert found is not None
    assert found.counts == {"table.weight": 352}
    assert not found.masks["table.weight"][:WORDS].any()


def test_sparse_gradients_are_looked_at_as_others() -> None:
    risk = of_texts(100, sparse=True)
    assert fp.flatness_radius(risk, directions=1).inactive == {"table.weight": 352}


class Cut(nn.Module):
    """A first layer that no gradient arrives at."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = dense()[0], dense()[2]
        self.eval()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            hidden = self.first(inputs).relu()
        return self.last(hidden)


def test_weights_behind_no_grad_act() -> None:
    assert fp.flatness_radius(fp.EmpiricalRisk(Cut(), VECTORS), directions=1).inactive == {}


def test_a_unit_that_is_off_acts_where_the_weights_reach_it() -> None:
    network = dense()
    network[0].bias.data[3] = -5.0
    assert not bool((network[0](VECTORS.inputs)[:, 3] > 0).any())
    assert fp.flatness_radius(fp.EmpiricalRisk(network, VECTORS), directions=1).inactive == {}


def test_zeros_at_the_start_act_once_they_move() -> None:
    """A low-rank adapter: the gradient of one factor is 0 where the other is 0."""

    class Adapter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.network, self.a, self.b = dense(), nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.zeros(3, 2))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.network(inputs) + inputs @ self.a.T @ self.b.T

    risk = fp.EmpiricalRisk(Adapter().eval(), VECTORS)
    assert fp.flatness_radius(risk, directions=1).inactive == {}
    assert fp.flatness_radius(risk, directions=1, parameters="a").inactive == {"a": 12}  # b stays at 0


class Merged(nn.Module):
    """Adapters that have been merged into the weights: they are there, and forward does not read them."""

    def __init__(self) -> None:
        super().__init__()
        self.network = dense()
        self.A, self.B = nn.Parameter(torch.ones(6, 2)), nn.Parameter(torch.ones(2, 3))
        self.eval()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.network(inputs)


def blank() -> nn.Module:
    return pruned(1.0)


@pytest.mark.parametrize(
    "probe",
    [
        fp.hessian_eigenvalues,
        fp.hessian_trace,
        fp.worst_case_sharpness,
        lambda risk, **options: fp.worst_case_sharpness(risk, law="adaptive", **options),
        lambda risk, **options: fp.gradient_noise(risk, batch_size=8, **options),
        lambda risk, **options: fp.flatness_radius(risk, inactive="hold", **options),
        lambda risk, **options: fp.random_slice(risk, inactive="hold", **options),
    ],
    ids=["eigenvalues", "trace", "sharpness", "adaptive", "noise", "radius", "slice"],
)
@pytest.mark.parametrize(("make", "names"), [(Merged, ["A", "B"]), (blank, ["0.weight_orig"])])
def test_a_selection_that_does_not_act_is_refused(
    make: Callable[[], nn.Module], names: list[str], probe: Callable[..., object]
) -> None:
    risk = fp.EmpiricalRisk(make(), VECTORS)
    with pytest.raises(ValueError, match=rf"parameters \({', '.join(names)}\) do not act on the loss.*choose others"):
        probe(risk, parameters=names)


def test_closed_form_derivatives_in_weights_that_do_not_act_are_0() -> None:
    risk = fp.EmpiricalRisk(Merged(), VECTORS)
    assert not risk.gradient(names=["A"])["A"].any()
    assert not risk.hvp(None, {"B": torch.ones(2, 3)}, ["B"])["B"].any()
    moved = fp.flatness_radius(risk, parameters=["A", "B"], directions=2)
    assert (moved.censored, moved.inactive) == (2, {"A": 12, "B": 6})
    found = fp.hessian_eigenvalues(fp.EmpiricalRisk(Auxiliary(40), VECTORS), per_layer=True)
    assert found.layers == ("network.0", "network.2", "second")
    assert float(found.eigenvalues[2]) == 0.0


def test_what_is_not_known_is_not_held() -> None:
    bowl = cases.Bowl({"w": torch.ones(3)})
    assert fp.flatness_radius(bowl, directions=1).inactive is None
    with pytest.raises(ValueError, match=r'which weights do not act is not known.*take inactive="move"'):
        fp.flatness_radius(bowl, inactive="hold")

    class Refuses(torch.autograd.Function):
        @staticmethod
        def forward(_context: object, inputs: torch.Tensor) -> torch.Tensor:
            return inputs.relu()

    class Undifferentiable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = dense()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.layers[2](Refuses.apply(self.layers[0](inputs)))

    risk = fp.EmpiricalRisk(Undifferentiable().eval(), VECTORS)
    assert fp.flatness_radius(risk, directions=1).inactive is None
    with pytest.raises(ValueError, match="which weights do not act is not known"):
        fp.random_slice(risk, inactive="hold")


def test_other_words_are_refused() -> None:
    with pytest.raises(ValueError, match=r"inactive must be one of .*, got 'drop'"):
        fp.flatness_radius(of_texts(WORDS), inactive="drop")


def test_property_the_model_and_the_random_state_are_untouched() -> None:
    network = pruned(0.5)
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    fp.flatness_radius(fp.EmpiricalRisk(network, VECTORS), directions=1, inactive="hold")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(value.grad is None for value in network.parameters())
