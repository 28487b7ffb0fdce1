"""Jacobian norms: affine closed forms, autograd's full Jacobian and SVD, both methods, hard spectra."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import flatprobe as fp
from flatprobe.functional import jacobian_norms
from flatprobe.functional.jacobian_norms import _bidiagonalise, norms
from flatprobe.functional.losses import softmax_jacobian
from tests.helpers import cases
from tests.helpers.allocations import Allocations
from tests.helpers.properties import assert_batch_size_invariant, assert_model_untouched
from tests.helpers.references import jacobian

DATA = cases.data_for((1, 8, 8), samples=70)
METHODS = ("gram", "lanczos")


@pytest.mark.parametrize("method", METHODS)
def test_closed_form_the_jacobian_of_an_affine_network_is_its_matrix(method: str) -> None:
    model, data = cases.affine(), cases.data_for((7,), samples=9, classes=5)
    norms = fp.jacobian_norms(model, data, method=method)
    expected = float(torch.linalg.matrix_norm(model.weight.detach(), 2))
    np.testing.assert_allclose(norms, np.full(9, expected), rtol=0, atol=1e-9)
    frobenius = fp.jacobian_norms(model, data, norm="frobenius")
    np.testing.assert_allclose(frobenius, np.full(9, float(model.weight.detach().norm())), rtol=0, atol=1e-9)


@pytest.mark.parametrize("outputs", ["logits", "softmax"])
@pytest.mark.parametrize("name", cases.NETWORKS)
def test_slow_reference_autograd_and_svd_sample_by_sample(name: str, outputs: str) -> None:
    model, data = cases.NETWORKS[name](), DATA.head(12)
    matrices = [jacobian(model, x.double(), softmax=outputs == "softmax") for x in data.inputs]
    spectral = [float(torch.linalg.svdvals(J)[0]) for J in matrices]
    for method in METHODS:
        values = fp.jacobian_norms(model, data, outputs=outputs, method=method)
        np.testing.assert_allclose(values, spectral, rtol=1e-7)
    frobenius = fp.jacobian_norms(model, data, norm="frobenius", outputs=outputs)
    np.testing.assert_allclose(frobenius, [float(J.norm()) for J in matrices], rtol=1e-9)


def test_slow_reference_many_classes_lanczos_meets_the_svd_and_the_gram_matrix() -> None:
    model = fp.models.mlp((1, 8, 8), widths=(80,), classes=130).double().eval()
    data = cases.data_for((1, 8, 8), samples=20, classes=130)
    svd = [float(torch.linalg.svdvals(jacobian(model, x.double()))[0]) for x in data.inputs]
    automatic = fp.jacobian_norms(model, data)
    assert automatic.settings["arguments"]["method"] == "lanczos"
    np.testing.assert_allclose(automatic, svd, rtol=1e-9)
    np.testing.assert_allclose(fp.jacobian_norms(model, data, method="gram"), svd, rtol=1e-9)


def test_closed_form_lanczos_does_not_stop_early_on_a_clustered_spectrum() -> None:
    """A loose stop was wrong by up to 14 %: singular values 1, 0.99, ..., hidden behind a slow start."""
    sigma = torch.linspace(1.0, 0.2, 90, dtype=torch.float64)
    left, right = (
        torch.linalg.qr(torch.randn(90, 90, generator=torch.Generator().manual_seed(s), dtype=torch.float64))[0]
        for s in (1, 2)
    )
    model = cases.Affine(left @ sigma.diag() @ right, torch.zeros(90, dtype=torch.float64))
    data = cases.data_for((90,), samples=25, classes=90)
    np.testing.assert_allclose(fp.jacobian_norms(model, data, method="lanczos"), np.ones(25), rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_closed_form_an_ill_conditioned_jacobian_in_float32_keeps_the_largest_value(method: str) -> None:
    sigma = torch.logspace(2, -10, 12, dtype=torch.float64)
    left, right = (
        torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(s), dtype=torch.float64))[0]
        for s in (1, 2)
    )
    model = cases.Affine(left @ sigma.diag() @ right, torch.zeros(12, dtype=torch.float64)).float()
    data = cases.data_for((12,), samples=3, classes=12)
    np.testing.assert_allclose(fp.jacobian_norms(model, data, method=method), np.full(3, 100.0), rtol=1e-6)


@pytest.mark.parametrize("options", [{"method": method} for method in METHODS] + [{"norm": "frobenius"}])
def test_closed_form_softmax_where_the_network_is_certain(options: dict) -> None:
    """p (1 - p) of a probability within 1e-13 of one: forming 1 - p would lose its digits."""
    gap = 30.0
    weight = torch.tensor([[gap, 0.0], [0.0, 0.0]], dtype=torch.float64)
    model, data = (
        cases.Affine(weight, torch.zeros(2, dtype=torch.float64)),
        fp.LabelledData(torch.tensor([[1.0, 0.0]]), torch.tensor([0])),
    )
    slope = np.exp(-gap) / (1 + np.exp(-gap)) ** 2  # dp_0 / dz_0
    np.testing.assert_allclose(
        fp.jacobian_norms(model, data, outputs="softmax", **options), [np.sqrt(2) * slope * gap], rtol=1e-9
    )


def test_closed_form_softmax_jacobian() -> None:
    z = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = z.softmax(1)
    expected = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(softmax_jacobian(z), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_slow_reference_half_precision_is_as_good_as_its_entries(dtype: torch.dtype) -> None:
    model = fp.models.mlp((1, 8, 8), widths=(80,), classes=60).double().eval()
    data = cases.data_for((1, 8, 8), samples=8, classes=60)
    exact = fp.jacobian_norms(model, data).values
    half = fp.jacobian_norms(model.to(dtype), data).values
    torch.testing.assert_close(half, exact, rtol=8 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_closed_form_a_zero_jacobian_has_norm_zero(method: str) -> None:
    model = cases.Affine(torch.zeros(5, 7, dtype=torch.float64), torch.ones(5, dtype=torch.float64))
    data = cases.data_for((7,), samples=3, classes=5)
    np.testing.assert_array_equal(fp.jacobian_norms(model, data, method=method), np.zeros(3))


@pytest.mark.parametrize("name", cases.NETWORKS)
def test_property_untouched_and_batch_size_invariant(name: str) -> None:
    model = cases.NETWORKS[name]()
    for options in ({"method": "gram"}, {"method": "lanczos"}, {"norm": "frobenius", "outputs": "softmax"}):
        assert_model_untouched(model, lambda options=options: fp.jacobian_norms(model, DATA, **options))
        assert_batch_size_invariant(
            lambda data, size, options=options: fp.jacobian_norms(model, data, batch_size=size, **options).values, DATA
        )


def test_property_works_under_no_grad_and_inference_mode() -> None:
    model = cases.mlp()
    expected = fp.jacobian_norms(model, DATA).values
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert torch.equal(fp.jacobian_norms(model, DATA).values, expected)


def test_spectral_is_at_most_frobenius_and_softmax_at_most_half_the_logits() -> None:
    model = cases.cnn()
    spectral, frobenius = (fp.jacobian_norms(model, DATA, norm=norm).values for norm in ("spectral", "frobenius"))
    assert bool((spectral <= frobenius * (1 + 1e-12)).all())
    assert bool((fp.jacobian_norms(model, DATA, outputs="softmax").values <= spectral / 2 * (1 + 1e-12)).all())


def test_lanczos_takes_few_steps_on_many_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    original = jacobian_norms._top_singular
    monkeypatch.setattr(jacobian_norms, "_top_singular", lambda a, b: steps.append(len(a)) or original(a, b))
    model = fp.models.mlp((1, 8, 8), widths=(80,), classes=130).eval()
    fp.jacobian_norms(model, cases.data_for((1, 8, 8), samples=8, classes=130))
    assert max(steps) < 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "nuclear"}, r"norm must be one of 'spectral', 'frobenius'.*, got 'nuclear'"),
        ({"outputs": "labels"}, r"outputs must be .*, got 'labels'"),
        ({"method": "svd"}, r"method must be one of 'gram', 'lanczos', None.*, got 'svd'"),
        ({"norm": "frobenius", "method": "lanczos"}, "computes the spectral norm only"),
    ],
)
def test_bad_options(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fp.jacobian_norms(cases.mlp(), DATA, **options)


def test_inputs_that_cannot_be_moved_are_refused() -> None:
    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer = nn.Embedding(9, 4), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.table(x).mean(1))

    words = fp.LabelledData(torch.randint(9, (5, 6)), torch.zeros(5, dtype=torch.long), classes=3)
    for probe in (fp.jacobian_norms, lambda m, d: fp.gaussian_robustness(m, d, gammas=[0.1])):
        with pytest.raises(TypeError, match=r"moves the inputs by small amounts, .*, got a torch\.int64 tensor"):
            probe(Embedding().eval(), words)


def test_networks_whose_logits_are_cut_off_from_the_inputs_are_refused() -> None:
    class Detached(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(64, 10), scale

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.scale * x.detach().flatten(1))

    for scale, message in ((1.0, "the first derivative that autograd gives of Detached in its inputs is not that of"),
                           (0.0, "the logits do not depend differentiably on the inputs")):  # fmt: skip
        for method in METHODS:
            with pytest.raises(ValueError, match=message):
                fp.jacobian_norms(Detached(scale).eval(), DATA, method=method)


@pytest.mark.parametrize("outputs", ["logits", "softmax"])
def test_frobenius_norms_of_many_classes_hold_one_row_at_a_time(outputs: str) -> None:
    """2,000 classes, 16 samples of 64 numbers: all rows together would be 8 MB, a Gram matrix a sample 512 MB."""
    network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2000)).eval()
    inputs = torch.rand(16, 64, generator=torch.Generator().manual_seed(0))
    with Allocations() as allocated:
        found = norms(network, inputs, norm="frobenius", softmax=outputs == "softmax", start=None)
    assert allocated.peak < 2**21
    matrices = [cases_jacobian(network, x, softmax=outputs == "softmax") for x in inputs[:2].double()]
    torch.testing.assert_close(found[:2], torch.stack([m.norm() for m in matrices]), rtol=1e-5, atol=0)


def cases_jacobian(network: torch.nn.Module, x: torch.Tensor, *, softmax: bool) -> torch.Tensor:
    exact = copy.deepcopy(network).double()
    return torch.func.jacrev(lambda v: exact(v[None])[0].softmax(0) if softmax else exact(v[None])[0])(x).detach()


def test_lanczos_stops_at_the_residual_of_its_leading_vector() -> None:
    """One singular value stands apart: a few steps settle it, of 80 that would be exact."""
    sigma = torch.cat([torch.tensor([100.0]), torch.linspace(1, 0.1, 79)]).double()
    products = []

    def scaled(u: torch.Tensor) -> torch.Tensor:
        products.append(u)
        return u * sigma

    start = torch.randn(3, 80, generator=torch.Generator().manual_seed(0))
    found = _bidiagonalise(scaled, lambda v: v * sigma, start, 1e-8)
    torch.testing.assert_close(found, torch.full((3,), 100.0, dtype=torch.float64), rtol=1e-12, atol=0)
    assert len(products) < 12


@pytest.mark.parametrize("architecture", jacobian_norms.LANCZOS_CLASSES)
def test_lanczos_is_taken_from_the_measured_number_of_classes_on(architecture: str) -> None:
    least = jacobian_norms.LANCZOS_CLASSES[architecture]
    found = [jacobian_norms.method_for("spectral", classes, architecture) for classes in (least - 1, least)]
    assert found == ["gram", "lanczos"]
    assert jacobian_norms.method_for("frobenius", least, architecture) == "gram"


def test_closed_form_lanczos_in_half_precision_stops_no_earlier_than_in_single() -> None:
    """Its own sqrt(eps) of 9 % is a residual at which a dense spectrum is still hidden."""
    sigma = torch.linspace(1.0, 0.2, 90, dtype=torch.float64)
    weight = torch.linalg.qr(torch.randn(90, 90, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    model = cases.Affine(sigma.diag() @ weight, torch.zeros(90, dtype=torch.float64)).bfloat16()
    exact = float(torch.linalg.matrix_norm(model.weight.detach().double(), 2))
    data = cases.data_for((90,), samples=25, classes=90)
    np.testing.assert_allclose(fp.jacobian_norms(model, data, method="lanczos"), np.full(25, exact), rtol=2e-3)


def test_closed_form_lanczos_keeps_its_vectors_orthogonal() -> None:
    """Singular values 1, 0.999, 0.998, ..., from starts that are poor in the first: after 40 steps, once leaves 36."""
    sigma, generator = 1 - 1e-3 * torch.arange(40, dtype=torch.float64), torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(40, 40, generator=generator, dtype=torch.float64))[0] for _ in range(2))
    start = torch.randn(50, 40, generator=generator, dtype=torch.float64)
    start = start @ left * torch.logspace(-9, 0, 40, dtype=torch.float64) @ left.T
    weight = left @ sigma.diag() @ right.T
    found = jacobian_norms.lanczos_spectral(lambda x: x @ weight.T, torch.zeros(50, 40, dtype=torch.float64), start)
    np.testing.assert_allclose(found, np.ones(50), rtol=1e-9)
