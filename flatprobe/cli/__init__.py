"""The command line. It parses and calls, and imports nothing heavy before a command runs."""

import sys
import warnings
from collections.abc import Sequence
from functools import partial

from cyclopts import App, CycloptsError, MissingArgumentError, UnusedCliTokensError

import flatprobe.cli.commands as commands
import flatprobe.cli.compare as comparing
import flatprobe.cli.inspecting as inspecting
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
    commands.report, sweeps.sweep, inspecting.inspect,
):  # fmt: skip
    app.command(command)


def main(tokens: Sequence[str] | None = None) -> None:
    """Run a command. An error of its words or data is one line on stderr with exit status 2; Ctrl-C exits with 130."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # some terminals have no "\N{PLUS-MINUS SIGN}"
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_warn, set())
            app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _tell(_unparsed(error), error)
        sys.exit(2)
    except KeyboardInterrupt as error:
        _tell("interrupted" if getattr(error, "__notes__", ()) else "interrupted, before anything was finished", error)
        sys.exit(130)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError, MemoryError) as error:
        _tell(str(error) or type(error).__name__, error)
        sys.exit(2)


def _warn(told: set[str], message: Warning | str, *_place: object, **_file: object) -> None:
    """A warning on one line of stderr, once, without the place in the code."""
    words = " ".join(str(message).split())
    if words not in told:
        sys.stderr.write(f"warning: {words}\n")
        told.add(words)


def _unparsed(error: CycloptsError) -> str:
    """The error of the parser, with the help to look at."""
    words, chain = str(error), error.command_chain or []
    if isinstance(error, UnusedCliTokensError):
        words = f"{' '.join(error.unused_tokens or [])!r} must not follow, since the command takes no further words."
    if isinstance(error, MissingArgumentError) and error.argument and error.argument.name == "--paths":
        words = "Checkpoints must come before the options, some of which take several words, got none there."
    return f"{words} Run: {' '.join(['flatprobe', *chain, '--help'])}"


def _tell(words: str, error: BaseException) -> None:
    """The message with the error's notes, on one line of stderr."""
    separator = " " if words.endswith(".") else "; "
    sys.stderr.write(f"flatprobe: {separator.join([words, *getattr(error, '__notes__', ())])}\n")
