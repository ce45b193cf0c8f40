"""The command that finds the best settings with few rows: tune."""

from __future__ import annotations

from typing import Annotated

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
    StudyArg,
    SubjectTo,
    app,
    bars,
    print_json,
    said,
)
from workbench.cli.checking import checked, on_engine


@app.command()
def tune(
    study: StudyArg,
    out: Out = RESULTS,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCORER",
            help="The score that counts, by name; by default the study's first ('quality'). In a search others beside it: scorers, "
            "-n_output_tokens (short answers), -ttft_ms_p50, -tpot_ms_p50, -e2el_ms_p50 (fast ones; also _p90, _p95): "
            "'quality,-e2el_ms_p50'.",
        ),
    ] = None,
    subject_to: SubjectTo = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AMOUNT",
            help="Spend no more, timed requests included: '20m', '200k tokens', '5000 rows'. Repeatable.",
        ),
    ] = None,
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Settings to try in a search; by default 40, with a budget 200."),
    ] = None,
    alpha: Annotated[
        float,
        typer.Option(help="Chance at most of dropping the best cell, above 0 and below 0.5."),
    ] = 0.05,
    limit: Limit = None,
    json_out: Json = False,
    quiet: Quiet = False,
    new: New = False,
    engine: EngineKind = None,
    device: Device = None,
    kernel: Kernel = None,
) -> None:
    """Find the best settings of a study with few rows: of its grid, or of the ranges it says to search.

    Cells race over the same prompts, block by block; those that surely lose, or surely break a limit, stop. In a search new
    settings join while others go on. What is left is measured on the prompts that the study holds out, and the decision is
    written to the run.

    Example: workbench tune datasets/quickstart.yaml --budget 10m
    """
    from workbench.analysis import broken
    from workbench.tuning import tune as tuned

    declared, _, notes = checked(study)
    declared = on_engine(declared, kind=engine, device=device, kernel=kernel)
    for note in notes:
        said(quiet)(f"note: {note}")
    found = tuned(
        declared,
        out=out,
        objective=objective,
        subject_to=subject_to or (),
        budget=budget or (),
        trials=trials,
        alpha=alpha,
        new=new,
        limit=limit,
        progress=bars(quiet),
        say=said(quiet),
    )
    if json_out:
        print_json(found.to_dict())
    else:
        typer.echo(broken(found.text, 79))
        said(quiet)(f"written: {found.run.path / 'decision'}")
    if found.decision.pick is None:
        raise typer.Exit(Exit.THRESHOLD)
