"""The command line: parses and calls, computes nothing, and loads nothing heavy before a command runs."""

import sys
from collections.abc import Sequence

from cyclopts import App

import flatprobe.cli.commands as commands
import flatprobe.cli.training as training

app = App(
    name="flatprobe",
    help="Probes of trained networks: flatness, landscapes, margins, Jacobian norms, robustness.",
    version_flags=["--version"],
)
for command in (commands.demo, training.train, commands.probe, commands.audit, commands.report):
    app.command(command)


def main(tokens: Sequence[str] | None = None) -> None:
    """Run a command; an error of the user's input is one line on stderr and exit status 2."""
    try:
        app(tokens)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        sys.stderr.write(f"flatprobe: {error}\n")
        sys.exit(2)
