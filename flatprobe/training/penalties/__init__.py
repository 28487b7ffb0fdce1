"""Penalties P, one file each: added to the objective as strength * P.

A penalty is any callable `penalty(passed) -> scalar` on a `ForwardPass`. The penalties here are dataclasses whose
fields are their settings. All are means over the batch unless their docstrings say otherwise. After its formula, each
docstring says whether the penalty is exact or sampled, its cost, and its treatment of BatchNorm. A cost counts passes
of the whole batch besides the shared forward pass and the backward pass to the weights, which goes through every pass
with a graph.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from flatprobe.training.forward import ForwardPass
from flatprobe.training.penalties.adversarial_deformation import AdversarialDeformation
from flatprobe.training.penalties.adversarial_perturbation import AdversarialPerturbation
from flatprobe.training.penalties.double_backpropagation import DoubleBackpropagation
from flatprobe.training.penalties.gradient_dual_norm import GradientDualNorm
from flatprobe.training.penalties.hessian_scaled import HessianScaled
from flatprobe.training.penalties.hsfob import hsfob_db, hsfob_db1, hsfob_db2
from flatprobe.training.penalties.jacobian_frobenius import JacobianFrobenius
from flatprobe.training.penalties.jacobian_per_layer import JacobianPerLayer
from flatprobe.training.penalties.jacobian_spectral import JacobianSpectral
from flatprobe.training.penalties.rkhs_gradient import RKHSGradient
from flatprobe.training.penalties.spectral_norm import SpectralNorm
from flatprobe.training.penalties.tikhonov_differences import TikhonovDifferences
from flatprobe.training.penalties.transformed import Transformed

Penalty = Callable[[ForwardPass], Tensor]

PENALTIES: dict[str, Callable[..., Any]] = {
    "jacobian_frobenius": JacobianFrobenius,
    "jacobian_spectral": JacobianSpectral,
    "jacobian_per_layer": JacobianPerLayer,
    "double_backpropagation": DoubleBackpropagation,
    "gradient_dual_norm": GradientDualNorm,
    "tikhonov_differences": TikhonovDifferences,
    "rkhs_gradient": RKHSGradient,
    "adversarial_perturbation": AdversarialPerturbation,
    "adversarial_deformation": AdversarialDeformation,
    "spectral_norm": SpectralNorm,
    "transformed": Transformed,
    "hessian_scaled": HessianScaled,
}

__all__ = [
    "PENALTIES",
    "AdversarialDeformation",
    "AdversarialPerturbation",
    "DoubleBackpropagation",
    "GradientDualNorm",
    "HessianScaled",
    "JacobianFrobenius",
    "JacobianPerLayer",
    "JacobianSpectral",
    "Penalty",
    "RKHSGradient",
    "SpectralNorm",
    "TikhonovDifferences",
    "Transformed",
    "hsfob_db",
    "hsfob_db1",
    "hsfob_db2",
]


def __dir__() -> list[str]:
    return sorted(__all__)
