"""Convolutions and matrices as operators: matrices column by column, certificates never below, closed forms."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations

from flatprobe.graph import operators
from flatprobe.graph.operators import Convolution, certificates
from flatprobe.graph.operators import torus as torus_module
from flatprobe.graph.operators.torus import torus_bound
from tests.helpers.convolutions import columns, convolution, is_wide, random_convolution, svd_norm

# Rounding of a dense float64 SVD of these sizes, relative: the reference itself is no more exact than that.
SVD = 1e-13

# A product that underflows is rounded to a multiple of 2^-1074, and a bound one further up.
SUBNORMAL = 4 * 2.0**-1074


@pytest.mark.parametrize("seed", range(30))
def test_slow_reference_thirty_random_layers_against_the_matrix_column_by_column(seed: int) -> None:
    op = random_convolution(seed)
    matrix = columns(op)
    torch.testing.assert_close(op.dense(), matrix, rtol=0, atol=1e-13)
    truth = svd_norm(matrix)
    estimate, certified, torus = operators.spectral_norm(op), operators.certified_spectral_norm(op), torus_bound(op)
    assert estimate == pytest.approx(truth, rel=1e-6)
    assert certified >= truth * (1 - SVD)
    assert torus >= truth * (1 - SVD)
    assert certified <= truth * (1 + 1e-6)  # dense and tight on maps as small as these
    if is_wide(op):
        assert torus <= 1.05 * truth
    frobenius = float(matrix.norm())
    assert operators.frobenius_norm(op) == pytest.approx(frobenius, rel=1e-12)
    assert frobenius * (1 - SVD) <= operators.certified_frobenius_norm(op) <= frobenius * (1 + 1e-12)
    if truth:
        assert operators.stable_rank(op) == pytest.approx((frobenius / truth) ** 2, rel=1e-9)


WIDE = [
    convolution((1, 1), (3, 3), (12, 12), padding=1),
    convolution((6, 6), (3, 3), (12, 12), padding=1),
    convolution((8, 4), (3, 3), (12, 12)),
    convolution((8, 4), (3, 3), (13, 13), stride=2, padding=1),
    convolution((2, 2), (3, 3), (24, 24), padding=2, dilation=2, groups=2),
    convolution((6, 2), (5, 5), (24, 24), padding=2, stride=3, groups=2),
    convolution((9, 9), (3, 3), (13, 13), padding=1, groups=9),
    convolution((2, 1), (3, 3, 3), (12, 12, 12), padding=1, stride=2),
    convolution((4, 4), (9,), (60,), padding=4),
    convolution((3, 5), (4,), (48,), padding=7, dilation=2, stride=3),
]


@pytest.mark.parametrize("op", WIDE, ids=lambda op: str(tuple(op.weight.shape)))
def test_slow_reference_the_torus_with_windows_is_within_two_per_cent_on_wide_maps(op: Convolution) -> None:
    truth = max(svd_norm(block) for block in op.blocks())
    assert is_wide(op)
    assert truth * (1 - SVD) <= torus_bound(op) <= 1.02 * truth
    assert operators.spectral_norm(op) == pytest.approx(truth, rel=1e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2, 5])
@pytest.mark.parametrize("taps", [(1.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -2.0, 1.0)])
def test_slow_reference_separable_kernels_are_the_plain_torus_worst_case(
    taps: tuple[float, ...], padding: int, axes: int
) -> None:
    """Their norms multiply over the axes, so the torus alone is up to 11 % above (3-D, two taps); windows are not."""
    line = torch.tensor(taps)
    weight = line
    for _ in range(axes - 1):
        weight = weight[..., None] * line
    single = Convolution(line[None, None], (12,), (1,), (padding,), (1,), 1)
    op = Convolution(weight[None, None], (12,) * axes, (1,) * axes, (padding,) * axes, (1,) * axes, 1)
    truth = svd_norm(columns(single)) ** axes
    # Three axes are 1728 positions, above the window's limit: one of them keeps its maximum, at most 3.6 % above.
    assert truth * (1 - SVD) <= torus_bound(op) <= truth * (1.05 if axes == 3 else 1.02)


def test_slow_reference_windows_take_back_the_border_and_axes_left_out_stay_bounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    op = convolution((4, 3), (3, 3), (12, 14), padding=1, seed=3)
    truth = svd_norm(op.dense())
    bounds = []
    for positions in (1024, 14, 1):  # both axes, one, none: the plain torus
        monkeypatch.setattr(torus_module, "_WINDOW", positions)
        bounds.append(torus_bound(op))
    assert truth < bounds[0] < bounds[1] < bounds[2] < 1.05 * truth


def test_slow_reference_strides_fold_the_symbols() -> None:
    """Without the fold the bound of stride 2 is the norm of stride 1, 42 % above on average (docs, Definitions)."""
    excess, unfolded = [], []
    for seed in range(6):
        op = convolution((6, 6), (3, 3), (12, 12), padding=1, stride=2, seed=seed)
        dense = convolution((6, 6), (3, 3), (12, 12), padding=1, seed=seed)
        truth = operators.certified_spectral_norm(op)
        excess.append(torus_bound(op) / truth - 1)
        unfolded.append(torus_bound(dense) / truth - 1)
    assert max(excess) < 0.02
    assert np.mean(unfolded) > 0.2


def test_closed_form_padding_beyond_the_reach_adds_zeros_only_and_a_map_of_padding_is_zero() -> None:
    full, beyond = (convolution((3, 2), (3, 3), (7, 7), padding=padding) for padding in (2, 9))
    assert torus_bound(beyond) == torus_bound(full)
    assert operators.certified_spectral_norm(beyond) == pytest.approx(operators.spectral_norm(full), rel=1e-9)
    unseen = Convolution(torch.ones(1, 1, 1), (1,), (3,), (1,), (1,), 1)  # outputs at -1 and 2, the input at 0
    assert columns(unseen).abs().max() == 0
    for norm in (operators.spectral_norm, operators.certified_spectral_norm, operators.certified_frobenius_norm):
        assert norm(unseen) == 0.0
    assert torus_bound(unseen) == 0.0


def test_closed_form_ones_on_sixteen_have_kernel_norm_three_and_operator_norm_eight_point_eight() -> None:
    weight = torch.ones(1, 1, 3, 3)
    op = Convolution(weight, (16, 16), (1, 1), (1, 1), (1, 1), 1)
    exact = (1 + 2 * math.cos(math.pi / 17)) ** 2  # a tridiagonal Toeplitz matrix an axis
    assert operators.spectral_norm(op) == pytest.approx(exact, rel=1e-9)
    assert exact * (1 - 1e-15) <= operators.certified_spectral_norm(op) <= exact * (1 + 1e-9)
    assert round(exact, 1) == 8.8
    assert operators.frobenius_norm(op) == 46  # (3 * 16 - 2) taps an axis lie inside
    assert operators.reshaped_spectral_norm(weight) == pytest.approx(3)
    assert operators.reshaped_frobenius_norm(weight) == 3


@pytest.mark.parametrize(("size", "shape"), [(16, (6, 3, 3, 3)), (8, (16, 8, 3, 3))])
def test_regression_spectral_norm_of_a_reshaped_kernel_torch_parametrizations_and_kernel_reg(
    size: int, shape: tuple[int, ...]
) -> None:
    """torch's `spectral_norm` leaves a layer "normalised to 1" that stretches inputs more than twice; ours sees it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Conv2d(shape[1], shape[0], shape[2:], padding=1, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(layer.weight.abs())  # smooth filters, as trained ones often are
        parametrizations.spectral_norm(layer, n_power_iterations=100)
        layer(torch.zeros(1, shape[1], size, size, dtype=torch.float64))
    layer.eval().requires_grad_(requires_grad=False)
    weight = layer.weight
    op = Convolution(weight, (size, size), (1, 1), (1, 1), (1, 1), 1)
    assert operators.reshaped_spectral_norm(weight) == pytest.approx(1, rel=1e-6)
    assert operators.spectral_norm(op) == pytest.approx(svd_norm(op.dense()), rel=1e-9)
    assert operators.spectral_norm(op) > 2 * operators.reshaped_spectral_norm(weight)
    x = torch.ones(1, shape[1], size, size, dtype=torch.float64)  # no search: a constant image shows it
    y = layer(x) - layer(torch.zeros_like(x))
    assert float(y.norm() / x.norm()) > 2


