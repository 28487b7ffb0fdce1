"""Hessian eigenvalues and trace: quadratic bowls, a dense Hessian, transformers, selections, everything refused."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import flatprobe as fp
from flatprobe.network.weights import layers
from flatprobe.probes import hessian_eigenvalues
from flatprobe.probes.hessian_trace import HessianTrace
from flatprobe.risk.hessian import HessianBlock
from flatprobe.utils import rng
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched, assert_seed_determines
from tests.helpers.references import hessian

DATA = cases.data_for((4, 4), samples=40, classes=4)
IMAGES = cases.data_for((1, 8, 8), samples=70)
MODEL = cases.smooth()
RISK = fp.EmpiricalRisk(MODEL, DATA, batch_size=16)
DENSE = hessian(MODEL, DATA)
SPECTRUM = torch.linalg.eigvalsh(DENSE)
SIZES = {name: value.numel() for name, value in RISK.center.items()}


def block(names: tuple[str, ...]) -> Tensor:
    own = torch.cat([torch.full((size,), name in names) for name, size in SIZES.items()])
    return DENSE[own][:, own]


def bowl(diagonal: list[float], split: int = 2) -> cases.Quadratic:
    center = torch.arange(1.0, len(diagonal) + 1, dtype=torch.float64)
    return cases.Quadratic({"a.w": center[:split], "b.w": center[split:]}, torch.tensor(diagonal).double().diag())


@pytest.mark.parametrize("size", [8, 60])  # formed whole, and by Lanczos
def test_closed_form_eigenvalues_of_a_bowl(size: int) -> None:
    diagonal = [-7.0, 5.0, 3.0] + [1.0] * (size - 3)
    for which, expected in {"largest": [5.0, 3.0], "smallest": [-7.0, 1.0], "magnitude": [-7.0, 5.0]}.items():
        result = fp.hessian_eigenvalues(bowl(diagonal), count=2, which=which, tolerance=1e-9)
        torch.testing.assert_close(result.eigenvalues, torch.tensor(expected).double(), rtol=0, atol=1e-9)
        assert float(result.residuals.max()) < 1e-7
        assert result.layers == ("all", "all")
        assert result.summary()["eigenvalue"] == pytest.approx(expected[0], abs=1e-9)


def test_closed_form_equal_eigenvalues_and_none() -> None:
    equal = fp.hessian_eigenvalues(bowl([2.0] * 50), count=3)
    torch.testing.assert_close(equal.eigenvalues, torch.full((3,), 2.0).double(), rtol=0, atol=1e-9)
    flat = fp.hessian_eigenvalues(bowl([0.0] * 50), count=2)
    assert flat.eigenvalues.tolist() == [0.0, 0.0]
    assert fp.hessian_eigenvalues(bowl([4.0, 3.0]), count=2, parameters="a.w").eigenvalues.tolist() == [4.0, 3.0]


@pytest.mark.parametrize("which", hessian_eigenvalues.ENDS)
def test_slow_reference_a_dense_hessian(which: str) -> None:
    result = fp.hessian_eigenvalues(RISK, count=3, which=which)
    order = {"largest": SPECTRUM.flip(0), "smallest": SPECTRUM, "magnitude": SPECTRUM[(-SPECTRUM.abs()).argsort()]}
    expected = order[which][:3]
    torch.testing.assert_close(result.eigenvalues, expected, rtol=1e-6, atol=1e-6 * float(SPECTRUM.abs().max()))
    assert bool((result.residuals <= 1e-2 * float(SPECTRUM.abs().max())).all())
    # An eigenvalue of H lies within the residual of each value.
    nearest = (result.eigenvalues[:, None] - SPECTRUM).abs().amin(1)
    assert bool((nearest <= result.residuals + 1e-12).all())


def test_slow_reference_blocks_of_layers_and_selections() -> None:
    result = fp.hessian_eigenvalues(RISK, per_layer=True, count=2)
    blocks = layers(SIZES)
    assert result.layers == tuple(layer for layer in ("1", "3", "5") for _ in range(2))
    expected = torch.cat([torch.linalg.eigvalsh(block(names)).flip(0)[:2] for names in blocks.values()])
    torch.testing.assert_close(result.eigenvalues, expected, rtol=1e-6, atol=1e-9)
    assert result.summary()["eigenvalue"] == float(result.eigenvalues.max())
    last = fp.hessian_eigenvalues(RISK, parameters="last", count=2)
    torch.testing.assert_close(last.eigenvalues, expected[-2:], rtol=1e-6, atol=1e-9)
    assert float(last.eigenvalues[0]) < float(SPECTRUM[-1])  # a block's is at most the whole's


def test_closed_form_the_trace_of_a_diagonal_hessian_is_exact_at_every_draw() -> None:
    result = fp.hessian_trace(bowl([3.0, -1.0, 0.5, 2.0]), draws=12)
    torch.testing.assert_close(result.forms.sum(1), torch.full((12,), 4.5).double(), rtol=0, atol=1e-12)
    assert result.trace == pytest.approx(4.5)
    assert result.standard_error == pytest.approx(0, abs=1e-12)
    assert result.per_layer == {"a": (2.0, 0.0), "b": (2.5, 0.0)}


def test_closed_form_the_standard_error_is_that_of_a_sample() -> None:
    result = HessianTrace(forms=torch.tensor([[1.0, 0.0], [3.0, 4.0]]).double(), layers=("a", "b"), settings={})
    assert result.standard_error == pytest.approx(3.0, rel=1e-12)  # sums 1 and 7: sqrt(18) / sqrt(2)
    assert result.per_layer == {"a": (2.0, pytest.approx(1.0)), "b": (2.0, pytest.approx(2.0))}


def test_slow_reference_the_trace_within_four_standard_errors_whole_and_by_layer() -> None:
    result = fp.hessian_trace(RISK, draws=300)
    expected = float(DENSE.trace())
    assert result.standard_error < 0.1 * expected
    assert abs(result.trace - expected) < 4 * result.standard_error
    variance = 2 * float(DENSE.square().sum() - DENSE.diagonal().square().sum())
    assert result.standard_error == pytest.approx((variance / 300) ** 0.5, rel=0.3)  # Hutchinson's variance
    for layer, names in layers(SIZES).items():
        value, error = result.per_layer[layer]
        assert abs(value - float(block(names).trace())) < 4 * error
    last = fp.hessian_trace(RISK, draws=300, parameters="last")
    assert last.layers == ("5",)
    assert abs(last.trace - float(block(("5.weight", "5.bias")).trace())) < 4 * last.standard_error


def test_property_draw_k_is_a_function_of_seed_and_k_and_shared_passes_change_nothing() -> None:
    many, few = fp.hessian_trace(RISK, draws=13).forms, fp.hessian_trace(RISK, draws=3).forms
    torch.testing.assert_close(many[:3], few, rtol=0, atol=1e-12)
    signs = rng.rademacher((1000,), 0, "x")
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / 1000**0.5
    alone = [RISK.hvp(None, {name: torch.ones_like(w) * k for name, w in RISK.center.items()}) for k in (1, 2)]
    together = RISK.hvps(None, [{name: torch.ones_like(w) * k for name, w in RISK.center.items()} for k in (1, 2)])
    for one, other in zip(alone, together, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-14)


def test_only_the_selection_is_differentiated() -> None:
    asked: list[set[str]] = []

    def loss(weights: dict[str, Tensor]) -> Tensor:
        asked.append({name for name, value in weights.items() if value.requires_grad})
        return torch.stack([value.pow(3).sum() for value in weights.values()]).sum()

    point = {"a": torch.ones(2).double(), "b": torch.ones(3).double()}
    (product,) = HessianBlock(lambda: [loss], point, ["b"], 1, 0).products([{"b": torch.ones(3).double()}], point)
    assert asked == [{"b"}]
    assert product["b"].tolist() == [6.0, 6.0, 6.0]
    assert set(product) == {"b"}
    assert set(RISK.gradient(names=["5.bias"])) == {"5.bias"}
    assert torch.equal(RISK.gradient(names=["5.bias"])["5.bias"], RISK.gradient()["5.bias"])
    picked = RISK.gradient(names=["5.bias"], positions=torch.tensor([3, 0, 3]))["5.bias"]
    single = fp.EmpiricalRisk(MODEL, fp.LabelledData(DATA.inputs[[3, 0, 3]], DATA.labels[[3, 0, 3]], classes=4))
    torch.testing.assert_close(picked, single.gradient()["5.bias"], rtol=0, atol=1e-14)


class Scaled(nn.Module):
    """Attention by torch's own function, whose fused kernels have no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.mix, self.head = nn.Linear(4, 12), nn.Linear(4, 4)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.scaled_dot_product_attention(*self.mix(x)[:, None].chunk(3, -1))[:, 0].mean(1))


