"""Pooling: closed forms, torch's layers on unit vectors, pairs that search for a steeper max pooling."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flatprobe.graph import operators
from flatprobe.graph.operators import pooling
from flatprobe.utils import rng
from tests.helpers.convolutions import svd_norm

SVD = 1e-13  # rounding of the dense reference


def matrix_of(layer: nn.Module, size: tuple[int, ...]) -> Tensor:
    """One channel's matrix, by torch's layer on the unit vectors."""
    units = torch.eye(math.prod(size), dtype=torch.float64).view(-1, 1, *size)
    return layer(units).flatten(1).T


AVERAGES = [
    (kernel, stride, padding, size, ceil_mode, count_include_pad, divisor)
    for kernel, stride, padding, size in [
        ((2, 2), (2, 2), (0, 0), (8, 6)),
        ((3, 3), (1, 1), (1, 1), (8, 8)),
        ((3, 2), (2, 3), (1, 0), (9, 7)),
        ((4, 3), (2, 1), (2, 1), (5, 6)),
        ((3, 3), (3, 2), (1, 1), (8, 10)),
        ((1, 1), (2, 2), (0, 0), (5, 4)),
    ]
    for ceil_mode, count_include_pad in itertools.product([False, True], repeat=2)
    for divisor in (None, 5)
]


@pytest.mark.parametrize("arguments", AVERAGES, ids=str)
def test_slow_reference_average_pooling_against_the_dense_matrix(arguments: tuple) -> None:
    kernel, stride, padding, size, ceil_mode, count_include_pad, divisor = arguments
    truth = svd_norm(matrix_of(nn.AvgPool2d(kernel, stride, padding, ceil_mode, count_include_pad, divisor), size))
    norm = operators.average_pool_norm(*arguments)
    assert truth * (1 - SVD) <= norm <= truth * (1 + 1e-9)


def test_slow_reference_average_pooling_in_one_and_three_dimensions() -> None:
    line = nn.AvgPool1d(3, 2, 1, ceil_mode=True, count_include_pad=False)
    norm = operators.average_pool_norm((3,), (2,), (1,), (10,), True, False, None)
    assert norm == pytest.approx(svd_norm(matrix_of(line, (10,))), rel=1e-9)
    space = nn.AvgPool3d((2, 3, 1), (1, 2, 2), (1, 0, 0))
    norm = operators.average_pool_norm((2, 3, 1), (1, 2, 2), (1, 0, 0), (4, 5, 3), False, True, None)
    assert norm == pytest.approx(svd_norm(matrix_of(space, (4, 5, 3))), rel=1e-9)


def test_closed_form_average_pooling() -> None:
    """1 / sqrt(|P|) where windows do not overlap; 1.015 for 3/1/1 without the padding counted."""
    for kernel, size in [((2, 2), (8, 8)), ((3, 2), (9, 8)), ((7, 7), (7, 7)), ((2, 2), (7, 9))]:
        zeros = (0, 0)
        norm = operators.average_pool_norm(kernel, kernel, zeros, size, False, True, None)
        assert 1 / math.sqrt(math.prod(kernel)) <= norm <= (1 + 1e-14) / math.sqrt(math.prod(kernel))
    sizes = (4, 8, 16, 64)  # the figure of the docs is that of 8 x 8: the border's share falls with the size
    norms = [operators.average_pool_norm((3, 3), (1, 1), (1, 1), (n, n), False, False, None) for n in sizes]
    assert [round(norm, 3) for norm in norms] == [1.029, 1.015, 1.008, 1.004]
    assert operators.average_pool_norm((3, 3), (1, 1), (1, 1), (64, 64), False, True, None) < 1


def test_closed_form_long_axes_are_bounded_by_collatz_and_wielandt() -> None:
    """The row and column sums of a sliding mean are at most 1, and the norm tends to 1 with the length."""
    norm = operators.average_pool_norm((5,), (1,), (0,), (3000,), False, True, None)
    assert 0.99999 < norm <= 1 + 1e-9
    for n, s, include in [(1100, 2, True), (1100, 3, False)]:
        layer = nn.AvgPool1d(5, s, 2, count_include_pad=include)
        truth = svd_norm(matrix_of(layer, (n,)))
        norm = operators.average_pool_norm((5,), (s,), (2,), (n,), False, include, None)
        assert truth * (1 - SVD) <= norm <= 1.001 * truth


@pytest.mark.parametrize(
    ("size", "output"), [((4, 4), (1, 1)), ((7, 5), (3, 2)), ((8, 6), (4, 3)), ((3, 4), (5, 7)), ((10, 9), (7, 9))]
)
def test_slow_reference_adaptive_pooling(size: tuple[int, int], output: tuple[int, int]) -> None:
    truth = svd_norm(matrix_of(nn.AdaptiveAvgPool2d(output), size))
    assert truth * (1 - SVD) <= operators.adaptive_average_pool_norm(size, output) <= truth * (1 + 1e-9)
    constant = operators.adaptive_max_pool_constant(size, output)
    assert constant == pytest.approx(math.sqrt(most_windows(nn.AdaptiveAvgPool2d(output), size)), rel=1e-12)
    assert_no_pair_is_steeper(nn.AdaptiveMaxPool2d(output), size, constant)


def most_windows(average: nn.Module, size: tuple[int, ...]) -> int:
    """Outputs that one input reaches, counted on an average pooling with the same windows."""
    return int((matrix_of(average, size) != 0).sum(0).max())


def assert_no_pair_is_steeper(layer: nn.Module, size: tuple[int, ...], constant: float) -> float:
    """||f(a) - f(b)|| <= constant ||a - b|| for random pairs, near and far, and for spikes; the steepest seen."""
    generator = rng.generator(0, "pool")
    a = torch.randn(2000, 1, *size, generator=generator, dtype=torch.float64)
    b = torch.randn(2000, 1, *size, generator=generator, dtype=torch.float64)
    spikes = 10 * torch.eye(math.prod(size), dtype=torch.float64).view(-1, 1, *size)
    pairs = [(a, b), (a, a + 1e-3 * b), (a, a + (b > 1.5)), (spikes, torch.zeros_like(spikes))]
    steepest = 0.0
    for first, second in pairs:
        ratios = (layer(first) - layer(second)).flatten(1).norm(dim=1) / (first - second).flatten(1).norm(dim=1)
        steepest = max(steepest, float(ratios.nan_to_num().max()))
    assert steepest <= constant * (1 + 1e-12)
    return steepest


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "size", "squared"),
    [
        ((2, 2), (2, 2), (0, 0), (1, 1), (8, 8), 1),
        ((3, 3), (2, 2), (1, 1), (1, 1), (9, 8), 4),
        ((3, 3), (1, 1), (1, 1), (1, 1), (6, 6), 9),
        ((3, 2), (1, 2), (0, 0), (2, 1), (8, 7), 2),
        ((3, 3), (3, 2), (1, 1), (2, 2), (9, 9), 3),
        ((2, 2), (3, 3), (0, 0), (1, 1), (8, 8), 1),
        ((3, 3), (1, 1), (1, 1), (1, 1), (2, 2), 4),
    ],
)
def test_slow_reference_max_pooling_counts_windows_and_no_pair_is_steeper(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int, int],
    squared: int,
    ceil_mode: bool,
) -> None:
    constant = operators.max_pool_constant(kernel, stride, padding, dilation, size, ceil_mode)
    layer = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    if not ceil_mode:
        assert constant == pytest.approx(math.sqrt(squared), rel=1e-12)
    seen = torch.zeros(size, dtype=torch.int64)
    for j in itertools.product(*map(range, size)):  # a spike is the maximum of every window that it is in
        x = torch.zeros(1, 1, *size, dtype=torch.float64)
        x[(0, 0, *j)] = 1
        seen[j] = int(layer(x).sum())
    assert constant == pytest.approx(math.sqrt(int(seen.max())), rel=1e-12)
    steepest = assert_no_pair_is_steeper(layer, size, constant)
    assert steepest == pytest.approx(constant, rel=1e-12)  # a spike attains it: the constant is the best one


def test_slow_reference_max_pooling_in_one_and_three_dimensions() -> None:
    assert operators.max_pool_constant((3,), (1,), (1,), (1,), (9,), False) == pytest.approx(math.sqrt(3))
    constant = operators.max_pool_constant((2, 3, 2), (1, 2, 2), (0, 1, 0), (1, 1, 1), (4, 5, 4), False)
    assert constant == 2.0
    x, y = torch.randn(2, 500, 1, 4, 5, 4, dtype=torch.float64, generator=rng.generator(1, "pool"))
    difference = F.max_pool3d(x, (2, 3, 2), (1, 2, 2), (0, 1, 0)) - F.max_pool3d(y, (2, 3, 2), (1, 2, 2), (0, 1, 0))
    assert bool((difference.flatten(1).norm(dim=1) <= constant * (x - y).flatten(1).norm(dim=1)).all())


def test_property_rows_that_do_not_overlap_need_no_singular_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "singular_value_bound", None)
    assert operators.average_pool_norm((2, 2), (2, 2), (1, 1), (224, 224), False, False, None) == pytest.approx(1)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (
            lambda: operators.average_pool_norm((5,), (1,), (0,), (4,), False, True, None),
            "kernel 5, .* does not fit an input of length 4; expected .* a window that fits",
        ),
        (lambda: operators.average_pool_norm((2,), (0,), (0,), (4,), False, True, None), "stride 0"),
        (lambda: operators.average_pool_norm((3,), (1,), (2,), (4,), False, True, None), "padding of at most half a"),
        (lambda: operators.average_pool_norm((2, 2), (2,), (0,), (4,), False, True, None), "one per axis"),
        (
            lambda: operators.average_pool_norm((2,), (2,), (0,), (4,), False, True, 0),
            r"divisor_override must be .*, got 0",
        ),
        (
            lambda: operators.max_pool_constant((3,), (1,), (0,), (3,), (6,), False),
            "dilation 3 does not fit an input of length 6",
        ),
        (lambda: operators.adaptive_average_pool_norm((4,), (0,)), "has 4 positions and 0 outputs"),
        (lambda: operators.adaptive_max_pool_constant((4, 4), (2,)), r"the sizes of a pooling are \(4, 4\), \(2,\)"),
    ],
)
def test_sizes_that_make_no_pooling_are_refused(work, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        work()
