"""Modules of the result classes, by which records are read."""

# The module of each result class. Records name the class alone, so that old ones are readable after a renaming.
HOMES = {
    "AdversarialAccuracy": "flatprobe.probes.adversarial",
    "AdversarialPoints": "flatprobe.probes.adversarial_points",
    "Audit": "flatprobe.studies.audit",
    "Bound": "flatprobe.bounds.bound",
    "DecisionRegions": "flatprobe.probes.decision_regions",
    "FlatnessRadii": "flatprobe.probes.flatness",
    "Generalization": "flatprobe.probes.generalization",
    "GeometricMargins": "flatprobe.probes.geometric",
    "GradientNoise": "flatprobe.probes.gradient_noise",
    "HessianEigenvalues": "flatprobe.probes.hessian_eigenvalues",
    "HessianTrace": "flatprobe.probes.hessian_trace",
    "Interpolation": "flatprobe.probes.interpolation",
    "JacobianMaximum": "flatprobe.probes.jacobian_maximum",
    "JacobianNorms": "flatprobe.probes.jacobian",
    "LangevinChains": "flatprobe.training.chains",
    "Margins": "flatprobe.probes.margins",
    "PerSample": "flatprobe.probes.per_sample",
    "RandomSlice": "flatprobe.probes.slices",
    "Robustness": "flatprobe.probes.robustness",
    "SmoothedCertificate": "flatprobe.probes.smoothing",
    "Tuning": "flatprobe.training.tuning.result",
    "WeightNorms": "flatprobe.probes.weight_norms",
    "WorstCaseSharpness": "flatprobe.probes.sharpness",
}
