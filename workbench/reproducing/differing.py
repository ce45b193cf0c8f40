"""Two runs side by side: what went in, where they ran, which rows came out otherwise, and whether the conclusions are the same.

Rows are matched by cell id, prompt and repeat; a prompt is the same if its id, messages, tools and target are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import yaml

from workbench import analysis, comparing, words
from workbench.analysis import KEY
from workbench.reproducing import differwords
from workbench.runs import Run, open_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from workbench.prompts import Prompt

_MODEL = (
    "engine",
    "model",
    "revision",
    "weight_hash",
    "quantization",
    "tokenizer_hash",
    "chat_template_hash",
)
_PLACE = ("kernel", "dtype", "device")


class Change(NamedTuple):
    """Something that is not the same in both runs.

    Attributes:
        name: What it is.
        a: Its value in run A; None if it has none.
        b: The same in run B.
    """

    name: str
    a: Any
    b: Any


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of two runs, matched.

    Attributes:
        n_both: Rows in both.
        n_only_a: Rows of run A alone.
        n_only_b: Rows of run B alone.
        n_tokens: Of those in both, how many have tokens in both.
        n_same_tokens: Of those, how many have the same.
        n_same_text: Of those in both, how many have the same text.
        cells: Cells in both, in A alone, in B alone.
        prompts: Prompts in both, in A alone, in B alone; one of the same id and other content is in each alone.
        scores: Scorer to the number of rows scored in both, and of those that went "up" and "down" from A to B.
    """

    n_both: int
    n_only_a: int
    n_only_b: int
    n_tokens: int
    n_same_tokens: int
    n_same_text: int
    cells: tuple[int, int, int]
    prompts: tuple[int, int, int]
    scores: dict[str, dict[str, int]]

    @property
    def same(self) -> bool:
        """True if both runs have the same rows with the same tokens, texts and scores."""
        return (
            not self.n_only_a
            and not self.n_only_b
            and self.n_same_tokens == self.n_tokens
            and self.n_same_text == self.n_both
            and not any(s["up"] or s["down"] or s["only_one"] for s in self.scores.values())
        )


