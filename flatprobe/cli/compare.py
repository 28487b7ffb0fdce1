"""The commands `compare`, `probe` and `probes`. Each imports its libraries when it runs, so that --help is quick."""

import sys
import warnings
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from flatprobe.cli.measurements import MeasurementOptions, along_of, groups_of, measurements_of
from flatprobe.cli.networks import LoadedNetwork, NetworkOptions, load_networks, tell
from flatprobe.cli.samples import DataOptions, loss_of, samples_for
from flatprobe.utils.grouping import caption, grouped

if TYPE_CHECKING:
    from torch import nn

    from flatprobe.data import LabelledData
    from flatprobe.studies.comparison import Comparison, Refusal

Paths = Annotated[list[Path], Parameter(negative=())]
Repeated = Annotated[tuple[str, ...], Parameter(negative=())]
Switch = Annotated[bool, Parameter(negative=())]


@Parameter(name="*")
@dataclass(frozen=True)
class RunOptions:
    """Options of the commands that measure networks.

    Parameters
    ----------
    group: list[str]
        A group as LABEL=PATTERN, such as --group "natural=natural-?". Repeat the option for several. Other networks are
        grouped by their names: names that differ only in consecutive final numbers (natural-0, natural-1) are
        replicates, unless these count epochs, steps or the like.
    along: str
        An axis: a word whose number is read from the networks' names (epoch) or the runs' settings (learning_rate), or
        FILE.csv:COLUMN, a table with the networks' names in its first column.
    again: bool
        Measure again what is already in the folder.
    workers: int
        Number of processes.
    dry_run: bool
        Print passes, memory and estimated time, and measure nothing.
    quiet: bool
        Print errors alone.
    seed: int
        Seed of the directions and the noise.
    """

    group: Repeated = ()
    along: str | None = None
    again: Switch = False
    workers: int = 1
    dry_run: Switch = False
    quiet: Switch = False
    seed: int = 0


_MEASUREMENTS, _NETWORK, _SAMPLES, _RUN = MeasurementOptions(), NetworkOptions(), DataOptions(), RunOptions()


def compare(
    paths: Paths,
    *,
    out: Path = Path("comparison"),
    table: Annotated[list[Path] | None, Parameter(negative=())] = None,
    open: Switch = False,  # noqa: A002 - the option's name
    interactive: Switch = False,
    title: str | None = None,
    measurements: MeasurementOptions = _MEASUREMENTS,
    network: NetworkOptions = _NETWORK,
    samples: DataOptions = _SAMPLES,
    run: RunOptions = _RUN,
) -> None:
    """Measure networks alike, and write one table and one page with the answer.

    The same directions and noise serve all networks, so that differences are tested in pairs. What is refused does not
    stop the rest: it is listed at the end, with exit status 1. The same command goes on where it was interrupted.

    Parameters
    ----------
    paths: list[Path]
        Checkpoints, or folders of checkpoints.
    out: Path
        Folder for the records, comparison.json and report.html.
    table: list[Path]
        File for the tidy table: .parquet, .csv, .md or .tex. Repeat the option for several.
    open: bool
        Open the page in the browser.
    interactive: bool
        Make surfaces on the page interactive.
    title: str
        Heading of the page.
    """
    from flatprobe.report.page import check_page
    from flatprobe.studies.written import check_table

    page = out / "report.html"
    check_page(page)
    for path in table or ():
        check_table(path)
    found = measure(paths, out, measurements, network, samples, run)
    if found is None:
        return
    if found.results:
        from flatprobe.report import report

        report(found, page, interactive=interactive, title=title)
        _say(f"report: {page}", run)
        if open:
            webbrowser.open(page.absolute().as_uri())
    for path in table or ():
        found.write(path)
        _say(f"table: {path}", run)
    _finish(found)


def probe(
    paths: Paths,
    *,
    out: Path,
    measurements: MeasurementOptions = _MEASUREMENTS,
    network: NetworkOptions = _NETWORK,
    samples: DataOptions = _SAMPLES,
    run: RunOptions = _RUN,
) -> None:
    """Measure networks and write one parquet record per network and measurement, as `compare` does, without a page.

    `flatprobe report` draws the records.

    Parameters
    ----------
    paths: list[Path]
        Checkpoints, or folders of checkpoints.
    out: Path
        Folder for the records and comparison.json.
    """
    found = measure(paths, out, measurements, network, samples, run)
    if found is not None:
        _say(f"records: {out}", run)
        _finish(found)


def probes() -> None:
    """List the probes: the question that each answers, its cost and its needs. A star marks the default ones."""
    from rich.console import Console

    from flatprobe.cli.console import catalogue_table

    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(catalogue_table())


