"""`python -m figures ID [ID ...]`: draw published items from their records."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analyses.record import RECORDS, ROOT, read_record, record_path
from figures.items import figures
from flatprobe.plotting import canvas

OUT = ROOT / "figures" / "out"
RESOLUTION = 100  # dots per inch


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Draw the items, or with `all` every item that has a record at the preset."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=__doc__)
    parser.add_argument("ids", nargs="+", metavar="ID", help="ids such as T3-F12, or all")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder of the records")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the figures")
    options = parser.parse_args(arguments)
    recorded = [name for name in figures() if record_path(name, options.preset, options.records).exists()]
    names = recorded if options.ids == ["all"] else options.ids
    return [draw(name, options.preset, options.records, options.out) for name in names]


def draw(name: str, preset: str, records: Path = RECORDS, out: Path = OUT) -> Path:
    """Draw one item into out/ID-PRESET.png.

    Raises:
        ValueError: for an id without a figure.
        FileNotFoundError: for an item without a record.
    """
    if name not in figures():
        msg = f"the id must be one of {', '.join(figures())}, got {name}"
        raise ValueError(msg)
    frame, metadata = read_record(name, preset, records)
    path = out / record_path(name, preset, records).with_suffix(".png").name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(canvas.png(figures()[name](frame, metadata), resolution=RESOLUTION))
    print(path)
    return path


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
