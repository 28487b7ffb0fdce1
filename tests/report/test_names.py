"""Names of networks, groups and records as people give them: on the disk, in the table and in the report (property)."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

import flatprobe as fp
from flatprobe.cli.console import headline_table
from flatprobe.plotting import histogram, png
from flatprobe.plotting.names import caption
from flatprobe.studies.compare import Comparison
from flatprobe.utils.results import Result, file_stem, network_name, printable

NAMES = [
    r"lr$\frac{$", "a$x^2$b", "$", "_hidden", "run[/b]", "lr[0.1,0.2]x", "net[bold]", "a\x1b[31mred", "%s", "{task}",
    "<script>", "a_b^c", "\\", "new\nline", "x" * 190, "y/z", "..", "\N{GRINNING FACE}", "\u65e5\u672c", "-x", " ",
]  # fmt: skip


@pytest.fixture(scope="module")
def result() -> Result:
    data = fp.LabelledData(torch.eye(4), torch.arange(4))
    return fp.functional_margins(nn.Linear(4, 4).eval(), data)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_name_reaches_the_disk_the_table_and_the_report(result: Result, tmp_path: Path, name: str) -> None:
    comparison = Comparison({"functional_margins": {name: result, "other": result}}, {name: name, "other": "other"})
    comparison.save(tmp_path)
    shown = io.StringIO()
    Console(file=shown, width=400).print(headline_table(comparison))
    assert printable(name) in shown.getvalue()
    assert "\x1b" not in shown.getvalue()
    assert fp.report(tmp_path, tmp_path / "r.html", title=name).exists()
    assert network_name(file_stem(name)) == name
    assert "/" not in file_stem(name)


def test_a_caption_is_drawn_letter_by_letter(result: Result) -> None:
    ax = histogram.draw({r"a$\frac{$": result, "_b": result})
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [r"a\$\frac{\$", "\N{ZERO WIDTH SPACE}_b"]
    assert png(ax)
    assert caption("ab" * 50) == f"{'ab' * 13}\N{HORIZONTAL ELLIPSIS}b{'ab' * 6}"


@pytest.mark.parametrize("name", ["", "x" * 201, "\N{GRINNING FACE}" * 51])
def test_names_that_no_file_can_have_are_refused_before_anything_is_measured(name: str, tmp_path: Path) -> None:
    data = fp.LabelledData(torch.eye(4), torch.arange(4))
    with pytest.raises(ValueError, match=r"must be 1 to 200 bytes long as a file name"):
        fp.compare({name: nn.Linear(4, 4).eval()}, data, probes=["scores"], out=tmp_path)
