"""The first page of a report: title, answer in words, the picture, and the table of all cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from workbench.answers import escape
from workbench.reporting import pictures
from workbench.reporting.amounts import bounds, count, ms, number, p_value, percent, points, signs
from workbench.reporting.facts import ALPHA, Facts
from workbench.reporting.page import Html, figure, fold, join, paragraphs, prose, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MOST_CELLS: Final = 400
"""Rows of the table; the rest is in ``summary.csv``."""


def title(facts: Facts) -> Html:
    """The name of the study and what was run."""
    m, engine = facts.manifest, facts.manifest["engine"]
    n_rows = len(facts.run.generations)
    what = [engine["model"]]
    what += [engine["quantization"]] if engine["quantization"] != "none" else []
    what += [f"kernel {engine['kernel']}", engine["device"]]
    size = [
        count(int(m["prompt_set"]["n_prompts"]), "prompt"),
        count(int(m["n_cells"]), "cell"),
        count(n_rows, "answer") + _held_out(facts),
    ]
    lines = [
        ("Model", ", ".join(map(str, what))),
        ("Prompts", f"{m['prompt_set']['name']}: {', '.join(size)}"),
        ("Run", f"{m['run_id']}, {facts.run.status}"),
    ]
    about = "".join(f"<div><dt>{k}</dt><dd>{escape(v)}</dd></div>" for k, v in lines)
    return Html(
        f'<header><p class="kicker">awq-workbench report</p><h1>{escape(m["study"]["name"])}</h1><dl>{about}</dl></header>'
    )


def _held_out(facts: Facts) -> str:
    """How many of the answers are to held-out prompts."""
    n = int(facts.run.generations["split"].eq("confirm").sum()) if facts.split else 0
    return f", {n:,} of them to held-out prompts" if n else ""


def answer(facts: Facts) -> Html:
    """What the run found, first sentence first, and what is wrong with the run, if anything."""
    first, *rest = facts.answer
    lead = f'<p class="lead">{prose(first)}</p>'
    warnings = "".join(f"<p>{prose(text)}</p>" for text in alarms(facts))
    box = f'<div class="alarm" role="note">{warnings}</div>' if warnings else None
    return join(
        '<section class="answer" id="answer" aria-label="Answer">',
        lead,
        paragraphs(rest),
        box,
        "</section>",
    )


def alarms(facts: Facts) -> list[str]:
    """What a reader must know before any number: an unfinished run, failed rows, no scores."""
    out = []
    if facts.run.unfinished:
        out.append(facts.run.unfinished)
    elif facts.run.status not in ("finished", "failed rows"):
        out.append(f"This run is {facts.run.status}; its numbers may change.")
    broken = int(facts.run.generations["finish_reason"].eq("error").sum())
    if broken:
        out.append(
            f"{count(broken, 'row')} of {len(facts.run.generations):,} failed; they are left out, not counted as wrong."
        )
    if facts.run.primary is None:
        out.append(
            "The study names no scorer: there is no quality to compare. Score the run with `workbench score RUN --scorers ...`."
        )
    unjudged = int(facts.unjudged.sum())
    if unjudged:
        out.append(
            f"{count(unjudged, 'answer')} of {len(facts.tidy):,} {'has' if unjudged == 1 else 'have'} no score, since they could "
            "not be judged; they are left out, not counted as wrong. Limits says why."
        )
    return out


def picture(facts: Facts) -> Html:
    """Quality against latency; quality alone where nothing was timed; else a sentence."""
    if not facts.scored:
        return paragraphs(["There is no picture: no answer was scored."])
    drawn = pictures.front(facts) if facts.timed else pictures.quality(facts)
    return figure(drawn, _seen(facts), _caption(facts))


def _seen(facts: Facts) -> str:
    """The picture for who cannot see it."""
    rows = facts.ranked[facts.ranked["quality"].notna()]
    parts = [
        f"{facts.short(r['cell_id'])}: {100 * r['quality']:.0f} %"
        + (f" at {r['e2el_ms_p50']:,.0f} ms" if pd.notna(r["e2el_ms_p50"]) else "")
        for r in rows.head(5).to_dict("records")
    ]
    kind = "quality against median latency" if facts.timed else "quality with its interval"
    return f"Plot of {kind}, {len(rows)} cells. Best first: {'; '.join(parts)}."


def _caption(facts: Facts) -> str:
    if facts.timed:
        text = "Up is better, left is faster."
        if facts.front_unknown:
            return f"{text} Which cells are on the front cannot be told: {facts.front_unknown}."
        front = facts.summary.loc[facts.summary["on_front"].eq(True), "cell_id"]
        if len(front) == 1:
            return f"{text} No other cell is better or faster than {facts.short(front.iloc[0])}."
        return (
            f"{text} For a cell on the dashed line, no other cell is at least as good and as fast, "
            "and better in one of the two."
        )
    return "Best first, with 95 % intervals. Latency was not measured."


# --------------------------------------------------------------------------------------------- the decision


def decision(facts: Facts) -> Html:
    """Which cell to use and why, with the few cells that it is between."""
    found = facts.decision
    if found is None:
        return paragraphs(["There is nothing to decide: it takes two cells and their scores."])
    first, *rest = map(signs, found.sentences)
    head = [(text, "n" if i > 1 else "") for i, text in enumerate(found.columns)]
    rows = [("", [_whole(first), *others]) for first, *others in _texts(found.rows)]
    return join(
        f'<p class="lead">{prose(first)}</p>',
        paragraphs(rest),
        table(head, rows, "What it is between") if rows else None,
    )


def _texts(rows: Iterable[Sequence[str]]) -> list[list[str]]:
    """Cells as HTML, with real minus signs."""
    return [[escape(signs(text)) for text in row] for row in rows]


def _whole(text: str) -> str:
    """A word that is not broken."""
    return f'<span style="white-space: nowrap">{text}</span>'


# ------------------------------------------------------------------------------------------------ the table


def cells(facts: Facts) -> Html:
    """All cells, best first: quality, difference from the baseline, latency, signs of trouble."""
    rows = facts.ranked
    columns = _columns(facts)
    shown = [_row(facts, row, columns) for row in rows.head(MOST_CELLS).to_dict("records")]
    head = [(text, kind) for text, kind, _ in columns]
    note = None
    if len(rows) > MOST_CELLS:
        note = paragraphs([f"And {len(rows) - MOST_CELLS:,} more cells, in `summary.csv`."])
    return join(
        table(head, shown, "Best first; shaded: the baseline"), note, _legend(facts), _times(facts)
    )


def _columns(facts: Facts) -> list[tuple[str, str, str]]:
    """Title, class and key of each column; columns without content are left out.

    Where held-out prompts take a column, intervals stand under their numbers, so that the table still fits a page.
    """
    s = facts.summary
    confirmed = facts.confirm is not None
    versus = len(s) > 1 and facts.scored
    drawn = "drawn, {:.0f} to {:.0f}".format(*(100 * v for v in _scale(facts)))
    wanted = [
        ("cell", "", "cell", True),
        ("quality %", "n", "quality", True),
        ("95 % interval", "n wide", "interval", not confirmed),
        (drawn, "bar", "bar", facts.scored),
        ("held out %", "n", "confirm", confirmed),
        ("against baseline", "n", "diff", versus),
        ("interval", "n wide", "diff_interval", versus and not confirmed),
        ("p", "n", "p", versus),
        ("median ms", "n", "e2el", facts.timed),
        ("tokens", "n", "tokens", True),
        ("cut off %", "n", "cut", bool(s["truncated_rate"].gt(0).any())),
        ("loops %", "n", "loops", bool(s["loop_rate"].gt(0).any())),
        ("failed", "n", "failed", bool(facts.lost["failed"].any())),
        ("no score", "n", "unjudged", bool(facts.lost["unjudged"].any())),
    ]
    return [(text, kind, key) for text, kind, key, there in wanted if there]


def _row(
    facts: Facts, row: Mapping[Any, Any], columns: list[tuple[str, str, str]]
) -> tuple[str, list[str]]:
    is_base = row["cell_id"] == facts.baseline
    values = {
        "cell": _cell(facts, row),
        "quality": percent(row["quality"]),
        "interval": bounds(row["quality_lo"], row["quality_hi"]),
        "bar": _bar(facts, row),
        "confirm": _confirmed(facts, row["cell_id"]),
        "diff": '<span class="quiet">baseline</span>'
        if is_base
        else points(row["diff_vs_baseline"]),
        "diff_interval": "" if is_base else bounds(row["diff_lo"], row["diff_hi"], signed=True),
        "p": "" if is_base else escape(p_value(row["p_adjusted"])),
        "e2el": ms(row["e2el_ms_p50"]),
        "tokens": number(row["n_output_tokens_mean"], 1),
        "cut": percent(row["truncated_rate"], 0),
        "loops": percent(row["loop_rate"], 0),
        "failed": _some(facts.lost["failed"].get(row["cell_id"], 0)),
        "unjudged": _some(facts.lost["unjudged"].get(row["cell_id"], 0)),
    }
    if facts.confirm is not None:
        values["quality"] += _under(values["interval"])
        values["diff"] += _under(values["diff_interval"])
    kinds = ["baseline"] if is_base else []
    kinds += ["best"] if row["cell_id"] == facts.best else []
    return " ".join(kinds), [values[key] for _, _, key in columns]


def _some(n: int) -> str:
    return f"{n:,}" if n else ""


def _cell(facts: Facts, row: Mapping[Any, Any]) -> str:
    """Name and marks of a cell."""
    marks = []
    if pd.notna(row["on_front"]) and row["on_front"]:
        marks.append('<span class="mark">front</span>')
    if row["cell_id"] == facts.baseline:
        marks.append('<span class="mark base">baseline</span>')
    if row["cell_id"] in facts.left:
        marks.append(f'<span class="mark">left after {facts.left[row["cell_id"]]:,}</span>')
    p, diff = row["p_adjusted"], row["diff_vs_baseline"]
    if pd.notna(p) and p < ALPHA and diff != 0:
        marks.append(f'<span class="mark sure">{"better" if diff > 0 else "worse"}</span>')
    return " ".join([f'<span class="name">{escape(facts.name(row["cell_id"]))}</span>', *marks])


def _confirmed(facts: Facts, cell: str) -> str:
    if facts.confirm is None:
        return ""
    row = facts.confirm[facts.confirm["cell_id"].eq(cell)].to_dict("records")[0]
    return percent(row["quality"]) + _under(bounds(row["quality_lo"], row["quality_hi"]))


def _under(interval: str) -> str:
    return f"<br><small>{interval}</small>" if interval else ""


def _bar(facts: Facts, row: Mapping[Any, Any]) -> str:
    """The interval as a small drawing; what it shows stands beside it as numbers."""
    if pd.isna(row["quality"]):
        return ""
    low, high = _scale(facts)

    def at(value: float) -> float:
        return float(4 + 88 * (value - low) / (high - low))

    base = facts.summary.set_index("cell_id")["quality"].get(facts.baseline, np.nan)
    parts = []
    if pd.notna(base):
        x = at(base)
        parts.append(f'<path d="M{x:.1f} 0V14" stroke="#8a8a8a" stroke-dasharray="2 2"/>')
    if pd.notna(row["quality_lo"]):
        parts.append(
            f'<path d="M{at(row["quality_lo"]):.1f} 7H{at(row["quality_hi"]):.1f}" stroke="#0072B2" stroke-width="1.6"/>'
        )
    parts.append(f'<circle cx="{at(row["quality"]):.1f}" cy="7" r="3.2" fill="#0072B2"/>')
    return (
        f'<svg width="96" height="14" viewBox="0 0 96 14" aria-hidden="true">{"".join(parts)}</svg>'
    )


def _scale(facts: Facts) -> tuple[float, float]:
    """The range of the small drawings."""
    s = facts.summary
    if not facts.scored:
        return 0.0, 1.0
    low = float(np.nanmin(s[["quality_lo", "quality"]].to_numpy(float)))
    high = float(np.nanmax(s[["quality_hi", "quality"]].to_numpy(float)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _legend(facts: Facts) -> Html:
    s = facts.summary
    lines = []
    if facts.scored:
        n = max(facts.scored_prompts.values())
        asked = int(s["n_prompts"].max())
        over = count(n, "prompt") if n == asked else f"{n:,} of {count(asked, 'prompt')}"
        lines.append(
            f"Quality is the mean score of `{facts.run.primary}` over {over} (repeats averaged first), in percent, with its 95 % "
            "interval."
        )
    if facts.scored and len(s) > 1:
        lines.append(
            "Against baseline: difference in points on the same prompts; the dashed line in the drawing is the baseline. "
            "p: chance of a difference this large if there were none, all comparisons counted (Holm); "
            f"`better` and `worse` mark p below {ALPHA:g}."
        )
    if facts.timed:
        lines.append(
            "Median ms: time of one whole answer, one request at a time. "
            + (
                f"Front: cannot be told, as {facts.front_unknown}."
                if facts.front_unknown
                else "Front: no other cell is at least as good and as fast, and better in one of the two."
            )
        )
    if facts.left:
        lines.append(
            "Left after: the cell left the race after so many prompts; its numbers are of those alone, so it stands below the cells "
            "that answered all."
        )
    if facts.lost.to_numpy().any():
        lines.append(
            "Failed: rows without an answer. No score: answers that could not be judged. Both are left out of quality."
        )
    if facts.split:
        lines.append(
            "All but `held out %` and latency is of the prompts used for choosing, counts too; whether the chosen cell beats the "
            "baseline is for the held-out prompts to say."
        )
    return Html(f'<div class="legend">{paragraphs(lines).text}</div>')


def _times(facts: Facts) -> Html | None:
    """Latency in its parts."""
    if not facts.timed:
        return None
    s = facts.ranked[facts.ranked["e2el_ms_p50"].notna()].head(MOST_CELLS)
    p90 = s["e2el_ms_p90"].notna().any()
    counts = facts.measured.groupby("cell_id").size()
    head = [("cell", ""), ("first token ms", "n"), ("per token ms", "n"), ("whole answer ms", "n")]
    head += [("90 % within ms", "n")] if p90 else []
    head += [("timed requests", "n"), ("on the front in", "n")]
    rows = []
    for row in s.to_dict("records"):
        values = [_cell(facts, row | {"p_adjusted": np.nan})]
        values += [ms(row["ttft_ms_p50"]), ms(row["tpot_ms_p50"]), ms(row["e2el_ms_p50"])]
        values += [ms(row["e2el_ms_p90"])] if p90 else []
        share = "" if pd.isna(row["p_on_front"]) else f"{100 * row['p_on_front']:.0f} %"
        values += [f"{counts.get(row['cell_id'], 0):,}", share]
        rows.append(("baseline" if row["cell_id"] == facts.baseline else "", values))
    text = (
        "Medians. On the front in: share of 2,000 resamples of prompts and rounds in which no other cell is at least as good "
        "and as fast, and better in one of the two."
    )
    return fold(
        "Latency in its parts", join(paragraphs([text]), table(head, rows, "Latency by cell"))
    )