@pytest.mark.parametrize("build", [cases.Attention, Scaled])
def test_slow_reference_attention_has_second_derivatives(build: type[nn.Module]) -> None:
    model = build()
    risk = fp.EmpiricalRisk(model, DATA.head(12))
    direction = {name: rng.normal(w.shape, 1, name).double() for name, w in risk.center.items()}
    product = risk.hvp(None, direction)
    h = 1e-5
    plus, minus = (risk.gradient({name: w + s * direction[name] for name, w in risk.center.items()}) for s in (h, -h))
    for name, value in product.items():  # central differences: h^2 and rounding / h are both about 1e-10
        torch.testing.assert_close(value, (plus[name] - minus[name]) / (2 * h), rtol=1e-5, atol=1e-7)
    assert_model_untouched(model, lambda: fp.hessian_eigenvalues(fp.EmpiricalRisk(model, DATA)))
    assert fp.hessian_trace(risk, draws=2).forms.isfinite().all()


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_untouched_and_batch_size_invariant(name: str) -> None:
    model = cases.NETWORKS[name]()
    assert_model_untouched(
        model, lambda: fp.hessian_eigenvalues(fp.EmpiricalRisk(model, IMAGES), parameters="last", tolerance=1e-2)
    )
    assert_model_untouched(model, lambda: fp.hessian_trace(fp.EmpiricalRisk(model, IMAGES), draws=2))
    assert_batch_size_invariant(
        lambda data, size: fp.hessian_trace(fp.EmpiricalRisk(model, data, batch_size=size), draws=2).forms, IMAGES
    )


