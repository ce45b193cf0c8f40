"""The command that trains an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from workbench.cli.base import Json, Quiet, app, bars, print_json, said


@app.command()
def train(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Rows with prompt and answer: JSONL, or what names a prompt set with targets.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the adapter, new or empty.")],
    model: Annotated[
        str, typer.Option("--model", help="demo, a folder, or a Hugging Face id.")
    ] = "demo",
    about: Annotated[
        str, typer.Option("--about", help="What it is trained to do, for its card.")
    ] = "",
    evaluated: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluated",
            help="Prompt set it will be judged on; rows that ask the same are refused. May be repeated.",
        ),
    ] = None,
    rank: Annotated[int, typer.Option(help="Width of the two matrices of a layer, 1 to 1024.")] = 8,
    alpha: Annotated[
        float, typer.Option(help="The adapter is scaled by alpha / rank; above 0, up to 10000.")
    ] = 16.0,
    rslora: Annotated[
        bool, typer.Option("--rslora", help="By alpha / sqrt(rank) instead.")
    ] = False,
    dropout: Annotated[float, typer.Option(help="Dropout in the adapter, 0 to 0.9.")] = 0.0,
    targets: Annotated[
        str,
        typer.Option(help="'all' linear layers, or last parts of names: 'q_proj,v_proj'."),
    ] = "all",
    learning_rate: Annotated[
        float,
        typer.Option(
            help="Highest learning rate; above 0, up to 1. 0.001 suits the small demo model; for 7B models 1e-4 to 2e-4 is usual."
        ),
    ] = 1e-3,
    batch_size: Annotated[int, typer.Option(help="Rows computed together, 1 to 4096.")] = 8,
    gradient_accumulation: Annotated[
        int,
        typer.Option(
            help="Batches in a step, 1 to 4096; its rows are batch-size times this, its memory that of one batch."
        ),
    ] = 1,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing",
            help="Compute activations again instead of keeping them: less memory, more time.",
        ),
    ] = False,
    epochs: Annotated[int, typer.Option(help="Times every row is seen, at most; 1 to 1000.")] = 3,
    max_length: Annotated[
        int, typer.Option(help="Most tokens of prompt and answer, from 8.")
    ] = 512,
    skip_long: Annotated[
        bool, typer.Option("--skip-long", help="Leave longer rows out instead of refusing them.")
    ] = False,
    validation: Annotated[
        float, typer.Option(help="Share of the rows held out, 0 (none) to 0.9.")
    ] = 0.1,
    checks: Annotated[
        int,
        typer.Option(
            help="About how many times an epoch the held-out rows are measured and a checkpoint is written, 1 to 1000; at most once a step."
        ),
    ] = 4,
    patience: Annotated[
        int,
        typer.Option(
            help="End after so many checks without a lower loss, up to 1000; 0 for never."
        ),
    ] = 4,
    seed: Annotated[
        int, typer.Option(help="Of first values, order and dropout; 0 to 4294967295.")
    ] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    kernel: Annotated[
        str,
        typer.Option(
            "--kernel", help="auto, int4, fp32 or bf16; auto is fp32 on a CPU where memory allows."
        ),
    ] = "auto",
    json_out: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a LoRA adapter on rows of prompts and answers.

    The same command goes on where it was interrupted, with the same kernel, and trains nothing for a finished adapter.

    Example: workbench train sums.jsonl --out adapters/sums --evaluated builtin:arithmetic
    """
    from workbench.training import train as train_adapter

    settings: dict[str, Any] = {
        "rank": rank,
        "alpha": alpha,
        "rslora": rslora,
        "dropout": dropout,
        "targets": targets if targets == "all" else [t.strip() for t in targets.split(",")],
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "gradient_accumulation": gradient_accumulation,
        "gradient_checkpointing": gradient_checkpointing,
        "epochs": epochs,
        "max_length": max_length,
        "skip_long": skip_long,
        "validation": validation,
        "checks": checks,
        "patience": patience,
        "seed": seed,
    }
    trained = train_adapter(
        data,
        model,
        out=out,
        about=about,
        evaluated=evaluated or (),
        device=device,
        kernel=kernel,
        progress=bars(quiet),
        say=said(quiet),
        **settings,
    )
    if json_out:
        print_json({"path": str(trained.path), "new": trained.new, **trained.record})
        return
    typer.echo(trained.describe())
    typer.echo(f"  in a study: adapters: [base, {trained.path}]")
