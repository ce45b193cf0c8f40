"""A comparison of two cells in plain sentences that claim no more than the numbers do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from workbench.words import p_in_words

if TYPE_CHECKING:
    from workbench.comparing import Comparison, Paired

ALPHA: Final = 0.05
"""A difference counts if its p-value is below this."""


def lines(found: Comparison) -> list[str]:
    """What was found, one line for each subject: quality, prompts, answers, latency, what else to know."""
    out = [_quality(found), _prompts(found), _answers(found), _latency(found)]
    return [line for line in [*out, " ".join(found.notes)] if line]


def settled(quality: Paired, p: float) -> bool:
    """Whether a difference is beyond chance by its interval and its p-value."""
    return bool(p < ALPHA and (quality.lo > 0 or quality.hi < 0))


def _quality(found: Comparison) -> str:
    old, new = found.labels
    q = found.quality
    if not q.n:
        return f"{new} against {old}: {_none(found)} was scored in both."
    text = (
        f"{new} against {old}, on {_over(found)}: "
        f"{100 * q.cell:.1f} % against {100 * q.baseline:.1f} %, {_points(q.diff)}"
    )
    if np.isnan(q.lo) or np.isnan(found.p):
        text = f"{text}. Too few prompts to tell a difference from chance."
        return f"{text} {found.needed}" if found.needed else text
    bounds = f"{_signed(100 * q.lo)} to {_signed(100 * q.hi)}"
    shown = p_in_words(found.p)
    sure, apart = found.p < ALPHA, q.lo > 0 or q.hi < 0
    if sure and apart:
        verdict = f"{'Better' if q.diff > 0 else 'Worse'} beyond chance ({shown})."
    elif sure or apart:
        verdict = f"At the edge of what chance does ({shown}): more prompts would tell."
    else:
        verdict = f"No difference found ({shown}); the interval still allows {bounds} points."
    text = f"{text} (95 % interval {bounds}). {verdict}"
    if found.n_cells > 2 and found.split == "confirm":
        text += " This p is right if the cell was chosen without these prompts."
    elif found.n_cells > 2:
        text += f" This p is of one comparison; the run has {found.n_cells} cells to choose from."
    return f"{text} {found.needed}" if found.needed else text


def _over(found: Comparison) -> str:
    """The prompts that the qualities are of."""
    n = found.quality.n
    if found.split == "confirm":
        return f"the {_count(n, 'held-out prompt')} scored in both"
    if found.split is not None:
        return f"the {_count(n, 'prompt')} scored in both that are not held out"
    if 0 < found.n_held_out < found.n_prompts:
        return f"all {_count(n, 'prompt')} scored in both, those used for choosing included"
    return f"the {_count(n, 'prompt')} scored in both"


def _none(found: Comparison) -> str:
    return {None: "no prompt", "confirm": "no held-out prompt"}.get(
        found.split, "no prompt that is not held out"
    )


def _prompts(found: Comparison) -> str:
    """How many prompts changed."""
    if found.unscored == found.n_prompts:
        return ""
    flipped = found.better + found.worse
    text = f"The score changed for {_count(flipped, 'prompt')}: {found.better:,} better, {found.worse:,} worse"
    if not flipped:
        text = "The score changed for no prompt"
    text += f"; {found.same:,} the same"
    return text + (
        f", {found.unscored:,} without a score in one of them." if found.unscored else "."
    )


def _answers(found: Comparison) -> str:
    """Length, cut-off answers and loops."""
    t = found.tokens
    text = (
        f"An answer has {t.cell:.1f} tokens against {t.baseline:.1f} ({_signed(t.diff)}"
        f"{_interval(t)}). Cut off at max_tokens: {_rate(found.truncated)}; ending in a loop: {_rate(found.loops)} of the answers."
    )
    same = found.changes["baseline_text"].to_numpy() == found.changes["text"].to_numpy()
    n_same = int(same.sum())
    return f"{text} The answers shown are equal word for word for {n_same:,} of {_count(len(same), 'prompt')}."


def _latency(found: Comparison) -> str:
    e2el = found.latency.get("e2el_ms")
    if e2el is None:
        return "No request was timed in both."
    text = (
        f"The median answer takes {_ms(e2el.cell)} against {_ms(e2el.baseline)} ms; on the same prompt and round "
        f"{_signed(e2el.diff, _digits(e2el))} ms{_interval(e2el, _digits(e2el))}, {_count(e2el.n, 'pair')} of {_count(e2el.n_prompts, 'prompt')}"
    )
    if np.isnan(e2el.lo):
        text += " (too few for an interval)"
    ttft, tpot = found.latency["ttft_ms"], found.latency.get("tpot_ms")
    text += f". The first token comes after {_ms(ttft.cell)} against {_ms(ttft.baseline)} ms"
    if tpot is not None:
        text += f", each further one {_ms(tpot.cell)} against {_ms(tpot.baseline)} ms later"
    return f"{text}."


def _points(diff: float) -> str:
    return f"{_signed(100 * diff)} points"


def _signed(value: float, digits: int = 1) -> str:
    """A number with its sign; what rounds to nothing has none."""
    text = f"{value:+,.{digits}f}"
    return text[1:] if float(text.replace(",", "")) == 0 else text


def _interval(paired: Paired, digits: int = 1) -> str:
    if np.isnan(paired.lo):
        return ""
    return f", 95 % interval {_signed(paired.lo, digits)} to {_signed(paired.hi, digits)}"


def _digits(paired: Paired) -> int:
    """Decimals of milliseconds: none from 100 ms on."""
    return 0 if max(paired.baseline, paired.cell) >= 100 else 1


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _rate(pair: tuple[float, float]) -> str:
    return f"{100 * pair[1]:.1f} % against {100 * pair[0]:.1f} %"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
