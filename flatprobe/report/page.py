"""Writing of the report page."""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flatprobe.plotting import interactive as live
from flatprobe.report.alone import sentences
from flatprobe.report.answer import answer
from flatprobe.report.content import drawn_groups, gather
from flatprobe.report.differences import Differences
from flatprobe.report.figures import FLATNESS, INPUTS, headline_figures
from flatprobe.report.legend import legend, unequal_losses
from flatprobe.report.networks import data_names, describe, near_chance
from flatprobe.report.provenance import provenance
from flatprobe.report.section import anchor
from flatprobe.report.sections import in_order, make_title, sections
from flatprobe.report.trajectory import trajectory
from flatprobe.studies.comparison import Comparison
from flatprobe.studies.facts import said_of_training
from flatprobe.studies.refusals import by_reason
from flatprobe.utils.arguments import Checked
from flatprobe.utils.results import Result
from flatprobe.utils.tensor_files import write_text

_HERE = Path(__file__).parent
_GENERATOR = b'<meta name="generator" content="flatprobe'  # which every page of flatprobe has, of any version
_NAMED = 4  # networks that the title names


def report(
    results: Checked[
        Comparison | Result | Mapping[str, Result] | Mapping[str, Mapping[str, Result]] | str | os.PathLike[str]
    ],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    groups: Mapping[str, str] | None = None,
    interactive: bool = False,
    introduction: str = "",
    notes: Sequence[str] = (),
) -> Path:
    """Results as one self-contained HTML page, which opens with the answer.

    The page begins with tables of the headline figures, a sentence per figure, and warnings. What a reviewer asks of
    each network follows, then the pictures with their numbers, what was refused, and arguments, seeds and versions.
    Its tables sort and its pictures enlarge; without scripts it loses nothing else. It makes no request.

    Args:
        results: what `fp.compare` returned; or measurement -> network -> result, with landscapes by group; or
            network -> result; or one result; or a folder of records.
        path: path of the page; missing folders are made. The file is written beside it and then renamed.
        title: title of the page; None names the networks and the data.
        groups: network -> group, such as "natural labels"; networks of a group share a colour. None takes the
            comparison's own groups, if any.
        interactive: whether planes and triangles are interactive too, by plotly, which adds 4.6 MB to the page.
        introduction: paragraph under the title.
        notes: paragraphs under the answer.

    Returns:
        The path.

    Raises:
        FileExistsError: if the path exists and is no page of flatprobe.
        FileNotFoundError: if there is no such folder of records.
        ImportError: if `interactive` is set without plotly.
        TypeError: for anything but results.
        ValueError: for no results, a measurement without results, results of several classes or with arguments that
            cannot be compared, or a network without a group.

    >>> import tempfile, flatprobe as fp, torch
    >>> data = fp.LabelledData(torch.eye(4), torch.arange(4))
    >>> margins = fp.functional_margins(torch.nn.Linear(4, 4).eval(), data)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fp.report({"a network": margins}, f"{folder}/page.html").name
    'page.html'
    """
    found = gather(results, groups)
    path = Path(path)
    check_page(path)
    scripts = f"<script>{live.script()}</script>" if interactive else ""
    files = _files(results, path) if isinstance(results, str | os.PathLike) else []
    write_text(path, _render(found, title, introduction, list(notes), files, scripts))
    return path


def _render(
    found: Comparison, title: str | None, introduction: str, notes: list[str], files: list[str], scripts: str
) -> str:
    records, groups = in_order(found.results), drawn_groups(found.groups)
    figures = headline_figures(records, found.facts)
    topics = answer(figures, Differences.of(records, groups, found.facts), groups, found.along, found.along_name or "")
    parts = sections(records, groups, live=bool(scripts))
    refusals = by_reason(found.refusals, make_title)
    contents = [("answer", "The answer"), ("networks", "Networks"), *((part.anchor, part.title) for part in parts)]
    contents += [("refusals", "Not measured")] if refusals else []
    style, script = ((_HERE / f"page.{ending}").read_text(encoding="utf-8") for ending in ("css", "js"))
    page: str = _environment().get_template("page.html.j2").render(
        title=title or _title(found),
        facts=_head(found),
        introduction=introduction,
        contents=[*contents, ("settings", "Settings")],
        warnings=[*found.warnings, *near_chance(found.results, found.warnings)],
        trajectory=trajectory(found, figures) if found.along else None,
        topics=topics,
        legend=legend(topics, records),
        related=sentences(found.results, found.facts),
        unequal="" if groups or found.along else unequal_losses(figures),
        unequal_at=(FLATNESS, INPUTS),
        notes=notes,
        tidy=found.to_frame().to_csv(index=False),
        files=[{"address": quote(own), "words": Path(own).name} for own in files],
        networks=describe(found.facts),
        training=said_of_training(found.results, found.facts),
        sections=parts,
        refusals=refusals,
        provenance=provenance(records),
        policy=_policy(script, interactive=bool(scripts)),
        style=style,
        script=script,
        scripts=scripts,
        version=version("flatprobe"),
        date=_today(),
    )  # fmt: skip
    return page


def check_page(path: Path) -> None:
    """Check that the path is free, or holds an earlier page.

    Raises:
        FileExistsError: if the path holds something else.
    """
    if path.exists() and not (path.is_file() and _GENERATOR in path.read_bytes()[:4096]):
        msg = f"{path} exists and is no page of flatprobe; expected a new place, or an earlier page: choose another"
        raise FileExistsError(msg)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data"] = _data
    environment.filters["anchor"] = anchor
    environment.filters["unbroken"] = lambda words: words.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    return environment


def _data(content: str | bytes, kind: str) -> str:
    """The content as a data: address."""
    if isinstance(content, bytes):
        return f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return f"data:{kind},{quote(content)}"


def _policy(script: str, *, interactive: bool) -> str:
    """The page's own script alone, and nothing from elsewhere. Plotly makes shaders as it runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = "'unsafe-inline' 'unsafe-eval'" if interactive else f"'sha256-{digest}'"
    own = f"script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; {own}"


def _today() -> str:
    return f"{datetime.now(UTC):%d %B %Y}".lstrip("0")


def _title(found: Comparison) -> str:
    names, data = list(found.facts), list(dict.fromkeys(own.split(" (")[0] for own in data_names(found.results)))
    shown = f"{', '.join(names[:-1])} and {names[-1]}" if 1 < len(names) <= _NAMED else "".join(names[:1])
    subject = shown if len(names) <= _NAMED else f"{len(names)} networks"
    return " on ".join(filter(None, (subject, " and ".join(data)))) or "flatprobe report"


def _head(found: Comparison) -> list[str]:
    names = list(found.facts)
    listed = f": {', '.join(names)}" if len(names) <= 2 * _NAMED else ""
    parts = [f"{len(names)} network{'s' * (len(names) != 1)}{listed}"] if names else []
    data = data_names(found.results)
    if found.along:
        low, high = min(found.along.values()), max(found.along.values())
        parts += [f"{found.along_name or 'along'} {low:g} to {high:g}"]
    return [*parts, *([f"data: {', '.join(data)}"] if data else []), _today(), f"flatprobe {version('flatprobe')}"]


def _files(records: str | os.PathLike[str], page: Path) -> list[str]:
    """The tables in a folder of records, relative to the page."""
    found = [path for ending in ("parquet", "csv") for path in sorted(Path(records).glob(f"*.{ending}"))]
    return [Path(os.path.relpath(path, page.parent)).as_posix() for path in found]