@st.composite
def hostile_arguments(draw: st.DrawFn) -> tuple[object, ...]:
    """Small layers with entries that cancel, repeat, or differ by hundreds of orders of magnitude."""
    axes = draw(st.integers(1, 3))
    taps = {1: 5, 2: 3, 3: 2}[axes]
    kernel = tuple(draw(st.integers(1, taps)) for _ in range(axes))
    stride, dilation = (tuple(draw(st.integers(1, 3)) for _ in range(axes)) for _ in range(2))
    padding = tuple(draw(st.integers(0, 4)) for _ in range(axes))
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel, padding, dilation, strict=True)]
    size = tuple(draw(st.integers(low, low + (6 if axes < 3 else 1))) for low in least)
    groups, inputs, outputs = (draw(st.integers(1, 2)) for _ in range(3))
    entry = st.one_of(
        st.sampled_from([0.0, 1.0, -1.0, 1e-30, -3e-170, 1e150, 2.0**-1074]),
        st.floats(-3, 3),
        st.floats(allow_nan=False, allow_infinity=False, min_value=-1e290, max_value=1e290),
    )
    shape = (groups * outputs, inputs, *kernel)
    count = math.prod(shape)
    entries = draw(st.lists(entry, min_size=count, max_size=count))
    return torch.tensor(entries, dtype=torch.float64).view(shape), size, stride, padding, dilation, groups


