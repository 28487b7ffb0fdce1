"""Sections of the probes of the inputs, of generalization, and of bounds."""

from flatprobe.plotting import bounds, curve, generalization, geometric, has_picture, histogram
from flatprobe.plotting.names import common
from flatprobe.report import tables
from flatprobe.report.kind import Kind, Results


def _generalization(results: Results) -> str:
    filled, open_ = (" (filled)", " (open)") if has_picture(results) else ("", "")
    samples = f"training samples{filled} and of test samples{open_}"
    if generalization.quantity(results) == "accuracy":
        figure = f"The fraction of {samples} that are classified correctly"
    else:
        figure = f"The mean loss of {samples}"
    return f"{figure}, with 95 % intervals. The gap between the two is what the other measurements are to explain."


GENERALIZATION = Kind(
    title="Generalization",
    sentence=_generalization,
    picture=lambda results, groups: generalization.draw(results, groups=groups),
    shows="The accuracy, or without classes the mean loss, of each network on training and test samples",
    table=tables.generalization,
)
MARGINS = Kind(
    title="Functional margins",
    sentence=lambda _results: (
        "The true class's logit minus the largest other logit, per sample. A sample left of 0 is misclassified; a more "
        "certain sample is further right, on a scale that grows with the last layer's weights."
    ),
    picture=lambda results, groups: histogram.draw(results, groups=groups),
    shows="The distribution of margins of each network",
    table=tables.samples,
)
SCORES = Kind(
    title="Scores",
    sentence=lambda results: (
        "√2 times the smallest lead of the true class's output over another class's, per sample "
        f"({common(results, 'outputs')} outputs, for which √2 is the maximum). A sample left of 0 is misclassified; a "
        "more certain sample is further right."
    ),
    picture=lambda results, groups: histogram.draw(results, groups=groups),
    shows="The distribution of scores of each network",
    table=tables.samples,
)
_MEANING = {
    "spectral": "the largest change of the output per small step of the input",
    "frobenius": "the size of all slopes together",
}
JACOBIAN = Kind(
    title="Jacobian norms",
    sentence=lambda results: (
        f"The {common(results, 'norm')} norm of the Jacobian of the {common(results, 'outputs')} with respect to the "
        f"input, per sample: {_MEANING[common(results, 'norm')]}. Smaller is smoother."
    ),
    picture=lambda results, groups: histogram.draw(results, groups=groups),
    shows="The distribution of Jacobian norms of each network",
    table=tables.samples,
)


def _along(results: Results) -> str:
    samples = common(results, "along") == "samples"
    return "at each sample" if samples else "on each segment between two random samples"


MAXIMUM = Kind(
    title="Largest Jacobian norms",
    sentence=lambda results: (
        f"The largest {common(results, 'norm')} norm of the Jacobian of the {common(results, 'outputs')} that was "
        "found. The rightmost value is a lower bound of the supremum, which bounds the growth of distances. Smaller is "
        "smoother."
    ),
    particulars=_along,
    picture=lambda results, groups: histogram.draw(results, groups=groups),
    shows="The distribution of the largest norms of each network",
    table=tables.maximum,
)
ROBUSTNESS = Kind(
    title="Robustness to noise",
    sentence=lambda results: (
        "The fraction of samples misclassified when Gaussian noise is added to the inputs, against the noise's "
        f"standard deviation, as the mean over {next(iter(results.values())).error.shape[1]} draws with "
        f"{tables.fresh_band(results)}. A curve that rises later belongs to a more robust network."
    ),
    picture=lambda results, groups: curve.draw(results, groups=groups),
    shows="A curve of the error against the noise per network",
    table=tables.errors,
)
SMOOTHED = Kind(
    title="Smoothed certificates",
    sentence=lambda results: (
        "The fraction of samples whose class the smoothed classifier, a vote of the network under Gaussian noise of "
        f"standard deviation {common(results, 'sigma'):g}, predicts correctly and provably within an l2 radius, with "
        f"{tables.fresh_band(results)}. It abstains where {common(results, 'draws'):,} draws prove no majority. A "
        f"radius is wrong with probability at most {common(results, 'alpha'):g}. The radii belong to the vote, not to "
        "the network: they do not bound the predictions of the network itself."
    ),
    picture=lambda results, groups: curve.draw(results, groups=groups),
    shows="A curve of certified accuracy against the radius per network",
    table=tables.certificates,
)
BOUND = Kind(
    title="Bounds",
    sentence=lambda _results: (
        "A generalization bound of the expected loss, term by term, in units of the largest possible loss. From 1 on "
        "(dashed) a bound is vacuous. If something was chosen after the data were seen, the stated probability does "
        "not hold."
    ),
    picture=lambda results, groups: bounds.draw(results, groups=groups),
    shows="A bar of terms per bound",
    table=tables.bounds,
    values=lambda results: ("expected loss at most", {name: float(own.expected) for name, own in results.items()}),
)


def _distances_sentence(results: Results) -> str:
    certified = all(result.certified or result.uncertified for result in results.values())
    low = "a certified distance within which the class cannot change" if certified else "an estimate of that distance"
    sentence = (
        f"The {common(results, 'norm')} distance that an input can move before its class changes, per sample, between "
        f"{low} (thin curve) and the shortest perturbation found that changes the class (thick curve). Curves further "
        "right belong to a more robust network. Misclassified samples count at distance 0."
    )
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, result in results.items():
        for method, reason in result.uncertified.items():
            reasons.setdefault((method, reason), []).append(name)
    for (method, reason), names in reasons.items():
        sentence += f" The {method} lower bound is 0 for {', '.join(names)}: {reason}."
    return sentence


DISTANCES = Kind(
    title="Geometric margins",
    sentence=_distances_sentence,
    picture=lambda results, groups: geometric.draw(results, groups=groups),
    shows="Two curves per network, the lower and the upper bound of the margin",
    table=tables.distances,
)
ACCURACY = Kind(
    title="Adversarial accuracy",
    sentence=lambda results: (
        f"The fraction of samples that are still classified correctly when {common(results, 'attack').upper()} moves "
        f"each by a budget ({common(results, 'norm')} distance), with {tables.fresh_band(results)}. A curve that falls "
        "later belongs to a more robust network. A stronger attack could only lower the curve."
    ),
    picture=lambda results, groups: curve.draw(results, groups=groups),
    shows="A curve of accuracy against the budget per network",
    table=tables.accuracies,
)
OTHER = Kind(
    title="Other measurements",
    sentence=lambda _results: "The figures of a probe without a picture, such as a function of the user.",
    picture=lambda _results, _groups: None,
    shows="The figures of each network",
    table=tables.summaries,
)