def test_property_eigenvalues_do_not_depend_on_the_batch_size() -> None:
    assert_batch_size_invariant(
        lambda data, size: fp.hessian_eigenvalues(fp.EmpiricalRisk(MODEL, data, batch_size=size)).eigenvalues, DATA
    )
    assert_seed_determines(lambda seed: fp.hessian_trace(RISK, draws=2, seed=seed).forms)
    assert_seed_determines(lambda seed: fp.hessian_eigenvalues(RISK, tolerance=0.1, seed=seed).residuals)


def test_single_precision_is_good_to_its_digits() -> None:
    single = fp.hessian_eigenvalues(fp.EmpiricalRisk(cases.smooth().float(), DATA), tolerance=1e-4)
    assert float(single.eigenvalues[0]) == pytest.approx(float(SPECTRUM[-1]), rel=1e-5)


def test_records_round_trip(tmp_path) -> None:
    values = fp.hessian_eigenvalues(RISK, count=2, per_layer=True)
    loaded = fp.load(fp.save(values, tmp_path / "eigenvalues.parquet"))
    assert torch.equal(loaded.eigenvalues, values.eigenvalues)
    assert torch.equal(loaded.residuals, values.residuals)
    assert (loaded.layers, loaded.products, loaded.settings) == (values.layers, values.products, values.settings)
    trace = fp.hessian_trace(RISK, draws=3)
    loaded = fp.load(fp.save(trace, tmp_path / "trace.parquet"))
    assert torch.equal(loaded.forms, trace.forms)
    assert loaded.layers == trace.layers
    assert math.isnan(fp.hessian_trace(RISK, draws=1).standard_error)


class Rooted(nn.Module):
    """A root at 0, where it has no derivative: the loss is finite, its slope is not."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gate = nn.Linear(16, 4).double(), nn.Parameter(torch.zeros(3).double())
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1)) + self.gate.square().sum().sqrt()


def test_a_product_that_is_not_finite_is_an_error_that_names_the_parameter() -> None:
    risk = fp.EmpiricalRisk(Rooted(), DATA)
    message = "Hessian product has 3 NaN or infinite values among the 3 of 'gate'"
    for probe in (fp.hessian_eigenvalues, fp.hessian_trace):
        with pytest.raises(ValueError, match=message):
            probe(risk)
    assert fp.hessian_trace(risk, parameters="layer.*", draws=2).forms.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, r"count must be at least 1.*, got 0"),
        ({"tolerance": 0.0}, r"tolerance must be a positive finite number.*, got 0.0"),
        ({"which": "both"}, r"which must be one of 'largest', 'smallest', 'magnitude'.*, got 'both'"),
        ({"parameters": "conv*"}, "matches no parameter"),
        ({"count": 500}, r"count must be at most the number of weights, 161 in 'all', got 500"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.hessian_eigenvalues(RISK, **options)


def test_other_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"draws must be at least 1.*, got 0"):
        fp.hessian_trace(RISK, draws=0)
    with pytest.raises(TypeError, match=r"the risk Bowl has no Hessian product; expected .* hvp\(weights, direction\)"):
        fp.hessian_trace(cases.Bowl({"w": torch.zeros(2)}))
    monkeypatch.setattr(hessian_eigenvalues, "_RESTARTS", 1)
    with pytest.raises(ValueError, match=r"all 5 eigenvalues must meet .* 1e-14, got \d after \d+ Hessian products"):
        fp.hessian_eigenvalues(RISK, count=5, which="smallest", tolerance=1e-14)