@settings(max_examples=80, deadline=None)
@given(arguments=hostile_arguments())
@example(arguments=(torch.tensor([[[1e150, 1.0]]], dtype=torch.float64), (1,), (3,), (1,), (1,), 1))  # tap 0 is idle
def test_property_no_certified_bound_is_below_the_dense_truth(arguments: tuple[object, ...]) -> None:
    op = Convolution(*arguments)
    matrix = columns(op)
    scale = float(matrix.abs().max()) or 1.0
    truth = svd_norm(matrix / scale)
    frobenius = float((matrix / scale).norm())
    certified, torus = operators.certified_spectral_norm(op), torus_bound(op)
    assert min(certified, torus) / scale >= truth * (1 - SVD), (certified, torus, truth)
    assert certified <= truth * scale * (1 + 1e-6) + SUBNORMAL
    assert operators.certified_frobenius_norm(op) / scale >= frobenius * (1 - SVD)
    assert operators.spectral_norm(op) == pytest.approx(truth * scale, rel=1e-6, abs=SUBNORMAL)


@pytest.mark.parametrize("exponent", [-1000, 0, 1000])
def test_property_norms_are_homogeneous_where_squares_would_overflow(exponent: int) -> None:
    base = convolution((3, 2), (3, 3), (12, 12), padding=1)
    op = Convolution(base.weight.double() * 2.0**exponent, (12, 12), (1, 1), (1, 1), (1, 1), 1)
    for norm in (operators.spectral_norm, operators.certified_spectral_norm, torus_bound, operators.frobenius_norm):
        assert norm(op) == pytest.approx(norm(base) * 2.0**exponent, rel=1e-12)
    assert operators.stable_rank(op) == pytest.approx(operators.stable_rank(base), rel=1e-12)


def test_property_apply_and_adjoint_are_the_matrix_and_its_transpose() -> None:
    for seed in range(9):
        op = random_convolution(seed)
        matrix = op.dense()
        x, y = (torch.randn(2, *shape, dtype=torch.float64) for shape in (op.input_shape, op.output_shape))
        torch.testing.assert_close(op.apply(x).flatten(1), x.flatten(1) @ matrix.T, rtol=0, atol=1e-12)
        torch.testing.assert_close(op.adjoint(y).flatten(1), y.flatten(1) @ matrix, rtol=0, atol=1e-12)
        assert op.adjoint(y[0]).shape == op.input_shape


