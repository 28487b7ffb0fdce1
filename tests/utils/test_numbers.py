"""Numbers in tables."""

import math

from flatprobe.utils.numbers import MISSING, plus_minus, three


def test_numbers_have_three_digits() -> None:
    assert three(0.0005) == "0.000500"
    assert three(999.6) == "1,000"
    assert plus_minus(math.nan, 1.0) == MISSING
    assert plus_minus(1234567.0, 1000.0) == "1.23e+06 ± 1.00e+03"
    assert plus_minus(1.5, 0.0) == "1.50 ± 0.00"
