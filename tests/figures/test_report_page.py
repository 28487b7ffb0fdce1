"""The picture of the page is a light, small PNG file of its top."""

import io
from pathlib import Path

import pytest
from PIL import Image

from figures import report_page
from flatprobe.report import report
from tests.helpers.browser import BROWSER
from tests.plotting.test_plotting import flatness


@pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is installed")
def test_the_top_of_a_page_is_photographed_in_the_light_theme(tmp_path: Path) -> None:
    page = report({"a": flatness([1.0, 2.0]), "b": flatness([3.0, 4.0])}, tmp_path / "page.html")
    picture = report_page.main(["--page", str(page), "--out", str(tmp_path)])
    assert picture == tmp_path / "report-page.png"
    with Image.open(io.BytesIO(picture.read_bytes())) as image:
        assert image.size == (report_page.WIDTH, report_page.HEIGHT)
        colours = image.convert("RGB").getcolors(1 << 16)
    assert colours is not None
    assert max(colours)[1] == (255, 255, 255)
    assert len(colours) > 10  # words, lines and marks


def test_a_page_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no page at .*none\.html|is installed"):
        report_page.photograph(tmp_path / "none.html")
