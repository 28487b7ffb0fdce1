"""Least-squares polynomial of ReLU (T3 Figs 21-24)."""

import math

import numpy as np
from jaxtyping import Float
from numpy.polynomial import Polynomial, legendre
from torch import Tensor, nn

DEGREE = 10


class PolynomialReLU(nn.Module):
    """Polynomial p = argmin int_{-a}^{a} (p(x) - max(x, 0))^2 dx of degree 10.

    The minimum has a closed form, since Legendre's polynomials are orthogonal and ReLU is linear on each side of 0.
    Since max(a t, 0) = a max(t, 0), the fit on [-1, 1] gives all others: p(x) = x / 2 + a q(x^2 / a^2) with q of
    degree 5, evaluated by Horner's rule. p is not clipped outside the interval, where it grows as x^10, so that
    the network is a polynomial.

    Args:
        interval: the half-width a, in the units of the layer's input.

    Attributes:
        interval: the half-width a.
        largest_error: max |p(x) - max(x, 0)| over the interval, 0.02776 a, attained at 0.
        rms_error: root mean square of p(x) - max(x, 0) over the interval, 0.00592 a.

    Raises:
        ValueError: if the interval is not finite or not above 0.

    Source: Poggio et al. (2017), section 9.10 and Fig. 21 (degree 10) [T3]; the interval is not given there.

    >>> PolynomialReLU(2.0)
    PolynomialReLU(degree=10, interval=[-2, 2], largest_error=0.0555, rms_error=0.0118)
    """

    def __init__(self, interval: float) -> None:
        super().__init__()
        if not (math.isfinite(interval) and interval > 0):
            msg = f"interval must be a finite number above 0, got {interval}. ReLU is fitted on [-interval, interval]"
            raise ValueError(msg)
        self.interval = float(interval)
        fit = _unit_fit()
        self._even = [float(coefficient) for coefficient in fit.coef[::2]]
        self.largest_error = self.interval * _largest_error(fit)
        self.rms_error = self.interval * _rms_error()

    def forward(self, x: Float[Tensor, "samples *shape"]) -> Float[Tensor, "samples *shape"]:
        """p(x) per entry."""
        scaled = x / self.interval
        square = scaled * scaled
        *lower, highest = self._even
        value = square * highest + lower[-1]
        for coefficient in reversed(lower[:-1]):
            value = value * square + coefficient
        return x / 2 + value * self.interval

    def extra_repr(self) -> str:
        """Degree, interval and errors."""
        return (
            f"degree={DEGREE}, interval=[{-self.interval:g}, {self.interval:g}], "
            f"largest_error={self.largest_error:.3g}, rms_error={self.rms_error:.3g}"
        )


def _legendre_coefficients() -> np.ndarray:
    """c_k = (2 k + 1) / 2 int_0^1 t P_k(t) dt, exact with DEGREE Gauss nodes."""
    nodes, weights = legendre.leggauss(DEGREE)
    t, half_weights = (nodes + 1) / 2, weights / 2
    k = np.arange(DEGREE + 1)
    coefficients: np.ndarray = (2 * k + 1) / 2 * ((half_weights * t) @ legendre.legvander(t, DEGREE))
    return coefficients


def _unit_fit() -> Polynomial:
    return Polynomial(legendre.leg2poly(_legendre_coefficients()))


def _rms_error() -> float:
    """Parseval: int_{-1}^{1} (p - relu)^2 = 1/3 - sum_k c_k^2 2 / (2 k + 1)."""
    k = np.arange(DEGREE + 1)
    return math.sqrt((1 / 3 - float(np.sum(_legendre_coefficients() ** 2 * 2 / (2 * k + 1)))) / 2)


def _largest_error(fit: Polynomial) -> float:
    """max |p - relu| over 0, 1 and the points with p' = relu', by symmetry."""
    difference = fit - Polynomial([0, 1])
    stationary = np.asarray(difference.deriv().roots(), dtype=np.complex128)
    real: list[float] = stationary.real[np.abs(stationary.imag) < 1e-9].tolist()
    return max(abs(float(difference(x))) for x in (0.0, 1.0, *(x for x in real if 0 < x < 1)))
