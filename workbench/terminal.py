"""What the commands print: tables that fit 80 columns, and their JSON."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from workbench.runs import PLOT, SUMMARY, status
from workbench.words import baseline_of, front_unknown, labels_of, ranked, scored_prompts, signed

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.runs import Run

_SHOWN = 40
_WHOLE = ("top_k", "max_tokens")
"""Settings that are whole numbers, or unset."""


class _Pipe(Console):
    """A console that leaves it to the command what to do when nobody reads on."""

    def on_broken_pipe(self) -> None:
        """Pass it on; rich would end the process as a failure."""
        raise BrokenPipeError


def console() -> Console:
    """Standard output; 80 columns, or COLUMNS, where it is no terminal. Text is printed as it is."""
    columns = os.environ.get("COLUMNS", "")
    width = None if sys.stdout.isatty() else int(columns) if columns.isdecimal() else 80
    return _Pipe(width=width, markup=False, emoji=False, highlight=False)


def as_json(run: Run, summary: pd.DataFrame) -> dict[str, Any]:
    """A run's answer and table as plain values; what is unknown is null."""
    plain = summary.astype(object).where(summary.notna(), None)
    rows = [
        {str(k): getattr(v, "item", lambda v=v: v)() for k, v in row.items()}
        for row in plain.to_dict("records")
    ]
    rows = [
        {k: int(v) if k in _WHOLE and v is not None else v for k, v in row.items()} for row in rows
    ]
    known = scored_prompts(summary)
    labels = labels_of(summary, run.cells)
    return {
        "run": str(run.path),
        "run_id": run.id,
        "status": run.status,
        "answer": run.answer(summary, width=None).splitlines(),
        "baseline": baseline_of(summary),
        "primary": run.primary,
        "cells": [
            {"label": labels[row["cell_id"]], **row, "n_prompts_scored": int(n)}
            for row, n in zip(rows, known, strict=True)
        ],
        "files": files(run),
    }


def files(run: Run) -> dict[str, str]:
    """The table and the picture of a run, those that exist."""
    named = {
        "table": run.path / SUMMARY,
        "picture": run.path / PLOT,
        "record": run.path / "manifest.json",
    }
    return {name: str(path) for name, path in named.items() if path.is_file()}


def print_run(run: Run, summary: pd.DataFrame) -> None:
    """A run's answer in words, its table, best cell first, and where the files are."""
    out = console()
    table = _cells_table(run, summary)
    # Numbers are never cut: a terminal too narrow for them breaks the lines.
    own = out.width
    out.width = max(own, out.measure(table, options=out.options.update(width=10_000)).minimum)
    out.print(table)
    out.width = own
    rest = len(summary) - _SHOWN
    if rest > 0:
        out.print(f"  and {rest} more cells, in {run.path / 'summary.csv'}", soft_wrap=True)
    if summary["on_front"].eq(True).any():
        out.print("* on the front: no other cell is as good and as fast, and better in one")
    elif summary["e2el_ms_p50"].notna().any():
        why = front_unknown(summary.attrs.get("timing")) or "no scored cell was timed"
        out.print(f"no front: {why}")
    if summary["cell_id"].isin(summary.attrs.get("left", {})).any():
        out.print("left: left the race after so many prompts; its scores are of those")
    out.print()
    out.print(run.answer(summary, width=None))
    out.print()
    for name, path in files(run).items():
        out.print(f"{name + ':':<9}{path}", soft_wrap=True)


def _cells_table(run: Run, summary: pd.DataFrame) -> Table:
    labels, base = labels_of(summary, run.cells), baseline_of(summary)
    engine = run.manifest["engine"]
    title = f"{run.manifest['study']['name']}: {engine['model']}, {engine['quantization']}, kernel {engine['kernel']}, {engine['device']}"
    title += f"; quality by {run.primary}" if run.primary else ""
    table = Table(title=title, box=None, pad_edge=False, title_justify="left", header_style="bold")
    failed = bool(summary["n_failed"].any())
    table.add_column("")
    table.add_column("cell", overflow="fold", min_width=16)
    left = summary.attrs.get("left", {})
    names = ["quality %", "vs baseline", "p", "e2el ms", "tokens"] + ["failed"] * failed
    names += ["left"] * bool(left)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    order = list(ranked(summary, base).index)
    order += [cell for cell in summary["cell_id"] if cell not in set(order)]
    best_first = summary.set_index("cell_id", drop=False).loc[order]
    for row in best_first.head(_SHOWN).to_dict("records"):
        is_base = row["cell_id"] == base
        versus = _interval(row["diff_vs_baseline"], row["diff_lo"], row["diff_hi"], sign="+")
        values = [
            _interval(row["quality"], row["quality_lo"], row["quality_hi"]),
            "baseline" if is_base else versus,
            "" if is_base else _number(row["p_adjusted"], "{:.3f}"),
            _number(row["e2el_ms_p50"], "{:,.0f}"),
            _number(row["n_output_tokens_mean"], "{:.1f}"),
            *[f"{row['n_failed']:,}"] * failed,
            f"{left[row['cell_id']]:,}" if row["cell_id"] in left else "",
        ]
        on_front = not pd.isna(row["on_front"]) and bool(row["on_front"])
        table.add_row("*" if on_front else "", labels[row["cell_id"]], *values[: len(names)])
    for column in table.columns[2:]:
        column.min_width = max(len(str(text)) for text in (column.header, *column.cells))
    return table


def _number(value: Any, form: str) -> str:
    return "-" if pd.isna(value) else form.format(value)


def _interval(value: Any, low: Any, high: Any, sign: str = "") -> str:
    if pd.isna(value):
        return "-"
    middle, *ends = (
        signed(100 * v) if sign else f"{100 * v:.0f}" for v in (value, low, high) if pd.notna(v)
    )
    return f"{middle} [{', '.join(ends)}]" if ends else middle


def print_runs(found: list[tuple[Path, dict[str, Any]]], where: Path) -> None:
    """The runs, by study, newest first."""
    out = console()
    if not found:
        out.print(f"no runs under {where}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("study", "run", "status"):
        table.add_column(name, overflow="fold")
    table.add_column("cells", justify="right")
    table.add_column("rows", justify="right")
    table.add_column("model", overflow="fold")
    for path, m in found:
        rows = f"{m['n_rows']:,}"
        table.add_row(
            m["study"]["name"],
            path.name,
            status(path, m),
            str(m["n_cells"]),
            rows,
            m["engine"]["model"],
        )
    out.print(table)
