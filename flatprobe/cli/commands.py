"""The commands. Each imports its libraries when it runs, so that --help is quick."""

import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flatprobe.cli.networks import NetworkOptions
from flatprobe.cli.samples import DataOptions

_NETWORK, _SAMPLES = NetworkOptions(), DataOptions()


def demo(*, out: Path = Path("flatprobe-demo"), seed: int = 0) -> None:
    """Train six networks on the bundled digits, with natural and random labels, probe them, and write a report.

    Parameters
    ----------
    out: Path
        Folder for checkpoints (runs), measurements (records) and report.html. Finished runs in it are reused.
    seed: int
        Seed of the random labels, the initial weights, the order of the samples, the directions and the noise.
    """
    from flatprobe.cli.console import show
    from flatprobe.cli.pages import demo_report
    from flatprobe.report.page import check_page
    from flatprobe.studies.demo import demo as study

    check_page(out / "report.html")
    comparison = study(out, seed=seed, progress=True)
    page = demo_report(comparison, out / "report.html")
    show(comparison)
    print(", ".join(f"{phase}: {seconds:.0f} s" for phase, seconds in comparison.seconds.items()))
    print(f"report: {page}")


def audit(
    run: Path,
    *,
    probes: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    changes: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    factor: float = 4.0,
    network: NetworkOptions = _NETWORK,
    samples: DataOptions = _SAMPLES,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Show which figures of a network depend on its parametrization or on the scale of its logits.

    The audit changes the weights so that the network's function, or only its decisions, stay the same. It then
    measures each probe again.

    Parameters
    ----------
    run: Path
        A checkpoint: run folder of `flatprobe train`, transformers folder, or file.
    probes: list[str]
        Names of probes, as in `flatprobe probes`, except the landscape. The default is the cheap ones.
    changes: list[str]
        Names of changes: rescaling, batch_norm, permutation, logit_scale. The default is all four.
    factor: float
        Factor of every second unit under rescaling and batch_norm, and of the logits under logit_scale; above 1.
    seed: int
        Seed of the directions, the noise and the order of the units.
    out: Path
        Parquet file for the record. Without it no record is written.
    """
    import flatprobe as fp
    from flatprobe.cli.audits import show
    from flatprobe.cli.compare import prepare
    from flatprobe.studies.audit import AUDITED
    from flatprobe.utils.arguments import one_of
    from flatprobe.utils.atomic import check_writable
    from flatprobe.utils.tables import check_place

    if out is not None:
        check_writable(out.parent)
        check_place(out)
    names = None if probes is None else [probe for words in probes for probe in words.split(",") if probe]
    for probe in names or ():
        one_of("probe", probe, AUDITED)
    ready = prepare([run], network, samples)
    if len(ready.models) != 1:
        msg = f"audit takes one checkpoint, got {run}, which holds {', '.join(ready.models)}. Name one of them."
        raise ValueError(msg)
    ((name, model),) = ready.models.items()
    for note in ready.notes:
        print(f"warning: {note}")
    result = fp.audit(model, ready.data[name], probes=names, changes=changes, factor=factor, seed=seed, progress=True)
    show(result)
    if out is not None:
        print(f"record: {fp.save(result, out)}")


def report(
    records: Path,
    *,
    out: Path = Path("report.html"),
    title: str | None = None,
    interactive: Annotated[bool, Parameter(negative=())] = False,
    open: Annotated[bool, Parameter(negative=())] = False,  # noqa: A002 - the option's name
) -> None:
    """Write one self-contained HTML page from the records of `flatprobe compare`, `probe` or `demo`.

    Parameters
    ----------
    records: Path
        Folder of records, with one subfolder per measurement.
    out: Path
        File of the page.
    title: str
        Heading of the page.
    interactive: bool
        Make surfaces on the page interactive.
    open: bool
        Open the page in the browser.
    """
    from flatprobe.report import report as write

    page = write(records, out, title=title, interactive=interactive)
    print(f"report: {page}")
    if open:
        webbrowser.open(page.absolute().as_uri())
