"""What a run does not show: said with numbers where there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import scipy.stats

from workbench import adapters, stats
from workbench.reporting.amounts import count, listed, percent, share
from workbench.reporting.page import Html, bullets
from workbench.resample import by_cluster, draw_means

if TYPE_CHECKING:
    from workbench.reporting.facts import Facts

POWER: Final = 0.8
"""Chance to find a difference that is there, for `smallest_difference`."""
DRAWS: Final = 2_000
FEW: Final = 20
"""Below so many prompts (groups as one) nothing is said about the part of luck."""


def limits(facts: Facts) -> Html:
    """The limits as a list."""
    return bullets(listing(facts))


def listing(facts: Facts) -> list[tuple[str, str]]:
    """The limits that apply to a run: (in a word, in a sentence or two), the gravest first."""
    found = [
        ("Not complete.", _missing(facts)),
        ("Failed rows.", _failed(facts)),
        ("Not scored.", _unscored(facts)),
        ("Precision.", _precision(facts)),
        ("Picking the best.", _picked(facts)),
        ("Cut-off answers.", _cut(facts)),
        ("Latency.", _latency(facts)),
        ("Not varied.", _fixed(facts)),
        ("One setup.", _setup(facts)),
        ("What a score is.", _scorer(facts)),
        ("An adapter's base.", _bases(facts)),
        ("The judge.", facts.summary.attrs.get("judge") or ""),
    ]
    return [(head, text) for head, text in found if text]


def _missing(facts: Facts) -> str:
    if not facts.n_missing:
        return ""
    part = facts.n_missing / int(facts.manifest["n_rows"])
    return (
        f"{facts.n_missing:,} of {int(facts.manifest['n_rows']):,} rows ({share(part)}) were not run; "
        "cells may have answered different prompts, so their qualities are not comparable as they stand."
    )


def _failed(facts: Facts) -> str:
    rows = facts.run.generations
    broken = rows[rows["finish_reason"].eq("error")]
    if broken.empty:
        return ""
    why = _most(broken["error"].fillna("no reason given").astype(str).tolist())
    cells = count(broken["cell_id"].nunique(), "cell")
    return f"{count(len(broken), 'row')} of {len(rows):,}{_both(facts)} in {cells}: {why}."


def _unscored(facts: Facts) -> str:
    if facts.run.primary is None:
        return "The study names no scorer, so nothing is known about quality."
    rows = facts.tidy[facts.tidy["score"].isna() & facts.tidy["finish_reason"].ne("error")]
    if rows.empty:
        return ""
    why = _most(rows["reason"].fillna("not scored yet").astype(str).tolist())
    return f"{count(len(rows), 'answer')} of {len(facts.tidy):,}{_both(facts)}: {why}."


def _both(facts: Facts) -> str:
    return " (held-out prompts included)" if facts.split else ""


def _most(reasons: list[str]) -> str:
    """The most frequent reasons, cut short."""
    counts: dict[str, int] = {}
    for reason in reasons:
        line = " ".join(reason.split())
        short = line if len(line) <= 160 else f"{line[:159]}…"
        counts[short] = counts.get(short, 0) + 1
    first = sorted(counts.items(), key=lambda item: -item[1])
    return listed([f"“{text}” ({n:,})" for text, n in first], most=3)


def _precision(facts: Facts) -> str:
    rows = facts.ranked[facts.ranked["quality_lo"].notna()]
    if rows.empty:
        return "Too few prompts for any interval." if facts.scored else ""
    best = rows.iloc[0]
    half = (best["quality_hi"] - best["quality_lo"]) / 2
    text = (
        f"With {count(facts.scored_prompts[best['cell_id']], 'scored prompt')}, the interval of {facts.short(best['cell_id'])} is about "
        f"{percent(half, 0)} points to either side."
    )
    seen = smallest_difference(facts)
    if seen is None:
        return text
    one, all_ = seen
    text += f" A true difference from the baseline is found 4 times in 5 if it is about {percent(one, 0)} points"
    m = int(facts.summary["diff_lo"].notna().sum())
    if m > 1:
        text += f"; with all {m} comparisons counted, about {percent(all_, 0)}"
    return f"{text}. Smaller ones can hide behind “no difference found”."


def smallest_difference(facts: Facts, alpha: float = 0.05) -> tuple[float, float] | None:
    """How large a true difference must be to be found with probability `POWER`.

    ``(z(1 - alpha/2) + z(power)) * se``, with the standard error of the typical comparison of this run, taken from the width of
    the intervals of the differences.

    Returns:
        For one comparison, and for the strictest step of Holm's rule over all of them; shares, 0..1. None without intervals.
    """
    rows = facts.summary[facts.summary["diff_lo"].notna()]
    if rows.empty:
        return None
    z = scipy.stats.norm.ppf
    se = float(((rows["diff_hi"] - rows["diff_lo"]) / 2).median()) / z(0.975)
    one, all_ = (float((z(1 - alpha / 2 / m) + z(POWER)) * se) for m in (1, len(rows)))
    return min(one, 1.0), min(all_, 1.0)


def _picked(facts: Facts) -> str:
    if not facts.scored or len(facts.summary) < 3:
        return ""
    if facts.confirm is not None:
        again = float(facts.quality_of(str(facts.best), held_out=True))
        before = facts.ranked.iloc[0]["quality"]
        if pd.isna(again):
            return "The best cell was chosen on the other prompts, and no held-out one has a score: its true quality is not known."
        return (
            f"The best cell was chosen on the other prompts, where it scored {percent(before)} %; on the held-out ones it scores "
            f"{percent(again)} %. The second number is the one to quote."
        )
    text = f"The best of {len(facts.summary)} cells was picked by the score shown here. "
    tell = " Held-out prompts (`split: {confirm: 0.3}` in the study) would tell."
    n, unit = _units(facts)
    if n < FEW:
        return f"{text}How much of that is luck cannot be told from {count(n, unit)}.{tell}"
    gain, wins = resampled(facts)
    first = wins.get(str(facts.best), 0.0)
    text += f"{facts.short(str(facts.best))} comes first in {share(first)} of the resamples of the {unit}s (a tie counts in parts)"
    if gain >= 0.0005:
        text += f", and the highest score overstates the quality of its cell by about {percent(gain)} points"
    return f"{text}.{tell}"


def _units(facts: Facts) -> tuple[int, str]:
    """How many independent observations the choice was made on, and what they are."""
    rows = facts.tidy if facts.split is None else facts.tidy[facts.tidy["split"].eq(facts.split)]
    rows = rows[rows["score"].notna()]
    table = stats.prompt_means(rows)
    n = table.means.shape[1] if table.codes is None else len(np.unique(table.codes))
    return n, "group" if rows["group"].notna().any() else "prompt"


def optimism(facts: Facts, n_draws: int = DRAWS) -> float:
    """By how much the highest score overstates the quality of the cell that has it.

    Bootstrap over prompts (groups as a whole): in each resample the best cell is picked, and its score there is compared
    with its score on all prompts; the mean of these differences (Efron's optimism).

    Returns:
        A share, >= 0.
    """
    return resampled(facts, n_draws)[0]


def resampled(facts: Facts, n_draws: int = DRAWS) -> tuple[float, dict[str, float]]:
    """What picking the best would have done on other prompts like these.

    Args:
        facts: The run, read.
        n_draws: Resamples of the prompts, groups as a whole.

    Returns:
        The `optimism`, and for each cell the share of resamples in which it has the highest score; cells that tie in a
        resample share it.
    """
    rows = facts.tidy if facts.split is None else facts.tidy[facts.tidy["split"].eq(facts.split)]
    table = stats.prompt_means(rows)
    sums = by_cluster(np.nan_to_num(table.means), table.codes)
    sizes = by_cluster((table.rows > 0).astype(float), table.codes)
    draws = draw_means(sums, sizes, n_draws, np.random.default_rng(facts.seed))
    draws = np.where(np.isnan(draws), -np.inf, draws)
    draws = draws[np.isfinite(draws).any(1)]
    picks = draws.argmax(1)
    gains = draws[np.arange(len(draws)), picks] - table.quality[picks]
    top = draws >= draws.max(1, keepdims=True) - 1e-12
    wins = (top / top.sum(1, keepdims=True)).mean(0)
    return max(0.0, float(gains.mean())), dict(
        zip(map(str, table.cells), map(float, wins), strict=True)
    )


def _cut(facts: Facts) -> str:
    s = facts.summary[facts.summary["truncated_rate"].gt(0)]
    if s.empty:
        return ""
    worst = s.sort_values("truncated_rate").iloc[-1]
    part = facts.answers["finish_reason"].eq("length").mean()
    return (
        f"{share(part)} of all answers stopped at `max_tokens` ({facts.fixed.get('max_tokens', 'varied')}); most in "
        f"{facts.short(worst['cell_id'])}, {share(worst['truncated_rate'])}. With more room they would be longer, slower, and might score differently."
    )


def _latency(facts: Facts) -> str:
    if not facts.timed:
        return "It was not measured, so nothing is known about cost. `workbench latency RUN` measures it."
    timed = facts.measured_all
    noisy = timed["noisy"].eq(1)
    text = f"One request at a time on one machine, {count(timed['prompt_id'].nunique(), 'prompt')}: it says nothing about a server under load."
    if noisy.any():
        kept = len(facts.measured) == len(timed)
        used = (
            "they are counted all the same, as too few would be left"
            if kept
            else f"they and the same requests of the other cells are left out ({len(facts.measured):,} are left)"
        )
        text += f" Other programs disturbed {share(noisy.mean())} of the {len(timed):,} requests; {used}."
    if timed["noisy"].isna().any():
        text += " Whether other programs disturbed the timing could not be told on this machine."
    few = facts.measured.groupby("cell_id").size()
    if few.min() < 20:
        text += f" Some cell has only {count(int(few.min()), 'timed request')}: too few for an interval of its median."
    untimed = int((facts.summary["e2el_ms_p50"].isna()).sum())
    if untimed:
        text += f" {count(untimed, 'cell')} of {len(facts.summary)} were not timed."
    return text


def _fixed(facts: Facts) -> str:
    names = [f"`{name}` ({value})" for name, value in facts.fixed.items() if name != "adapter"]
    return (
        f"The same in every cell, so nothing is known about them: {listed(names, most=20)}."
        if names
        else ""
    )


def _setup(facts: Facts) -> str:
    engine, prompts = facts.manifest["engine"], facts.manifest["prompt_set"]
    text = f"One model ({engine['model']}), one kernel ({engine['kernel']}), one device ({engine['device']}), one prompt set ({prompts['name']})"
    if facts.repeats == 1:
        text += ", one draw a prompt"
    if facts.fixed.get("adapter") == "base":
        text += ", no adapter"
    return f"{text}. Another one can turn the order around."


def _bases(facts: Facts) -> str:
    engine = facts.manifest["engine"]
    about = (engine.get("extra") or {}).get("adapters") or {}
    model, digest = engine["model"], engine.get("weight_hash")
    found = [adapters.mismatch(name, said, model, digest) for name, said in about.items()]
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in found if text)


def _scorer(facts: Facts) -> str:
    if facts.run.primary is None:
        return ""
    return f"Quality here is what `{facts.run.primary}` measures, nothing more: read the examples before you trust it."
