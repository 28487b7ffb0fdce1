"""The command `inspect`. It imports its libraries when it runs, so that --help is quick."""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from flatprobe.utils.grouping import caption, without


def inspect(paths: Annotated[list[Path], Parameter(negative=())], *, tensors: bool = False) -> None:
    """Show what is in checkpoints: format, keys, tensors, and what loading them needs. No code in them runs.

    Parameters
    ----------
    paths: list[Path]
        Checkpoint files, run folders, transformers folders, or folders that hold some.
    tensors: bool
        List the name, shape and dtype of every tensor too.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from flatprobe.models.description import describe
    from flatprobe.models.folders import find_checkpoints, names_of
    from flatprobe.utils.results import printable

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120)
    found = names_of([checkpoint for path in paths for checkpoint in find_checkpoints(path)])
    refused = 0
    contents: dict[str, dict[str, Any]] = {}  # rows without the number of bytes -> name -> rows and tensors
    for name, path in found.items():
        try:
            rows, states = describe(path)
        except (ValueError, OSError, ImportError) as error:
            if len(found) == 1:
                raise
            rows, states, refused = {"refused": str(error)}, {}, refused + 1
        alike = without(re.sub(r"[\d,]+ bytes", "", str(rows)), name) + (name if tensors else "")
        contents.setdefault(alike, {})[name] = rows, states
    for names in contents.values():
        (name, (rows, states)), *_ = names.items()
        table = Table(title=escape(name), title_justify="left", show_header=False, title_style="bold")
        for row, words in rows.items():
            table.add_row(escape(printable(row)), escape(words if row == "refused" else printable(words)))
        console.print(table)
        if len(names) > 1:
            console.print(escape(f"alike, but for the number of bytes: {caption([*names][1:], 'checkpoints')}"))
        for key, state in states.items() if tensors else ():
            listed = Table(
                "tensor", "shape", "dtype", title=escape(printable(f"{name} {key}".strip())), title_justify="left"
            )
            for tensor, value in state.items():
                listed.add_row(
                    escape(printable(tensor)), " x ".join(map(str, value.shape)) or "-", str(value.dtype).split(".")[-1]
                )
            console.print(listed)
    if refused:
        sys.exit(1)
