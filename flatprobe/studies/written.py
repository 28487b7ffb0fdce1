"""A table as parquet, CSV, Markdown or LaTeX, by the ending of its path."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flatprobe.utils.tables import check_place, write_table
from flatprobe.utils.tensor_files import write_text

if TYPE_CHECKING:
    import pandas


ENDINGS = (".parquet", ".csv", ".md", ".tex")


def write_frame(frame: "pandas.DataFrame", path: Path) -> Path:
    """Write a table; numbers keep all their digits in parquet and CSV, and six in Markdown and LaTeX (booktabs).

    Raises:
        FileExistsError: if the path is a folder, or holds a parquet file that flatprobe did not write.
        OSError: if the file cannot be written.
        ValueError: for an ending that is not .parquet, .csv, .md or .tex.
    """
    check_table(path)
    writers: dict[str, Callable[[], object]] = {
        ".parquet": lambda: write_table(frame, path, {"kind": "comparison"}),
        ".csv": lambda: write_text(path, frame.to_csv(index=False)),
        ".md": lambda: write_text(path, _markdown(frame)),
        ".tex": lambda: write_text(path, frame.to_latex(index=False, escape=True, float_format="%.6g", na_rep="")),
    }
    writers[path.suffix]()
    return path


def check_table(path: Path) -> None:
    """Check that a table can be written at a path.

    Raises:
        FileExistsError: if the path is a folder, or holds a parquet file that flatprobe did not write.
        NotADirectoryError: if a file is in the place of its folder.
        ValueError: for an ending that is not .parquet, .csv, .md or .tex.
    """
    if path.suffix not in ENDINGS:
        msg = f"the path of a table must end in {', '.join(ENDINGS)}, got {path}. Choose one of these"
        raise ValueError(msg)
    if path.is_dir():
        msg = f"the path of a table must be that of a file, got the folder {path}. Choose another path"
        raise FileExistsError(msg)
    file = next((above for above in path.parents if above.exists() and not above.is_dir()), None)
    if file is not None:
        msg = f"the folder of a table must be a folder, got the file {file} in {path}. Choose another path"
        raise NotADirectoryError(msg)
    if path.suffix == ".parquet":
        check_place(path)


def _markdown(frame: "pandas.DataFrame") -> str:
    """A table of GitHub's Markdown; pandas writes it only with a further library."""
    shown = frame.astype(object).map(lambda value: f"{value:.6g}" if isinstance(value, float) else value)
    rows: list[list[object]] = [list(frame), ["---"] * len(frame.columns)]
    rows += shown.where(frame.notna(), "").to_numpy().tolist()
    return "".join(f"| {' | '.join(map(_escaped, row))} |\n" for row in rows)


def _escaped(cell: object) -> str:
    """The words of a cell without a meaning to Markdown or HTML."""
    words = html.escape(" ".join(str(cell).split("\n")), quote=False)
    return re.sub(r"([\\`*_{}\[\]|~$#])", r"\\\1", words)
