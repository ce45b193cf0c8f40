"""Commands that run something: demo, run, latency, score, validate."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.base import (
    RESULTS,
    Device,
    EngineKind,
    Exit,
    Json,
    Kernel,
    Limit,
    New,
    Out,
    Quiet,
    RunArg,
    StudyArg,
    app,
    bars,
    print_json,
    print_run,
    said,
)
from workbench.cli.checking import checked, on_engine
from workbench.errors import ScorerError, StudyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.prompts import PromptSet
    from workbench.study import Study


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
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH", help="A LoRA adapter beside the study's; may be repeated."
        ),
    ] = None,
    engine: EngineKind = None,
    device: Device = None,
    kernel: Kernel = None,
) -> None:
    """Run a study, or continue it.

    Makes answers, scores, latencies, a table and a picture.

    Example: workbench run datasets/quickstart.yaml --limit 8
    """
    declared, prompts, notes = checked(study)
    declared = on_engine(declared, kind=engine, device=device, kernel=kernel)
    if adapter:
        declared = _with_adapters(declared, adapter)
    for note in notes:
        said(quiet)(f"note: {note}")
    if dry_run:
        _describe(declared, prompts, limit, json_out=json_out)
        return
    raise typer.Exit(
        _run(
            declared, out=out, limit=limit, latency=latency, json_out=json_out, quiet=quiet, new=new
        )
    )


def _with_adapters(study: Study, named: list[str]) -> Study:
    """The study with adapters of the command line, whose paths are from the current folder."""
    added: list[Any] = []
    for text in named:
        name, equals, path = text.partition("=")
        path = path if equals else text
        place = str(Path(path).resolve()) if Path(path).exists() else path
        added.append({name: place} if equals else place)
    try:
        return study.replace(adapters=[*study.to_dict()["adapters"], *added])
    except StudyError as error:
        raise typer.BadParameter("; ".join(error.problems), param_hint="--adapter") from error


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
    engine = api.engine_of(opened, progress=bars(quiet), device=device, kernel=kernel)
    try:
        result = api.time_requests(
            opened,
            engine,
            progress=bars(quiet),
            say=said(quiet),
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
    print_run(opened, opened.summary(), json_out=json_out)


@app.command()
def score(
    run: RunArg,
    scorers: Annotated[
        str,
        typer.Option(
            "--scorers",
            help="Names, FILE.py:FUNCTION, or YAML with options, as in 'numeric, {json: {partial: true}}'. "
            "By default the study's.",
        ),
    ] = "",
    primary: Annotated[
        str | None, typer.Option(help="Scorer that is the primary metric from now on.")
    ] = None,
    with_model: Annotated[
        bool, typer.Option("--with-model", help="Load the model, for scorers that need it.")
    ] = False,
    out: Out = RESULTS,
    json_out: Json = False,
    quiet: Quiet = False,
    device: Device = None,
    kernel: Kernel = None,
) -> None:
    """Score a run's answers again, without the model.

    Earlier scores stay in the record, with their versions; the latest of a scorer counts. The table is by the primary
    scorer, which stays as it is without --primary.

    Example: workbench score latest --scorers numeric,degeneration
    """
    from workbench import api

    opened = api.open_run(run, out)
    named = _scorers(scorers) or list(opened.study.scorers)
    options: dict[str, Any] = {"primary": primary, "progress": bars(quiet), "say": said(quiet)}
    if with_model:
        engine = api.engine_of(opened, progress=bars(quiet), device=device, kernel=kernel)
        with contextlib.closing(engine):
            done = api.score(opened, named, engine=engine, **options)
    else:
        done = api.score(opened, named, **options)
    judged = [entry["name"] for entry in done.manifest["rescored"][-1]["scorers"]]
    values = done.scores[done.scores["scorer"].isin(judged)].groupby("scorer")["value"]
    for name in judged:
        if name != done.primary:
            mean, n = values.mean()[name], values.count()[name]
            shown = f"{100 * mean:.1f} % on average, {n:,} answers" if n else "no answer scored"
            said(quiet)(f"{name}: {shown}; the table is by {done.primary}, see --primary {name}")
    table = done.summary()
    print_run(done, table, json_out=json_out)
    unscored = bool(table["n_failed"].any() or (values.count() < values.size()).any())
    raise typer.Exit(Exit.FAILED_ROWS if unscored else Exit.DONE)


def _scorers(text: str) -> list[Any]:
    """Scorers as a study names them, from an option.

    Raises:
        ScorerError: It is not YAML.
    """
    import yaml

    try:
        found = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError as error:
        raise ScorerError(f"--scorers must be names or YAML, got {text!r}") from error
    return [scorer for item in found for scorer in (item if isinstance(item, list) else [item])]


@app.command()
def validate(study: StudyArg, json_out: Json = False) -> None:
    """Check a study file, its scorers and prompts.

    Every problem is listed.

    Example: workbench validate datasets/quickstart.yaml
    """
    declared, prompts, notes = checked(study)
    for note in notes:
        said(json_out)(f"note: {note}")
    _describe(declared, prompts, None, json_out=json_out, notes=notes)


def _run(study: Any, *, out: Path, json_out: bool, quiet: bool, **options: Any) -> int:
    from workbench import api

    done = api.run(study, out=out, progress=bars(quiet), say=said(quiet), **options)
    status = done.manifest["status"]
    if status == "interrupted":
        return Exit.INTERRUPTED
    table = done.summary()
    print_run(done, table, json_out=json_out)
    failed = status == "failed rows" or bool(table["n_failed"].any())
    return Exit.FAILED_ROWS if failed else Exit.DONE


def _describe(
    study: Study,
    prompts: PromptSet,
    limit: int | None,
    *,
    json_out: bool,
    notes: Sequence[str] = (),
) -> None:
    from workbench import api

    defaults = None
    if study.defaults == "checkpoint":
        engine = api.engine_for(study, progress=False)
        defaults = engine.info.checkpoint_defaults
        engine.close()
    plan = study.plan(prompts if limit is None else prompts.subset(limit, study.seed), defaults)
    if json_out:
        cells = [
            {
                "cell_id": c.cell_id,
                "label": c.label,
                "adapter": c.adapter,
                "template": c.template,
                **c.params.to_dict(),
            }
            for c in plan.cells
        ]
        merged = [{"dropped": c.dropped.label, "kept": c.kept.label} for c in plan.collapsed]
        print_json(
            {
                "study": study.name,
                **({"search": dict(study.search)} if study.search else {}),
                "n_rows": None if study.search else plan.n_rows,
                "saved_rows": plan.saved_rows,
                "cells": cells,
                "collapsed": merged,
                "notes": list(notes),
            }
        )
    else:
        typer.echo(plan.describe())
