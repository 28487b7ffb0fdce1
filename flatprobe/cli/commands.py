"""The commands. Each imports its libraries when it runs, so that --help is quick."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from flatprobe.studies.compare import Comparison


def demo(*, out: Path = Path("flatprobe-demo"), seed: int = 0) -> None:
    """Train six networks on the bundled digits, with natural and random labels, probe them, and write a report.

    Parameters
    ----------
    out: Path
        Folder for checkpoints (runs), measurements (records) and report.html. Finished runs in it are reused.
    seed: int
        Seed of the random labels, the initial weights, the order of the samples, the directions and the noise.
    """
    from flatprobe.cli.pages import demo_report
    from flatprobe.report.page import check_page
    from flatprobe.studies.demo import demo as study

    check_page(out / "report.html")
    comparison = study(out, seed=seed, progress=True)
    page = demo_report(comparison, out / "report.html")
    _summary(comparison)
    print(", ".join(f"{phase}: {seconds:.0f} s" for phase, seconds in comparison.seconds.items()))
    print(f"report: {page}")


def probe(
    runs: Annotated[list[Path], Parameter(negative=())],
    *,
    out: Path,
    data: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    probes: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    model: str | None = None,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Measure trained networks and write one parquet record per network and probe.

    `flatprobe report` draws the records. Runs whose names differ only in a final number ("natural-0", "natural-1")
    form a group. Landscapes are measured between the networks of a group.

    Parameters
    ----------
    runs: list[Path]
        Run folders of `flatprobe train`, transformers folders, or checkpoint files (safetensors or state_dicts).
    out: Path
        Folder for the records.
    data: str
        "digits", the name of a Hugging Face data set, or a folder. The default is each run's own training data,
        with its random labels.
    split: str
        Split of the data. The default is the training split.
    limit: int
        Number of samples to use, from the first one on.
    probes: list[str]
        Names of probes. The default is flatness_radius, flatness_radius_last_layer, random_slice,
        hessian_eigenvalues, functional_margins, scores, jacobian_norms, gaussian_robustness and landscape. Also
        available: hessian_trace, worst_case_sharpness, gradient_noise, weight_norms, geometric_margins,
        jacobian_maximum, smoothed_certificate and adversarial_accuracy.
    model: str
        The architecture of checkpoint files, as package.module:factory or file.py:factory. The factory is called
        without arguments. Modules in the current folder are found.
    device: str
        Device of the networks, such as cuda or cuda:1. The default is the CPU.
    seed: int
        Seed of the directions and the noise.
    """
    from flatprobe.cli.inputs import architecture, data_of, group_of, names_of, numbered_for
    from flatprobe.models.checkpoints import load_checkpoint
    from flatprobe.studies.compare import compare

    if probes is not None:
        probes = [probe for words in probes for probe in words.split(",") if probe]
    names = names_of(runs)
    module = None if model is None else architecture(model)
    networks = {name: load_checkpoint(path, module, device=device) for name, path in names.items()}
    samples = {name: numbered_for(networks[name], data_of(path, data, split, limit)) for name, path in names.items()}
    groups = {name: group_of(name) for name in names}
    comparison = compare(networks, samples, probes=probes, groups=groups, seed=seed, progress=True, out=out)
    _summary(comparison)
    print(f"records: {out}")


def audit(
    run: Path,
    *,
    data: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    probes: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    changes: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    factor: float = 4.0,
    model: str | None = None,
    device: str | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Show which figures of a network depend on its parametrization or on the scale of its logits.

    The audit changes the weights so that the network's function, or only its decisions, stay the same. It then
    measures each probe again.

    Parameters
    ----------
    run: Path
        Run folder of `flatprobe train`, transformers folder, or checkpoint file (safetensors or state_dict).
    data: str
        "digits", the name of a Hugging Face data set, or a folder. The default is the run's own training data.
    split: str
        Split of the data. The default is the training split.
    limit: int
        Number of samples to use, from the first one on.
    probes: list[str]
        Names of probes: flatness_radius_adaptive and all probes of `flatprobe probe` except the landscape. The default
        is the cheap ones.
    changes: list[str]
        Names of changes: rescaling, batch_norm, permutation, logit_scale. The default is all four.
    factor: float
        Factor of every second unit under rescaling and batch_norm, and of the logits under logit_scale; above 1.
    model: str
        The architecture of a checkpoint file, as package.module:factory or file.py:factory. The factory is called
        without arguments. Modules in the current folder are found.
    device: str
        Device of the networks, such as cuda or cuda:1. The default is the CPU.
    seed: int
        Seed of the directions, the noise and the order of the units.
    out: Path
        Parquet file for the record. Without it no record is written.
    """
    import flatprobe as fp
    from flatprobe.cli.audits import show
    from flatprobe.cli.inputs import architecture, data_of, numbered_for
    from flatprobe.utils.atomic import check_writable
    from flatprobe.utils.tables import check_place

    if out is not None:
        check_writable(out.parent)
        check_place(out)
    network = fp.load_checkpoint(run, None if model is None else architecture(model), device=device)
    samples = numbered_for(network, data_of(run, data, split, limit))
    result = fp.audit(network, samples, probes=probes, changes=changes, factor=factor, seed=seed, progress=True)
    show(result)
    if out is not None:
        print(f"record: {fp.save(result, out)}")


def report(records: Path, *, out: Path = Path("report.html"), title: str = "flatprobe report") -> None:
    """Write one self-contained HTML page from the records of `flatprobe probe` or `flatprobe demo`.

    Parameters
    ----------
    records: Path
        Folder of records, with one subfolder per measurement.
    out: Path
        File of the page.
    title: str
        Heading of the page.
    """
    from flatprobe.cli.pages import records_report

    print(f"report: {records_report(records, out, title=title)}")


def _summary(comparison: "Comparison") -> None:
    """The headline figures as a table on stdout."""
    from rich.console import Console

    from flatprobe.cli.pages import summary_table

    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(summary_table(comparison))
