"""The demo in two pictures: the landscapes, and radii, margins, Jacobian norms and robustness in four panels.

    make demo
    python -m figures.demo

reads flatprobe-demo/records and writes landscape.png and demo.png into figures/out.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from flatprobe import Result
from flatprobe.plotting import canvas, draw, triangle
from flatprobe.report import load_records

ROOT = Path(__file__).parents[1]
PANELS = {
    "flatness_radius": "Flatness radius",
    "functional_margins": "Functional margins",
    "jacobian_norms": "Jacobian spectral norms",
    "gaussian_robustness": "Error under Gaussian noise",
}


def main(arguments: list[str] | None = None) -> list[Path]:
    """Draw a folder of the demo's records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=ROOT / "flatprobe-demo" / "records")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "out")
    options = parser.parse_args(arguments)
    records = load_records(options.records)
    pictures = {
        "landscape": triangle.draw_row(records["landscape"], quantity="accuracy", surface=True),
        "demo": panels(records),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures.items():
        (options.out / f"{name}.png").write_bytes(canvas.png(figure, resolution=100))
        print(options.out / f"{name}.png")
    return [options.out / f"{name}.png" for name in pictures]


def panels(records: Mapping[str, Mapping[str, Result]]) -> Figure:
    """Radii, margins, Jacobian norms and robustness, each over all networks."""
    figure = canvas.blank(13, 8.4)
    for place, (measurement, title) in enumerate(PANELS.items(), start=1):
        results = records[measurement]
        groups = {name: f"{name.rpartition('-')[0]} labels" for name in results}
        axes = draw(results, figure.add_subplot(2, 2, place), groups=groups)
        axes.set_title(title, loc="left")
    return figure


if __name__ == "__main__":
    main()
