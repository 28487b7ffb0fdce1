"""Report sections of geometric margins and adversarial accuracy."""

from collections.abc import Mapping
from typing import Any

from flatprobe.plotting import curve, geometric, png
from flatprobe.plotting.names import common
from flatprobe.probes.adversarial import AdversarialAccuracy
from flatprobe.probes.geometric import GeometricMargins
from flatprobe.report import tables
from flatprobe.report.section import Section, Table
from flatprobe.utils.numbers import MISSING, percent, three

Results = Mapping[str, Any]
Groups = Mapping[str, str] | None


def margin_sections(title: str, results: Results, groups: Groups) -> list[Section]:
    """Section with the bounds of each network, and the medians of every method."""
    certified = all(result.certified or result.uncertified for result in results.values())
    low = "a certified distance within which the class cannot change" if certified else "an estimate of that distance"
    sentence = (
        f"The {common(results, 'norm')} distance that an input can move before its class changes, per sample, between "
        f"{low} (thin curve) and the shortest perturbation found that changes the class (thick curve). Curves further "
        "right belong to a more robust network. Misclassified samples count at distance 0."
    )
    if unknown := [name for name, result in results.items() if result.uncertified]:
        sentence += f" Not every certificate knows the layers of {', '.join(unknown)}; its distance is 0 there."
    words = f"Distributions of the lower and upper bounds of the margin of {', '.join(results)}"
    return [Section(title, sentence, png(geometric.draw(results, groups=groups)), words, margin_table(results))]


def margin_table(results: Mapping[str, GeometricMargins]) -> Table:
    """Median by each method, number of points not found, and violations."""
    lowers = list(dict.fromkeys(name for result in results.values() for name in result.lowers))
    uppers = list(dict.fromkeys(name for result in results.values() for name in result.uppers))
    rows = []
    for name, result in results.items():
        figures = result.summary()
        methods = (m if m not in result.uncertified else None for m in (*lowers, *uppers))
        medians = [figures.get(f"median_{method}") for method in methods]
        row = [name, *(MISSING if median is None else three(median) for median in medians)]
        total = len(result.labels)
        rows.append((*row, f"{int((~result.reached).sum())} of {total}", f"{result.violations} of {total}"))
    heading = ("network, median", *(f"lower, {m}" for m in lowers), *(f"upper, {m}" for m in uppers))
    return Table((*heading, "not found", "lower above upper"), tuple(rows))


def accuracy_sections(title: str, results: Results, groups: Groups) -> list[Section]:
    """Section with the curves of accuracy against the budget."""
    attack, norm = common(results, "attack"), common(results, "norm")
    sentence = (
        f"The fraction of samples that are still classified correctly when {attack.upper()} moves each by a budget "
        f"({norm} distance), with {tables.fresh_band(results)}. A curve that falls later belongs to a more robust "
        "network. A stronger attack could only lower the curve."
    )
    words = f"Curves of {', '.join(results)}"
    return [Section(title, sentence, png(curve.draw(results, groups=groups)), words, accuracy_table(results))]


def accuracy_table(results: Mapping[str, AdversarialAccuracy]) -> Table:
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
