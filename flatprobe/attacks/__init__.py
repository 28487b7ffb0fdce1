"""Adversarial attacks: of minimum norm (`minimum_norm`), and of a fixed budget (`fgsm`, `pgd`); one file each.

Every attack takes `forward`, inputs and labels of one batch and works on all samples side by side; none of a sample's
steps or decisions depends on the others.
"""

from flatprobe.attacks.fixed import fgsm, pgd
from flatprobe.attacks.minimum import MINIMUM_NORM, minimum_norm
from flatprobe.attacks.points import NORMS, Box, Perturbed

__all__ = ["MINIMUM_NORM", "NORMS", "Box", "Perturbed", "fgsm", "minimum_norm", "pgd"]
