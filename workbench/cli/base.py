"""What the commands share: the app, its exit codes, common options, and how results are printed."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from workbench.progress import room_for_bars

if TYPE_CHECKING:
    from workbench.runs import Run


class Exit(IntEnum):
    """What the process returns."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    FAILED_ROWS = 3
    THRESHOLD = 100
    INTERRUPTED = 130


ORDER: Final = (
    "demo",
    "run",
    "tune",
    "validate",
    "summary",
    "compare",
    "decide",
    "report",
    "latency",
    "score",
    "verify",
    "rerun",
    "diff",
    "export",
    "import",
    "train",
    "adapter",
    "quantize",
    "ls",
    "doctor",
)
"""The commands as the help lists them: by what a user does first."""


class _Commands(TyperGroup):
    """The commands; typer by itself ends on Ctrl-C without a word."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, in the order of `ORDER`."""
        return sorted(super().list_commands(ctx), key=ORDER.index)

    wrong_usage: str | None = None
    """What was wrong with the last call, if it was wrong usage."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the options before the command."""
        self.wrong_usage = None
        with self._noted():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            with self._noted():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("workbench: interrupted; run the same command again to continue", err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None
        except (
            BrokenPipeError
        ):  # whoever read the output has seen enough, as in `workbench summary R | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(Exit.DONE) from None

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Keep the message of wrong usage, which is otherwise printed and gone."""
        try:
            yield
        except Exception as error:
            if getattr(error, "exit_code", None) == Exit.USAGE and hasattr(error, "format_message"):
                self.wrong_usage = str(error.format_message())
            raise


app = typer.Typer(
    cls=_Commands,
    help="Which decoding settings to use with a 4-bit chat model, and what they cost in latency.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StudyArg = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (YAML).")]


def _run_names(incomplete: str) -> list[str]:
    """Runs under ``results`` that start so, for the shell's completion."""
    from workbench.runs import all_runs

    names = ["latest", *(path.name for path, _ in all_runs(RESULTS))]
    return [name for name in names if name.startswith(incomplete)]


RunArg = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run directory or id, a study's name (its newest run), or 'latest'.",
        autocompletion=_run_names,
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        help="Cell id or label to compare with, instead of the study's; for `compare` also an adapter.",
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective", metavar="SCORER", help="The score that counts; by default the study's first."
    ),
]
SubjectTo = Annotated[
    list[str] | None,
    typer.Option(
        "--subject-to",
        metavar="LIMIT",
        help="What the cell must keep to: 'e2el_ms_p90<=900'. May be repeated.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Where run directories live.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and no notes.")]
Device = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N; instead of the study's.")
]
Kernel = Annotated[
    str | None, typer.Option("--kernel", help="auto, int4, fp32 or bf16; instead of the study's.")
]
EngineKind = Annotated[
    str | None, typer.Option("--engine", help="local or scripted; instead of the study's.")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Only so many prompts, drawn by the study's seed."),
]
New = Annotated[bool, typer.Option("--new", help="Start another run even if this study has one.")]

RESULTS = Path("results")


@app.callback()
def _main(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")
    ] = False,
) -> None:
    pass  # --debug is read in main


def print_run(run: Run, summary: Any, *, json_out: bool) -> None:
    """Print a run's table and answer."""
    from workbench import terminal

    if json_out:
        print_json(terminal.as_json(run, summary))
    else:
        terminal.print_run(run, summary)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def bars(quiet: bool) -> bool:
    """Whether to show progress bars: not where they would fill a log file, or where there is no room for one."""
    return not quiet and room_for_bars()


def said(quiet: bool) -> Callable[[str], None]:
    """Where notes go: standard error, or nowhere."""

    def silent(_: str) -> None:
        pass

    return silent if quiet else lambda line: typer.echo(line, err=True)
