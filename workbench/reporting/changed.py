"""What changed where: settings, prompts, signs of trouble, latency; and the answers themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from workbench import analysis, answers, comparing, health, plots
from workbench.answers import escape
from workbench.comparing.pairs import question, target_text, wording
from workbench.reporting import pictures
from workbench.reporting.adaptertable import adapters
from workbench.reporting.amounts import count, number, percent, signs
from workbench.reporting.page import Html, drawn, fold, join, paragraphs, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.reporting.facts import Facts

MOST_EXAMPLES: Final = 5
MOST_FLIPPED: Final = 40
MOST_CHARS: Final = 400
"""Characters of an answer shown; the rest is in the record."""


# ------------------------------------------------------------------------------------------------ settings


def settings(facts: Facts) -> Html:
    """The effect of each setting, and of two together."""
    varied = facts.design.varied
    found = adapters(facts)
    if found is not None and facts.scored:
        return join(found, _effects(facts, varied))
    if not varied:
        return paragraphs(["All cells have the same settings: there is no effect to show."])
    if not facts.scored:
        return paragraphs(
            [
                f"Settings that vary: {', '.join(varied)}. Without scores their effect on quality is unknown."
            ]
        )
    return _effects(facts, varied)


def _effects(facts: Facts, varied: Sequence[str]) -> Html:
    """The effect of each setting, and of the two with the most values together."""
    effects = drawn(
        lambda: pictures.picture(plots.main_effects, facts.run, rng=facts.seed),
        f"Mean quality at each value of {', '.join(varied)}, the other settings averaged out.",
    )
    return join(effects, _map(facts, varied))


def _map(facts: Facts, varied: Sequence[str]) -> Html | None:
    """Quality over the two settings with the most values."""
    if len(varied) < 2:
        return None
    sizes = {name: len(facts.design.levels[name]) for name in varied}
    x, y = sorted(varied, key=lambda name: -sizes[name])[:2]
    return drawn(
        lambda: pictures.picture(
            plots.heatmap,
            facts.run,
            x,
            y,
            summary=facts.summary,
            baseline=facts.baseline,
            rng=facts.seed,
        ),
        f"Heat map of quality over {x} and {y}.",
    )


# ------------------------------------------------------------------------------------------------- prompts


def prompts(facts: Facts) -> Html:
    """Which prompts flipped between the baseline and the cell beside it."""
    found = facts.comparison
    if found is None:
        return paragraphs([_alone(facts)])
    which = (
        "the best cell"
        if found.cell == facts.best
        else "the highest-scoring other cell"
        if facts.scored
        else "another cell"
    )
    intro = f"The baseline against {which}, prompt by prompt."
    parts: list[Html | None] = [paragraphs([intro, *signs(found.text).splitlines()])]
    if found.unscored < found.n_prompts:
        alt = f"{found.better} prompts better, {found.worse} worse, {found.same} the same, {found.unscored} without a score."
        parts += [
            drawn(lambda: pictures.picture(plots.changes, found), alt),
            _flipped(found),
        ]
    return join(*parts)


def _alone(facts: Facts) -> str:
    if len(facts.run.cells) < 2:
        return "There is one cell, and nothing to compare it with."
    return "The baseline and the other cells have no answered prompt in common."


def _flipped(found: comparing.Comparison) -> Html | None:
    """The prompts whose score changed, the largest changes first."""
    rows = found.changes[found.changes["change"].isin(["better", "worse"])]
    if rows.empty:
        return None
    rows = rows.sort_values("diff", key=lambda diff: -diff.abs(), kind="stable")
    head = [
        ("prompt", ""),
        ("question", ""),
        ("target", ""),
        (found.labels[0], "n"),
        (found.labels[1], "n"),
    ]
    body = [
        (
            row["change"],
            [
                escape(row["prompt_id"]),
                escape(cut(row["question"], 120)),
                escape(cut(row["target"], 40)) if isinstance(row["target"], str) else "",
                number(row["baseline_score"], 2),
                f"<b>{number(row['score'], 2)}</b>",
            ],
        )
        for row in rows.head(MOST_FLIPPED).to_dict("records")
    ]
    rest = len(rows) - len(body)
    more = paragraphs([f"And {rest:,} more; `workbench compare` lists all."]) if rest > 0 else None
    shown = join(table(head, body, "Prompts whose score changed, largest change first"), more)
    return fold(f"The {count(len(rows), 'prompt')} that changed", shown)


# ---------------------------------------------------------------------------------------- signs of trouble


def trouble(facts: Facts) -> Html:
    """Length, cut-off and empty answers, loops, repetition: by cell."""
    if facts.answers.empty:
        return paragraphs(["There are no answers to look at."])
    rows = health.health(facts.run, intervals=True)
    return join(
        drawn(
            lambda: pictures.picture(plots.lengths, facts.run, baseline=facts.baseline),
            "Output tokens and finish reasons of each cell.",
        ),
        drawn(
            lambda: pictures.picture(plots.health, rows, baseline=facts.baseline),
            "Share of truncated, empty and looping answers and repetition in each cell.",
        ),
        fold("The same as numbers", _health(rows)),
    )


def _health(rows: pd.DataFrame) -> Html:
    columns = {
        "n": ("answers", "{:,.0f}"),
        "n_output_tokens_mean": ("tokens", "{:,.1f}"),
        "truncated_rate": ("cut off %", "%"),
        "empty_rate": ("empty %", "%"),
        "loop_rate": ("loops %", "%"),
        "repeated_ngrams": ("repeated 4-grams %", "%"),
        "distinct_2": ("distinct 2-grams %", "%"),
        "language_switch_rate": ("other language %", "%"),
        "agreement": ("agreement %", "%"),
    }
    used = {k: v for k, v in columns.items() if k in rows and rows[k].notna().any()}
    head = [("cell", ""), *((title, "n") for title, _ in used.values())]
    body = []
    for row in rows.to_dict("records"):
        values = [
            percent(row[k]) if form == "%" or pd.isna(row[k]) else form.format(row[k])
            for k, (_, form) in used.items()
        ]
        body.append(("", [f'<span class="name">{escape(str(row["label"]))}</span>', *values]))
    return table(head, body, "Signs of trouble by cell")


# ------------------------------------------------------------------------------------------------- latency


def latency(facts: Facts) -> Html:
    """What the latency of each cell is made of."""
    if not facts.timed:
        return paragraphs(["Latency was not measured. `workbench latency RUN` measures it."])
    return drawn(
        lambda: pictures.picture(
            plots.latency_parts, facts.run, baseline=facts.baseline, rng=facts.seed
        ),
        "Median latency of each cell, split into the first token and the tokens after it.",
        "A slower answer can be a longer one: time to the first token, then tokens times time per token.",
    )


# ------------------------------------------------------------------------------------------------ examples


def examples(facts: Facts) -> Html:
    """Good and bad answers: the largest changes, and what both got wrong; else the best and worst of one cell."""
    found = facts.comparison
    if found is None or found.unscored == found.n_prompts:
        return _own(facts)
    rows, labels = found.changes, found.labels
    better = rows[rows["diff"].gt(0)].sort_values("diff", ascending=False, kind="stable")
    worse = rows[rows["diff"].lt(0)].sort_values("diff", kind="stable")
    wrong = rows[rows["score"].eq(0) & rows["baseline_score"].eq(0)]
    right = rows[rows["score"].eq(1) & rows["baseline_score"].eq(1)]
    groups = [
        ("Better than the baseline", better, MOST_EXAMPLES),
        ("Worse than the baseline", worse, MOST_EXAMPLES),
        ("Wrong in both", wrong, 3),
        ("Right in both", right, 2),
    ]
    parts = [_group(title, shown, labels, most) for title, shown, most in groups]
    return join(*parts)


def _group(
    title: str, rows: pd.DataFrame, labels: tuple[str | None, str], most: int
) -> Html | None:
    if rows.empty:
        return None
    heading = f"<h3>{escape(title)} ({len(rows):,})</h3>"
    return join(heading, answers.html(rows.head(most), labels=labels, clip=MOST_CHARS))


def _own(facts: Facts) -> Html:
    """Answers of one cell: the best-scored and the worst-scored, or just some."""
    cell = facts.best or facts.other or facts.baseline
    rows = facts.tidy[facts.tidy["cell_id"].eq(cell) & facts.tidy["finish_reason"].ne("error")]
    if rows.empty:
        rows = facts.tidy[facts.tidy["finish_reason"].ne("error")]
    if rows.empty:
        return paragraphs(["No answer was generated."])
    rows = rows.drop_duplicates("prompt_id")
    shown = _as_changes(facts, rows)
    labels = (None, facts.short(str(rows["cell_id"].iloc[0])))
    if not shown["score"].notna().any():
        return join(
            _group("Answers, in the order of the prompts", shown, labels, 2 * MOST_EXAMPLES)
        )
    ordered = shown[shown["score"].notna()].sort_values("score", ascending=False, kind="stable")
    top = ordered["score"].iloc[0]
    good = ordered[ordered["score"].eq(top)]
    return join(
        _group("Highest score", good, labels, MOST_EXAMPLES),
        _group(
            "Lower scores, the lowest first",
            ordered[ordered["score"].lt(top)].iloc[::-1],
            labels,
            MOST_EXAMPLES,
        ),
    )


def _as_changes(facts: Facts, rows: pd.DataFrame) -> pd.DataFrame:
    """Answers of one cell with the columns that `answers.html` reads."""
    words = wording(facts.run, str(rows["cell_id"].iloc[0]))
    asked = [words(i) for i in rows["prompt_id"]]
    return pd.DataFrame(
        {
            "prompt_id": rows["prompt_id"].to_numpy(),
            "question": pd.Series([question(p) for p in asked], dtype="str"),
            "target": pd.Series([target_text(p) for p in asked], dtype="str"),
            "baseline_score": np.nan,
            "score": rows["score"].to_numpy(float),
            "change": "unscored",
            "baseline_text": "",
            "text": rows["text"].to_numpy(),
            "baseline_tokens": np.nan,
            "tokens": analysis.tokens_of(rows).to_numpy(),
            "baseline_finish": "",
            "finish": rows["finish_reason"].to_numpy(),
        }
    )


def cut(text: str, most: int) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
