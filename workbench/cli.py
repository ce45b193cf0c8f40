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

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.api import Run


class Exit(IntEnum):
    """What the process returns."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    FAILED_ROWS = 3
    THRESHOLD = 100
    INTERRUPTED = 130


app = typer.Typer(
    help="Which decoding settings to use with a 4-bit chat model, and what they cost in latency.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StudyArg = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (YAML).")]
RunArg = Annotated[str, typer.Argument(metavar="RUN", help="A run directory, a run id, or 'latest'.")]
Out = Annotated[Path, typer.Option("--out", help="Where run directories live.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and no notes.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N; instead of the study's.")]
Kernel = Annotated[str | None, typer.Option("--kernel", help="auto, int4, fp32 or bf16; instead of the study's.")]
EngineKind = Annotated[str | None, typer.Option("--engine", help="local or scripted; instead of the study's.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Only so many prompts, drawn by the study's seed.")]
New = Annotated[bool, typer.Option("--new", help="Start another run even if this study has one.")]

RESULTS = Path("results")


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001 - read by main
) -> None:
    pass


@app.command()
def demo(out: Out = RESULTS, json_out: Json = False, quiet: Quiet = False, new: New = False) -> None:
    """Build the demo model, sweep 18 settings over short sums, and say what was found.

    Example: workbench demo
    """
    from workbench.demo import study  # noqa: PLC0415 - commands import what they need

    raise typer.Exit(_run(study(), out=out, json_out=json_out, quiet=quiet, new=new))


@app.command()
def run(
    study: StudyArg,
    out: Out = RESULTS,
    limit: Limit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")] = False,
    latency: Annotated[bool, typer.Option(help="Time requests, if the study says so.")] = True,
    json_out: Json = False,
    quiet: Quiet = False,
    new: New = False,
    engine: EngineKind = None,
    device: Device = None,
    kernel: Kernel = None,
) -> None:
    """Run a study, or continue it: answers, scores, latency, table and picture.

    Example: workbench run datasets/quickstart.yaml --limit 8
    """
    from workbench.study import Study  # noqa: PLC0415

    declared = Study.from_yaml(study)
    changes = {k: v for k, v in {"kind": engine, "device": device, "kernel": kernel}.items() if v}
    if changes:
        declared = declared.replace(engine=dict(declared.engine) | changes)
    if dry_run:
        _describe(declared, limit, json_out=json_out)
        return
    raise typer.Exit(
        _run(declared, out=out, limit=limit, latency=latency, json_out=json_out, quiet=quiet, new=new)
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
    from workbench.api import open_run  # noqa: PLC0415

    opened = open_run(run, out)
    _print_run(opened, opened.summary(baseline), json_out=json_out)


@app.command()
def latency(
    run: RunArg,
    out: Out = RESULTS,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts timed for every cell.")] = 8,
    warmup: Annotated[int, typer.Option(min=0, help="Requests before the first timed one.")] = 2,
    rounds: Annotated[int, typer.Option(min=1, help="Times every prompt is timed.")] = 3,
    cell: Annotated[list[str] | None, typer.Option(help="Cell id; may be repeated. All by default.")] = None,
    json_out: Json = False,
    quiet: Quiet = False,
    device: Device = None,
    kernel: Kernel = None,
) -> None:
    """Time a run's requests one at a time, and write its table and picture anew.

    Example: workbench latency latest --rounds 8
    """
    from workbench import api  # noqa: PLC0415

    opened = api.open_run(run, out)
    engine = api.engine_for(opened.study, progress=not quiet, device=device, kernel=kernel)
    try:
        result = api.time_requests(
            opened, engine, progress=not quiet, say=_say(quiet), prompts=prompts, warmup=warmup, rounds=rounds, cells=cell
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
    from workbench import terminal  # noqa: PLC0415
    from workbench.api import all_runs  # noqa: PLC0415

    found = all_runs(out)
    if json_out:
        _print_json([{"path": str(path), **manifest} for path, manifest in found])
    else:
        terminal.print_runs(found, out)


@app.command()
def validate(study: StudyArg, json_out: Json = False) -> None:
    """Check a study file and its prompts; every problem is listed.

    Example: workbench validate datasets/quickstart.yaml
    """
    from workbench.study import Study  # noqa: PLC0415

    declared = Study.from_yaml(study)
    _describe(declared, None, json_out=json_out)


@app.command()
def doctor(json_out: Json = False) -> None:
    """Show what this machine can run: device, kernels, memory, versions, cache, model hub.

    Example: workbench doctor
    """
    from workbench import doctor as examine  # noqa: PLC0415

    facts = examine.facts()
    _print_json(facts) if json_out else typer.echo(examine.text(facts))


def _run(study: Any, *, out: Path, json_out: bool, quiet: bool, **options: Any) -> int:
    from workbench import api  # noqa: PLC0415

    done = api.run(study, out=out, progress=not quiet, say=_say(quiet), **options)
    status = done.manifest["status"]
    if status == "interrupted":
        return Exit.INTERRUPTED
    _print_run(done, done.summary(), json_out=json_out)
    return Exit.FAILED_ROWS if status == "failed rows" else Exit.DONE


def _describe(study: Any, limit: int | None, *, json_out: bool) -> None:
    from workbench.prompts import load  # noqa: PLC0415
    from workbench.scorers import get_scorer  # noqa: PLC0415

    for scorer in study.scorers:
        get_scorer(scorer)
    prompts = load(study.prompts, study.base_dir)
    plan = study.plan(prompts if limit is None else prompts.subset(limit, study.seed))
    if json_out:
        cells = [{"cell_id": c.cell_id, "label": c.label, "adapter": c.adapter, **c.params.to_dict()} for c in plan.cells]
        merged = [{"dropped": c.dropped.label, "kept": c.kept.label} for c in plan.collapsed]
        _print_json(
            {"study": study.name, "n_rows": plan.n_rows, "saved_rows": plan.saved_rows, "cells": cells, "collapsed": merged}
        )
    else:
        typer.echo(plan.describe())


def _print_run(run: Run, summary: Any, *, json_out: bool) -> None:
    from workbench import terminal  # noqa: PLC0415

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
    """Entry point: errors made on purpose become one line and exit code 1."""
    debug = "--debug" in sys.argv or bool(os.environ.get("WORKBENCH_DEBUG"))
    try:
        app(standalone_mode=True)
    except WorkbenchError as error:
        if debug:
            raise
        typer.echo(f"workbench: {error}", err=True)
        sys.exit(Exit.ERROR)
    except KeyboardInterrupt:
        if debug:
            raise
        typer.echo("workbench: interrupted; run the same command again to continue", err=True)
        sys.exit(Exit.INTERRUPTED)


if __name__ == "__main__":
    main()
