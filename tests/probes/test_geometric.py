"""The geometric margin: closed on affine networks, a dense grid in the plane, certificates, estimates, records."""

import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe import models
from flatprobe.probes.geometric import ESTIMATES
from tests.helpers import cases
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched, assert_seed_determines
from tests.helpers.references import affine_margin

QUICK = {"lower": ("gradient",), "upper": ("ddn",), "steps": 8}


def own_labels(model: nn.Module, data: fp.LabelledData) -> fp.LabelledData:
    """The data with the network's own labels, but for the first two, which are wrong."""
    with torch.no_grad():
        labels = model(data.inputs.to(next(model.parameters()).dtype)).argmax(1)
        classes = model(data.inputs[:1].to(next(model.parameters()).dtype)).shape[1]
    labels[:2] = (labels[:2] + 1) % classes
    return fp.LabelledData(data.inputs, labels, classes=classes)


def certified_margins(
    module: nn.Module, input_shape: tuple[int, ...], kind: str, norm: str
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A walker that knows affine networks and MLPs of `nn.Linear` and `nn.ReLU` alone, with dense SVDs."""
    if isinstance(module, cases.Affine):
        linears = [module.weight.detach()]
    else:
        linears = [layer.weight.detach().double() for layer in module.modules() if isinstance(layer, nn.Linear)]
    size = {"spectral": lambda W: torch.linalg.svdvals(W)[0], "frobenius": torch.Tensor.norm}[kind]
    before = float(torch.stack([size(W) for W in linears[:-1]]).prod()) if linears[1:] else 1.0
    last = linears[-1]

    def bound(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        slopes = (last[labels][:, None] - last).norm(dim=2) * before
        leads = logits.gather(1, labels[:, None]) - logits
        return (leads / slopes).scatter(1, labels[:, None], torch.inf).amin(1) * (1 - 1e-12)

    return bound


@pytest.fixture(autouse=True)
def _walker(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ModuleType("flatprobe.graph.lipschitz")
    fake.certified_margins = certified_margins
    monkeypatch.setitem(sys.modules, "flatprobe.graph.lipschitz", fake)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_closed_form_the_sandwich_closes_on_affine_networks(norm: str) -> None:
    model = cases.affine()
    data = own_labels(model, cases.data_for((7,), classes=5))
    result = fp.geometric_margins(model, data, lower=("spectral", *ESTIMATES), upper=("ddn", "deepfool"), norm=norm)
    exact = affine_margin(model.weight, model.bias, data.inputs, data.labels, norm)
    torch.testing.assert_close(result.upper, exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(result.lowers["gradient"], exact, rtol=1e-9, atol=0)
    assert result.violations == 0
    assert result.certified
    torch.testing.assert_close(result.lower, exact, rtol=1e-6, atol=0)
    if norm == "l2":
        assert torch.equal(result.lower, result.lowers["spectral"])
    else:  # ||v||_2 <= sqrt(d) ||v||_inf
        assert torch.equal(result.lower, result.lowers["interval"])
        euclidean = affine_margin(model.weight, model.bias, data.inputs, data.labels, "l2")
        torch.testing.assert_close(result.lowers["spectral"], euclidean / 7**0.5, rtol=1e-9, atol=0)
    assert result.upper[:2].tolist() == result.lower[:2].tolist() == [0, 0]
    for name in ("gamma_1", "gamma_2"):
        assert bool((result.lowers[name] <= exact + 1e-12).all())  # J is constant: nothing is missed by sampling


def test_closed_form_the_constant_of_gamma_1_is_tight_and_the_printed_one_is_not_a_lower_bound() -> None:
    """z = (x, -x): ||J|| = sqrt(2), margin |x|, o = 2 sqrt(2) |x|; o / ||J|| would be 2 |x|."""
    model = cases.Affine(torch.tensor([[1.0], [-1.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    data = fp.LabelledData(torch.tensor([[0.5], [2.0]]), torch.tensor([0, 0]), classes=2)
    result = fp.geometric_margins(model, data, lower=("gamma_1", "gamma_2"), upper=("deepfool",))
    exact = torch.tensor([0.5, 2.0], dtype=torch.float64)
    torch.testing.assert_close(result.lowers["gamma_1"], exact, rtol=1e-9, atol=0)
    torch.testing.assert_close(result.lowers["gamma_2"], exact, rtol=1e-9, atol=0)
    assert not result.certified


def plane(seed: int) -> nn.Module:
    return models.mlp((2,), widths=(16, 16), classes=3, seed=seed).double().eval()


@pytest.mark.parametrize("seed", range(3))
def test_slow_reference_a_dense_grid_in_the_plane_lies_inside(seed: int) -> None:
    model = plane(seed)
    with torch.no_grad():
        model[5].bias -= model(torch.rand(500, 2).double()).mean(0)  # all classes near the data
    data = own_labels(model, cases.data_for((2,), samples=25, classes=3))
    result = fp.geometric_margins(model, data, lower=("spectral", "frobenius"), upper=("ddn", "log_barrier", "fab"))
    step = 0.01
    axis = torch.arange(-2, 3, step, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        classes = model(grid).argmax(1)
    assert len(classes.unique()) > 1
    found = []
    for x, y, low, high in zip(data.inputs.double(), data.labels, result.lower, result.upper, strict=True):
        right = bool(model(x[None]).argmax() == y)
        nearest = float((grid[classes != y] - x).norm(dim=1).min()) if right else 0.0
        assert float(low) <= nearest
        if nearest < 1:  # well inside the grid: the margin is at most a cell's diagonal below its nearest point
            assert float(high) >= nearest - step * 2**0.5
            found.append((float(high), nearest))
    attacked, grids = torch.tensor(found).T
    assert float(attacked.median()) <= 1.01 * float(grids.median())  # the attacks are no worse than the search
    assert result.violations == 0


def test_property_certified_ends_never_exceed_the_attacks() -> None:
    """A hard search: deep narrow networks with large weights, all attacks, both norms."""
    for seed in range(2):
        model = models.mlp((6,), widths=(8, 8), classes=4, seed=seed).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 3
        data = own_labels(model, cases.data_for((6,), samples=30, classes=4, seed=seed))
        for norm in ("l2", "linf"):
            result = fp.geometric_margins(
                model, data, lower=("spectral", "frobenius"), upper=("ddn", "ifgsm"), norm=norm
            )
            assert result.violations == 0
            assert bool((result.lowers["frobenius"] <= result.lowers["spectral"] + 1e-12).all())


def test_regression_no_attack_succeeding_is_not_a_margin_of_zero() -> None:
    """ART's `empirical_robustness` returns 0 where no attack succeeds, which reads as a network without robustness."""
    model = cases.Affine(torch.zeros(3, 4, dtype=torch.float64), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    data = fp.LabelledData(torch.rand(5, 4), torch.tensor([0, 0, 0, 0, 1]), classes=3)
    result = fp.geometric_margins(model, data, lower=("gamma_1", "gradient"))
    assert result.upper.tolist() == [float("inf")] * 4 + [0]
    assert result.reached.tolist() == [False] * 4 + [True]
    assert result.attacks[:4] == [""] * 4
    assert result.lower.tolist() == [0] * 5
    assert result.summary()["median_upper"] == float("inf")
    assert result.summary()["not_reached"] == 4


def test_property_ties_have_no_margin() -> None:
    model = cases.Affine(torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    data = fp.LabelledData(torch.tensor([[0.5, 0.5], [1.0, 0.5]]), torch.tensor([0, 0]), classes=2)
    result = fp.geometric_margins(model, data)
    assert float(result.upper[0]) == float(result.lower[0]) == 0
    assert float(result.upper[1]) == pytest.approx(0.5 / 2**0.5, rel=1e-6)


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_untouched_and_batch_size_invariant(name: str) -> None:
    model = cases.NETWORKS[name]()
    data = own_labels(model, cases.data_for((1, 8, 8), samples=9))
    assert_model_untouched(model, lambda: fp.geometric_margins(model, data, **QUICK))
    options = {"lower": ("gamma_1", "gradient"), "upper": ("ddn", "log_barrier", "deepfool"), "steps": 6, "points": 3}
    if name == "residual":  # 10 layers deep: one attack and fewer points for the time's sake
        options |= {"upper": ("log_barrier",), "steps": 3, "points": 2}

    def values(data: fp.LabelledData, size: int) -> torch.Tensor:
        result = fp.geometric_margins(model, data, batch_size=size, **options)
        return torch.stack([*result.uppers.values(), *result.lowers.values()])

    assert_batch_size_invariant(values, data)


def test_property_seed_determines() -> None:
    model = cases.cnn()
    data = own_labels(model, cases.data_for((1, 8, 8), samples=20))
    for lower in ESTIMATES[:2]:
        assert_seed_determines(
            lambda seed, lower=lower: (
                fp.geometric_margins(model, data, lower=(lower,), upper=("fab",), steps=4, seed=seed).lower
            )
        )


def test_property_a_box_only_lengthens_and_keeps_the_certificate() -> None:
    model = cases.mlp()
    data = own_labels(model, cases.data_for((1, 8, 8), samples=30))
    free, boxed = (
        fp.geometric_margins(model, data, lower=(), upper=("ddn", "deepfool"), box=box) for box in (None, (0.0, 1.0))
    )
    both = boxed.reached & free.reached
    assert int(both.sum()) > 10
    right = both & (free.upper > 0)
    # Of one sample, an attack may find a better minimum in the box than without; not of most.
    assert float((boxed.upper / free.upper)[right].median()) > 1
    assert not free.certified
    assert float(free.lower.max()) == 0


def test_result_survives_the_record(tmp_path) -> None:
    model = cases.mlp()
    data = own_labels(model, cases.data_for((1, 8, 8), samples=20))
    result = fp.geometric_margins(model, data, lower=("spectral", "gradient"), upper=("ddn", "fab"), steps=5)
    loaded = fp.load(fp.save(result, tmp_path / "margins.parquet"))
    for field in ("lower", "upper", "labels"):
        assert torch.equal(getattr(loaded, field), getattr(result, field))
    for field in ("lowers", "uppers"):
        first, second = getattr(loaded, field), getattr(result, field)
        assert list(first) == list(second)
        assert all(torch.equal(first[name], second[name]) for name in second)
    assert loaded.certified
    assert loaded.attacks == result.attacks
    assert set(result.attacks[2:]) <= {"ddn", "fab", ""}
    assert loaded.violations_of("gradient") == result.violations_of("gradient")
    assert list(result.to_frame().columns) == [
        "sample", "label", "lower", "upper", "attack", "lower:spectral", "lower:gradient", "upper:ddn", "upper:fab",
    ]  # fmt: skip
    assert next(iter(result.summary())) == "median_upper"


DATA = cases.data_for((1, 8, 8), samples=6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"upper": ("cw",)}, r"upper must be one of 'ddn', 'fab'.*, got 'cw'"),
        ({"upper": ()}, "upper must name one or more attacks of ddn"),
        ({"lower": ("gamma_5",)}, r"lower must be one of 'spectral', 'frobenius', 'gamma_1'.*, got 'gamma_5'"),
        ({"norm": "l1"}, r"norm must be one of 'l2', 'linf'.*, got 'l1'"),
        ({"steps": 0}, r"steps must be at least 1.*, got 0"),
        ({"points": 0}, r"points must be at least 1.*, got 0"),
        ({"segments": 0}, r"segments must be at least 1.*, got 0"),
        ({"box": (1.0, 0.0)}, r"box must be two finite numbers, the least first, .* got \(1\.0, 0\.0\)"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.geometric_margins(cases.mlp(), DATA, **arguments)


def test_a_box_that_does_not_contain_the_data_is_refused() -> None:
    inputs = DATA.inputs.clone()
    inputs[3, 0, 2, 2] = 1.25
    data = fp.LabelledData(inputs, DATA.labels, classes=10)
    with pytest.raises(ValueError, match=r"the box \[0, 1\] must contain the data, got 1\.25 in sample 3"):
        fp.geometric_margins(cases.mlp(), data, box=(0.0, 1.0), batch_size=2, **QUICK)


def test_integer_inputs_are_refused() -> None:
    embedding = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 3)).eval()
    words = fp.LabelledData(torch.randint(9, (5, 6)), torch.zeros(5, dtype=torch.long), classes=3)
    for probe in (fp.geometric_margins, lambda m, d: fp.adversarial_accuracy(m, d, budgets=[0.1])):
        with pytest.raises(TypeError, match=r"moves the inputs by small amounts, .*, got a torch\.int64 tensor"):
            probe(embedding, words)


class Rounding(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x > 0.5).to(x)


class Detaching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.detach().flatten(1))


