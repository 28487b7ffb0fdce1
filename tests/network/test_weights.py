"""Weight arithmetic, selections and names."""

from functools import partial

import pytest
import torch
from torch import nn

from flatprobe.network.weights import combine, linear_combination, move, norm, select, strip_prefixes, weights_of
from tests.helpers import cases

WEIGHTS = weights_of(cases.mlp())
NAMES = tuple(WEIGHTS)


def test_closed_form_moved_and_combined() -> None:
    w = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}
    u = {"a": torch.tensor([10.0, 0.0])}
    assert torch.equal(move(w, u, 0.5)["a"], torch.tensor([6.0, 2.0]))
    assert move(w, u, 0.5)["b"] is w["b"]
    assert torch.equal(combine([w, u], [2.0, 0.1])["a"], torch.tensor([3.0, 4.0]))
    assert float(combine([w, u], [2.0, 0.1])["b"]) == 6.0
    assert norm(w) == pytest.approx(14**0.5)


def test_property_a_corner_is_its_endpoint_to_the_last_bit_and_inputs_stay() -> None:
    first, second = weights_of(cases.mlp(seed=1)), weights_of(cases.mlp(seed=2))
    second["linear1.weight"][0, 0] = torch.inf  # a zero coefficient must not turn it into NaN
    before = {name: value.clone() for name, value in first.items()}
    corner = combine([first, second], [1.0, 0.0])
    combine([first, second], [0.5, 0.5])
    assert all(torch.equal(corner[name], before[name]) and torch.equal(first[name], before[name]) for name in first)


@pytest.mark.parametrize("coefficients", [(0.3, 0.7, -0.2), (0.0, 1.0, 2.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.5)])
def test_slow_reference_a_combination_tensor_by_tensor_to_the_last_bit(coefficients: tuple[float, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator)
    image = draw(5, 3, 3, 3).to(memory_format=torch.channels_last)
    vectors = [
        {"a": draw(50, 7), "image": image, "count": torch.tensor(3)},
        {"b": draw(9, dtype=torch.float64), "a": draw(50, 7), "image": draw(5, 3, 3, 3)},
        {"image": draw(5, 3, 3, 3), "half": draw(6).bfloat16(), "b": draw(9, dtype=torch.float64)},
    ]
    found = combine(vectors, coefficients)
    assert list(found) == ["a", "image", "b", "half"]
    for name, value in found.items():
        alone = linear_combination([vector.get(name) for vector in vectors], coefficients)
        assert torch.equal(value, alone)
        assert (value.dtype, value.stride()) == (alone.dtype, alone.stride())


def test_closed_form_selections() -> None:
    assert select(WEIGHTS, None) == NAMES
    assert select(WEIGHTS, "last") == ("linear3.weight", "linear3.bias")
    assert select(WEIGHTS, ["linear3.bias", "linear1.*"]) == ("linear1.weight", "linear1.bias", "linear3.bias")
    assert select(WEIGHTS, "*.bias") == ("linear1.bias", "linear2.bias", "linear3.bias")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [("conv*", "'conv\\*' matches no parameter; the network has linear1.weight"), ([], "selection is empty")],
)
def test_a_selection_that_matches_nothing_is_an_error(parameters: str | list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(WEIGHTS, parameters)


def test_last_is_refused_where_it_holds_no_matrix() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match=r'"last" selects 1.weight, 1.bias, which holds no weight matrix'):
        select(weights_of(network), "last")
    with pytest.raises(ValueError, match="no parameters"):
        select({}, None)


def test_names_that_only_a_word_tells_apart_are_left_alone() -> None:
    state = {"module.weight": torch.zeros(1), "weight": torch.ones(1)}
    assert strip_prefixes(state, list(state)) == state
    assert strip_prefixes(state, ["weight"]) == state  # the other one is unexpected
    foreign = {"_orig_mod.weight": torch.zeros(1), "bias": torch.ones(1)}
    assert strip_prefixes(foreign, ["module.weight", "weight", "bias"]) == foreign
