"""The ``probcl`` command: its commands, and what becomes of their errors."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, NamedTuple

import typer

import probcl
from probcl.cli.errors import FAILED, INTERRUPTED, MISUSED, OK, ConfigError, Interruption, Misuse
from probcl.cli.screen import Screen, current, flush, screen_and_rest

# Of whichever click this typer brings: what it raises for a command that was typed wrongly.
_UsageError = typer.BadParameter.__bases__[0]
_EVERYWHERE = "Everywhere: before or after the command"


class Command(NamedTuple):
    """What the overview says of a command, and the module of the function that has its name."""

    panel: str
    summary: str
    module: str


COMMANDS = {
    "fit": Command("Make a model", "Fit a model as a config says, and write it into a folder.", "fit"),
    "retrieve": Command("Use it", "Find the items that belong to each query, best first.", "use"),
    "classify": Command("Use it", "Give each image (or whatever u is) the probabilities of the classes.", "use"),
    "sample": Command("Use it", "Draw from the learned conditional, the prior tilted by the model.", "use"),
    "assimilate": Command(
        "Currents from drifters",
        "Turn drifters into a posterior ensemble of currents, by an analysis learned from an archive.",
        "assimilate",
    ),
    "diagnose": Command(
        "Look at it", "Test a model on pairs that it has not seen, and write a report with figures.", "diagnose"
    ),
    "info": Command(
        "Look at it",
        "Say what a model is: its parts, what its conditionals are good for, and how it was fitted.",
        "info",
    ),
    "cite": Command("Look at it", "Print BibTeX for the papers behind the parts of a model, and for probcl.", "cite"),
}


def application(arguments: Sequence[str]) -> typer.Typer:
    """Return the command line for these arguments.

    A command that is not among them can only be listed: its module, and torch with it, is not imported.
    """
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Exit codes: 0 fine, 1 it failed, 2 it was asked wrongly, 130 interrupted.",
    )
    app.callback(invoke_without_command=True)(overview)
    for name, (panel, summary, module) in COMMANDS.items():
        if name in arguments:
            function = getattr(import_module(f"probcl.cli.{module}"), name)
            app.command(name, rich_help_panel=panel, no_args_is_help=False)(function)
        else:
            app.command(name, rich_help_panel=panel, help=summary)(_listed)
    return app


def _listed() -> None:
    raise AssertionError("a command that was not asked for was run")


def overview(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="No messages and no progress, only results, warnings and errors.",
            rich_help_panel=_EVERYWHERE,
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Results as JSON on stdout; all else goes to stderr.", rich_help_panel=_EVERYWHERE),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Errors with their traceback.", rich_help_panel=_EVERYWHERE)
    ] = False,
) -> None:
    """Probabilistic bimodal contrastive learning: two encoders and an alignment are a conditional distribution."""
    if version:
        current().show({"version": probcl.__version__}, f"probcl {probcl.__version__}")
        raise typer.Exit(OK)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    screen, rest = screen_and_rest(sys.argv[1:] if arguments is None else arguments)
    try:
        command_line = application(rest)
        with screen.in_use():
            code = command_line(rest or ["--help"], prog_name="probcl", standalone_mode=False)
            if code == INTERRUPTED:  # as typer tells of Ctrl-C
                raise KeyboardInterrupt
        flush()
    except BrokenPipeError:
        # Who reads the output has seen enough; the interpreter must not try to flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (KeyboardInterrupt, typer.Abort, Interruption, Exception) as error:
        return _report(error, screen)
    return code if isinstance(code, int) else OK


def _report(error: BaseException, screen: Screen) -> int:
    """Say what went wrong, and return the exit code."""
    if screen.debug:
        screen.err.print_exception(show_locals=False)
    if isinstance(error, Interruption):
        screen.err.print(str(error), style="yellow", soft_wrap=True, markup=False)
        return INTERRUPTED
    code, message = _diagnosis(error)
    screen.error(message)
    return code


def _diagnosis(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an error, and what to say."""
    message = " ".join(str(error).split())
    match error:
        case KeyboardInterrupt() | typer.Abort():
            return INTERRUPTED, "interrupted"
        case ConfigError():
            return MISUSED, "\n".join(error.problems)
        case Misuse():
            return MISUSED, message
        case OSError() if error.strerror:
            return FAILED, f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        case ValueError() | TypeError() | ImportError() | FloatingPointError() | RuntimeError() if message:
            return FAILED, message
    if isinstance(error, _UsageError):
        command = getattr(getattr(error, "ctx", None), "command_path", "probcl")
        told = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
        return MISUSED, f"{told} ({command} --help)"
    return FAILED, f"{type(error).__name__}: {message} (--debug shows where)"
