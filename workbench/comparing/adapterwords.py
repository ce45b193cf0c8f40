"""A comparison of adapters in plain sentences that claim no more than the numbers do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from workbench.adapternotes import no_record, trained
from workbench.comparing.adaptertables import ALL
from workbench.plan import SHORT
from workbench.words import p_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from workbench.comparing.adapters import AdapterComparison

    Row = dict[str, Any]

_MOST_NAMED: Final = 6
"""Most cells that are named in a sentence."""
_SIGNS: Final = {
    "truncated_rate": "cut off at max_tokens",
    "loop_rate": "ending in a loop",
    "empty_rate": "empty",
    "language_switch_rate": "changing language",
}
_TIMES: Final = {
    "ttft_ms": "first token",
    "tpot_ms": "each further token",
    "e2el_ms": "whole answer",
}


def paragraphs(found: AdapterComparison) -> list[list[str]]:
    """What was found: an opening, a paragraph for each adapter, and what else to know."""
    parts = [_opening(found)]
    parts += [_adapter(found, name) for name in found.adapters]
    parts.append(_closing(found))
    return [lines for lines in parts if lines]


def table(found: AdapterComparison) -> str:
    """The headline as a Markdown table: adapters and sets down."""
    head = ["adapter", "prompts", "n", found.baseline, "adapter's", "difference, points", "verdict"]
    lines = [f"| {' | '.join(head)} |", "|---|---|---:|---:|---:|---:|---|"]
    for row in _rows(found.headline):
        cells = [row["adapter"], row["set"], f"{row['n_prompts']:,}"]
        cells += [_percent(row["baseline_quality"]), _percent(row["quality"])]
        diff = (
            f"{_signed(100 * row['diff'])}{_bounds(row, '')}" if row["n_prompts"] else "not known"
        )
        cells += [diff, _verdict(found, row)]
        lines.append(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in cells)} |")
    lines += [
        f"| {name.replace('|', chr(92) + '|')} | {ALL} | 0 | | | | changes nothing; not compared |"
        for name in found.inert
        if name != found.baseline
    ]
    return "\n".join(lines)


def brief(found: AdapterComparison, name: str) -> str:
    """What was found of an adapter, in a few words."""
    rows = [r for r in _rows(found.headline) if r["adapter"] == name and r["set"] == ALL]
    said = [_verdict(found, rows[0]) if rows else "none of its cells could be compared"]
    if name in found.trained_on:
        said.append(f"trained on {_count(len(found.trained_on[name]), 'prompt')} of this run")
    return "; ".join(said)


def _rows(frame: pd.DataFrame) -> list[Row]:
    records: list[Row] = frame.to_dict("records")  # type: ignore[assignment]  # names are texts
    return records


# ---------------------------------------------------------------------------------------- around the adapters


def _opening(found: AdapterComparison) -> list[str]:
    others = [*found.adapters, *(n for n in found.inert if n != found.baseline)]
    line = f"Adapters against {found.baseline}: {', '.join(others)}."
    chosen, measured = found.n_prompts
    if found.chosen_on == found.measured_on:
        only = {None: "", "confirm": " held out", "select": " not held out"}[found.measured_on]
        line += f" Compared on {_count(measured, 'prompt')}{only}."
    else:
        line += (
            f" Headlines and best settings are measured on {_count(measured, 'prompt')} held out; "
            f"cells are compared, and the best picked, on the other {chosen:,}."
        )
    if found.baseline in found.inert:
        line += f" {found.baseline} itself changes nothing: it is as good as no adapter."
    for said in _training(found, found.baseline):
        line += f" {said}"
    return [f"{line} Intervals are {100 * found.level:g} %, each of one comparison taken alone."]


def _closing(found: AdapterComparison) -> list[str]:
    lines = []
    for name, shift in found.inert.items():
        if name != found.baseline:
            by = "" if shift is None else f": mean shift of log-probability {_nats(shift)} nats"
            lines.append(f"{name} changes nothing{by}; not compared.")
    counts = found.table["verdict"].value_counts()
    tested = int(found.table["p_adjusted"].notna().sum())
    if tested > 1:
        told = [f"{counts[k]} {k}" for k in ("better", "worse") if counts.get(k)]
        rest = tested - sum(int(counts.get(k, 0)) for k in ("better", "worse"))
        if rest:
            told.append(f"{rest} not beyond chance")
        lines.append(f"Cell by cell, all {tested:,} comparisons counted (Holm): {', '.join(told)}.")
    lines += _missing(found)
    if found.adapters and found.latency["n_timed"].sum() == 0:
        lines.append(
            "Latency: not timed; what an adapter costs is unknown. Run `workbench latency RUN`."
        )
    return lines


def _missing(found: AdapterComparison) -> list[str]:
    """Cells without a counterpart, by reason."""
    lines = []
    for (adapter, why), rows in found.missing.groupby(["adapter", "why"], sort=False):
        names = list(rows["settings"])
        shown = ", ".join(names[:_MOST_NAMED])
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        lines.append(f"Not compared, of {adapter}: {shown}{more} ({why}).")
    return lines


# --------------------------------------------------------------------------------------------- one adapter


def _adapter(found: AdapterComparison, name: str) -> list[str]:
    rows = {row["set"]: row for row in _rows(found.headline) if row["adapter"] == name}
    if not rows:
        return [f"{name}: none of its cells could be compared."]
    row = rows.pop(ALL)
    lines = [_headline(found, name, row)]
    lines += _training(found, name)
    if rows:
        lines.append("By prompt set: " + "; ".join(_of_set(found, r) for r in rows.values()) + ".")
    if row["verdict"] == "identical":
        return [*lines, *_latency(found, name)]
    if row["verdict"] != "not scored":
        lines += [*_best(found, name), *_interaction(found, name)]
    return [*lines, _behaviour(row), *_latency(found, name)]


def _headline(found: AdapterComparison, name: str, row: Row) -> str:
    held = " held out" if found.measured_on == "confirm" else ""
    prompts = f"{_count(row['n_prompts'], 'prompt')}{held}"
    if found.same.get(name) is not None:
        also = f" ({name} is the same adapter as {found.same[name]}, by content.)"
    else:
        also = ""
    if not row["n_prompts"]:
        return f"{name}: no prompt{held} was scored in both.{also}"
    over = (
        "at the one setting" if row["n_cells"] == 1 else f"averaged over {row['n_cells']} settings"
    )
    if row["verdict"] == "identical":
        same = f"all {_count(row['n_answers'], 'answer')} on {prompts} are identical"
        if found.same.get(name) == found.baseline:
            return f"{name} against {found.baseline}: exactly 0.0 points, {same}.{also}"
        return (
            f"{name} against {found.baseline}: exactly 0.0 points on these prompts, {same}{_bounds(row, ' for others')}. "
            f"Check that the adapter acts at all.{also}"
        )
    return (
        f"{name} against {found.baseline}, {over}, on {prompts}: {_percent(row['quality'])} against "
        f"{_percent(row['baseline_quality'])}, {_signed(100 * row['diff'])} points{_bounds(row, '')}. "
        f"{_sentence(found, row)} Prompts: {row['wins']:,} better, {row['losses']:,} worse, {row['ties']:,} the same.{also}"
    )


def _training(found: AdapterComparison, name: str) -> list[str]:
    """What is known of what an adapter was trained on."""
    if name in found.trained_on:
        return [trained(name, len(found.trained_on[name]))]
    return [no_record(name)] if name in found.no_record else []


def _of_set(found: AdapterComparison, row: Row) -> str:
    """One prompt set, in a list of them."""
    if not row["n_prompts"]:
        return f"{row['set']}: no prompt scored in both"
    return (
        f"{row['set']} {_signed(100 * row['diff'])} points on {_count(row['n_prompts'], 'prompt')}{_bounds(row, '')}, "
        f"{_verdict(found, row)}"
    )


def _verdict(found: AdapterComparison, row: Row) -> str:
    """A verdict as a part of a sentence."""
    said = {
        "better": "better beyond chance",
        "worse": "worse beyond chance",
        "edge": "at the edge of what chance does",
        "cannot tell": f"cannot be told from {found.baseline} with {_count(row['n_prompts'], 'prompt')}",
        "identical": "all answers are identical",
        "too few": "too few prompts to tell from chance",
        "not scored": "not scored",
    }
    return said[row["verdict"]]


def _sentence(found: AdapterComparison, row: Row) -> str:
    """A verdict as a sentence, with its p-value."""
    if row["verdict"] == "too few":
        return "Too few prompts to tell a difference from chance."
    counted = int(found.headline["p_adjusted"].notna().sum())
    p = alone = p_in_words(row["p_value"])
    if counted > 1:
        adjusted = p_in_words(row["p_adjusted"])
        p = f"{adjusted} with {counted} comparisons counted"
        p = p if adjusted == alone else f"{alone} alone, {p}"
    if row["verdict"] == "cannot tell":
        return f"It cannot be told from {found.baseline} with {_count(row['n_prompts'], 'prompt')} ({p})."
    if row["verdict"] == "edge":
        return f"At the edge of what chance does ({p}): more prompts would tell."
    return f"{row['verdict'].capitalize()} beyond chance ({p})."


def _best(found: AdapterComparison, name: str) -> list[str]:
    """Its best cell beside the baseline's, and whether its best settings are others."""
    rows = {row["adapter"]: row for row in _rows(found.best)}
    row, base = rows[name], rows[found.baseline]
    if pd.isna(row["cell_id"]) or pd.isna(base["cell_id"]) or row["n_prompts"] == 0:
        return []
    n_cells = len(found.table[found.table["adapter"].eq(name) & found.table["set"].eq(ALL)])
    if n_cells < 2:
        return []
    held = found.chosen_on != found.measured_on
    how = "picked on the other prompts" if held else "picked on these very prompts, so it flatters"
    text = (
        f"At its best settings, {row['settings']} ({how}): {_percent(row['quality'])}"
        f"{_bounds(row, '', 'quality', signed=False)}, {found.baseline} at its best, {base['settings']}: "
        f"{_percent(base['quality'])}; {_signed(100 * row['diff'])} points{_bounds(row, '')}."
    )
    apart = row["diff_lo"] > 0 or row["diff_hi"] < 0
    if not np.isnan(row["diff_lo"]) and not apart:
        text += f" The two cannot be told apart with {_count(row['n_prompts'], 'prompt')}."
    if row["same_settings"]:
        return [f"{text} The best settings are the same."]
    text += f" The best settings are not those of {found.baseline}"
    if np.isnan(row["own_diff_lo"]):
        return [f"{text}."]
    value = f"{_signed(100 * row['own_diff'])} points{_bounds(row, '', 'own_diff')}"
    if row["own_diff_lo"] > 0 and row["own_p_adjusted"] < 1 - found.level:
        said = "they do better beyond chance" if held else "better, on the prompts that picked them"
    else:
        said = "whether they are better cannot be told with so few prompts"
    return [f"{text}; for {name} they bring {value} over those: {said}."]