def test_property_the_weight_is_left_alone_and_the_random_state_too() -> None:
    weight = torch.randn(40, 40, 3, 3, requires_grad=True)
    before, state = weight.detach().clone(), torch.get_rng_state()
    op = Convolution(weight, (5, 5), (1, 1), (1, 1), (1, 1), 1)
    first = operators.spectral_norm(op)  # 1000 unknowns: by Lanczos
    assert operators.spectral_norm(op) == first
    operators.certified_spectral_norm(op)
    assert torch.equal(weight.detach(), before)
    assert weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_slow_reference_lanczos_on_larger_layers_and_matrices() -> None:
    """Above 512 a side; a clustered and a degenerate spectrum among them."""
    matrix = torch.randn(600, 700, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert operators.spectral_norm(matrix) == pytest.approx(svd_norm(matrix), rel=1e-6)
    assert operators.spectral_norm(matrix.T) == pytest.approx(svd_norm(matrix), rel=1e-6)
    depthwise = Convolution(torch.ones(3, 1, 3, 3), (24, 24), (1, 1), (1, 1), (1, 1), 3)  # each value three times
    assert operators.spectral_norm(depthwise) == pytest.approx((1 + 2 * math.cos(math.pi / 25)) ** 2, rel=1e-6)
    identity = Convolution(torch.eye(600)[:, :, None], (2,), (1,), (0,), (1,), 1)
    assert operators.spectral_norm(identity) == pytest.approx(1, rel=1e-9)
    assert operators.spectral_norm(torch.zeros(600, 600)) == 0.0


def test_slow_reference_matrices_are_certified_by_cholesky_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    for shape in ((1, 1), (5, 7), (300, 20), (130, 130)):
        matrix = torch.randn(shape, dtype=torch.float64, generator=generator)
        truth = svd_norm(matrix)
        assert truth * (1 - SVD) <= operators.certified_spectral_norm(matrix) <= truth * (1 + 1e-9)
    monkeypatch.setattr(certificates, "_DIRECT", 100)  # the candidate from Lanczos
    assert truth * (1 - SVD) <= operators.certified_spectral_norm(matrix) <= truth * (1 + 1e-6)
    assert operators.certified_spectral_norm(torch.zeros(3, 4)) == 0.0


def test_closed_form_a_candidate_that_is_too_low_is_refused_by_the_factorisation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lanczos and power iteration approach from below: the certificate must not rest on the eigenvalue routine."""
    monkeypatch.setattr(certificates, "_largest", lambda gram: torch.full(gram.shape[:-2], 0.5, dtype=torch.float64))
    gram = torch.diag_embed(torch.tensor([[1.0, 0.2], [0.1, 0.3]], dtype=torch.float64))
    bounds = certificates.eigenvalue_bound(gram)
    assert float(bounds[0]) >= 1
    assert float(bounds[1]) >= 0.3


def test_property_a_candidate_that_passes_by_rounding_is_raised_above_the_truth(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ones have the eigenvalue n; some candidates a unit or two below it pass the factorisation all the same."""
    for n in range(2, 60):
        gram = torch.ones(n, n, dtype=torch.float64) / 64
        below = n / 64 / (1 + 8 * (n + 4) * n * certificates.UNIT)
        for _ in range(6):  # the candidates made of these are some of the largest numbers below the eigenvalue
            below = math.nextafter(below, 0.0)
            monkeypatch.setattr(certificates, "_largest", lambda _gram, e=below: torch.tensor(e, dtype=torch.float64))
            assert float(certificates.eigenvalue_bound(gram)) >= n / 64


def test_property_a_sum_of_many_squares_is_certified_beyond_its_rounding() -> None:
    for value in (0.1, 1 / 3, 0.7, 1.1, 1.3):
        matrix = torch.full((1, 2**16), value, dtype=torch.float64)
        assert Fraction(float(certificates.singular_value_bound(matrix))) >= Fraction(value) ** 2 * 2**16
        assert Fraction(operators.certified_spectral_norm(matrix)) ** 2 >= Fraction(value) ** 2 * 2**16


def test_property_a_factorisation_in_place_is_repeated_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = torch.randn(3, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gram = truth @ truth.mT
    expected = certificates.eigenvalue_bound(gram)
    kept = gram.clone()
    torch.testing.assert_close(certificates.eigenvalue_bound(gram.clone(), lambda: gram.clone()), expected)
    assert torch.equal(gram, kept)
    largest = torch.linalg.eigvalsh(gram)[:, -1]
    monkeypatch.setattr(certificates, "_largest", lambda _gram: largest / 2)
    found = certificates.eigenvalue_bound(gram.clone(), lambda: gram.clone())
    assert bool((found >= largest).all())
    torch.testing.assert_close(found, certificates.eigenvalue_bound(gram), rtol=0, atol=0)


def test_property_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    op = convolution((6, 4), (3, 3), (13, 13), stride=2, padding=1, groups=2)
    whole = torus_bound(op)
    monkeypatch.setattr(torus_module, "_CHUNK", 1)
    assert torus_bound(op) == pytest.approx(whole, rel=1e-12)
    monkeypatch.setattr(torus_module, "_GROUPS", 0)  # the plain torus of the worst group
    assert torus_bound(op) >= whole


ONE = torch.ones(4, 2, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ONE, (8,), (1,), (1,), (1,), 1), r"the weight has shape \(4, 2, 3, 3\) for an input of 1 axes"),
        ((ONE[..., None, None], (8,) * 4, (1,) * 4, (1,) * 4, (1,) * 4, 1), "for an input of 4 axes"),
        ((ONE, (8, 8), (1,), (1, 1), (1, 1), 1), r"stride is \(1,\); expected a tuple of 2 whole numbers"),
        ((ONE, (8, 8), (0, 1), (1, 1), (1, 1), 1), r"stride is \(0, 1\); expected .* at least 1"),
        ((ONE, (8, 8), (1, 1), (-1, 1), (1, 1), 1), r"padding is \(-1, 1\); expected .* at least 0"),
        ((ONE, (8, 8), (1, 1), (1, 1), (1, 0), 1), "dilation is"),
        ((ONE, (8, 8), (1, 1), (1, 1), (1, 1), 3), "groups is 3 and the weight has 4 output channels"),
        ((ONE, (2, 8), (1, 1), (0, 0), (1, 1), 1), r"the output size is \(0, 6\) .* real input size\?"),
        ((ONE.long(), (8, 8), (1, 1), (1, 1), (1, 1), 1), "expected a real floating type"),
        ((ONE * math.nan, (8, 8), (1, 1), (1, 1), (1, 1), 1), r"the weight is nan at \(0, 0, 0, 0\)"),
    ],
)
def test_sizes_that_make_no_convolution_are_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Convolution(*arguments)


