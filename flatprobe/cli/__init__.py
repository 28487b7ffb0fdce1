"""The command line. It parses and calls, and imports nothing heavy before a command runs."""

import sys
import warnings
from collections.abc import Sequence

from cyclopts import App

import flatprobe.cli.commands as commands
import flatprobe.cli.compare as comparing
import flatprobe.cli.sweeps as sweeps
import flatprobe.cli.training as training

app = App(
    name="flatprobe",
    help="Probes of trained PyTorch networks: flatness, loss landscapes, margins, Jacobian norms, robustness.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,
)
for command in (
    commands.demo, training.train, comparing.compare, comparing.probe, comparing.probes, commands.audit,
    commands.report, sweeps.sweep,
):  # fmt: skip
    app.command(command)


def main(tokens: Sequence[str] | None = None) -> None:
    """Run a command. An input error is one line on stderr with exit status 2; Ctrl-C exits with status 130."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # some terminals have no "\N{PLUS-MINUS SIGN}"
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.formatwarning = _warning
            app(tokens)
    except KeyboardInterrupt as error:
        _tell("interrupted", error)
        sys.exit(130)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError, MemoryError) as error:
        _tell(str(error) or type(error).__name__, error)
        sys.exit(2)


def _warning(message: Warning | str, *_: object, **_options: object) -> str:
    return f"warning: {' '.join(str(message).split())}\n"


def _tell(words: str, error: BaseException) -> None:
    """The message with the error's notes, on one line of stderr."""
    separator = " " if words.endswith(".") else "; "
    sys.stderr.write(f"flatprobe: {separator.join([words, *getattr(error, '__notes__', ())])}\n")