@dataclass
class _Ready:
    """Networks with their data, and what was refused and found on the way."""

    models: "dict[str, nn.Module]" = field(default_factory=dict)
    data: "dict[str, LabelledData]" = field(default_factory=dict)
    test: "dict[str, LabelledData]" = field(default_factory=dict)
    loaded: dict[str, LoadedNetwork] = field(default_factory=dict)
    refusals: "list[Refusal]" = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def measure(
    paths: Sequence[Path],
    out: Path,
    measurements: MeasurementOptions,
    network: NetworkOptions,
    samples: DataOptions,
    run: RunOptions,
) -> "Comparison | None":
    """The comparison of the networks, saved in a folder and shown; None for a dry run.

    Raises:
        KeyboardInterrupt: on Ctrl-C, with a note on what is kept.
        ValueError: for wrong options, or if no network and its data can be loaded.
    """
    import flatprobe.studies.compare as study
    from flatprobe.cli.console import show
    from flatprobe.studies.chosen import choose

    chosen, loss = measurements_of(measurements), loss_of(samples)
    if chosen is not None:
        choose(chosen)  # an unknown name is told before anything is loaded
    ready = prepare(paths, network, samples, quiet=run.quiet)
    along, along_name = along_of({name: one.path for name, one in ready.loaded.items()}, run.along)
    groups = groups_of(list(ready.models), run.group, run.along)
    if run.dry_run:
        _estimate(ready, chosen, groups, along, loss)
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", study.RefusalWarning)  # all refusals are listed at the end
            found = study.compare(
                ready.models, ready.data, test=ready.test or None, probes=chosen, groups=groups, along=along,
                along_name=along_name, loss=loss, seed=run.seed, progress=not run.quiet, out=out,
                again=run.again, workers=run.workers,
            )  # fmt: skip
    except KeyboardInterrupt as error:
        error.add_note("the same command goes on from there")
        raise
    facts = {
        name: own | {"checkpoint_hash": ready.loaded[name].checkpoint_hash, "path": str(ready.loaded[name].path)}
        for name, own in found.facts.items()
    }
    refusals = (*ready.refusals, *found.refusals)
    found = replace(found, facts=facts, refusals=refusals, notes=tuple(ready.notes))
    found.save_state(out)
    if not run.quiet:
        show(found)
    return found


def prepare(paths: Sequence[Path], network: NetworkOptions, samples: DataOptions, *, quiet: bool = False) -> _Ready:
    """The networks with their data; one whose data cannot be had is refused, unless no other is left.

    Raises:
        ValueError: if none is left.
    """
    from flatprobe.network.outputs import WithOutput
    from flatprobe.studies.comparison import Refusal
    from flatprobe.studies.doubts import together
    from flatprobe.studies.measuring import reason_of

    ready, error, loaded = _Ready(), None, load_networks(paths, network)
    said, warned, doubts = list[tuple[str, str]](), list[tuple[str, str]](), {}
    if not quiet:
        tell(loaded)
    for one in loaded:
        if one.network is None:
            ready.refusals.append(Refusal("", one.name, str(one.refusal)))
            continue
        try:
            if network.output is not None:
                one = replace(one, network=WithOutput(one.network, _index(network.output)))
            own = samples_for(one, samples)
        except Exception as failed:  # noqa: BLE001 - a user's module or data may raise anything
            error = error or failed
            ready.refusals.append(Refusal("", one.name, reason_of(failed)))
            continue
        ready.models[one.name], ready.data[one.name], ready.loaded[one.name] = own.network, own.data, one
        if own.test is not None:
            ready.test[one.name] = own.test
        said += [(one.name, sentence) for sentence in own.said]
        warned += [(one.name, warning) for warning in own.warned]
        doubts[one.name] = own.doubts
    if error is not None and not ready.models:
        if isinstance(error, ValueError | TypeError | OSError | RuntimeError | ImportError | MemoryError):
            raise error  # with a message of its own, which needs no class
        raise ValueError(reason_of(error)) from error
    for line in grouped(said) if not quiet else ():
        sys.stderr.write(f"{line}\n")
    ready.notes += grouped(warned) + [f"{caption(names)}: {sentence}" for names, sentence in together(doubts)]
    for note in ready.notes:  # told before hours of measuring, and again below the tables
        sys.stderr.write(f"warning: {note}\n")
    return ready


def _index(output: str) -> str | int:
    return int(output) if output.lstrip("-").isdigit() else output


def _estimate(ready: _Ready, chosen: Any, groups: dict[str, str], along: dict[str, float] | None, loss: object) -> None:
    """Print the passes, the memory and the estimated time of each measurement."""
    from rich.console import Console

    from flatprobe.cli.console import estimate_table
    from flatprobe.studies.compare import prepare as work_of
    from flatprobe.studies.estimate import estimate

    work = work_of(
        ready.models, ready.data, test=ready.test or None, probes=chosen, groups=groups, along=along, loss=loss
    )
    rows = estimate(work)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(estimate_table(rows))


def _say(words: str, run: RunOptions) -> None:
    if not run.quiet:
        print(words)


def _finish(found: "Comparison") -> None:
    """List what was refused; the exit status is then 1."""
    from flatprobe.cli.console import tell_refusals

    if found.refusals:
        tell_refusals(found)
        sys.exit(1)
