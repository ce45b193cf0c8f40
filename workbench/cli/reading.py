"""Commands that read what is there: summary, compare, report, ls, export, import, doctor."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workbench.cli.base import (
    RESULTS,
    Baseline,
    Exit,
    Json,
    Out,
    Quiet,
    RunArg,
    app,
    bars,
    print_json,
    print_run,
    said,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workbench.comparing import Comparison
    from workbench.runs import Run


class Format(StrEnum):
    """What ``export`` writes."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    LM_EVAL = "lm-eval"
    INSPECT = "inspect"
    MARKDOWN = "markdown"
    SUMMARY = "summary"


class Side(StrEnum):
    """On which prompts ``compare`` compares."""

    SELECT = "select"
    CONFIRM = "confirm"
    ALL = "all"


class Only(StrEnum):
    """Which prompts ``compare`` shows."""

    CHANGED = "changed"
    BETTER = "better"
    WORSE = "worse"
    ALL = "all"


@app.command()
def summary(
    run: RunArg,
    out: Out = RESULTS,
    baseline: Baseline = None,
    json_out: Json = False,
) -> None:
    """Print a run's answer in words and its table.

    Example: workbench summary latest
    """
    from workbench.runs import open_run

    opened = open_run(run, out)
    print_run(opened, opened.summary(baseline), json_out=json_out)


@app.command()
def compare(
    run: RunArg,
    other: Annotated[
        str | None,
        typer.Argument(metavar="OTHER", help="Another run, compared with RUN prompt by prompt."),
    ] = None,
    out: Out = RESULTS,
    cell: Annotated[
        str | None,
        typer.Option(
            help="Cell id or label; by default the best. With OTHER of the same cells: the baseline of both."
        ),
    ] = None,
    baseline: Baseline = None,
    split: Annotated[
        Side | None,
        typer.Option(
            help="Prompts to compare on; by default those held out where the best cell was picked, else all."
        ),
    ] = None,
    only: Annotated[Only, typer.Option(help="Which prompts to show.")] = Only.CHANGED,
    limit: Annotated[int, typer.Option(min=0, help="Most prompts to show.")] = 10,
    json_out: Json = False,
) -> None:
    """Compare two cells, or adapters, prompt by prompt.

    Says the difference with its interval and shows the prompts whose score changed, answers side by side. With the name of
    an adapter (base is none) as baseline and no --cell it compares the adapters.

    Example: workbench compare latest --cell greedy --only worse
    """
    from workbench import answers
    from workbench.runs import open_run

    first = open_run(run, out)
    second = None if other is None else open_run(other, out)
    if second is None and cell is None and baseline in set(first.cells["adapter"]):
        if only is not Only.CHANGED or limit != 10:
            raise typer.BadParameter("--only and --limit are for two cells: name one with --cell")
        _adapters(first, str(baseline), split, json_out=json_out)
        return
    found = _compared(first, second, cell, baseline, split)
    shown = found.changes
    if only is Only.CHANGED:
        shown = shown[shown["change"].isin(["better", "worse"])]
    elif only is not Only.ALL:
        shown = shown[shown["change"] == only.value]
    if json_out:
        rows = shown.head(limit).astype(object).where(shown.head(limit).notna(), None)
        print_json({**found.to_dict(), "shown": rows.to_dict("records")})
        return
    typer.echo(found.text)
    if limit and len(shown):
        typer.echo()
        typer.echo(answers.text(shown, labels=found.labels, limit=limit))


def _adapters(run: Run, baseline: str, split: Side | None, *, json_out: bool) -> None:
    """Print every adapter against one of them."""
    from workbench.analysis import broken
    from workbench.comparing import by_adapter

    found = by_adapter(run, baseline, split=None if split is None else split.value)
    if json_out:
        print_json(found.to_dict())
        return
    typer.echo(broken(found.text, 79))


