"""Operator norms of average pooling and Lipschitz constants of max pooling, per channel.

Both factor over the axes. An average pooling's matrix is a Kronecker product of one matrix per axis, since its divisor
is a product of lengths or one constant; norms of Kronecker products multiply. For max pooling, |max_{j in W} a_j -
max_{j in W} b_j|^2 <= sum_{j in W} |a_j - b_j|^2, and summed over the windows each input counts once per window
that contains it, a product over the axes.
"""

import math

import numpy as np
import torch

from flatprobe.graph.operators.certificates import UNIT, rounded_up, singular_value_bound
from flatprobe.utils.arguments import at_least

Size = tuple[int, ...]

# Positions along an axis above which Collatz and Wielandt's quotient bounds the norm, and the number of its steps.
_DENSE, _STEPS = 1024, 30


def average_pool_norm(
    kernel: Size,
    stride: Size,
    padding: Size,
    input_size: Size,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> float:
    """||A||_2 of average pooling, a proven upper bound; 1 / sqrt(|P|) where windows neither overlap nor meet padding.

    Per axis one dense matrix of the windows over their divisors, as in `torch.nn.AvgPool2d`; for overlapping windows
    over more than 1024 positions, Collatz and Wielandt's bound for matrices of nonnegative entries.

    Args:
        kernel: window along each axis.
        stride: step along each axis.
        padding: zeros on either side of each axis.
        input_size: spatial size of the input.
        ceil_mode: whether the last window may reach beyond the padded input.
        count_include_pad: whether padding counts in the divisor.
        divisor_override: a divisor in place of the window's size, or None.

    Returns:
        The norm, per channel.

    Raises:
        ValueError: for sizes that make no pooling.

    >>> round(average_pool_norm((2, 2), (2, 2), (0, 0), (8, 8), False, True, None), 12)
    0.5
    >>> round(average_pool_norm((3, 3), (1, 1), (1, 1), (8, 8), False, False, None), 3)
    1.015
    """
    at_least(1, divisor_override=divisor_override)
    norm = 1.0
    for k, s, p, n in _axes(kernel, stride, padding, input_size):
        windows = [range(m, min(m + k, n + p)) for m in _sliding(k, s, p, 1, n, ceil_mode=ceil_mode)]
        inside = [range(max(w.start, 0), min(w.stop, n)) for w in windows]
        divisors = [1 if divisor_override else len(w) for w in (windows if count_include_pad else inside)]
        norm *= _average_norm(inside, divisors, n)
    return rounded_up(norm / (divisor_override or 1))


def adaptive_average_pool_norm(input_size: Size, output_size: Size) -> float:
    """||A||_2 of adaptive average pooling, per channel; its windows may overlap and differ in length.

    Window i of m over n positions is floor(i n / m), ..., ceil((i + 1) n / m) - 1.

    Args:
        input_size: spatial size of the input.
        output_size: spatial size of the output.

    Returns:
        A proven upper bound, tight as in `average_pool_norm`.

    Raises:
        ValueError: for sizes that make no pooling.

    >>> round(adaptive_average_pool_norm((4, 4), (1, 1)), 12)
    0.25
    """
    norm = 1.0
    for n, m in _axes(input_size, output_size):
        windows = _adaptive(n, m)
        norm *= _average_norm(windows, [len(w) for w in windows], n)
    return rounded_up(norm)


def max_pool_constant(
    kernel: Size,
    stride: Size,
    padding: Size,
    dilation: Size,
    input_size: Size,
    ceil_mode: bool,
) -> float:
    """sqrt(m), m the largest number of windows with a common input: a Lipschitz constant of max pooling.

    Args:
        kernel: positions in a window along each axis.
        stride: step along each axis.
        padding: positions of minus infinity on either side of each axis.
        dilation: distance between a window's positions along each axis.
        input_size: spatial size of the input.
        ceil_mode: whether the last window may reach beyond the padded input.

    Returns:
        The constant, per channel; 1 where windows do not overlap.

    Raises:
        ValueError: for sizes that make no pooling.

    >>> max_pool_constant((3, 3), (2, 2), (1, 1), (1, 1), (8, 8), False)
    2.0
    """
    most = 1
    for k, s, p, d, n in _axes(kernel, stride, padding, dilation, input_size):
        starts = _sliding(k, s, p, d, n, ceil_mode=ceil_mode)
        # A window's first position inside the image: the padding's part is skipped in steps of the dilation.
        windows = [range(m + d * max(0, -(m // d)), min(m + d * (k - 1) + 1, n), d) for m in starts]
        most *= _most(windows, n)
    return _root(most)


def adaptive_max_pool_constant(input_size: Size, output_size: Size) -> float:
    """sqrt(m), m as in `max_pool_constant`, for adaptive max pooling with the windows of the adaptive average.

    >>> adaptive_max_pool_constant((8, 8), (4, 4)), adaptive_max_pool_constant((7, 7), (4, 4))
    (1.0, 2.0)
    """
    return _root(math.prod(_most(_adaptive(n, m), n) for n, m in _axes(input_size, output_size)))


def _axes(*sizes: Size) -> list[tuple[int, ...]]:
    """The sizes, regrouped by axis.

    Raises:
        ValueError: for sizes of different lengths, or negative ones.
    """
    if len({len(size) for size in sizes}) != 1 or not sizes[0] or min(map(min, sizes)) < 0:
        msg = (
            f"the sizes of a pooling are {', '.join(map(str, sizes))}; expected as many whole numbers in each, one "
            "per axis"
        )
        raise ValueError(msg)
    return list(zip(*sizes, strict=True))


def _sliding(k: int, s: int, p: int, d: int, n: int, *, ceil_mode: bool) -> list[int]:
    """The starts of the windows as in torch: with `ceil_mode`, no window starts in the padding on the right.

    Raises:
        ValueError: for sizes without a window.
    """
    if min(k, s, d, n) < 1 or n + 2 * p < d * (k - 1) + 1 or 2 * p > d * (k - 1) + 1:
        msg = (
            f"a pooling of kernel {k}, stride {s}, padding {p}, dilation {d} does not fit an input of length {n}; "
            "expected positive sizes, a window that fits, and padding of at most half a window. Give the layer's real "
            "input size as input_size"
        )
        raise ValueError(msg)
    room = n + 2 * p - d * (k - 1) - 1
    count = (-(-room // s) if ceil_mode else room // s) + 1
    if ceil_mode and (count - 1) * s >= n + p:
        count -= 1
    return [i * s - p for i in range(count)]


def _adaptive(n: int, m: int) -> list[range]:
    if min(n, m) < 1:
        msg = f"an adaptive pooling has {n} positions and {m} outputs along an axis; expected at least 1 of each"
        raise ValueError(msg)
    return [range(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def _average_norm(windows: list[range], divisors: list[int], n: int) -> float:
    """The norm of the matrix whose row i is 1 / divisor on window i."""
    if _most(windows, n) <= 1:  # orthogonal rows
        return max(math.sqrt(len(w)) / divisor for w, divisor in zip(windows, divisors, strict=True))
    if max(len(windows), n) > _DENSE:
        return math.sqrt(_perron_bound(windows, divisors, n))
    matrix = torch.zeros(len(windows), n, dtype=torch.float64, device="cpu")
    for row, w, divisor in zip(matrix, windows, divisors, strict=True):
        row[w.start : w.stop] = 1 / divisor
    # Each quotient errs by u of itself, and |A - fl A| <= u A between nonnegative matrices carries over to their norms.
    return math.sqrt(float(singular_value_bound(matrix))) * (1 + 16 * UNIT)


def _perron_bound(windows: list[range], divisors: list[int], n: int) -> float:
    """An upper bound of the largest eigenvalue of A A^T, A >= 0: max_i (A A^T x)_i / x_i, for any x > 0.

    Collatz and Wielandt (Horn and Johnson, Matrix Analysis, corollary 8.1.31). Some power iterations bring x near the
    Perron vector. Sums of positive terms lose no digits.
    """
    from scipy.sparse import csr_array

    entries = np.repeat([1 / divisor for divisor in divisors], [len(w) for w in windows])
    starts = np.cumsum([0, *(len(w) for w in windows)])
    matrix = csr_array((entries, np.concatenate([np.asarray(w) for w in windows]), starts), shape=(len(windows), n))
    x = np.ones(len(windows))
    for _ in range(_STEPS):
        x = matrix @ (matrix.T @ x)
        x /= x.max()
    product = matrix @ (matrix.T @ x)
    return float((product / x).max()) * (1 + 16 * (n + 4) * UNIT)


def _most(windows: list[range], n: int) -> int:
    """The largest number of windows that contain one of n positions."""
    counts = torch.zeros(n, dtype=torch.int64, device="cpu")
    for w in windows:
        counts[w.start : w.stop : w.step] += 1
    return int(counts.max())


def _root(most: int) -> float:
    root = math.isqrt(most)
    return float(root) if root * root == most else rounded_up(math.sqrt(most))
