"""The top of the demo's page as a picture, in the light theme, by headless Chromium.

    make demo
    python -m figures.report_page

reads flatprobe-demo/report.html and writes report-page.png into figures/out.
"""

import argparse
import io
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1280, 1750  # pixels
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(arguments: list[str] | None = None) -> Path:
    """Photograph a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=ROOT / "flatprobe-demo" / "report.html")
    parser.add_argument("--out", type=Path, default=ROOT / "figures" / "out")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    path: Path = options.out / "report-page.png"
    path.write_bytes(fewer_colours(photograph(options.page)))
    print(path)
    return path


def photograph(page: Path) -> bytes:
    """The top of a page as a PNG file.

    Raises:
        FileNotFoundError: without the page or a browser.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None or not page.is_file():
        msg = f"there is no page at {page}" if browser else f"none of {', '.join(BROWSERS)} is installed"
        raise FileNotFoundError(msg)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        picture = Path(folder) / "page.png"
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}",
            "--blink-settings=preferredColorScheme=1", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={picture}",
            page.resolve().as_uri(),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)  # noqa: S603 - a fixed program, no shell
        return picture.read_bytes()


def fewer_colours(picture: bytes, colours: int = 128) -> bytes:
    """The PNG file with a palette, which takes a third of the bytes."""
    with Image.open(io.BytesIO(picture)) as image:
        own = image.convert("RGB").quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    found = io.BytesIO()
    own.save(found, format="png", optimize=True)
    return found.getvalue()


if __name__ == "__main__":
    main()
