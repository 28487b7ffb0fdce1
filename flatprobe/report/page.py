"""Writing of the report page."""

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flatprobe.probes.interpolation import Interpolation
from flatprobe.report.provenance import provenance
from flatprobe.report.sections import ORDER, kind, sections
from flatprobe.report.summary import summarize
from flatprobe.utils.results import Result
from flatprobe.utils.tensor_files import write_text


def write_report(
    records: Mapping[str, Mapping[str, Result]],
    path: str | os.PathLike[str],
    *,
    groups: Mapping[str, str] | None = None,
    title: str = "flatprobe report",
    introduction: str = "",
    notes: Sequence[str] = (),
) -> Path:
    """Write results as one self-contained HTML page, without scripts.

    The page has a summary table with uncertainties, then a picture per measurement with a description and its reading,
    then arguments, seeds, data, networks and versions. The class of the results determines the picture, which takes
    about half a second.

    Args:
        records: measurement -> network -> result; landscapes by group. The measurement's name becomes a title.
        path: path of the page; missing folders are made. The file is written beside it and then renamed.
        groups: network -> group, such as "natural labels"; networks of a group share a colour. The summary has the mean
            of each group and, for two groups, their ratio.
        title: title of the page.
        introduction: paragraph under the title.
        notes: paragraphs under the summary.

    Returns:
        The path.

    Raises:
        FileExistsError: if the path exists and is no page of flatprobe.
        ValueError: for no records, a measurement without results, results of several classes or with arguments that
            cannot be compared, or a network without a group.
    """
    _check(records, groups)
    path = Path(path)
    check_page(path)
    ordered = dict(sorted(records.items(), key=lambda item: ORDER.index(kind(*item))))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["base64"] = lambda picture: base64.b64encode(picture).decode()
    environment.filters["unbroken"] = lambda words: words.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    page = environment.get_template("report.html.j2").render(
        title=title,
        introduction=introduction,
        notes=list(notes),
        summary=summarize(ordered, groups),
        sections=[section for key, results in ordered.items() for section in sections(key, results, groups)],
        provenance=provenance(ordered),
    )
    write_text(path, page)
    return path


def check_page(path: Path) -> None:
    """Check that the path is free, or holds an earlier page.

    Raises:
        FileExistsError: if the path holds something else.
    """
    if path.exists() and not (path.is_file() and b"flatprobe" in path.read_bytes()):
        msg = f"{path} exists and is no page of flatprobe; expected a new place, or an earlier page: choose another"
        raise FileExistsError(msg)


def _check(records: Mapping[str, Mapping[str, Result]], groups: Mapping[str, str] | None) -> None:
    if not records:
        msg = "there are no records to report; expected at least one measurement: measurement -> network -> result"
        raise ValueError(msg)
    for key, results in records.items():
        for name, result in results.items():
            if groups is not None and name not in groups and not isinstance(result, Interpolation):
                msg = (
                    f"the network {name!r} of the measurement {key!r} has no group; expected one for every network in "
                    "groups, or groups=None"
                )
                raise ValueError(msg)
