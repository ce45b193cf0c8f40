"""The ``workbench`` command. Every command is a few lines around :mod:`workbench.api`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from workbench.errors import PromptSetError, ScorerError, StudyError, WorkbenchError

if TYPE_CHECKING:
    from workbench.api import Run
    from workbench.prompts import PromptSet
    from workbench.study import Study


class Exit(IntEnum):
    """What the process returns."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    FAILED_ROWS = 3
    THRESHOLD = 100
    INTERRUPTED = 130


class _Commands(TyperGroup):
    """The commands; typer by itself ends on Ctrl-C without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("workbench: interrupted; run the same command again to continue", err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    help="Which decoding settings to use with a 4-bit chat model, and what they cost in latency.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StudyArg = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (YAML).")]
RunArg = Annotated[
    str, typer.Argument(metavar="RUN", help="A run directory, a run id, or 'latest'.")
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


@app.command()
def demo(
    out: Out = RESULTS, json_out: Json = False, quiet: Quiet = False, new: New = False
) -> None:
    """Run the quickstart study of the demo model.

    Builds the model if need be, runs 14 settings on short sums, and says what was found.

    Example: workbench demo
    """
    from workbench.demo import study

    raise typer.Exit(_run(study(), out=out, json_out=json_out, quiet=quiet, new=new))


@app.command()
def run(
    study: StudyArg,
    out: Out = RESULTS,
    limit: Limit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and stop.")
    ] = False,
    latency: Annotated[bool, typer.Option(help="Time requests, if the study says so.")] = True,
    json_out: Json = False,
    quiet: Quiet = False,
    new: New = False,
    engine: EngineKind = None,
    device: Device = None,
    kernel: Kernel = None,
) -> None:
    """Run a study, or continue it.

    Makes answers, scores, latencies, a table and a picture.

    Example: workbench run datasets/quickstart.yaml --limit 8
    """
    from workbench.study import Study

    declared = Study.from_yaml(study)
    changes = {k: v for k, v in {"kind": engine, "device": device, "kernel": kernel}.items() if v}
    if changes:
        try:
            declared = declared.replace(engine=dict(declared.engine) | changes)
        except StudyError as error:
            raise typer.BadParameter("; ".join(error.problems)) from error
    prompts = _checked(declared, study)
    if dry_run:
        _describe(declared, prompts, limit, json_out=json_out)
        return
    raise typer.Exit(
        _run(
            declared, out=out, limit=limit, latency=latency, json_out=json_out, quiet=quiet, new=new
        )
    )


@app.command()
def summary(
    run: RunArg,
    out: Out = RESULTS,
    baseline: Annotated[str | None, typer.Option(help="Cell id or label to compare with.")] = None,
    json_out: Json = False,
) -> None:
    """Print a run's answer in words and its table.

    Example: workbench summary latest
    """
    from workbench.api import open_run

    opened = open_run(run, out)
    _print_run(opened, opened.summary(baseline), json_out=json_out)


@app.command()
def latency(
    run: RunArg,
    out: Out = RESULTS,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts timed for every cell.")] = 8,
    warmup: Annotated[int, typer.Option(min=0, help="Requests before the first timed one.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Times every prompt is timed.")] = 3,
    cell: Annotated[
        list[str] | None, typer.Option(help="Cell id or label; may be repeated. All by default.")
    ] = None,
    json_out: Json = False,
    quiet: Quiet = False,
    device: Device = None,
    kernel: Kernel = None,
) -> None:
    """Time a run's requests one at a time.

    Its table and picture are written anew.

    Example: workbench latency latest --rounds 8
    """
    from workbench import api

    opened = api.open_run(run, out)
    engine = api.engine_of(opened, progress=not quiet, device=device, kernel=kernel)
    try:
        result = api.time_requests(
            opened,
            engine,
            progress=not quiet,
            say=_say(quiet),
            prompts=prompts,
            warmup=warmup,
            rounds=rounds,
            cells=cell,
        )
    finally:
        engine.close()
    opened = api.Run(opened.path)
    opened.write()
    if result.status == "interrupted":
        raise typer.Exit(Exit.INTERRUPTED)
    _print_run(opened, opened.summary(), json_out=json_out)


@app.command("ls")
def list_runs(out: Out = RESULTS, json_out: Json = False) -> None:
    """List the runs.

    Example: workbench ls
    """
    from workbench import terminal
    from workbench.api import all_runs

    found = all_runs(out)
    if json_out:
        _print_json([{"path": str(path), **manifest} for path, manifest in found])
    else:
        terminal.print_runs(found, out)


@app.command()
def validate(study: StudyArg, json_out: Json = False) -> None:
    """Check a study file, its scorers and prompts.

    Every problem is listed.

    Example: workbench validate datasets/quickstart.yaml
    """
    from workbench.study import Study

    declared = Study.from_yaml(study)
    _describe(declared, _checked(declared, study), None, json_out=json_out)


@app.command()
def doctor(json_out: Json = False) -> None:
    """Show what this machine can run.

    Devices, kernels, memory, versions, cache, model hub.

    Example: workbench doctor
    """
    from workbench import doctor as examine

    facts = examine.facts()
    _print_json(facts) if json_out else typer.echo(examine.text(facts))


def _run(study: Any, *, out: Path, json_out: bool, quiet: bool, **options: Any) -> int:
    from workbench import api

    done = api.run(study, out=out, progress=not quiet, say=_say(quiet), **options)
    status = done.manifest["status"]
    if status == "interrupted":
        return Exit.INTERRUPTED
    table = done.summary()
    _print_run(done, table, json_out=json_out)
    failed = status == "failed rows" or bool(table["n_failed"].any())
    return Exit.FAILED_ROWS if failed else Exit.DONE


def _checked(study: Study, path: Path) -> PromptSet:
    """The prompts of a study file, after a look at its scorers.

    Raises:
        StudyError: Lists every problem of both.
    """
    from workbench import yamlmarks
    from workbench.problems import Check
    from workbench.prompts import load
    from workbench.scorers import get_scorer

    check = Check(yamlmarks.read(path.read_text(encoding="utf-8-sig")))
    for n, scorer in enumerate(study.scorers):
        try:
            get_scorer(scorer)
        except ScorerError as error:
            check.add(("scorers", n), str(error))
    problems = check.listed()
    try:
        prompts = load(study.prompts, study.base_dir)
    except PromptSetError as error:
        raise StudyError(str(path), [*problems, *error.problems]) from error
    if problems:
        raise StudyError(str(path), problems)
    return prompts


def _describe(study: Study, prompts: PromptSet, limit: int | None, *, json_out: bool) -> None:
    from workbench import api

    defaults = None
    if study.defaults == "checkpoint":
        engine = api.engine_for(study, progress=False)
        defaults = engine.info.checkpoint_defaults
        engine.close()
    plan = study.plan(prompts if limit is None else prompts.subset(limit, study.seed), defaults)
    if json_out:
        cells = [
            {"cell_id": c.cell_id, "label": c.label, "adapter": c.adapter, **c.params.to_dict()}
            for c in plan.cells
        ]
        merged = [{"dropped": c.dropped.label, "kept": c.kept.label} for c in plan.collapsed]
        _print_json(
            {
                "study": study.name,
                "n_rows": plan.n_rows,
                "saved_rows": plan.saved_rows,
                "cells": cells,
                "collapsed": merged,
            }
        )
    else:
        typer.echo(plan.describe())


def _print_run(run: Run, summary: Any, *, json_out: bool) -> None:
    from workbench import terminal

    if json_out:
        _print_json(terminal.as_json(run, summary))
    else:
        terminal.print_run(run, summary)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def _say(quiet: bool) -> Callable[[str], None]:
    def silent(_: str) -> None:
        pass

    return silent if quiet else lambda line: typer.echo(line, err=True)


def main() -> None:
    """Entry point: errors become one line and exit code 1, bugs too; ``--debug`` shows tracebacks."""
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1 or bool(os.environ.get("WORKBENCH_DEBUG"))
    try:
        app(arguments, prog_name="workbench")
    except Exception as error:  # whatever went wrong: a user wants a line, not a traceback
        if debug:
            raise
        text = str(error)
        if not isinstance(error, WorkbenchError):
            text = f"{type(error).__name__}: {error} (--debug shows where)"
        typer.echo(f"workbench: {text}", err=True)
        sys.exit(Exit.ERROR)


if __name__ == "__main__":
    main()
