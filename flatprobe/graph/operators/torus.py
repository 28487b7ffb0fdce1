"""Upper bound of a convolution's norm from its symbols on a torus, without its matrix.

Let n be the input's size along an axis, d (k - 1) the kernel's reach, s the stride, and N a multiple of s with
N >= n + d (k - 1).

1. *Compression.* Place x at 0, ..., n - 1 of the cyclic group Z_N and convolve there. The stride-1 output at m reads
   m, ..., m + d (k - 1) and can differ from zero for m = -d (k - 1), ..., n - 1 only: n + d (k - 1) <= N positions,
   distinct in Z_N. For these m a read position outside 0, ..., n - 1 lies in -d (k - 1), ..., -1 or n, ..., n - 1 + d
   (k - 1), whose residues lie in n, ..., N - 1, where x was placed as zero: nothing wraps onto an entry of x. The
   layer keeps the outputs m = s i - p. Padding above the reach keeps further outputs, which are zero; smaller padding
   drops some. So the layer is P C Q: isometric embedding Q, circular convolution C, and P that picks distinct entries
   (and appends zeros).
2. *Symbols.* C is block diagonal over the frequencies f: W(f) = sum_t w_t exp(2 pi i f . d t / N). Picking every s-th
   output adds the s frequencies that agree modulo N / s: with orthonormal transforms, y(g) = (1 / sqrt(s)) [W(g), W(g
   + N / s), ...] x(g, .), one factor sqrt(s) per axis, hence s in 2-D. Shifting the picked outputs by p multiplies the
   blocks by unit numbers. So ||A||^2 <= max_g M(g), M(g) = ||[W(g), ...]||_2^2 / prod(s): the torus bound.
3. *Windows.* M(g) replaces each squared symbol, so ||A x||^2 <= sum_g M(g) ||x(g)||^2, where x(g) are the Fourier
   coefficients on Z_{N/s} of x's s polyphase parts (a unitary change of x(g, .)). These parts lie in the window 0,
   ..., ceil(n / s) - 1. So ||A||^2 <= the largest eigenvalue of the Toeplitz matrix of M on that window: a scalar
   matrix however many channels there are. By A^T, the same holds with the window of the outputs that see an entry of
   x. It recovers most of the torus' loss at the image's border (3 % on 12 x 12, 19 % on 4 x 4), and all
   of it for one channel without padding. Axes may be left out of the window: M is then replaced by its maximum
   over them.
"""

import math

import torch
from torch import Tensor

from flatprobe.graph.operators.certificates import UNIT, eigenvalue_bound, rounded_up, scaled, singular_value_bound
from flatprobe.graph.operators.convolution import Convolution

# Bytes of the symbols computed at a time; the work on them takes about four times as much.
_CHUNK = 2**26

# Positions in a window: the eigenvalues of a matrix of this size take 0.3 s.
_WINDOW = 1024

# Groups with windows: 512 depthwise filters would otherwise be as many eigenvalue problems.
_GROUPS = 32


def torus_bound(convolution: Convolution) -> float:
    """An upper bound of ||A||_2: the torus of n + d (k - 1), tightened by the windows of inputs and of outputs.

    Cost: 1 Gram matrix, eigenvalue and Cholesky factorization of size min(out, in prod(s)) / groups for half of the
    prod(N / s) frequencies, in a fixed chunk of memory. The bound is the largest over the groups.

    Args:
        convolution: the operator.

    Returns:
        The bound, in output units per input unit; exactly 0 if no tap meets the image or the weight is zero.
    """
    windows = _windows(convolution)
    kernel, scale = scaled(convolution.kernel)
    if not windows or not bool(kernel.any()):
        return 0.0
    squares = _squares(convolution, kernel)
    peaks = squares.flatten(1).amax(1)
    best = 0.0
    for rank, group in enumerate(peaks.argsort(descending=True).tolist()):
        if rank >= _GROUPS or float(peaks[group]) <= best:
            best = max(best, float(peaks[group]))
            break
        best = max(best, min(_windowed(squares[group], window) for window in windows))
    return rounded_up(scale * rounded_up(math.sqrt(best)))


