"""A table as parquet, CSV, Markdown or LaTeX, by the ending of its path."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flatprobe.utils.tables import write_table
from flatprobe.utils.tensor_files import write_text

if TYPE_CHECKING:
    import pandas


ENDINGS = (".parquet", ".csv", ".md", ".tex")


def write_frame(frame: "pandas.DataFrame", path: Path) -> Path:
    """Write a table; numbers keep all their digits in parquet and CSV, and six in Markdown and LaTeX (booktabs).

    Raises:
        ValueError: for an ending that is not .parquet, .csv, .md or .tex.
    """
    check_ending(path)
    writers: dict[str, Callable[[], object]] = {
        ".parquet": lambda: write_table(frame, path, {"kind": "comparison"}),
        ".csv": lambda: write_text(path, frame.to_csv(index=False)),
        ".md": lambda: write_text(path, _markdown(frame)),
        ".tex": lambda: write_text(path, frame.to_latex(index=False, escape=True, float_format="%.6g", na_rep="")),
    }
    writers[path.suffix]()
    return path


def check_ending(path: Path) -> None:
    """Check that a table can be written at a path.

    Raises:
        ValueError: for an ending that is not .parquet, .csv, .md or .tex.
    """
    if path.suffix not in ENDINGS:
        msg = f"the path of a table must end in {', '.join(ENDINGS)}, got {path}. Choose one of these"
        raise ValueError(msg)


def _markdown(frame: "pandas.DataFrame") -> str:
    """A table of GitHub's Markdown; pandas writes it only with a further library."""
    shown = frame.astype(object).map(lambda value: f"{value:.6g}" if isinstance(value, float) else value)
    rows: list[list[object]] = [list(frame), ["---"] * len(frame.columns)]
    rows += shown.where(frame.notna(), "").to_numpy().tolist()
    return "".join(f"| {' | '.join(map(_escaped, row))} |\n" for row in rows)


def _escaped(cell: object) -> str:
    return str(cell).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
