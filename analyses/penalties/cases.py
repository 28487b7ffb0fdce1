"""The penalties of the table, and the quantity that each should lower."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch

import flatprobe as fp
from flatprobe.training.penalties import PENALTIES
from flatprobe.training.registry import build

BATCH = 250  # samples per batch for the penalty's exact form; a maximum over samples is taken over the batch

Quantity = Callable[[torch.nn.Module, fp.LabelledData], float]


def jacobian(**options: str) -> Quantity:
    """(1/n) sum_i ||J(x_i)||^2 by the probe."""
    return lambda model, data: float(fp.jacobian_norms(model, data, **options).values.square().mean())


def own(asked: Mapping[str, object]) -> Quantity:
    """Mean over batches of the exact form of the penalty."""

    def measure(model: torch.nn.Module, data: fp.LabelledData) -> float:
        penalty = build("penalty", asked, PENALTIES)
        values = [
            float(penalty(fp.ForwardPass(model, batch.inputs, batch.labels, key=(0, index))).detach())
            for index, batch in enumerate(data.batches(BATCH))
        ]
        return sum(values) / len(values)

    return measure


def operator_norms(model: torch.nn.Module, data: fp.LabelledData) -> float:
    """Sum of the squared operator norms of the layers, by the probe."""
    return float(fp.weight_norms(model, data.input_shape).of("spectral").square().sum())


def under_noise(gamma: float) -> Quantity:
    """The error under Gaussian noise."""
    return lambda model, data: float(fp.gaussian_robustness(model, data, gammas=[gamma], draws=5).error.mean())


def under_attack(budget: float) -> Quantity:
    """The error under PGD, l2."""
    return lambda model, data: 1 - float(fp.adversarial_accuracy(model, data, budgets=[budget]).accuracy.mean())


@dataclass(frozen=True)
class Case:
    """One or more penalties, and the quantity that they should lower."""

    penalties: tuple[tuple[float, Mapping[str, object]], ...]
    quantity: str
    measured: Quantity = field(repr=False)


FROBENIUS = {"name": "jacobian_frobenius"}
DOUBLE = {"name": "double_backpropagation"}
HESSIAN = {"name": "hessian_scaled"}
LAYERS = {"name": "jacobian_per_layer"}


def cases(factors: Mapping[str, float] = MappingProxyType({}), noise: float = 0.3) -> dict[str, Case]:
    """All penalties, at strengths that let a network of the digits reach the target.

    Args:
        factors: case -> factor of its strengths, for other data.
        noise: standard deviation in the units of the inputs.
    """
    return {
        name: replace(case, penalties=tuple((factors.get(name, 1) * strength, own) for strength, own in case.penalties))
        for name, case in _cases(noise).items()
    }


def _cases(noise: float) -> dict[str, Case]:
    softmax = {**FROBENIUS, "outputs": "softmax"}
    return {
        "Frobenius, logits": Case(
            ((0.0001, {**FROBENIUS, "projections": 1}),), "mean ||J||_F^2", jacobian(norm="frobenius")
        ),
        "Frobenius, softmax": Case(
            ((0.1, {**softmax, "projections": 1}),),
            "mean ||J||_F^2 of p",
            jacobian(norm="frobenius", outputs="softmax"),
        ),
        "spectral": Case(((0.001, {"name": "jacobian_spectral"}),), "mean ||J||_2^2", jacobian(norm="spectral")),
        "per layer, softmax, held": Case(((1.0, LAYERS),), "itself", own(LAYERS)),
        "per layer, logits, held": Case(
            ((0.001, {**LAYERS, "outputs": "logits"}),), "itself", own({**LAYERS, "outputs": "logits"})
        ),
        "double backpropagation": Case(((0.1, DOUBLE),), "mean ||grad l||^2", own(DOUBLE)),
        "Hessian-scaled": Case(((0.03, {**HESSIAN, "projections": 1}),), "mean Tr(J^T H J)", own(HESSIAN)),
        "hsfob-db1": Case(((0.03, {**HESSIAN, "projections": 1}), (0.03, DOUBLE)), "mean Tr(J^T H J)", own(HESSIAN)),
        "hsfob-db2": Case(
            ((0.003, {**HESSIAN, "projections": 2, "power": 2}), (0.003, DOUBLE)),
            "itself",
            own({**HESSIAN, "power": 2}),
        ),
        "gradient, l2": Case(
            ((1.0, {"name": "gradient_dual_norm", "norm": "l2"}),),
            "mean ||grad l||_2",
            own({"name": "gradient_dual_norm", "norm": "l2"}),
        ),
        "gradient, linf": Case(
            ((0.05, {"name": "gradient_dual_norm", "norm": "linf"}),),
            "mean ||grad l||_1",
            own({"name": "gradient_dual_norm", "norm": "linf"}),
        ),
        "Tikhonov by differences": Case(
            ((0.1, {"name": "tikhonov_differences", "step": 0.1}),), "mean ||grad l||^2", own(DOUBLE)
        ),
        "RKHS, gradient": Case(
            ((0.0001, {"name": "rkhs_gradient", "classes": 2}),), "itself", own({"name": "rkhs_gradient"})
        ),
        "RKHS, perturbation": Case(
            ((0.0001, {"name": "adversarial_perturbation", "radius": 0.5, "classes": 2}),),
            "itself",
            own({"name": "adversarial_perturbation", "radius": 0.5}),
        ),
        "RKHS, deformation": Case(
            ((0.003, {"name": "adversarial_deformation", "classes": 1}),),
            "itself",
            own({"name": "adversarial_deformation"}),
        ),
        "spectral norms": Case(((0.003, {"name": "spectral_norm"}),), "sum ||W_l||_2^2", operator_norms),
        "R_T, Gaussian noise": Case(
            ((1.0, {"name": "transformed", "transform": {"name": "gaussian_noise", "deviation": noise}}),),
            f"error at noise {noise}",
            under_noise(noise),
        ),
        "R_T, PGD": Case(
            ((1.0, {"name": "transformed", "transform": {"name": "pgd", "budget": 0.5, "norm": "l2"}}),),
            "error under l2 attack 0.5",
            under_attack(0.5),
        ),
    }
