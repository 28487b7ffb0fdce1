"""Probes of trained networks, and the training core that makes the networks.

The public names are imported on first use (PEP 562), so that `import flatprobe` and a command's `--help` load nothing
heavy.
"""

import importlib

_HOMES = {
    # data
    "LabelledData": "flatprobe.data",
    "load_data": "flatprobe.loading",
    # networks
    "Normalised": "flatprobe.models",
    "models": "flatprobe.models",
    "load_checkpoint": "flatprobe.checkpoints",
    # weight-space probes
    "EmpiricalRisk": "flatprobe.risk",
    "Risk": "flatprobe.risk",
    "flatness_radius": "flatprobe.probes.flatness",
    "interpolate": "flatprobe.probes.interpolation",
    "segment": "flatprobe.probes.interpolation",
    "simplex": "flatprobe.probes.interpolation",
    # input-space probes
    "functional_margins": "flatprobe.probes.margins",
    "gaussian_robustness": "flatprobe.probes.robustness",
    "jacobian_norms": "flatprobe.probes.jacobian",
    "scores": "flatprobe.probes.margins",
    # training
    "TrainingRun": "flatprobe.training",
    "train": "flatprobe.training",
    # studies
    "compare": "flatprobe.studies.compare",
    # records
    "load": "flatprobe.results",
    "save": "flatprobe.results",
}

__all__ = [
    *_HOMES,
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        msg = f"module 'flatprobe' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}"
        raise AttributeError(msg)
    home = importlib.import_module(_HOMES[name])
    value = home if home.__name__.endswith(f".{name}") else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
