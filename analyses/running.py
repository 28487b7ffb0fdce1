"""Worker processes, records and printed tables of the analyses."""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from flatprobe.utils.tables import write_table


def pool(workers: int) -> ProcessPoolExecutor:
    """A pool of processes with one thread each, since the networks are small."""
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))


def write_record(
    frame: pd.DataFrame,
    out: Path,
    metadata: Mapping[str, object],
    *,
    shown: tuple[pd.DataFrame, ...],
    claims: Mapping[str, bool],
) -> Path:
    """Write the record, and print its tables and the claims that hold.

    Args:
        frame: the rows of the record.
        out: its file.
        metadata: kind, command, settings, subject, environment.
        shown: tables to print.
        claims: parts of the acceptance rule, and whether they hold.

    Returns:
        The file.
    """
    write_table(frame, out, metadata)
    with pd.option_context("display.width", 250, "display.max_columns", None, "display.precision", 3):
        for table in shown:
            print(table.to_string(index=False))
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}")
    print(f"record: {out}")
    return out
