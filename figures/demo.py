"""The demo in one picture: flatness radii, margins, Jacobian norms, robustness.

    make demo
    python -m figures.demo

reads flatprobe-demo/records and writes figures/out/demo.png.
"""

import argparse
from pathlib import Path

from flatprobe.plotting import canvas, draw
from flatprobe.report import load_records

ROOT = Path(__file__).parents[1]
PANELS = {
    "flatness_radius": "Flatness radius",
    "functional_margins": "Functional margins",
    "jacobian_norms": "Jacobian spectral norms",
    "gaussian_robustness": "Error under Gaussian noise",
}


def main(arguments: list[str] | None = None) -> Path:
    """Draw the records of the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=ROOT / "flatprobe-demo" / "records")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "out" / "demo.png")
    options = parser.parse_args(arguments)
    records = load_records(options.records)
    figure = canvas.blank(13, 8.4)
    for place, (measurement, title) in enumerate(PANELS.items(), start=1):
        results = records[measurement]
        groups = {name: f"{name.rpartition('-')[0]} labels" for name in results}
        axes = draw(results, figure.add_subplot(2, 2, place), groups=groups)
        axes.set_title(title, loc="left")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(canvas.png(figure, resolution=100))
    print(options.out)
    return options.out


if __name__ == "__main__":
    main()
