"""The largest Jacobian norm: affine networks, a maximum in closed form, dense grids by autograd, indexed pairs."""

import numpy as np
import pytest
import torch
from torch import nn

import flatprobe as fp
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched, assert_seed_determines
from tests.helpers.references import jacobian

DATA = cases.data_for((1, 8, 8), samples=40)


@pytest.mark.parametrize(("norm", "order"), [("spectral", 2), ("frobenius", "fro")])
def test_closed_form_an_affine_network_has_one_norm_everywhere(norm: str, order: float | str) -> None:
    model, data = cases.affine(), cases.data_for((7,), samples=9, classes=5)
    expected = float(torch.linalg.matrix_norm(model.weight.detach(), order))
    samples = fp.jacobian_maximum(model, data, norm=norm)
    assert (len(samples), samples.points) == (9, 1)
    segments = fp.jacobian_maximum(model, data, along="segments", norm=norm, pairs=12, points=3, refine=4)
    assert (len(segments), segments.points) == (12, 7)
    for result in (samples, segments):
        np.testing.assert_allclose(result.values, np.full(len(result), expected), rtol=0, atol=1e-9)
        assert result.maximum == pytest.approx(expected, abs=1e-9)


class Step(nn.Module):
    """z = (tanh(a (x_1 - c)), 0): ||dz/dx|| = a / cosh^2(a (x_1 - c)), largest at x_1 = c, where it is a."""

    def __init__(self, a: float, c: float) -> None:
        super().__init__()
        self.a, self.c = nn.Parameter(torch.tensor(a).double()), c

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.tanh(self.a * (x[:, 0] - self.c)), 0 * x[:, 1]], 1)