def _interaction(found: AdapterComparison, name: str) -> list[str]:
    """Which settings its gain depends on."""
    rows = [row for row in _rows(found.contrasts) if row["adapter"] == name]
    if not rows:
        return []
    gains = found.interaction.set_index(["adapter", "setting", "level"])["gain"]
    sure, open_, not_tested = [], [], []
    for row in rows:
        setting = str(row["setting"])
        if not row["testable"]:
            not_tested.append(f"{setting} ({row['why_not']})")
            continue
        high, low = (100 * gains[name, setting, row[end]] for end in ("highest", "lowest"))
        short = SHORT.get(setting, setting)
        gap = f"{100 * row['contrast']:.1f} apart{_bounds(row, '', 'contrast')}, {p_in_words(row['p_adjusted'])}"
        text = (
            f"{_signed(high)} points at {short} {row['highest']}, {_signed(low)} at {row['lowest']}"
        )
        if row["p_adjusted"] < 1 - found.level and row["contrast_lo"] > 0:
            sure.append(f"The gain depends on {setting}: {text}; {gap}.")
        else:
            open_.append(f"The gain is {text}; this may be chance ({gap}).")
    lines = sure + open_
    if not_tested:
        lines.append(f"Not testable whether the gain depends on: {'; '.join(not_tested)}.")
    tested = int(found.contrasts["p_adjusted"].notna().sum())
    if tested > 1 and (sure or open_):
        lines[-1 if not not_tested else -2] += f" ({tested} such tests counted.)"
    return lines


