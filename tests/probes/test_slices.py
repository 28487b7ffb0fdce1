"""Random slices: the grid, its center, a bowl, what is not finite, the peers' defects, everything refused."""

import math

import pytest
import torch

import flatprobe as fp
from flatprobe.network.weights import Weights, combine
from flatprobe.risk.directions import direction
from flatprobe.risk.empirical import Risk
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched, assert_seed_determines

DATA = cases.data_for((1, 8, 8), samples=70)
CENTER = {"w": torch.tensor([[3.0, -4.0], [1.0, 2.0]]).double(), "b": torch.tensor([1.0]).double()}


class Walled:
    """A bowl beyond whose walls the loss is NaN."""

    center = CENTER

    def __call__(self, weights: Weights) -> Risk:
        squares = sum(float((weights[name] - w).square().sum()) for name, w in CENTER.items())
        return Risk(loss=squares / 2 if squares < 9 else math.nan, error=0.0)


def test_closed_form_the_grid_is_symmetric_and_holds_its_center() -> None:
    result = fp.random_slice(cases.Bowl(CENTER), dimensions=2, steps=5, extent=0.3)
    axis = [-0.3, -0.15, 0.0, 0.15, 0.3]
    assert result.coefficients.shape == (5, 5, 2)
    for i in range(5):
        for j in range(5):
            assert result.coefficients[i, j].tolist() == [axis[i], axis[j]]
    assert torch.equal(result.coefficients, -result.coefficients.flip(0, 1))
    line = fp.random_slice(cases.Bowl(CENTER), dimensions=1, steps=7)
    assert line.coefficients.shape == (7, 1)
    assert line.loss.shape == (7,)
    assert line.coefficients[3].tolist() == [0.0]


@pytest.mark.parametrize("law", ["filter", "isotropic", "layer", "adaptive"])
def test_closed_form_a_bowl_over_the_plane(law: str) -> None:
    result = fp.random_slice(cases.Bowl(CENTER), steps=5, law=law, seed=3)
    u, v = (direction(CENTER, ("w", "b"), law, 3, k) for k in (0, 1))
    uu, uv, vv = (sum(float((s[n] * t[n]).sum()) for n in u) for s, t in ((u, u), (u, v), (v, v)))
    a, b = result.coefficients.unbind(-1)
    torch.testing.assert_close(result.loss, (a * a * uu + 2 * a * b * uv + b * b * vv) / 2, rtol=1e-9, atol=1e-12)
    assert result.cosine == pytest.approx(uv / (uu * vv) ** 0.5, rel=1e-9)
    assert result.frozen == (("b",) if law in {"filter", "layer"} else ())


def test_regression_the_start_point_itself_is_evaluated() -> None:
    """loss-landscapes never evaluates its start: here the middle of the grid is the network, to the last bit."""
    for model in (cases.mlp(), cases.cnn(), cases.residual()):
        risk = fp.EmpiricalRisk(model, DATA)
        for dimensions in (1, 2):
            result = fp.random_slice(risk, dimensions=dimensions, steps=3)
            middle = (1,) * dimensions
            assert (float(result.loss[middle]), float(result.error[middle])) == (risk().loss, risk().error)
            assert result.center == risk().loss


def test_regression_every_point_is_where_its_coefficients_say() -> None:
    """loss-landscapes walks a serpentine whose every second row is shifted by a cell: here each point stands alone."""
    risk = fp.EmpiricalRisk(cases.mlp(), DATA)
    result = fp.random_slice(risk, steps=5, seed=2)
    vectors = [risk.center, *(direction(risk.center, tuple(risk.center), "filter", 2, k) for k in (0, 1))]
    for i in range(5):
        for j in range(5):
            alone = risk({**risk.center, **combine(vectors, (1.0, *result.coefficients[i, j].tolist()))})
            assert float(result.loss[i, j]) == pytest.approx(alone.loss, rel=1e-9)
            assert float(result.error[i, j]) == alone.error


def test_regression_directions_are_normal_and_nearly_orthogonal() -> None:
    """loss-landscapes draws "Gaussian" directions from [0, 1): all entries positive, any two at a cosine near 3/4."""
    risk = fp.EmpiricalRisk(cases.mlp(), DATA)
    cosines = [fp.random_slice(risk, steps=3, law="isotropic", seed=seed).cosine for seed in range(5)]
    count = sum(w.numel() for w in risk.center.values())
    assert max(map(abs, cosines)) < 4 / count**0.5
    u = direction(risk.center, tuple(risk.center), "isotropic", 0, 0)
    entries = torch.cat([value.flatten() for value in u.values()])
    assert abs(float((entries > 0).double().mean()) - 0.5) < 4 * 0.5 / count**0.5