def _compared(
    first: Run, second: Run | None, cell: str | None, baseline: str | None, split: Side | None
) -> Comparison:
    from workbench import comparing

    if second is not None:
        if split is not None:
            raise typer.BadParameter("--split is for two cells of one run")
        if (
            cell is None
            and baseline is None
            and set(first.cells["cell_id"]) == set(second.cells["cell_id"])
        ):
            baseline = cell = (
                first.cell_id()
            )  # the same settings in both: what differs is the model, or the day
        return comparing.compare_runs(first, second, baseline, cell or _best(second, None))
    if split is None and cell is None and first.holds_out:
        split = Side.CONFIRM  # the prompts that picked the cell would flatter it
    side = None if split in (None, Side.ALL) else split.value
    return comparing.compare(first, cell or _best(first, baseline), baseline, split=side)


def _best(run: Run, baseline: str | None) -> str:
    """The cell with the highest quality, other than the baseline if there is another."""
    from workbench.words import ranked

    base = run.cell_id(baseline)
    names = [*ranked(run.summary(), base).index, *run.cells["cell_id"]]
    return next((str(name) for name in names if name != base), base)


@app.command()
def report(
    run: RunArg,
    out: Out = RESULTS,
    to: Annotated[
        Path | None, typer.Option(help="Folder to write into; by default the run directory.")
    ] = None,
    baseline: Baseline = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Also write report.pdf; needs the extra pdf.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Write nothing: make the report that is there again from the record, and compare every number. "
            "Returns 1 if one differs.",
        ),
    ] = False,
    json_out: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a run's report, as HTML and Markdown.

    report.html is one file that needs no network, to read, print and send on; report.md is a short one for a pull request.
    The same run gives the same bytes.

    Example: workbench report latest
    """
    from workbench.reporting import report as write
    from workbench.runs import open_run

    opened = open_run(run, out)
    if verify:
        if baseline is not None or seed:
            raise typer.BadParameter("--baseline and --seed are those of the report with --verify")
        if pdf:
            raise typer.BadParameter("--verify writes nothing, and --pdf does")
        from workbench.reproducing import verify_report

        found = verify_report(opened, to, progress=bars(quiet))
        print_json(found.to_dict()) if json_out else typer.echo(found.text)
        raise typer.Exit(Exit.DONE if found.ok else Exit.ERROR)
    path = write(opened, to, baseline=baseline, seed=seed, pdf=pdf, progress=bars(quiet))
    if json_out:
        made = {"report": str(path), "markdown": str(path.with_suffix(".md"))}
        print_json(made | ({"pdf": str(path.with_suffix(".pdf"))} if pdf else {}))
    else:
        typer.echo(path)
        if pdf:
            typer.echo(path.with_suffix(".pdf"))


@app.command()
def export(
    run: RunArg,
    to: Annotated[Path, typer.Option("--to", help="File or folder to write.")],
    out: Out = RESULTS,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="What to write; by default what the ending of --to says."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    spreadsheet: Annotated[
        bool,
        typer.Option(
            "--spreadsheet", help="In CSV, mark texts that a spreadsheet would run as formulas."
        ),
    ] = False,
    json_out: Json = False,
) -> None:
    """Write a run's rows for other programs.

    csv, jsonl and parquet: one row per answer with its prompt, settings and scores. lm-eval: samples and results as
    lm-evaluation-harness writes them. inspect: logs for `inspect view`. summary (CSV) and markdown: one row per cell.

    Example: workbench export latest --format jsonl --to rows.jsonl
    """
    from workbench import interchange
    from workbench.runs import open_run

    chosen = interchange.format_of(to) if form is None else form.value
    if chosen is None:
        raise typer.BadParameter(
            f"no format is known by the ending of {to}; say --format, one of {', '.join(Format)}"
        )
    files = interchange.export(open_run(run, out), to, chosen, force=force, spreadsheet=spreadsheet)
    if json_out:
        print_json({"files": [str(path) for path in files]})
    else:
        typer.echo("\n".join(map(str, files)))


@app.command("import")
def import_file(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="A prompt file of any known kind, or hf:<data set>/<split>@<commit>. With --answers: files or folders.",
        ),
    ],
    to: Annotated[
        Path | None, typer.Option("--to", help="JSONL file to write the prompts to.")
    ] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(help="name=column, where the file has other names: --field prompt=Question."),
    ] = None,
    allow_python: Annotated[
        bool,
        typer.Option(
            "--allow-python",
            help="Keep a promptfoo file's python assertions; scoring will run them.",
        ),
    ] = False,
    answers: Annotated[
        bool,
        typer.Option("--answers", help="FILE... holds answers made elsewhere: make a run of them."),
    ] = False,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="With --answers: the prompts they answer, if FILE... has them not; for an OpenAI batch its input."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="With --answers: name of the study.")] = "imported",
    out: Out = RESULTS,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    json_out: Json = False,
) -> None:
    """Check and keep prompts or answers of other programs.

    Prompts: JSONL, CSV, TSV, OpenAI chat and batch files, promptfoo tests, data sets. Answers: inspect_ai logs,
    lm-evaluation-harness samples, evalscope reviews, OpenAI batch output, an export of ours, or JSONL with id and text;
    each model and each combination of settings in them becomes a cell.

    Example: workbench import questions.csv --field prompt=Question --to questions.jsonl
    """
    given = {"--prompts": prompts, "--name": None if name == "imported" else name}
    wrong = [option for option, value in given.items() if value is not None and not answers]
    if wrong or (answers and (to is not None or field)):
        meant = ", ".join(wrong) or "--to and --field"
        raise typer.BadParameter(f"{meant}: {'only with' if wrong else 'not with'} --answers")
    if answers:
        from workbench.interchange.imported import import_answers

        made = import_answers(source, prompts, out, name, say=said(json_out))
        print_json({"run": str(made)}) if json_out else typer.echo(made)
        return
    if len(source) > 1:
        raise typer.BadParameter("several files: only with --answers")
    if to is None:
        raise typer.BadParameter("say where to write the prompts: --to FILE.jsonl")
    from workbench import interchange

    fields = _fields(field or ())
    read = interchange.convert(
        source[0], to, fields or None, force=force, allow_python=allow_python
    )
    if json_out:
        print_json({"file": str(to), "n_prompts": len(read), "sha256": read.sha256})
    else:
        typer.echo(f"{to}: {len(read):,} prompts")


def _fields(items: Iterable[str]) -> dict[str, Any]:
    """Our field to column; vars and metadata may take several columns."""
    columns: dict[str, list[str]] = {}
    for name, column in map(_named, items):
        columns.setdefault(name, []).append(column)
    return {
        name: found if len(found) > 1 or name in ("vars", "metadata") else found[0]
        for name, found in columns.items()
    }


def _named(item: str) -> tuple[str, str]:
    name, equals, column = item.partition("=")
    if not (name and equals and column):
        raise typer.BadParameter(f"must be name=column, got {item!r}")
    return name, column


@app.command("ls")
def list_runs(out: Out = RESULTS, json_out: Json = False) -> None:
    """List the runs.

    Example: workbench ls
    """
    from workbench import terminal
    from workbench.runs import all_runs, status

    found = all_runs(out)
    if json_out:
        print_json(
            [
                {"path": str(path), **manifest, "status": status(path, manifest)}
                for path, manifest in found
            ]
        )
    else:
        terminal.print_runs(found, out)


@app.command()
def doctor(json_out: Json = False) -> None:
    """Show what this machine can run.

    Devices, kernels, memory, versions, cache, model hub.

    Example: workbench doctor
    """
    from workbench import doctor as examine

    facts = examine.facts()
    print_json(facts) if json_out else typer.echo(examine.text(facts))
