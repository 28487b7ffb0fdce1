"""The docs site: Markdown pages, API reference from docstrings, formulas as MathML; no request leaves the machine."""

import re
from importlib import metadata
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

project = "flatprobe"
author = "The flatprobe founders"
release = metadata.version("flatprobe")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "cyclopts.sphinx_ext"]
exclude_patterns = ["_build", "**/*.ipynb"]  # notebooks are read from their Markdown pair

html_theme = "furo"
html_title = "flatprobe"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
smartquotes = False  # formulas in plain text
html_show_sphinx = False
html_show_copyright = False

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"  # the outputs of a notebook are those of this build
nb_execution_raise_on_error = True
nb_execution_timeout = 120
copybutton_prompt_text = r">>> |\.\.\. ?|\$ "  # a bare "..." ends a loop
copybutton_prompt_is_regexp = True

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
# Annotations name types of other projects, of which no inventory can be had offline, and private ones of ours.
nitpick_ignore_regex = [("py:(class|data|obj|exc)", r".*")]

_LOGGER = getLogger(__name__)
_KEPT = re.compile(r"(?P<code>`+)[^`]+(?P=code)|(?<!\w)(?P<stars>\*{1,2})\w[^*`|]*(?P=stars)(?!\w)")
_ACTIVE = re.compile(r"[|\\*]|(?<=\w)_(?!\w)")


def plain_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Let formulas in plain text, and names in single backticks, pass reStructuredText as they are written."""
    paragraphs = "\n".join(lines).split("\n\n")
    safe = [text if text.lstrip().startswith(">>>") else _escaped(text) for text in paragraphs]
    if what == "property":
        safe[0] = f"\\ \n{safe[0]}"  # napoleon takes what stands before a colon in the first line for a type
    lines[:] = "\n\n".join(safe).split("\n")


def _escaped(text: str) -> str:
    pieces, end = [], 0
    for kept in _KEPT.finditer(text):
        words = " ".join(kept.group().strip("`").split())  # a name may be broken over two lines
        pieces += [
            _ACTIVE.sub(r"\\\g<0>", text[end : kept.start()]),
            f"``{words}``\\ " if kept["code"] else kept.group(),
        ]
        end = kept.end()
    return "".join([*pieces, _ACTIVE.sub(r"\\\g<0>", text[end:])])


def tidy(app: Sphinx, doctree: nodes.document) -> None:
    """Set the dash after an argument's name (not those of --options), and end examples without the blank line."""
    for text in list(doctree.findall(nodes.Text)):
        if text == " -- ":
            text.parent.replace(text, nodes.Text(" \N{EN DASH} "))
    for block in doctree.findall(nodes.literal_block):
        if block.rawsource == block.astext():  # not one with markup inside
            block.rawsource = block.rawsource.rstrip()
            block[:] = [nodes.Text(block.rawsource)]


def visit_math(writer: nodes.NodeVisitor, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers draw without a script.

    Raises:
        SkipNode: always, which tells the writer that the formula is written.
    """
    block = isinstance(node, nodes.math_block)
    try:
        formula = tex2mathml(node.astext(), as_block=block)
    except MathError as error:
        formula = node.astext()
        _LOGGER.warning("%s in the formula %s", error, formula, location=node)
    writer.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def precise_signature(*event: Any) -> tuple[str | None, str | None]:
    """Leave out the `| Any` of arguments that flatprobe checks itself, so that they show the kind that is expected."""
    signature, returned = event[-2:]
    return signature and re.sub(r" \| ~?typing\.Any\b", "", signature), returned


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", precise_signature)
    app.connect("autodoc-process-docstring", plain_docstring, priority=400)  # before napoleon
    app.connect("doctree-read", tidy)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
