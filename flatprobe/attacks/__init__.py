"""Adversarial attacks of minimum norm and of a fixed budget.

Every attack takes `forward`, inputs and labels of one batch. The steps and decisions of a sample do not depend on the
other samples.
"""

from flatprobe.attacks.fixed import fgsm, pgd
from flatprobe.attacks.minimum import MINIMUM_NORM, minimum_norm
from flatprobe.attacks.points import NORMS, Box, Perturbed

__all__ = ["MINIMUM_NORM", "NORMS", "Box", "Perturbed", "fgsm", "minimum_norm", "pgd"]
