"""Tables of the figures in each picture."""

from collections.abc import Mapping

from flatprobe.probes.flatness import FlatnessRadii
from flatprobe.probes.interpolation import Interpolation
from flatprobe.probes.margins import Margins
from flatprobe.probes.per_sample import PerSample
from flatprobe.probes.robustness import Robustness
from flatprobe.probes.smoothing import SmoothedCertificate
from flatprobe.probes.surfaces import has_error
from flatprobe.report.section import Table
from flatprobe.utils.numbers import MISSING, percent, plus_minus, three
from flatprobe.utils.results import Result


def radii(results: Mapping[str, FlatnessRadii]) -> Table:
    """Loss and error at the start, radii, and number of evaluations."""
    heading = ("network", "loss at the start", "error at the start", "mean ± sd", "median", "reached", "evaluations")
    rows = [
        (
            name,
            three(result.start.loss),
            f"{percent(result.start.error)} %" if "error" in result.start.figures() else MISSING,
            plus_minus(result.mean, result.std),
            three(result.median),
            f"{len(result.radii) - result.censored} of {len(result.radii)}",
            str(int(result.evaluations.sum())),
        )
        for name, result in results.items()
    ]
    return Table(heading, tuple(rows))


def landscapes(results: Mapping[str, Interpolation]) -> Table:
    """Loss at the networks and largest loss between them; for lines also the barrier."""
    lines = all(result.coefficients.shape[1] == 2 for result in results.values())
    heading = ("landscape", "loss at the networks", "largest loss", "least accuracy", "points", "not finite")
    rows = []
    for name, result in results.items():
        corners = (result.coefficients == 1).any(1)
        known = result.loss.isfinite()
        row = (
            name,
            ", ".join(three(value) for value in result.loss[corners].tolist()),
            three(float(result.loss[known].max())) if bool(known.any()) else MISSING,
            f"{percent(float(result.accuracy[known].min()))} %" if has_error(result) else MISSING,
            str(len(result.loss)),
            str(int((~known).sum())),
        )
        rows.append((*row, three(result.barrier)) if lines else row)
    return Table((*heading, "barrier") if lines else heading, tuple(rows))


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


def fresh_band(results: Mapping[str, Result]) -> str:
    """Meaning of the bands, and the networks for which they do not hold."""
    words = "Wilson's 95 % band for fresh samples of the same distribution"
    own = [name for name, result in results.items() if result.settings.get("own_samples", False)]
    if not own:
        return words
    return f"{words} (not for {', '.join(own)}, measured on its own training samples: fresh ones may lie anywhere)"


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
