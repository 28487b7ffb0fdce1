"""Generalization bounds evaluated from what was measured (SPEC section 4): formulas, with no network in them.

Each function returns a `Bound`: the bound on the gap between expected and empirical loss, its summands, whether it says
anything (`vacuous`), what was chosen after seeing the data without a price for it (`chosen`), and whether it is a
theorem (`proven`) or only a rate. All logarithms are natural unless said.
"""

import sys
from types import ModuleType

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


class _Bounds(ModuleType):
    """The module, which tells whoever calls it what to call."""

    def __call__(self, *_arguments: object, **_options: object) -> None:
        """Nothing is computed.

        Raises:
            TypeError: with the names of the bounds.
        """
        names = [name for name in __all__ if name[0].islower()]
        msg = f"fp.bounds is a module; expected one of its functions: fp.bounds.{', fp.bounds.'.join(names)}"
        raise TypeError(msg)


sys.modules[__name__].__class__ = _Bounds
