"""The ``workbench`` command. Every command is a few lines around the Python API."""

from __future__ import annotations

import os
import sys

import typer

from workbench.cli import (
    adapting,
    deciding,
    quantizing,
    reading,
    reproducing,
    running,
    training,
    tuning,
)
from workbench.cli.base import Exit, app, print_json
from workbench.errors import WorkbenchError

__all__ = [
    "Exit",
    "adapting",
    "app",
    "deciding",
    "main",
    "quantizing",
    "reading",
    "reproducing",
    "running",
    "training",
    "tuning",
]


def main() -> None:
    """Entry point: errors become one line and exit code 1, bugs too; ``--debug`` shows tracebacks."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1 or bool(os.environ.get("WORKBENCH_DEBUG"))
    try:
        _call(arguments)
    except Exception as error:  # whatever went wrong: a user wants a line, not a traceback
        if debug:
            raise
        text = str(error)
        if not isinstance(error, WorkbenchError):
            text = f"{type(error).__name__}: {error} (--debug shows where)"
        typer.echo(f"workbench: {text}", err=True)
        if "--json" in arguments:
            print_json({"error": text, "kind": type(error).__name__, "problems": problems(error)})
        sys.exit(Exit.ERROR)


def _call(arguments: list[str]) -> None:
    """Run the command line; wrong usage becomes JSON where that is asked for."""
    command = typer.main.get_command(app)
    try:
        command(arguments, prog_name="workbench")
    except SystemExit as end:
        text = getattr(command, "wrong_usage", None)
        if end.code == Exit.USAGE and text and "--json" in arguments:
            print_json({"error": text, "kind": "UsageError", "problems": [text]})
        raise


def problems(error: Exception) -> list[str]:
    """The problems an error lists, or its one."""
    listed = getattr(error, "problems", None)
    return [str(problem) for problem in listed] if listed else [str(error)]