def test_closed_form_a_maximum_inside_the_segment() -> None:
    a, c = 6.0, 0.37
    data = fp.LabelledData(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    model = Step(a, c).eval()
    ends = fp.jacobian_maximum(model, data)
    np.testing.assert_allclose(ends.values, [a / np.cosh(a * c) ** 2, a / np.cosh(a * (1 - c)) ** 2], rtol=1e-9)
    assert ends.where == (0, 0, 0.0)
    dense = fp.jacobian_maximum(model, data, along="segments", pairs=4, points=201, refine=0)
    np.testing.assert_allclose(dense.values, np.full(4, a), rtol=1e-9)  # 0.37 is a point of the grid
    np.testing.assert_allclose(torch.where(dense.first == 0, dense.at, 1 - dense.at), np.full(4, c), atol=1e-12)
    # Around the best of 5 points the 9 further ones lie 0.05 apart: at most 0.025 from the maximum, none above it.
    coarse = fp.jacobian_maximum(model, data, along="segments", pairs=4, points=5, refine=9)
    assert bool((coarse.values <= a).all())
    assert bool((coarse.values >= a / np.cosh(a * 0.025) ** 2).all())
    first, second, at = coarse.where
    assert {first, second} == {0, 1}
    assert abs((at if first == 0 else 1 - at) - c) <= 0.025


@pytest.mark.parametrize("refine", [0, 3])
@pytest.mark.parametrize(("norm", "outputs"), [("spectral", "softmax"), ("frobenius", "logits")])
@pytest.mark.parametrize("name", cases.NETWORKS)
def test_slow_reference_point_by_point(name: str, norm: str, outputs: str, refine: int) -> None:
    model = cases.NETWORKS[name]()
    result = fp.jacobian_maximum(
        model, DATA, along="segments", norm=norm, outputs=outputs, pairs=2, points=5, refine=refine
    )

    def norm_at(pair: int, t: float) -> float:
        x, other = (DATA.inputs[int(side[pair])].double() for side in (result.first, result.second))
        J = jacobian(model, (1 - t) * x + t * other, softmax=outputs == "softmax")
        return float(J.norm() if norm == "frobenius" else torch.linalg.svdvals(J)[0])

    for pair in range(2):
        grid = [k / 4 for k in range(5)]
        values = {t: norm_at(pair, t) for t in grid}
        best = max(values, key=lambda t: values[t])
        low, high = max(best - 0.25, 0.0), min(best + 0.25, 1.0)
        further = [low + (high - low) * k / (refine + 1) for k in range(1, refine + 1)]
        values |= {t: norm_at(pair, t) for t in further}
        assert float(result.values[pair]) == pytest.approx(max(values.values()), rel=1e-7)
        assert norm_at(pair, float(result.at[pair])) == pytest.approx(float(result.values[pair]), rel=1e-7)


def test_slow_reference_along_samples_it_is_the_largest_of_jacobian_norms() -> None:
    model = cases.mlp()
    for options in ({}, {"norm": "frobenius"}, {"outputs": "softmax"}):
        norms = fp.jacobian_norms(model, DATA, **options).values
        result = fp.jacobian_maximum(model, DATA, **options)
        assert torch.equal(result.values, norms)
        assert result.maximum == float(norms.max())
        assert result.where == (int(norms.argmax()), int(norms.argmax()), 0.0)


def test_slow_reference_a_dense_grid_is_approached_from_below() -> None:
    model = cases.mlp()
    coarse, fine = (
        fp.jacobian_maximum(model, DATA, along="segments", pairs=10, points=points, refine=refine)
        for points, refine in ((9, 8), (721, 0))
    )
    assert torch.equal(coarse.first, fine.first)
    # All of the 9 points and, with this spacing, the 8 further ones are points of the dense grid.
    assert bool((coarse.values <= fine.values * (1 + 1e-9)).all())
    assert bool((coarse.values >= 0.85 * fine.values).all())  # the worst of 60 segments on MNIST was at 0.91


def test_theorem_3_the_expansion_is_at_most_the_maximum_on_a_smooth_network() -> None:
    model = fp.models.mlp((1, 8, 8), widths=(24,), activation="tanh").double().eval()
    result = fp.jacobian_maximum(model, DATA, along="segments", pairs=20, points=65)
    x, other = (DATA.inputs[side].double() for side in (result.first, result.second))
    with torch.no_grad():
        expansion = (model(other) - model(x)).norm(dim=1) / (other - x).flatten(1).norm(dim=1)
    assert bool((expansion <= result.values * (1 + 1e-6)).all())


def test_many_classes_go_through_lanczos() -> None:
    model = fp.models.mlp((1, 8, 8), widths=(30,), classes=130).double().eval()
    result = fp.jacobian_maximum(model, DATA, along="segments", pairs=3, points=3, refine=0, outputs="softmax")
    assert result.settings["arguments"]["method"] == "lanczos"
    for pair in range(3):
        x, other = (DATA.inputs[int(side[pair])].double() for side in (result.first, result.second))
        J = [jacobian(model, (1 - t) * x + t * other, softmax=True) for t in (0.0, 0.5, 1.0)]
        assert float(result.values[pair]) == pytest.approx(max(float(torch.linalg.svdvals(j)[0]) for j in J), rel=1e-7)
    norms = fp.jacobian_norms(model, DATA).values
    assert torch.equal(fp.jacobian_maximum(model, DATA).values, norms)


@pytest.mark.parametrize("between", ["any", "same", "different"])
def test_property_pairs_are_indexed_and_of_the_classes_asked_for(between: str) -> None:
    model, data = cases.affine(), cases.data_for((7,), samples=30, classes=5)
    options = {"along": "segments", "between": between, "points": 2, "refine": 0}
    many = fp.jacobian_maximum(model, data, pairs=200, seed=2, **options)
    few = fp.jacobian_maximum(model, data, pairs=20, seed=2, **options)
    assert torch.equal(few.first, many.first[:20])
    assert torch.equal(few.second, many.second[:20])
    assert bool((many.first != many.second).all())
    same = data.labels[many.first] == data.labels[many.second]
    assert {"any": 0 < int(same.sum()) < 200, "same": bool(same.all()), "different": not bool(same.any())}[between]
    assert len({*many.first.tolist()}) > 25


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_untouched_batch_size_invariant_and_seeded(name: str) -> None:
    model = cases.NETWORKS[name]()
    options = {"along": "segments", "pairs": 6, "points": 4, "refine": 3}
    assert_model_untouched(model, lambda: fp.jacobian_maximum(model, DATA, **options))

    def values(data: fp.LabelledData, size: int) -> torch.Tensor:
        segments = fp.jacobian_maximum(model, data, batch_size=size, **options)
        samples = fp.jacobian_maximum(model, data, batch_size=size)
        return torch.cat([segments.values, segments.at, samples.values])

    assert_batch_size_invariant(values, DATA.head(12))
    assert_seed_determines(lambda seed: fp.jacobian_maximum(model, DATA, seed=seed, **options).values)


@pytest.mark.parametrize("along", ["samples", "segments"])
def test_result_survives_the_record(along: str, tmp_path) -> None:
    result = fp.jacobian_maximum(cases.mlp(), DATA, along=along, pairs=7)
    loaded = fp.load(fp.save(result, tmp_path / "maximum.parquet"))
    for name in ("values", "first", "second", "at"):
        assert torch.equal(getattr(loaded, name), getattr(result, name)), name
    assert loaded.points == result.points
    assert loaded.summary() == result.summary()
    assert list(result.summary()) == ["max", "median", "min", "points"]
    assert result.summary()["points"] == (40 if along == "samples" else 7 * 17)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"along": "curves"}, r"along must be one of 'samples', 'segments'.*, got 'curves'"),
        ({"norm": "nuclear"}, r"norm must be .*, got 'nuclear'"),
        ({"outputs": "labels"}, r"outputs must be .*, got 'labels'"),
        ({"between": "all"}, r"between must be one of 'any', 'same', 'different'.*, got 'all'"),
        ({"pairs": 0}, r"pairs must be at least 1.*, got 0"),
        ({"points": 1}, r"points must be at least 2.*, got 1"),
        ({"refine": -1}, r"refine must be at least 0.*, got -1"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.jacobian_maximum(cases.mlp(), DATA, **options)


def test_data_without_such_pairs_are_refused() -> None:
    one = fp.LabelledData(torch.rand(1, 7), torch.tensor([0]), classes=5)
    with pytest.raises(ValueError, match="no pair for between='any' among 1 samples; expected at least two samples"):
        fp.jacobian_maximum(cases.affine(), one, along="segments")
    apart = fp.LabelledData(torch.rand(2, 7), torch.tensor([0, 1]), classes=5)
    with pytest.raises(ValueError, match="between='same' among 2 samples; expected at least two samples of one class"):
        fp.jacobian_maximum(cases.affine(), apart, along="segments", between="same")
    alike = fp.LabelledData(torch.rand(2, 7), torch.tensor([1, 1]), classes=5)
    with pytest.raises(ValueError, match="between='different' among 2 samples; expected at least samples of two"):
        fp.jacobian_maximum(cases.affine(), alike, along="segments", between="different")
    lonely = fp.LabelledData(torch.rand(3, 7), torch.tensor([0, 1, 1]), classes=5)
    same = fp.jacobian_maximum(cases.affine(), lonely, along="segments", between="same", pairs=5, points=2, refine=0)
    assert {*same.first.tolist(), *same.second.tolist()} == {1, 2}


class Root(nn.Module):
    """Finite logits whose slope is infinite at x_1 = 1/2."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1).double())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * torch.stack([(x[:, 0] - 0.5).abs().sqrt(), x[:, 1]], 1)


def test_a_norm_that_is_not_finite_names_the_place() -> None:
    data = fp.LabelledData(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    with pytest.raises(
        ValueError, match=r"Jacobian at 0\.5 between samples [01] and [01] must be finite, got (nan|inf)"
    ):
        fp.jacobian_maximum(Root().eval(), data, along="segments", pairs=1, points=3)
    middle = fp.LabelledData(torch.tensor([[0.0, 0.0], [0.5, 0.0]]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"Jacobian at sample 1 must be finite, got (nan|inf)"):
        fp.jacobian_maximum(Root().eval(), middle)


def test_inputs_that_cannot_be_moved_are_refused() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.table(x).mean(1)

    words = fp.LabelledData(torch.randint(9, (5, 6)), torch.zeros(5, dtype=torch.long), classes=3)
    for along in ("samples", "segments"):
        with pytest.raises(TypeError, match="jacobian_maximum moves the inputs by small amounts"):
            fp.jacobian_maximum(Words().eval(), words, along=along)
