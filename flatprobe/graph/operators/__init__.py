"""Layers as linear operators: true norms, proven upper bounds, pooling, all in float64 on the CPU."""

from flatprobe.graph.operators.convolution import Convolution
from flatprobe.graph.operators.norms import (
    certified_frobenius_norm,
    certified_spectral_norm,
    frobenius_norm,
    leading_input,
    reshaped_frobenius_norm,
    reshaped_spectral_norm,
    spectral_norm,
    stable_rank,
)
from flatprobe.graph.operators.pooling import (
    adaptive_average_pool_norm,
    adaptive_max_pool_constant,
    average_pool_norm,
    max_pool_constant,
)

__all__ = [
    "Convolution",
    "adaptive_average_pool_norm",
    "adaptive_max_pool_constant",
    "average_pool_norm",
    "certified_frobenius_norm",
    "certified_spectral_norm",
    "frobenius_norm",
    "leading_input",
    "max_pool_constant",
    "reshaped_frobenius_norm",
    "reshaped_spectral_norm",
    "spectral_norm",
    "stable_rank",
]
