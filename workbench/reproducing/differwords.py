"""What is not the same in two runs, in words."""

from __future__ import annotations

import json
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.reproducing.differing import Change, RunDiff

_WIDTH: Final = 70


def text(found: RunDiff) -> str:
    """All sections, the verdict first."""
    sections = [
        ("Inputs", _changes(found.inputs)),
        ("Environment", _changes(found.environment)),
        ("Rows", _rows(found)),
        ("Conclusions", _conclusions(found)),
    ]
    lines = [f"A {found.a}", f"B {found.b}", _verdict(found)]
    for head, said in sections:
        lines += ["", head, *(f"  {line}" for line in said)]
    return "\n".join([*lines, *found.notes])


def _verdict(found: RunDiff) -> str:
    rows = found.rows
    if found.identical:
        where = "" if not found.environment else "; made in another environment, see below"
        return f"Identical: the same inputs, {rows.n_both:,} rows with the same tokens, texts and scores{where}."
    what = []
    if found.inputs:
        what.append(f"{len(found.inputs):,} input{'s' * (len(found.inputs) > 1)}")
    if rows.n_only_a or rows.n_only_b:
        what.append("which rows there are")
    if rows.n_same_tokens < rows.n_tokens or rows.n_same_text < rows.n_both:
        what.append("answers")
    if any(s["up"] or s["down"] or s["only_one"] for s in rows.scores.values()):
        what.append("scores")
    return f"Not identical; what differs: {', '.join(what)}."


def _changes(changes: Sequence[Change]) -> list[str]:
    if not changes:
        return ["the same"]
    return [f"{c.name}: {_value(c.a)} -> {_value(c.b)}" for c in changes]


def _value(value: Any) -> str:
    said = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    return said if len(said) <= _WIDTH else f"{said[: _WIDTH - 1]}…"


def _rows(found: RunDiff) -> list[str]:
    rows = found.rows
    lines = [f"in both {rows.n_both:,}, only in A {rows.n_only_a:,}, only in B {rows.n_only_b:,}"]
    for name, (both, a, b) in (("cells", rows.cells), ("prompts", rows.prompts)):
        if a or b:
            lines.append(f"{name}: in both {both:,}, only in A {a:,}, only in B {b:,}")
    if rows.n_tokens:
        lines.append(f"token-identical: {_share(rows.n_same_tokens, rows.n_tokens)}")
    if rows.n_both:
        lines.append(f"text-identical: {_share(rows.n_same_text, rows.n_both)}")
    for name, n in rows.scores.items():
        same = n["n"] - n["up"] - n["down"]
        line = f"{name}: {n['up']:,} up, {n['down']:,} down, {same:,} the same"
        lines.append(
            line + (f", {n['only_one']:,} scored in one run only" if n["only_one"] else "")
        )
    return lines


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.1%})"


def _conclusions(found: RunDiff) -> list[str]:
    lines = [
        _pair("best cell", *found.best),
        _pair("baseline", *found.baseline),
        _pair("best against baseline", *found.versus),
        _pair("on the front", *(None if f is None else ", ".join(f) for f in found.front)),
    ]
    lines += _answers(*found.answers)
    changed = found.cells[found.cells["diff"].ne(0)] if len(found.cells) else found.cells
    if len(found.cells):
        same = len(found.cells) - len(changed)
        lines.append(
            f"quality of a cell, B minus A on the prompts of both: {same:,} of {len(found.cells):,} the same"
        )
    lines += [f"  {_cell(row)}" for _, row in changed.iterrows()]
    return lines


def _answers(a: str, b: str) -> list[str]:
    """The lines of the answer in words that are not the same in both."""
    both = zip_longest(a.splitlines(), b.splitlines(), fillvalue="nothing")
    differ = [(x, y) for x, y in both if x != y]
    if not differ:
        return ["answer in words: the same"]
    lines = ["answer in words, where it differs:"]
    for x, y in differ:
        lines += [f"  A: {x}", f"  B: {y}"]
    return lines


def _pair(name: str, a: str | None, b: str | None) -> str:
    if a == b:
        return f"{name}: the same ({a or 'not known'})"
    return f"{name}: changed, {a or 'not known'} -> {b or 'not known'}"


def _cell(row: pd.Series) -> str:
    if pd.isna(row["diff"]):
        return f"{row['label']}: not scored in both"
    said = f"{row['label']}: {100 * row['quality_a']:.1f} % -> {100 * row['quality_b']:.1f} %, {100 * row['diff']:+.1f} points"
    if pd.isna(row["lo"]):
        return said
    return (
        f"{said} ({100 * row['lo']:+.1f} to {100 * row['hi']:+.1f}, {row['n_prompts']:,} prompts)"
    )
