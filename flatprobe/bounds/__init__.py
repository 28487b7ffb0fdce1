"""Generalization bounds evaluated from what was measured (SPEC section 4): formulas, with no network in them.

Each function returns a `Bound`: the bound on the gap between expected and empirical loss, its summands, whether it says
anything (`vacuous`), what was chosen after seeing the data without a price for it (`chosen`), and whether it is a
theorem (`proven`) or only a rate. All logarithms are natural unless said.
"""

from flatprobe.bounds.bound import Bound
from flatprobe.bounds.capacity import frobenius, l1_rademacher, margin, rademacher
from flatprobe.bounds.counting import bits, hoeffding
from flatprobe.bounds.covering import Covering, dyadic, gaussian_mixture, manifold, sparse
from flatprobe.bounds.measured import held_out, network_bits
from flatprobe.bounds.partition import robustness

__all__ = [
    "Bound",
    "Covering",
    "bits",
    "dyadic",
    "frobenius",
    "gaussian_mixture",
    "held_out",
    "hoeffding",
    "l1_rademacher",
    "manifold",
    "margin",
    "network_bits",
    "rademacher",
    "robustness",
    "sparse",
]
