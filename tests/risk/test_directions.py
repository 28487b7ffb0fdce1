"""Direction laws: lengths, distribution, dependence on the seed, and held entries."""

import math

import pytest
import torch

from flatprobe.network.weights import norm, weights_of
from flatprobe.risk.directions import LAWS, direction, scale
from tests.helpers import cases

WEIGHTS = weights_of(cases.mlp())


NAMES = tuple(WEIGHTS)


def test_closed_form_lengths_of_the_laws() -> None:
    isotropic = direction(WEIGHTS, NAMES, "isotropic", 0, 0)
    assert norm(isotropic) == pytest.approx(1, abs=1e-9)
    layer = direction(WEIGHTS, NAMES, "layer", 0, 0)
    filters = direction(WEIGHTS, NAMES, "filter", 0, 0)
    assert set(layer) == set(filters) == {name for name in NAMES if name.endswith("weight")}
    for name in layer:
        assert float(layer[name].norm()) == pytest.approx(float(WEIGHTS[name].norm()), rel=1e-9)
        torch.testing.assert_close(filters[name].norm(dim=1), WEIGHTS[name].norm(dim=1), rtol=1e-9, atol=0)
    assert not torch.allclose(layer["linear1.weight"].norm(dim=1), filters["linear1.weight"].norm(dim=1), rtol=1e-3)
    adaptive = direction(WEIGHTS, NAMES, "adaptive", 0, 0)
    for name in NAMES:  # |w| times the isotropic direction
        torch.testing.assert_close(adaptive[name], WEIGHTS[name].abs() * isotropic[name], rtol=1e-9, atol=0)


def test_closed_form_convolution_filters_keep_their_norms() -> None:
    weights = weights_of(cases.cnn())
    u = direction(weights, ("0.weight",), "filter", 0, 0)["0.weight"]
    torch.testing.assert_close(u.flatten(1).norm(dim=1), weights["0.weight"].flatten(1).norm(dim=1), rtol=1e-9, atol=0)


def test_property_directions_are_normal_and_not_uniform() -> None:
    """The defect of loss-landscapes: "random" directions drawn from [0, 1), all with positive entries."""
    u = torch.cat([direction(WEIGHTS, NAMES, "isotropic", 0, k)["linear1.weight"].flatten() for k in range(20)])
    u = u / u.std()
    count = u.numel()
    assert abs(float(u.mean())) < 4 / count**0.5
    assert abs(float((u < 0).double().mean()) - 0.5) < 4 * 0.5 / count**0.5
    assert abs(float((u**4).mean()) - 3) < 4 * (96 / count) ** 0.5  # the fourth moment tells normal from uniform (1.8)


@pytest.mark.parametrize("law", LAWS)
def test_property_direction_k_is_a_function_of_seed_and_k(law: str) -> None:
    def flat(seed: int, k: int) -> torch.Tensor:
        return torch.cat([value.flatten() for value in direction(WEIGHTS, NAMES, law, seed, k).values()])

    first = flat(0, 3)
    torch.manual_seed(9)
    assert torch.equal(first, flat(0, 3))
    assert not torch.equal(first, flat(1, 3))
    assert not torch.equal(first, flat(0, 4))
    cosine = float(first @ flat(0, 4) / first.norm() ** 2)
    assert abs(cosine) < 0.2


@pytest.mark.parametrize("law", LAWS)
def test_property_the_scale_moves_the_weights_by_about_their_norm(law: str) -> None:
    matrices = tuple(name for name in NAMES if name.endswith("weight"))
    lengths = [norm(direction(WEIGHTS, matrices, law, 0, k)) for k in range(30)]
    mean = sum(lengths) / len(lengths)
    selected = norm({name: WEIGHTS[name] for name in matrices})
    assert mean * scale(WEIGHTS, matrices, law) == pytest.approx(selected, rel=0.05)


def test_unknown_laws_and_directions_that_move_nothing_are_errors() -> None:
    with pytest.raises(ValueError, match=r"law must be one of 'isotropic', 'filter'.*, got 'uniform'"):
        direction(WEIGHTS, NAMES, "uniform", 0, 0)
    with pytest.raises(ValueError, match="none of the selected parameters moves"):
        direction(WEIGHTS, ("linear1.bias",), "filter", 0, 0)


def test_pinned_direction() -> None:
    u = direction({"w": torch.ones(2, 2, dtype=torch.float64)}, ("w",), "isotropic", 0, 0)["w"]
    pinned = torch.tensor([[0.1917975651, -0.7791813167], [-0.3975939855, -0.4449822384]], dtype=torch.float64)
    torch.testing.assert_close(u, pinned, rtol=1e-6, atol=0)


@pytest.mark.parametrize("law", LAWS)
def test_closed_form_a_direction_without_held_entries_is_that_of_the_others(law: str) -> None:
    weights = {"w": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()}
    held = torch.zeros(3, 4, dtype=torch.bool)
    held[1], held[0, 2] = True, True
    u = direction(weights, ("w",), law, 0, 0, {"w": held})["w"]
    assert not u[held].any()
    rest, noise = weights["w"] * ~held, u / (weights["w"].abs() if law == "adaptive" else 1)
    if law == "filter":
        torch.testing.assert_close(u.norm(dim=1), rest.norm(dim=1), rtol=1e-6, atol=0)
    else:
        expected = float(rest.norm()) if law == "layer" else 1.0
        assert float(noise.norm()) == pytest.approx(expected, rel=1e-6)
    sizes = {"isotropic": float(rest.norm()), "adaptive": math.sqrt(7)}
    assert scale(weights, ("w",), law, {"w": held}) == pytest.approx(sizes.get(law, 1.0))
    with pytest.raises(ValueError, match="none of the selected parameters moves"):
        direction(weights, ("w",), law, 0, 0, {"w": torch.ones(3, 4, dtype=torch.bool)})
