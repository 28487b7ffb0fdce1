"""Proven Lipschitz constants of networks, and the margins that they certify."""

from flatprobe.lipschitz.certificates import certified_margins
from flatprobe.lipschitz.constants import activation_constant, convolution_of, propagated, step_constants
from flatprobe.lipschitz.ends import Bound, certified_ends, drowned

__all__ = [
    "Bound",
    "activation_constant",
    "certified_ends",
    "certified_margins",
    "convolution_of",
    "drowned",
    "propagated",
    "step_constants",
]