def _behaviour(row: Row) -> str:
    """Length and signs of trouble."""
    text = f"An answer has {row['tokens']:.1f} tokens against {row['baseline_tokens']:.1f} ({_signed(row['tokens_diff'])}"
    if not np.isnan(row["tokens_lo"]):
        text += f", interval {_signed(row['tokens_lo'])} to {_signed(row['tokens_hi'])}"
    shown = [
        f"{words} {_percent(row[name])} against {_percent(row['baseline_' + name])}"
        for name, words in _SIGNS.items()
        if row[name] > 0 or row["baseline_" + name] > 0
    ]
    text += ")."
    if shown:
        text += f" Of the answers: {'; '.join(shown)}."
    none = [words for name, words in _SIGNS.items() if row[name] == 0 == row["baseline_" + name]]
    if none:
        text += f" None is {_either(none)}."
    return f"{text} Equal word for word: {row['n_identical']:,} of {row['n_answers']:,}."


def _latency(found: AdapterComparison, name: str) -> list[str]:
    """What it costs, over all cells."""
    rows = found.latency[found.latency["adapter"].eq(name) & found.latency["cell_id"].isna()]
    row = _rows(rows)[0]
    if not row["n_timed"]:
        return []  # said once, for all
    parts = []
    for key, words in _TIMES.items():
        if np.isnan(row[key]):
            continue
        medians = f"medians {_ms(row[key])} against {_ms(row['baseline_' + key])} ms"
        ratio, lo, hi = (row[f"{key}_ratio{end}"] for end in ("", "_lo", "_hi"))
        between = "too few for an interval"
        if not np.isnan(lo):
            between = f"interval {_change(lo)} to {_change(hi)}"
        parts.append(f"{words} {_change(ratio)} ({between}; {medians})")
    n, prompts = _count(row["n_timed"], "pair"), _count(row["n_timed_prompts"], "prompt")
    opening = f"Latency, change on the same prompt and round, {n} of requests for {prompts}"
    return [f"{opening}: {'; '.join(parts)}."]


# ------------------------------------------------------------------------------------------------- amounts


def _bounds(row: Row, what: str, stem: str = "diff", *, signed: bool = True) -> str:
    """The interval of a fraction in points, in brackets; "" if there is none."""
    lo, hi = row[f"{stem}_lo"], row[f"{stem}_hi"]
    if np.isnan(lo):
        return ""
    low, high = (_signed(100 * v) if signed else f"{100 * v:.1f}" for v in (lo, hi))
    return f" (interval{what} {low} to {high})"


def _signed(value: float, digits: int = 1) -> str:
    """A number with its sign; what rounds to nothing has none."""
    text = f"{value:+,.{digits}f}"
    return text[1:] if float(text.replace(",", "")) == 0 else text


def _change(ratio: float) -> str:
    if np.isnan(ratio):
        return "not known"
    return f"{_signed(100 * (ratio - 1))} %"


def _percent(value: float) -> str:
    return "not known" if np.isnan(value) else f"{100 * value:.1f} %"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def _nats(value: float) -> str:
    return f"{value:.2g}"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