def test_regression_points_that_are_not_finite_stay_so() -> None:
    """Landscaper puts the mean where the loss is NaN, and noise on its maxima."""
    result = fp.random_slice(Walled(), steps=9, law="isotropic", extent=4.0)
    bowl = fp.random_slice(cases.Bowl(CENTER), steps=9, law="isotropic", extent=4.0)
    outside = bowl.loss >= 4.5
    assert 0 < int(outside.sum()) < 81
    assert bool(result.loss[outside].isnan().all())
    assert torch.equal(result.loss[~outside], bowl.loss[~outside])
    assert result.summary()["not_finite"] == int(outside.sum())
    assert result.summary()["max_increase"] == float("inf")  # a slice that blows up is not the flattest
    assert bowl.summary()["max_increase"] == float(bowl.loss.max())


def test_batch_norm_statistics_frozen_or_recalibrated() -> None:
    risk = fp.EmpiricalRisk(cases.residual(), DATA)
    frozen, fresh = (
        fp.random_slice(risk, dimensions=1, steps=3, batch_norm=policy) for policy in ("frozen", "recalibrate")
    )
    assert frozen.center == risk().loss
    assert not torch.equal(frozen.loss, fresh.loss)
    assert any(name.endswith("bias") for name in frozen.frozen)
    with pytest.raises(ValueError, match="has no BatchNorm to recalibrate"):
        fp.random_slice(fp.EmpiricalRisk(cases.mlp(), DATA), batch_norm="recalibrate")


def test_property_untouched_batch_size_and_seed() -> None:
    for name, build in cases.NETWORKS.items():
        model = build()
        assert_model_untouched(model, lambda m=model: fp.random_slice(fp.EmpiricalRisk(m, DATA), dimensions=1, steps=3))
        if name != "residual":
            assert_batch_size_invariant(
                lambda data, size, m=model: (
                    fp.random_slice(fp.EmpiricalRisk(m, data, batch_size=size), dimensions=1, steps=3).loss
                ),
                DATA.head(20),
            )
    risk = fp.EmpiricalRisk(cases.mlp(), DATA)
    assert_seed_determines(lambda seed: fp.random_slice(risk, steps=3, seed=seed).loss)
    last = fp.random_slice(risk, dimensions=1, steps=3, parameters="last")
    assert last.settings["selected"] == ["linear3.weight", "linear3.bias"]
    assert not torch.equal(last.loss, fp.random_slice(risk, dimensions=1, steps=3).loss)


@pytest.mark.parametrize("dimensions", [1, 2])
def test_record_round_trips(dimensions: int, tmp_path) -> None:
    result = fp.random_slice(Walled(), dimensions=dimensions, steps=5, extent=4.0, law="isotropic")
    loaded = fp.load(fp.save(result, tmp_path / "slice.parquet"))
    for name in ("coefficients", "loss", "error", "accuracy"):
        torch.testing.assert_close(getattr(loaded, name), getattr(result, name), rtol=0, atol=0, equal_nan=True)
    assert loaded.frozen == result.frozen
    assert loaded.cosine == result.cosine or dimensions == 1
    assert list(result.to_frame()) == [*["a", "b"][:dimensions], "loss", "error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 20}, "steps must be an odd number of at least 3, got 20. The center is"),
        ({"steps": 1}, "steps must be an odd number of at least 3, got 1"),
        ({"dimensions": 3}, r"dimensions must be one of 1, 2.*, got 3"),
        ({"extent": 0.0}, r"extent must be a positive finite number.*, got 0.0"),
        ({"law": "uniform"}, r"law must be .*, got 'uniform'"),
        ({"batch_norm": "interpolate"}, r"batch_norm must be one of 'frozen', 'recalibrate'.*, got 'interpolate'"),
        ({"parameters": "b"}, "none of the selected parameters moves"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.random_slice(cases.Bowl(CENTER), **options)


def test_a_center_that_is_not_finite_is_an_error() -> None:
    risk = Walled()
    risk.center = {name: w + 9 for name, w in CENTER.items()}
    with pytest.raises(ValueError, match="the loss at the center must be finite, got nan"):
        fp.random_slice(risk)
