"""The command that makes AWQ checkpoints: quantize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.base import Json, Quiet, app, bars, print_json, said


@app.command()
def quantize(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder with a dense model, or a hub id.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder to write, new or empty.")
    ],
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            help="Prompts that calibrate: a file, builtin:NAME or hf:...; may be repeated. All built-in ones by default."
        ),
    ] = None,
    group_size: Annotated[
        int, typer.Option(help="Weights that share a scale: 32, 64 or 128.")
    ] = 128,
    n_prompts: Annotated[int, typer.Option(min=1, help="Most prompts that calibrate.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Decides which.")] = 0,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Compare with the dense model.")
    ] = True,
    check_prompts: Annotated[
        list[str] | None,
        typer.Option(help="Prompts to compare on; by default others of --prompts."),
    ] = None,
    n_check: Annotated[int, typer.Option(min=1, help="Most prompts to compare on.")] = 64,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Longest greedy answer in the comparison, tokens.")
    ] = 32,
    device: Annotated[
        str, typer.Option(help="auto (a GPU if there is one), cpu or cuda.")
    ] = "auto",
    json_out: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an AWQ checkpoint of a dense model, and say what it cost.

    Needs the extra: pip install 'awq-workbench[autoawq]'. Calibrate with texts like those the model is for, and not those it
    will be judged on.

    Example: workbench quantize ./my-model --out ./my-model-awq --prompts mine.jsonl
    """
    from workbench.quantizing import quantize as make

    made = make(
        model,
        out,
        _sources(prompts),
        group_size=group_size,
        n_prompts=n_prompts,
        seed=seed,
        check=check,
        check_prompts=_sources(check_prompts),
        n_check=n_check,
        max_tokens=max_tokens,
        device=device,
        progress=bars(quiet),
        say=said(quiet),
    )
    print_json({"path": str(made.path), **made.card}) if json_out else typer.echo(made.text)


def _sources(names: list[str] | None) -> list[Path] | None:
    """As paths: plain words would be taken for prompts."""
    return [Path(name) for name in names] if names else None
