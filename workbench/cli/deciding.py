"""The command that says which cell to use: decide."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.base import (
    RESULTS,
    Baseline,
    Exit,
    Json,
    Objective,
    Quiet,
    RunArg,
    SubjectTo,
    app,
    print_json,
    said,
)


@app.command()
def decide(
    run: RunArg,
    objective: Objective = None,
    subject_to: SubjectTo = None,
    baseline: Baseline = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder to write; by default 'decision' in the run."
        ),
    ] = None,
    results: Annotated[
        Path, typer.Option("--results", help="Where run directories live.")
    ] = RESULTS,
    seed: Annotated[int, typer.Option(min=0, help="Of resampling.")] = 0,
    json_out: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say which cell to use, and write files to deploy it.

    Chosen on the prompts that the study does not hold out, measured on those it does. Files: decision.md, decision.json,
    and the settings for transformers, OpenAI-compatible servers, vLLM and Workers AI.

    Example: workbench decide latest --subject-to 'e2el_ms_p50<=900'
    """
    from workbench.analysis import broken
    from workbench.deciding import decide as decided
    from workbench.runs import open_run

    decision = decided(
        open_run(run, results),
        subject_to=subject_to or (),
        objective=objective,
        baseline=baseline,
        rng=seed,
    )
    files = decision.write(out)
    if json_out:
        print_json({**decision.to_dict(), "files": [str(path) for path in files]})
    else:
        typer.echo(broken(decision.text, 79))
        said(quiet)(f"written: {files[0].parent}")
    if decision.pick is None:
        raise typer.Exit(Exit.THRESHOLD)
