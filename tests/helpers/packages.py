"""The folder of the package, and libraries that are imported only where they are needed."""

from pathlib import Path

import flatprobe

ROOT = Path(flatprobe.__file__).parent
# Loaded only by what needs them, so that importing the probes is light.
HEAVY = {"pandas", "pyarrow", "matplotlib", "seaborn", "mpltern", "datasets", "sklearn", "rich", "jinja2", "cyclopts"}
HEAVY |= {"lightning", "pytorch_lightning", "transformers", "accelerate"}
