"""Tables of the figures of the inputs, and of bounds."""

from collections.abc import Mapping

from flatprobe.bounds import Bound
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.generalization import Generalization
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.probes.jacobian_maximum import JacobianMaximum
from flatprobe.probes.margins import Margins
from flatprobe.probes.per_sample import PerSample
from flatprobe.probes.robustness import Robustness
from flatprobe.probes.smoothing import SmoothedCertificate
from flatprobe.report.section import Cell, Table
from flatprobe.utils.numbers import MISSING, percent, plus_minus, three
from flatprobe.utils.results import Result

_FIGURES = ("train_accuracy", "test_accuracy", "accuracy_gap", "train_loss", "test_loss", "loss_gap")


def generalization(results: Mapping[str, Generalization]) -> Table:
    """Accuracies, losses and gaps with their 95 % intervals."""
    measured = {name: result.summary() for name, result in results.items()}
    shown = [figure for figure in _FIGURES if any(figure in own for own in measured.values())]
    rows = [
        (name, *(_figure(results[name], figure) if figure in own else MISSING for figure in shown))
        for name, own in measured.items()
    ]
    return Table(("network", *(figure.replace("_", " ") for figure in shown)), tuple(rows))


def _figure(result: Generalization, figure: str) -> str:
    """A figure with its interval, in percent for accuracies."""
    written = percent if "accuracy" in figure else three
    low, high = map(written, result.interval(figure))
    sign = " %" if "accuracy" in figure else ""
    return f"{written(result.summary()[figure])}{sign} [{low}, {high}]"


def samples(results: Mapping[str, PerSample]) -> Table:
    """Mean, median and range of the values, and the misclassified fraction of margins."""
    heading = ("network", "samples", "mean ± standard error", "median", "least", "largest")
    rows = []
    for name, result in results.items():
        figures = result.summary()
        row = (
            name,
            f"{len(result):,}",
            plus_minus(figures["mean"], figures["standard_error"]),
            *(three(figures[figure]) for figure in ("median", "min", "max")),
        )
        rows.append((*row, f"{percent(result.negative)} %") if isinstance(result, Margins) else row)
    signed = any(isinstance(result, Margins) for result in results.values())
    return Table((*heading, "misclassified") if signed else heading, tuple(rows))


def summaries(results: Mapping[str, Result]) -> Table:
    """The figures of the summaries."""
    measured = {name: result.summary() for name, result in results.items()}
    figures = list(dict.fromkeys(figure for own in measured.values() for figure in own))
    rows = [
        (name, *(three(own[figure]) if figure in own else MISSING for figure in figures))
        for name, own in measured.items()
    ]
    return Table(("network", *(figure.replace("_", " ") for figure in figures)), tuple(rows))


def fresh_band(results: Mapping[str, Result]) -> str:
    """Meaning of the bands, and the networks for which they do not hold."""
    words = "Wilson's 95 % band for fresh samples of the same distribution"
    own = [name for name, result in results.items() if result.settings.get("own_samples", False)]
    if not own:
        return words
    names = "these networks" if len(own) == len(results) else ", ".join(own[:3]) + (", ..." if len(own) > 3 else "")
    return f"{words} (not for {names}, measured on their own training samples: fresh ones may lie anywhere)"


def errors(results: Mapping[str, Robustness]) -> Table:
    """Mean error at each noise level in percent, with its band."""
    levels = list(dict.fromkeys(float(gamma) for result in results.values() for gamma in result.gammas))
    rows = []
    for name, result in results.items():
        lower, upper = result.interval()
        cells = {
            float(gamma): f"{percent(float(p))} [{percent(float(low))}, {percent(float(high))}]"
            for gamma, p, low, high in zip(result.gammas, result.mean, lower, upper, strict=True)
        }
        rows.append((name, *(cells.get(level, MISSING) for level in levels)))
    return Table(("network, % misclassified", *(f"noise {level:g}" for level in levels)), tuple(rows))


def certificates(results: Mapping[str, SmoothedCertificate]) -> Table:
    """Abstentions, radii, and certified accuracy at multiples of sigma."""
    multiples = (0, 0.5, 1, 2)
    heading = ("network", "samples", "abstains", "median radius", "mean radius")
    rows = []
    for name, result in results.items():
        sigma = result.settings["arguments"]["sigma"]
        figures = result.summary()
        accuracy = result.certified_accuracy([k * sigma for k in multiples]).tolist()
        radii = (three(figures[figure]) for figure in ("median_radius", "mean_radius"))
        abstained = f"{percent(result.abstained)} %"
        rows.append((name, f"{len(result):,}", abstained, *radii, *(f"{percent(value)} %" for value in accuracy)))
    levels = (f"certified at {k:g} sigma" for k in multiples)
    return Table((*heading, *levels), tuple(rows))


def maximum(results: Mapping[str, JacobianMaximum]) -> Table:
    """Largest norm, and where it was found."""
    rows = []
    for name, result in results.items():
        first, second, at = result.where
        place = f"sample {first}" if first == second else f"{three(at)} of the way from sample {first} to {second}"
        rows.append((name, three(result.maximum), place, str(len(result)), str(result.points)))
    return Table(("network", "largest", "found at", "samples or segments", "points on each"), tuple(rows))


def bounds(results: Mapping[str, Bound]) -> Table:
    """Terms of the bounds."""
    rows = [
        (
            name,
            three(own.expected),
            three(own.empirical),
            "; ".join(f"{term} {three(value)}" for term, value in own.terms.items()),
            "yes" if own.vacuous else "no",
            ", ".join(own.chosen) or "nothing",
            "theorem" if own.proven else "rate only",
        )
        for name, own in results.items()
    ]
    heading = ("bound", "expected loss at most", "empirical", "terms", "vacuous", "chosen after the data", "proven")
    return Table(heading, tuple(rows))


def distances(results: Mapping[str, GeometricMargins]) -> Table:
    """Median by each method, number of points not found, and violations."""
    lowers = list(dict.fromkeys(name for result in results.values() for name in result.lowers))
    uppers = list(dict.fromkeys(name for result in results.values() for name in result.uppers))
    rows = []
    for name, result in results.items():
        figures = result.summary()
        row: list[str | Cell] = [
            name,
            *(_median(figures.get(f"median_{own}"), own in result.uncertified) for own in (*lowers, *uppers)),
        ]
        total = len(result.labels)
        rows.append((*row, f"{int((~result.reached).sum())} of {total}", f"{result.violations} of {total}"))
    heading = ("network, median", *(f"lower, {m}" for m in lowers), *(f"upper, {m}" for m in uppers))
    return Table((*heading, "not found", "lower above upper"), tuple(rows))


def _median(value: float | None, uncertified: bool) -> str | Cell:
    if value is None:
        return MISSING
    return Cell(three(value), small="not certified") if uncertified else three(value)


def accuracies(results: Mapping[str, AdversarialAccuracy]) -> Table:
    """Accuracy at each budget in percent, with its band."""
    budgets = list(dict.fromkeys(float(budget) for result in results.values() for budget in result.budgets))
    rows = []
    for name, result in results.items():
        lower, upper = result.interval()
        cells = {
            float(budget): f"{percent(float(p))} [{percent(float(low))}, {percent(float(high))}]"
            for budget, p, low, high in zip(result.budgets, result.accuracy, lower, upper, strict=True)
        }
        rows.append((name, *(cells.get(budget, MISSING) for budget in budgets)))
    return Table(("network, % correct", *(f"budget {budget:g}" for budget in budgets)), tuple(rows))
