"""Probes of trained networks, and the training core that makes the networks.

The public names are imported on first use (PEP 562), so that `import flatprobe` and a command's `--help` load nothing
heavy. Type checkers and editors see the imports below.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flatprobe import bounds as bounds
    from flatprobe import callbacks as callbacks
    from flatprobe import models as models
    from flatprobe.data import LabelledData as LabelledData
    from flatprobe.data.load import load_data as load_data
    from flatprobe.models import Normalised as Normalised
    from flatprobe.models.checkpoints import load_checkpoint as load_checkpoint
    from flatprobe.network.embedding import at_embedding as at_embedding
    from flatprobe.network.outputs import WithOutput as WithOutput
    from flatprobe.probes.adversarial import adversarial_accuracy as adversarial_accuracy
    from flatprobe.probes.adversarial_points import adversarial_points as adversarial_points
    from flatprobe.probes.coefficients import segment as segment
    from flatprobe.probes.coefficients import simplex as simplex
    from flatprobe.probes.decision_regions import decision_regions as decision_regions
    from flatprobe.probes.flatness import flatness_radius as flatness_radius
    from flatprobe.probes.generalization import generalization as generalization
    from flatprobe.probes.geometric import geometric_margins as geometric_margins
    from flatprobe.probes.gradient_noise import gradient_noise as gradient_noise
    from flatprobe.probes.hessian_eigenvalues import hessian_eigenvalues as hessian_eigenvalues
    from flatprobe.probes.hessian_trace import hessian_trace as hessian_trace
    from flatprobe.probes.interpolation import interpolate as interpolate
    from flatprobe.probes.jacobian import jacobian_norms as jacobian_norms
    from flatprobe.probes.jacobian_maximum import jacobian_maximum as jacobian_maximum
    from flatprobe.probes.margins import functional_margins as functional_margins
    from flatprobe.probes.margins import scores as scores
    from flatprobe.probes.robustness import gaussian_robustness as gaussian_robustness
    from flatprobe.probes.sharpness import worst_case_sharpness as worst_case_sharpness
    from flatprobe.probes.slices import random_slice as random_slice
    from flatprobe.probes.smoothing import smoothed_certificate as smoothed_certificate
    from flatprobe.probes.weight_norms import weight_norms as weight_norms
    from flatprobe.report.page import report as report
    from flatprobe.risk.empirical import EmpiricalRisk as EmpiricalRisk
    from flatprobe.risk.empirical import Risk as Risk
    from flatprobe.studies.audit import audit as audit
    from flatprobe.studies.compare import compare as compare
    from flatprobe.studies.experiment import Experiment as Experiment
    from flatprobe.studies.measurement import Measurement as Measurement
    from flatprobe.studies.methods import tune_methods as tune_methods
    from flatprobe.studies.sweep import sweep as sweep
    from flatprobe.training import DivergedError as DivergedError
    from flatprobe.training import ForwardPass as ForwardPass
    from flatprobe.training import TrainingRun as TrainingRun
    from flatprobe.training import constraints as constraints
    from flatprobe.training import inverse_rate as inverse_rate
    from flatprobe.training import langevin_chains as langevin_chains
    from flatprobe.training import penalties as penalties
    from flatprobe.training import train as train
    from flatprobe.training import train_many as train_many
    from flatprobe.training import transforms as transforms
    from flatprobe.training import tune as tune
    from flatprobe.utils.results import Result as Result
    from flatprobe.utils.results import load as load
    from flatprobe.utils.results import save as save

_HOMES = {
    # data and networks
    "LabelledData": "flatprobe.data",
    "Normalised": "flatprobe.models",
    "WithOutput": "flatprobe.network.outputs",
    "at_embedding": "flatprobe.network.embedding",
    "load_checkpoint": "flatprobe.models.checkpoints",
    "load_data": "flatprobe.data.load",
    "models": "flatprobe.models",
    # weight-space probes
    "EmpiricalRisk": "flatprobe.risk.empirical",
    "Risk": "flatprobe.risk.empirical",
    "flatness_radius": "flatprobe.probes.flatness",
    "generalization": "flatprobe.probes.generalization",
    "gradient_noise": "flatprobe.probes.gradient_noise",
    "hessian_eigenvalues": "flatprobe.probes.hessian_eigenvalues",
    "hessian_trace": "flatprobe.probes.hessian_trace",
    "interpolate": "flatprobe.probes.interpolation",
    "random_slice": "flatprobe.probes.slices",
    "segment": "flatprobe.probes.coefficients",
    "simplex": "flatprobe.probes.coefficients",
    "weight_norms": "flatprobe.probes.weight_norms",
    "worst_case_sharpness": "flatprobe.probes.sharpness",
    # input-space probes
    "adversarial_accuracy": "flatprobe.probes.adversarial",
    "adversarial_points": "flatprobe.probes.adversarial_points",
    "decision_regions": "flatprobe.probes.decision_regions",
    "functional_margins": "flatprobe.probes.margins",
    "gaussian_robustness": "flatprobe.probes.robustness",
    "geometric_margins": "flatprobe.probes.geometric",
    "jacobian_maximum": "flatprobe.probes.jacobian_maximum",
    "jacobian_norms": "flatprobe.probes.jacobian",
    "scores": "flatprobe.probes.margins",
    "smoothed_certificate": "flatprobe.probes.smoothing",
    # generalization bounds from what was measured
    "bounds": "flatprobe.bounds",
    # training and studies
    "Experiment": "flatprobe.studies.experiment",
    "DivergedError": "flatprobe.training",
    "ForwardPass": "flatprobe.training",
    "Measurement": "flatprobe.studies.measurement",
    "TrainingRun": "flatprobe.training",
    "audit": "flatprobe.studies.audit",
    "callbacks": "flatprobe.callbacks",
    "compare": "flatprobe.studies.compare",
    "constraints": "flatprobe.training.constraints",
    "inverse_rate": "flatprobe.training",
    "langevin_chains": "flatprobe.training",
    "penalties": "flatprobe.training.penalties",
    "sweep": "flatprobe.studies.sweep",
    "train": "flatprobe.training",
    "train_many": "flatprobe.training",
    "transforms": "flatprobe.training.transforms",
    "tune": "flatprobe.training",
    "tune_methods": "flatprobe.studies.methods",
    # records and reports
    "Result": "flatprobe.utils.results",
    "load": "flatprobe.utils.results",
    "report": "flatprobe.report.page",
    "save": "flatprobe.utils.results",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module 'flatprobe' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}"
        raise AttributeError(msg)
    home = importlib.import_module(_HOMES[name])
    value: object = getattr(home, name, home)  # a room such as `bounds` has no such name in itself
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_HOMES, *(name for name in globals() if name.startswith("__"))})
