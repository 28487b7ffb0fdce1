"""What the analyses share: worker processes of one thread each, and the record with what is printed of it."""

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch

from flatprobe.utils.tables import write_table


def pool(workers: int) -> ProcessPoolExecutor:
    """So many processes of one thread: the networks are small."""
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,))


def recorded(
    frame: pd.DataFrame,
    out: Path,
    metadata: Mapping[str, object],
    *,
    shown: tuple[pd.DataFrame, ...],
    claims: Mapping[str, bool],
) -> Path:
    """Write the record; print its tables and which of the claims hold.

    Args:
        frame: the rows of the record.
        out: its file.
        metadata: kind, command, settings, subject, environment.
        shown: tables of it.
        claims: the acceptance rule, part by part.

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