@dataclass(frozen=True, slots=True)
class RunDiff:
    """What is not the same in two runs.

    Attributes:
        a: Directory of run A.
        b: Directory of run B.
        inputs: What differs of study, prompts, model, adapters and scorers.
        environment: What differs of machine, packages, kernel and code.
        rows: See `Rows`.
        best: Name of the cell with the highest score, (A, B); None if nothing is scored.
        baseline: Name of the baseline, (A, B).
        versus: Difference of the best cell from the baseline in words, (A, B); None where there is none.
        front: Names of the cells on the front of quality and latency, (A, B); None where that cannot be told.
        answers: The answer in words, (A, B).
        cells: One row a cell of both runs: cell_id, label, quality_a, quality_b, diff (B minus A over the prompts scored in
            both), lo, hi (95 % interval) and n_prompts.
        notes: What else to know, one sentence each.
    """

    a: Path
    b: Path
    inputs: tuple[Change, ...]
    environment: tuple[Change, ...]
    rows: Rows
    best: tuple[str | None, str | None]
    baseline: tuple[str, str]
    versus: tuple[str | None, str | None]
    front: tuple[tuple[str, ...] | None, tuple[str, ...] | None]
    answers: tuple[str, str]
    cells: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def identical(self) -> bool:
        """True if inputs, rows and scores are the same; the environment and the latencies may differ."""
        return not self.inputs and self.rows.same

    @property
    def text(self) -> str:
        """All of it in words, section by section."""
        return differwords.text(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is unknown is None."""
        values: dict[str, Any] = {
            "a": str(self.a),
            "b": str(self.b),
            "identical": self.identical,
            "inputs": [c._asdict() for c in self.inputs],
            "environment": [c._asdict() for c in self.environment],
            "rows": self.rows,
            "conclusions": {
                name: {"a": pair[0], "b": pair[1], "same": pair[0] == pair[1]}
                for name, pair in (
                    ("best", self.best),
                    ("baseline", self.baseline),
                    ("versus_baseline", self.versus),
                    ("front", self.front),
                    ("answer", self.answers),
                )
            },
            "cells": self.cells.to_dict("records"),
            "notes": list(self.notes),
        }
        plain: dict[str, Any] = analysis.plain(values)
        return plain


def diff(a: Run | str | Path, b: Run | str | Path) -> RunDiff:
    """Compare two runs: what went in, where they ran, what came out.

    Args:
        a: A run, or what `workbench.open_run` takes.
        b: The other one; differences are B minus A.

    Raises:
        StoreError: There is no such run, or a record cannot be read.
    """
    run_a, run_b = (r if isinstance(r, Run) else open_run(r) for r in (a, b))
    shared = _same_prompts(run_a, run_b)
    rows = _rows(run_a, run_b, shared)
    tables = run_a.summary(), run_b.summary()
    sides = [_side(run, table) for run, table in zip((run_a, run_b), tables, strict=True)]
    cells, notes = _cells(run_a, run_b, rows, shared)
    return RunDiff(
        a=run_a.path,
        b=run_b.path,
        inputs=tuple(_inputs(run_a.manifest, run_b.manifest)),
        environment=tuple(_environment(run_a.manifest, run_b.manifest)),
        rows=rows,
        best=(sides[0].best, sides[1].best),
        baseline=(sides[0].baseline, sides[1].baseline),
        versus=(sides[0].versus, sides[1].versus),
        front=(sides[0].front, sides[1].front),
        answers=(sides[0].answer, sides[1].answer),
        cells=cells,
        notes=tuple(notes),
    )


# ------------------------------------------------------------------------------------------------- what went in


def _changes(prefix: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    """The entries that differ."""
    names = dict.fromkeys([*a, *b])
    return [
        Change(f"{prefix}{name}", a.get(name), b.get(name))
        for name in names
        if a.get(name) != b.get(name)
    ]


def _inputs(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    studies = [yaml.safe_load(m["study"]["text"]) for m in (a, b)]
    prompts = [{k: m["prompt_set"][k] for k in ("sha256", "n_prompts")} for m in (a, b)]
    models = [{name: m["engine"].get(name) for name in _MODEL} for m in (a, b)]
    adapters = [m["engine"].get("adapters") or {} for m in (a, b)]
    scorers = [{s["name"]: _version(s) for s in m["scorers"]} for m in (a, b)]
    return [
        *_changes("study: ", *studies),
        *_changes("prompts: ", *prompts),
        *_changes("model: ", *models),
        *_changes("adapter ", *adapters),
        *_changes("scorer ", *scorers),
    ]


def _version(scorer: Mapping[str, Any]) -> str:
    options = "".join(f" {name}={value!r}" for name, value in scorer["options"].items())
    return f"version {scorer['version']}{options}"


def _environment(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    return [
        *_changes("", *({name: m["engine"].get(name) for name in _PLACE} for m in (a, b))),
        *_changes("", *(_machine(m) for m in (a, b))),
        *_changes("package ", *(m.get("packages") or {} for m in (a, b))),
        *_changes("threads: ", *(m.get("threads") or {} for m in (a, b))),
    ]


def _machine(manifest: Mapping[str, Any]) -> dict[str, Any]:
    cpu, git = manifest.get("cpu") or {}, manifest.get("git") or {}
    changed = " with changes" if git.get("dirty") else ""
    return {
        "Python": manifest.get("python"),
        "system": " ".join(str(v) for v in (manifest.get("platform") or {}).values() if v),
        "processor": cpu.get("model"),
        "usable cores": cpu.get("usable_cores"),
        "GPU": ", ".join(str(g["name"]) for g in manifest.get("gpu") or []) or None,
        "code": f"{git['commit']}{changed}" if git.get("commit") else None,
    }


# -------------------------------------------------------------------------------------------------------- rows


def _same_prompts(a: Run, b: Run) -> set[str]:
    """Ids of the prompts that are the same in both runs."""
    asked = {prompt.id: _asked(prompt) for prompt in a.prompts}
    return {p.id for p in b.prompts if asked.get(p.id) == _asked(p)}


def _asked(prompt: Prompt) -> dict[str, Any]:
    """What makes a prompt the same task, as for `workbench.comparing.compare_runs`."""
    return {k: v for k, v in prompt.to_dict().items() if k not in ("id", "metadata", "group")}


def _rows(a: Run, b: Run, shared: set[str]) -> Rows:
    columns = [*KEY, "text", "token_ids", "finish_reason"]
    tables = [run.generations[columns] for run in (a, b)]
    known = [t[t["prompt_id"].isin(shared)] for t in tables]
    both = known[0].merge(known[1], on=KEY, suffixes=("_a", "_b"))
    tokens = [[tuple(ids) for ids in both[f"token_ids_{side}"]] for side in "ab"]
    pairs = [(x, y) for x, y in zip(*tokens, strict=True) if x or y]
    same_text = both["text_a"].eq(both["text_b"]) & both["finish_reason_a"].eq(
        both["finish_reason_b"]
    )
    return Rows(
        n_both=len(both),
        n_only_a=len(tables[0]) - len(both),
        n_only_b=len(tables[1]) - len(both),
        n_tokens=len(pairs),
        n_same_tokens=sum(x == y for x, y in pairs),
        n_same_text=int(same_text.sum()),
        cells=_overlap(a.cells["cell_id"], b.cells["cell_id"]),
        prompts=(len(shared), len(a.prompts) - len(shared), len(b.prompts) - len(shared)),
        scores=_scores(a.scores, b.scores, both[KEY]),
    )


def _overlap(a: Iterable[str], b: Iterable[str]) -> tuple[int, int, int]:
    mine, others = set(a), set(b)
    return len(mine & others), len(mine - others), len(others - mine)


def _scores(a: pd.DataFrame, b: pd.DataFrame, rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """For each scorer of both runs: the matched rows scored in both, and where they went."""
    names = [name for name in dict.fromkeys(a["scorer"]) if name in set(b["scorer"])]
    found = {}
    for name in names:
        sides = [rows.merge(s.loc[s["scorer"].eq(name), [*KEY, "value"]], on=KEY) for s in (a, b)]
        both = sides[0].merge(sides[1], on=KEY, suffixes=("_a", "_b"))
        change = both["value_b"] - both["value_a"]
        one = both["value_a"].isna() != both["value_b"].isna()
        found[name] = {
            "n": int(change.notna().sum()),
            "up": int((change > 0).sum()),
            "down": int((change < 0).sum()),
            "only_one": int(one.sum()),
        }
    return found


# ------------------------------------------------------------------------------------------------- conclusions


class _Side(NamedTuple):
    best: str | None
    baseline: str
    versus: str | None
    front: tuple[str, ...] | None
    answer: str


def _side(run: Run, table: pd.DataFrame) -> _Side:
    """What one run concludes."""
    base = run.cell_id()
    names = analysis.labels_of(table, run.cells)
    ranked = words.ranked(table, base)
    best = str(ranked.index[0]) if len(ranked) else None
    versus = None
    if best is not None and best != base:
        row = table.set_index("cell_id").loc[best]
        if pd.notna(row["diff_lo"]):
            low, high, mean = (100 * row[c] for c in ("diff_lo", "diff_hi", "diff_vs_baseline"))
            versus = f"{mean:+.1f} points ({low:+.1f} to {high:+.1f})"
    on_front = table[table["on_front"].eq(True)]
    told = words.front_unknown(table.attrs.get("timing")) is None and len(on_front)
    front = tuple(names[c] for c in on_front["cell_id"]) if told else None
    return _Side(best and names[best], names[base], versus, front, run.answer(table, width=None))


def _cells(a: Run, b: Run, rows: Rows, shared: set[str]) -> tuple[pd.DataFrame, list[str]]:
    """Each cell of both runs, B against A on the prompts of both."""
    columns = ["cell_id", "label", "quality_a", "quality_b", "diff", "lo", "hi", "n_prompts"]
    empty = pd.DataFrame(columns=columns)
    if not rows.n_both or not shared:
        return empty, ["The runs have no row in common."]
    if a.primary != b.primary or a.primary is None:
        return empty, [
            f"Qualities are not compared: the primary scorer is {a.primary or 'none'} in A and {b.primary or 'none'} in B."
        ]
    theirs = set(b.generations["cell_id"])
    answered = set(a.generations["cell_id"]) & theirs
    found = []
    for cell, label in a.cells[["cell_id", "label"]].itertuples(index=False):
        if cell in answered:
            q = comparing.compare_runs(a, b, cell, cell).quality
            found.append((cell, label, q.baseline, q.cell, q.diff, q.lo, q.hi, q.n_prompts))
    return pd.DataFrame(found, columns=columns), []
