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
    suppress_keyboard_interrupt=False,
)
for command in (commands.demo, training.train, commands.probe, commands.audit, commands.report):
    app.command(command)


def main(tokens: Sequence[str] | None = None) -> None:
    """Run a command; an error of the user's input is one line on stderr and exit status 2, Ctrl-C is status 130."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without a letter for "\N{PLUS-MINUS SIGN}" ends no command
            stream.reconfigure(errors="backslashreplace")
    try:
        app(tokens)
    except KeyboardInterrupt as error:
        _tell("interrupted", error)
        sys.exit(130)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError, MemoryError) as error:
        _tell(str(error) or type(error).__name__, error)
        sys.exit(2)


def _tell(words: str, error: BaseException) -> None:
    """The words, and what is kept, on stderr."""
    sys.stderr.write(f"flatprobe: {'; '.join([words, *getattr(error, '__notes__', ())])}\n")
