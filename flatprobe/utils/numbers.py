"""Formatting of numbers with their uncertainties."""

import math

MISSING = "–"  # noqa: RUF001 (an en dash, as in printed tables)


def three(value: float) -> str:
    """Three significant digits, without exponents between 1e-4 and 1e6.

    >>> [three(value) for value in (0, 1.5, 14.949, 0.01234, 6130.2, 2.5e-7, float("inf"))]
    ['0', '1.50', '14.9', '0.0123', '6,130', '2.50e-07', '∞']
    """
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    rounded = float(f"{value:.3g}")
    if rounded == 0:
        return "0"
    return f"{rounded:,.{_decimals(rounded)}f}" if 1e-4 <= abs(rounded) < 1e6 else f"{rounded:.2e}"


def percent(fraction: float) -> str:
    """A fraction in percent, without the sign.

    >>> percent(0.055), percent(1.0), percent(1e-19)
    ('5.50', '100', '0')
    """
    return three(round(100 * fraction, 9))


def plus_minus(value: float, spread: float) -> str:
    """A value with its spread: two digits of the spread, three of the larger one.

    >>> plus_minus(14.949, 3.025), plus_minus(62.91, 0.2248), plus_minus(0.004, 1.25), plus_minus(1.5, float("nan"))
    ('14.9 ± 3.0', '62.91 ± 0.22', '0.00 ± 1.25', '1.50')
    """
    if not (math.isfinite(value) and math.isfinite(spread)):
        return three(value)
    largest = float(f"{max(abs(value), abs(spread)):.3g}")
    if largest == 0:
        return "0 ± 0"
    if not 1e-4 <= largest < 1e6:
        return f"{value:.2e} ± {spread:.2e}"
    least = _decimals(largest)
    # At most four further decimals: a smaller spread is rounding.
    decimals = min(max(least, _decimals(spread) - 1), least + 4) if spread else least
    return f"{value:,.{decimals}f} ± {spread:,.{decimals}f}"


def _decimals(value: float) -> int:
    return max(0, 2 - math.floor(math.log10(abs(value))))