def test_a_layer_that_is_not_differentiable_is_named() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Sequential(Rounding(), nn.ReLU()), nn.Linear(32, 10))
    network.eval()
    for probe in (fp.geometric_margins, lambda m, d: fp.adversarial_accuracy(m, d, budgets=[0.1])):
        with pytest.raises(ValueError, match=r"the gradient ends in the layer '2\.0' \(Rounding\)"):
            probe(network, DATA)
        with pytest.raises(ValueError, match="the gradient ends in its own forward, outside its layers"):
            probe(Detaching().eval(), DATA)


def test_points_whose_logits_overflow_do_not_count() -> None:
    class Exploding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.sum(1) + 1, (x.abs() - 1).sum(1).mul(800).exp() * self.weight[0] - 2], 1)

    data = fp.LabelledData(torch.zeros(3, 2), torch.zeros(3, dtype=torch.long), classes=2)
    result = fp.geometric_margins(Exploding().eval(), data, lower=(), upper=("log_barrier", "ddn"))
    assert not result.upper.isnan().any()
    for length in result.upper[result.reached].tolist():
        assert length < 3  # the exponential overflows from |x| = 1.9 on in each entry


class Attending(nn.Module):
    """A small transformer, whose attention has no Lipschitz constant."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.last = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layer(x.flatten(1).unflatten(1, (8, 8))).mean(1))


def test_a_network_without_a_constant_has_its_upper_ends_and_is_not_certified(tmp_path) -> None:
    model = Attending().eval()
    data = own_labels(model, cases.data_for((1, 8, 8), samples=8))
    reason = "the Lipschitz constant is not known for the operation aten"
    with pytest.warns(UserWarning, match=f"Attending is not certified by spectral, whose lower bounds are 0: {reason}"):
        result = fp.geometric_margins(model, data)
    assert bool(result.upper[2:].isfinite().all())
    assert bool((result.upper[2:] > 0).all())
    assert not result.lower.any()
    assert not result.certified
    assert result.uncertified["spectral"].startswith(reason)
    assert result.summary()["uncertified"] == 1
    loaded = fp.load(fp.save(result, tmp_path / "margins.parquet"))
    assert loaded.uncertified == result.uncertified
    with pytest.warns(UserWarning, match="is not certified by spectral, frobenius"):
        several = fp.geometric_margins(model, data, lower=("spectral", "gradient", "frobenius"), upper="fab", steps=4)
    assert bool((several.lowers["gradient"][2:] > 0).all())
    assert not several.lower.any()  # an estimate never stands for a certificate
    assert "uncertified" not in fp.geometric_margins(cases.mlp(), DATA, upper="fab", steps=2).summary()


def test_a_network_that_cannot_be_traced_is_not_certified() -> None:
    class Branching(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (1.0 if float(x.detach().sum()) > -1e9 else 2.0)

    model = Branching(7, 3).eval()
    data = own_labels(model, cases.data_for((7,), samples=5, classes=3))
    with pytest.warns(UserWarning, match="Branching is not certified by spectral, .*: Branching cannot be traced"):
        assert bool(fp.geometric_margins(model, data, upper="fab", steps=3).upper[2:].isfinite().all())


def test_one_method_may_be_given_as_a_word() -> None:
    word = fp.geometric_margins(cases.mlp(), DATA, lower="spectral", upper="ddn", steps=6)
    names = fp.geometric_margins(cases.mlp(), DATA, lower=("spectral",), upper=["ddn"], steps=6)
    assert torch.equal(word.upper, names.upper)
    assert torch.equal(word.lower, names.lower)
    assert word.settings["arguments"] == names.settings["arguments"]


class Viewed(nn.Module):
    """PyTorch's commonest idiom, which needs the usual memory layout."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.max_pool2d(self.convolution(x).relu(), 2)
        return self.last(x.view(x.size(0), -1))


@pytest.mark.parametrize("wrapped", [False, True])
def test_regression_a_network_that_views_is_certified_in_single_precision(wrapped: bool) -> None:
    model = Viewed().eval()
    model = fp.Normalised(model, [0.13], [0.3]).eval() if wrapped else model
    data = own_labels(model, cases.data_for((1, 8, 8), samples=6))
    result = fp.geometric_margins(model, data, upper="fab", box=(0.0, 1.0))
    assert result.certified
    assert result.violations == 0
    assert bool((result.lower[2:] > 0).all())
