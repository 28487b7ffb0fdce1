"""Arguments of each transform for a run of it."""

from typing import Any

ARGUMENTS: dict[str, dict[str, Any]] = {
    "gaussian_noise": {"deviation": 0.1},
    "fgsm": {"budget": 0.1},
    "pgd": {"budget": 0.1, "norm": "l2", "steps": 2, "box": [0.0, 1.0]},
    "gradient_step": {"step": 0.5},
    "mixup": {"alpha": 0.4, "each": "sample"},
    "cutout": {"size": 3},
    "crop_and_flip": {"padding": 1, "mode": "reflect"},
    "deformation": {"size": 0.8, "grid": 3},
}
