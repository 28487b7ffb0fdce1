"""Bounds from concentration alone: one classifier on held-out data, and a finite class."""

import math

from flatprobe.bounds.bound import Bound, add_terms, check
from flatprobe.utils.arguments import at_least, positive


def hoeffding(
    *, samples: int, empirical: float, delta: float = 0.05, maximum: float = 1.0, held_out: bool = True
) -> Bound:
    """|gap| <= M sqrt(ln(2 / delta) / (2 n)), on data that had no part in choosing the network.

    Oberman (2020), eq. 6.1 [O20], sqrt(2 ln(2 / delta) / n), is the same for variables in [-1, 1], whose range is 2.

    Args:
        samples: n held-out samples, drawn independently.
        empirical: mean loss on the samples, in [0, maximum].
        delta: probability that the bound fails; 0.05 by convention.
        maximum: M, the largest value of a loss that is at least 0; 1 for the 0-1 loss.
        held_out: True if these data had no part in choosing the network, by training or by stopping. False flags the
            network as chosen.

    Returns:
        `Bound`.

    Raises:
        ValueError: for an argument out of range.

    >>> round(hoeffding(samples=10_000, empirical=0.02).value, 6)
    0.013581
    """
    check(samples=samples, empirical=empirical, delta=delta, maximum=maximum)
    value = maximum * math.sqrt(math.log(2 / delta) / (2 * samples))
    return add_terms(
        "hoeffding",
        {"confidence": value},
        empirical=empirical,
        maximum=maximum,
        chosen=() if held_out else ("network",),
        arguments={"samples": samples, "delta": delta},
    )


def bits(
    *, parameters: int, bits_per_parameter: float = 32, samples: int, empirical: float, delta: float = 0.05
) -> Bound:
    """gap <= sqrt(2 (k W ln 2 + ln(2 / delta)) / n), for the class of the 2^(k W) networks of W parameters of k bits.

    This is n(G, delta) = (2 / G^2) (k W ln 2 + ln(2 / delta)) of Poggio et al. (2017), eq. 17 [T3], solved for G.
    There G is the excess of the expected loss of the *empirical* minimizer over the least of the class. The excess
    takes the deviation between expected and empirical loss twice, so the deviation is at most half the value (`uniform`
    in the details).

    Args:
        parameters: W, weights and biases.
        bits_per_parameter: k; 32 for float32.
        samples: n training samples, drawn independently.
        empirical: mean 0-1 loss on the samples.
        delta: probability that the bound fails; 0.05 by convention.

    Returns:
        `Bound` for the 0-1 loss.

    Raises:
        ValueError: for an argument out of range.

    >>> bits(parameters=1_000_000, samples=50_000, empirical=0.0).vacuous
    True
    """
    check(samples=samples, empirical=empirical, delta=delta)
    at_least(1, parameters=parameters)
    positive(bits_per_parameter=bits_per_parameter)
    log_size = bits_per_parameter * parameters * math.log(2)
    value = math.sqrt(2 * (log_size + math.log(2 / delta)) / samples)
    arguments = {"parameters": parameters, "bits_per_parameter": bits_per_parameter, "samples": samples, "delta": delta}
    details = {"log_networks": log_size, "uniform": value / 2}
    return add_terms("bits", {"class": value}, empirical=empirical, details=details, arguments=arguments)
