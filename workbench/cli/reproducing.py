"""Commands that check whether a run can be had again: verify, rerun, diff."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.cli.base import (
    RESULTS,
    Device,
    Exit,
    Json,
    Kernel,
    Out,
    Quiet,
    RunArg,
    app,
    bars,
    print_json,
    said,
)


@app.command()
def verify(
    run: RunArg,
    out: Out = RESULTS,
    rows: Annotated[int, typer.Option(min=1, help="Rows to make again.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Decides which rows.")] = 0,
    json_out: Json = False,
    quiet: Quiet = False,
    device: Device = None,
    kernel: Kernel = None,
) -> None:
    """Make some of a run's rows again, and grade how many come out the same.

    Each row is made alone, among its neighbours of the plan, and in a shuffled batch, with the run's kernel and device if none
    is named. Where an answer goes another way, the grade says how close the two tokens were. The manifest keeps the grade, and
    the report shows it. Returns 1 if a row differs by more than rounding.

    Example: workbench verify latest --rows 8
    """
    from workbench import reproducing
    from workbench.runs import open_run

    found = reproducing.verify(
        open_run(run, out),
        rows=rows,
        seed=seed,
        device=device,
        kernel=kernel,
        progress=bars(quiet),
        say=said(quiet),
    )
    print_json(found.to_dict()) if json_out else typer.echo(found.text)
    raise typer.Exit(Exit.DONE if found.ok else Exit.ERROR)


@app.command()
def rerun(
    run: RunArg,
    out: Out = RESULTS,
    allow_changed: Annotated[
        bool,
        typer.Option(
            "--allow-changed",
            help="Run with changed prompts or adapters too; the manifest says so.",
        ),
    ] = False,
    latency: Annotated[bool, typer.Option(help="Time requests, if the study says so.")] = True,
    json_out: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a run's study again, and say what came out otherwise.

    Another run is made. Prompts, adapters and weights must be what they were, by their hashes; what differs in the end is
    printed as `workbench diff` does. A tuned or imported run cannot be run again so.

    Example: workbench rerun latest
    """
    from workbench import reproducing
    from workbench.runs import open_run

    first = open_run(run, out)
    done = reproducing.rerun(
        first,
        out=out,
        allow_changed=allow_changed,
        latency=latency,
        progress=bars(quiet),
        say=said(quiet),
    )
    status = done.manifest["status"]
    if status == "interrupted":
        raise typer.Exit(Exit.INTERRUPTED)
    found = reproducing.diff(first, done)
    if json_out:
        print_json({"run": str(done.path), "status": status, "diff": found.to_dict()})
    else:
        typer.echo(found.text)
    failed = status == "failed rows" or bool(done.summary()["n_failed"].any())
    raise typer.Exit(Exit.FAILED_ROWS if failed else Exit.DONE)


@app.command()
def diff(
    run: RunArg,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The run to put beside it.")],
    out: Out = RESULTS,
    json_out: Json = False,
) -> None:
    """Say what differs between two runs: inputs, environment, rows, conclusions.

    Rows are matched by cell, prompt and repeat; a difference is OTHER minus RUN. For the prompts behind it see
    `workbench compare RUN OTHER`.

    Example: workbench diff latest results/quickstart/20261123T192845Z-90771a
    """
    from workbench import reproducing
    from workbench.runs import open_run

    found = reproducing.diff(open_run(run, out), open_run(other, out))
    print_json(found.to_dict()) if json_out else typer.echo(found.text)
