"""`python -m analyses`: run reproductions and write their records, or list them with their verdicts."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.table import Column, Table

from analyses.listing import counts, rows
from analyses.record import RECORDS, describe, read_record, unexplained, write_record
from analyses.registry import find, registry
from analyses.reproduction import Reproduction
from analyses.study import Study
from flatprobe.studies.executors import executor_by_name
from flatprobe.utils.threads import thread_count

LONGEST = 20  # rows of a printed table
WIDTH = 160  # characters of a line in a file


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Run the items, or list them."""
    options = _parse(arguments)
    if options.ids == ["list"]:
        _list(options)
        return []
    runnable = [name for name, item in registry().items() if isinstance(item, Reproduction)]
    chosen = find(runnable if options.ids == ["all"] else options.ids)
    if options.judge:
        return [judge(item, options.preset, options.out) for item in chosen]
    make = executor_by_name(options.executor, options.workers, options.root, options.address, options.slurm)
    study = {"root": options.root, "executor": make, "workers": options.workers, "device": options.device}
    return [run(item, options.preset, Study(**study), options.out) for item in chosen]


def run(item: Reproduction, preset: str, study: Study, out: Path) -> Path:
    """Measure an item at a preset, print table and outcomes, and write its record.

    Raises:
        ValueError: for an unknown preset.
    """
    if preset not in item.presets:
        msg = f"preset must be one of {', '.join(item.presets)} for {item.id}, got {preset!r}"
        raise ValueError(msg)
    started = time.monotonic()
    # The networks are small: one thread each. What an item draws of torch's own generator does not depend on others.
    with thread_count(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        frame = item.table(item.presets[preset], study)
    outcomes = item.rules(frame)
    seconds = {"wall": round(time.monotonic() - started, 1), "units": round(study.seconds, 1)}
    metadata = describe(
        item,
        preset,
        outcomes,
        command=f"python -m analyses {item.id} --preset {preset}",
        seconds=seconds,
        experiments=study.keys,
    )
    path = write_record(frame, metadata, out)
    report(frame, metadata, path)
    return path


def judge(item: Reproduction, preset: str, out: Path) -> Path:
    """Apply the present rules to the table of a record; the run that measured it stays as it was."""
    frame, old = read_record(item.id, preset, out)
    kept = ("command", "seconds", "experiments", "environment", "settings")
    metadata = describe(item, preset, item.rules(frame), **{name: old[name] for name in kept if name in old})
    path = write_record(frame, metadata, out)
    report(frame, metadata, path)
    return path


def report(frame: pd.DataFrame, metadata: dict, path: Path) -> None:
    """Print the table, the outcomes and the verdict; warn of a refuted rule without a reason."""
    console = _console()
    with pd.option_context("display.width", console.width, "display.max_columns", None, "display.precision", 4):
        console.print(frame.head(LONGEST).to_string(index=False), markup=False, highlight=False)
    shown = Table("verdict", "rule", "effect", "95 % interval", "published", "seeds", title=metadata["source"])
    for outcome in metadata["outcomes"]:
        rule = f"(beside) {outcome['rule']}" if outcome["beside"] else outcome["rule"]
        interval = "" if outcome["interval"] is None else " to ".join(map(_number, outcome["interval"]))
        effect = f"{_number(outcome['effect'])} {outcome['unit']}"
        published = "" if outcome["published"] is None else _number(outcome["published"])
        shown.add_row(outcome["verdict"], rule, effect, interval, published, str(outcome["seeds"]))
    console.print(shown)
    seconds = metadata["seconds"]
    console.print(f"{metadata['id']}: {metadata['verdict']}, in {seconds['wall']} s. Record: {path}", highlight=False)
    for rule in unexplained(metadata):
        sys.stderr.write(f"warning: {metadata['id']}: no reason is given why this does not hold: {rule}\n")


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def _number(value: float | str) -> str:
    return f"{float(value):.4g}"


def _list(options: argparse.Namespace) -> None:
    listed = rows(registry().values(), options.out)
    if options.json:
        print(json.dumps({"items": listed, "verdicts": counts(listed)}, indent=1))
        return
    table = Table("id", "state", "verdict by preset", "CPU time", Column("source, or what is missing", overflow="fold"))
    for row in listed:
        verdicts = "\n".join(f"{preset}: {verdict}" for preset, verdict in row["verdicts"].items())
        table.add_row(row["id"], row["state"], verdicts, row["cost"], row["reason"] or row["source"])
    console = _console()
    console.print(table)
    console.print(", ".join(f"{count} {verdict}" for verdict, count in counts(listed).items()), highlight=False)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m analyses", description=__doc__)
    parser.add_argument("ids", nargs="+", metavar="ID", help="ids such as T3-F12; or all; or list")
    parser.add_argument(
        "--preset",
        default="quick",
        help="quick (default), cpu, paper (a GPU) or another",
    )
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of trained networks, which items share")
    parser.add_argument("--out", type=Path, default=RECORDS, help="folder of the records")
    parser.add_argument("--executor", default="serial", help="serial, processes, dask or slurm")
    parser.add_argument("--workers", type=int, default=1, help="of the executor")
    parser.add_argument("--address", help="of the Dask scheduler; by default a cluster on this machine")
    parser.add_argument("--slurm", type=json.loads, help="parameters of submitit's executor, as JSON")
    parser.add_argument("--device", help="cpu or cuda; by default the CPU")
    parser.add_argument("--judge", action="store_true", help="apply changed rules to the record, without a new run")
    parser.add_argument("--json", action="store_true", help="list as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what is complete stays under --root, and the same command continues there\n")
        sys.exit(130)
