"""`python -m tests.benchmarks peers [WORK ...] [--network NAME ...] [--rounds N]`; all works rewrite the record.

`python -m tests.benchmarks.peers NETWORK WORK VARIANT` measures one variant's peak memory.
"""

import argparse
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
import torch

from figures.tables.peers import ratios
from flatprobe.utils.results import environment
from flatprobe.utils.tables import write_table
from tests.benchmarks.harness import RECORDS, Row, peak_mebibytes, report_peak
from tests.benchmarks.peers import inputs, steps, weights
from tests.benchmarks.peers.contest import NETWORKS, SMALL, Contest, Subject, cpu_seconds, rounds, subject

ROUNDS = {"digits": 7, "MLP": 5, "CNN": 5, "ResNet": 3, "ViT-B": 2}
DENSE = ("digits", "MLP")
WORKS: dict[str, tuple[Callable[[Subject], Contest], tuple[str, ...]]] = {
    "functional margins": (inputs.margins, NETWORKS),
    "EmpiricalRisk": (weights.creation, NETWORKS),
    "radius along a direction": (weights.radius, NETWORKS),
    "random direction": (weights.draw, NETWORKS),
    "random slice, 11 points": (weights.line, SMALL),
    "plane through three networks, 16 points": (weights.three_points, SMALL),
    "gradient noise": (weights.noise, NETWORKS),
    "Hessian eigenvalue, one batch": (weights.one_batch, DENSE),
    "Hessian eigenvalue, all data": (weights.eigenvalue, SMALL[:3]),
    "Hessian trace": (weights.trace, SMALL),
    "Hessian-vector product": (weights.product, SMALL),
    "Gaussian robustness": (inputs.robustness, SMALL),
    "smoothed certificate": (inputs.smoothing, SMALL),
    "FGSM": (partial(inputs.fixed, kind="fgsm"), SMALL),
    "PGD": (partial(inputs.fixed, kind="pgd"), SMALL),
    "DDN": (inputs.ddn, SMALL[:3]),
    "Jacobian norms, 10 classes": (inputs.jacobian, SMALL),
    "certificate in linf": (inputs.certificate, SMALL[:3]),
    "training": (steps.training, SMALL),
    "training with a Jacobian penalty": (steps.penalty, SMALL),
    "step of ForwardPass": (steps.forward_pass, SMALL),
    "load_data, digits": (steps.digits, ("digits",)),
}
MEMORY = {
    "Jacobian norms, 10 classes": DENSE,
    "EmpiricalRisk": ("ViT-B",),
    "radius along a direction": ("ViT-B",),
    "gradient noise": ("ViT-B",),
}


def _variants(contest: Contest) -> dict[str, Callable[[], object]]:
    return {"flatprobe": contest.ours, **contest.peers}


def rows(work: str, name: str, count: int | None = None) -> Iterator[Row]:
    """CPU seconds of each variant and round, and the peak memory of some, after their values were compared."""
    torch.manual_seed(0)
    contest = WORKS[work][0](subject(name))
    shared = {"work": work, "network": name, "note": contest.note, "found": contest.check() or ""}
    for variant, number, seconds in rounds(_variants(contest), count or ROUNDS[name]):
        yield {**shared, "variant": variant, "round": number, "cpu_seconds": seconds}
    if name in MEMORY.get(work, ()):
        size = sum(w.numel() * w.element_size() for w in subject(name).model.parameters()) / 2**20
        for variant in _variants(contest):
            peak = peak_mebibytes("peers", name, work, variant)
            yield {**shared, "variant": variant, "peak_mebibytes": peak, "weights_mebibytes": size}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks peers", description=__doc__)
    parser.add_argument("works", nargs="*", metavar="WORK", help="words that a work's name contains; all by default")
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    works = [work for work in WORKS if not options.works or any(word in work for word in options.works)]
    found: list[Row] = []
    failed = []
    for name, work in [(name, work) for name in options.network for work in works if name in WORKS[work][1]]:
        start = cpu_seconds()
        try:
            found += rows(work, name, options.rounds)
        except Exception:  # noqa: BLE001  the others' figures are kept
            traceback.print_exc()
            failed.append(f"{work}, {name}")
        print(f"{work}, {name}: {cpu_seconds() - start:.0f} s", flush=True)
    frame = pd.DataFrame(found)
    with pd.option_context("display.width", 200, "display.precision", 3):
        for figure in [figure for figure in ("cpu_seconds", "peak_mebibytes") if figure in frame]:
            print(f"{figure}, flatprobe / peer\n{ratios(frame, figure).to_string()}")
    if works == list(WORKS) and options.network == list(NETWORKS):
        metadata = {"kind": "benchmark", "command": "make bench-peers", "environment": environment()}
        write_table(frame, RECORDS / "peers.parquet", metadata)
    if failed:
        sys.exit(f"failed: {failed}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    name, work, variant = sys.argv[1:]
    build = WORKS[work][0]
    _variants(build(subject("digits", trained=False).head(64)))[variant]()  # loads what torch loads late
    report_peak(_variants(build(subject(name, trained=False)))[variant])  # a training leaves memory to be reused