def _windows(convolution: Convolution) -> list[tuple[int, ...]]:
    """Windows on Z_{N/s}: of the polyphase inputs, and of the outputs that see the image; [] without such outputs."""
    inputs = tuple(-(-n // s) for n, s in zip(convolution.input_size, convolution.stride, strict=True))
    axes = zip(
        convolution.input_size,
        convolution.output_size,
        convolution.stride,
        convolution.padding,
        convolution.reach,
        strict=True,
    )
    outputs = tuple(min(out - 1, (n - 1 + p) // s) - max(0, -((reach - p) // s)) + 1 for n, out, s, p, reach in axes)
    if min(outputs) < 1:
        return []
    if all(i <= o for i, o in zip(inputs, outputs, strict=True)):
        return [inputs]
    return [outputs] if all(o <= i for i, o in zip(inputs, outputs, strict=True)) else [inputs, outputs]


def _squares(convolution: Convolution, kernel: Tensor) -> Tensor:
    """M: upper bounds of ||[W(g), W(g + N/s), ...]||_2^2 / prod(s), (groups, *coarse); M(-g) = M(g), taken once.

    A sum of T taps with phases from exact integers errs by at most 8 (T + 16) u sum_t ||w_t||_F in Frobenius norm.
    """
    G, stride = convolution.groups, convolution.stride
    coarse = tuple(
        -(-(n + reach) // s) for n, reach, s in zip(convolution.input_size, convolution.reach, stride, strict=True)
    )
    S, count = math.prod(stride), math.prod(coarse)
    offsets = _grid(convolution.kernel_size) * torch.tensor(convolution.dilation, device="cpu")
    taps = kernel.reshape(G * (len(kernel) // G) * kernel.shape[1], -1).T
    error = 8 * (len(taps) + 16) * UNIT * float(taps.norm(dim=1).sum()) * math.sqrt(S)
    folds = _grid(stride) * torch.tensor(coarse, device="cpu")
    frequencies = _grid(coarse)
    mirror = _positions(-frequencies % torch.tensor(coarse, device="cpu"), coarse)
    own = (torch.arange(count, device="cpu") <= mirror).nonzero().flatten()
    squares = torch.zeros((G, count), dtype=torch.float64, device="cpu")
    widest = max(16 * taps.shape[1], 16 * len(coarse) * len(taps))
    step = max(1, _CHUNK // (S * widest))
    for start in range(0, len(own), step):
        part = own[start : start + step]
        whole = (frequencies[part][:, None, :] + folds).reshape(-1, len(coarse))
        stacked = _symbols(whole, offsets, coarse, stride, taps)
        stacked = stacked.view(len(part), S, G, -1, kernel.shape[1]).permute(2, 0, 3, 1, 4).flatten(3)
        bounds = (singular_value_bound(stacked).sqrt() + error).square() / S  # the error covers these roundings too
        squares[:, part] = bounds
        squares[:, mirror[part]] = bounds
    return squares.view(G, *coarse)


def _symbols(
    frequencies: Tensor, offsets: Tensor, coarse: tuple[int, ...], stride: tuple[int, ...], taps: Tensor
) -> Tensor:
    """W(f) for the frequencies, (frequencies, entries): phases are reduced as integers, so no argument is large."""
    torus = torch.tensor([c * s for c, s in zip(coarse, stride, strict=True)], device="cpu")
    turns = (frequencies[:, None, :] * offsets % torus).double() / torus
    angles = 2 * math.pi * (turns.sum(2) % 1)
    return torch.complex(angles.cos() @ taps, angles.sin() @ taps)


def _windowed(squares: Tensor, window: tuple[int, ...]) -> float:
    """An upper bound of the largest eigenvalue of M's Toeplitz matrix on the window, or max M if that is smaller.

    The transform of M errs by at most 64 log2(count) u max M per entry (Higham, section 24.1, a generous constant).
    """
    peak = float(squares.max())
    axes: list[int] = []
    for axis in sorted(range(len(window)), key=lambda axis: window[axis]):
        if math.prod(window[chosen] for chosen in axes) * window[axis] <= _WINDOW:
            axes.append(axis)
    if not axes:
        return peak
    axes.sort()
    others = [axis for axis in range(len(window)) if axis not in axes]
    kept = squares.amax(others) if others else squares
    lags = torch.fft.ifftn(kept).real
    positions = _grid(tuple(window[axis] for axis in axes))
    difference = (positions[:, None] - positions) % torch.tensor(kept.shape, device="cpu")
    matrix = lags[tuple(difference.unbind(2))]
    error = len(matrix) * 64 * (1 + math.log2(kept.numel())) * UNIT * peak
    return min(peak, float(eigenvalue_bound(matrix)) + error)


def _grid(size: tuple[int, ...]) -> Tensor:
    """All points of the box, (points, axes), the last axis fastest."""
    return torch.cartesian_prod(*map(torch.arange, size)).view(-1, len(size))


def _positions(points: Tensor, size: tuple[int, ...]) -> Tensor:
    flat = torch.zeros(len(points), dtype=torch.int64, device="cpu")
    for axis, length in enumerate(size):
        flat = flat * length + points[:, axis]
    return flat
