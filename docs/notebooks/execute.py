"""Run the notebooks, which are written as Markdown, and write them with their outputs as .ipynb files.

pip install '.[docs]'
python docs/notebooks/execute.py
"""

from pathlib import Path

import jupytext
from nbclient import NotebookClient

for page in sorted(Path(__file__).parent.glob("*.md")):
    notebook = jupytext.read(page)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"{page.stem}-{number}"  # the same at every run
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
    jupytext.write(notebook, page.with_suffix(".ipynb"))