def test_tensors_that_are_no_matrix_are_refused() -> None:
    for bad in (ONE, torch.ones(3), torch.ones(2, 2).long(), torch.tensor([[math.inf]]), torch.ones(0, 3)):
        for norm in (operators.spectral_norm, operators.certified_spectral_norm, operators.frobenius_norm):
            with pytest.raises(ValueError, match=r"expected a Convolution, or a matrix \(rows, columns\)"):
                norm(bad)
    with pytest.raises(ValueError, match="the operator is zero: its stable rank is 0 / 0"):
        operators.stable_rank(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="tolerance must be a positive finite number, got 0"):
        operators.spectral_norm(torch.ones(2, 2), tolerance=0.0)


def test_closed_form_the_torus_allows_for_the_rounding_of_its_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    """225 equal taps have W(0) = 225; a sum that rounds each term as badly as it may comes out too small."""
    symbols = torus_module._symbols
    worst = 1 - 7 * (225 + 16) * certificates.UNIT
    monkeypatch.setattr(torus_module, "_symbols", lambda *arguments: worst * symbols(*arguments))
    op = Convolution(torch.ones(1, 1, 15, 15, dtype=torch.float64), (20, 20), (1, 1), (0, 0), (1, 1), 1)
    assert float(torus_module._squares(op, op.kernel).max()) >= 225.0**2


def test_closed_form_windows_allow_for_the_rounding_of_the_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taps 1, 1 on three positions: the largest eigenvalue is 2 + 2 cos(pi / 4)."""
    transform = torch.fft.ifftn
    worst = 1 - 60 * 10 * certificates.UNIT
    monkeypatch.setattr(torch.fft, "ifftn", lambda values: worst * transform(values))
    squares = 2 + 2 * torch.cos(2 * math.pi * torch.arange(512, dtype=torch.float64) / 512)
    assert 2 + math.sqrt(2) <= torus_module._windowed(squares, (3,)) <= 2 + math.sqrt(2) + 1e-10
