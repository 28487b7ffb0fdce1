"""Generalization bounds from measured quantities: formulas, with no network in them.

Each function returns a `Bound` on the gap between expected and empirical loss, with its summands. `vacuous` flags a
bound that says nothing, `chosen` names choices made after seeing the data that the bound does not account for, and
`proven` tells a theorem from a rate. All logarithms are natural unless another base is given.
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
    """The module, whose call is an error that names the functions."""

    def __call__(self, *_arguments: object, **_options: object) -> None:
        """Refuse the call.

        Raises:
            TypeError: always; the message names the bounds.
        """
        names = [name for name in __all__ if name[0].islower()]
        msg = f"fp.bounds is a module; call one of its functions: fp.bounds.{', fp.bounds.'.join(names)}"
        raise TypeError(msg)


sys.modules[__name__].__class__ = _Bounds


def __dir__() -> list[str]:
    return sorted(__all__)
