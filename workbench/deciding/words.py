"""A decision in plain sentences that claim no more than the numbers do."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from workbench.deciding.naming import Named, is_off, varied
from workbench.plan import number
from workbench.records import BASE
from workbench.reporting.amounts import count, listed, ms
from workbench.tables import SETTINGS
from workbench.words import p_in_words, signed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.deciding.choose import Choice, Difference
    from workbench.deciding.limits import Limited

    Row = Mapping[str, Any]

_MANY_CUT: Final = 0.1
"""Share of cut-off answers from which it is said."""
_NAMED: Final = 3
"""Most ties that are named in the text; the table has them all."""


# ------------------------------------------------------------------------------------------------------- lines


def lines(choice: Choice, cells: pd.DataFrame, not_tested: str) -> list[str]:
    """What to use and why, one line for each subject.

    Args:
        choice: What was chosen.
        cells: The run's cells.
        not_tested: What the run says nothing about.
    """
    named = Named(choice, cells)
    out = [_headline(named), _evidence(named), _ties(named), _latency(named)]
    out += [_limit(named, limited) for limited in choice.limits]
    out += [_cut_off(named), choice.needed or "", _left_out(named), " ".join(choice.notes)]
    out.append(not_tested)
    return [line for line in out if line]


def _headline(named: Named) -> str:
    c = named.choice
    if c.verdict == "none":
        return f"{_why_none(c)}: there is nothing to recommend."
    if c.verdict == "top":
        why = f"no other of {named.field} scores higher{_where(c)}"
        if len(c.candidates) < 2:
            why = "no other cell can be compared with it"
            if named.n_cells == 1:
                why = "it is the only cell"
            elif c.raced and c.n_dropped == named.n_cells - 1:
                why = f"all {c.n_dropped:,} others surely lost the race, or broke a limit"
        return f"Keep {named.baseline}: {why}."
    if c.verdict == "tie":
        return f"Keep {named.baseline}: {_not_shown(c)}."
    if c.verdict == "unconfirmed":
        return f"Keep {named.baseline}: what beat it on the prompts used for choosing did not on those held out."
    pick = f"Use {named.cell(c.pick)}"
    if c.verdict == "only":
        return f"{pick}: the highest score of {_among(c)}{_gain(named)}."
    return f"{pick}{_gain(named)}."


def _why_none(c: Choice) -> str:
    """Why no cell is picked."""
    if c.limits:
        return f"No cell is known to meet {' and '.join(limited.text for limited in c.limits)}"
    if c.refused:
        return f"Every cell has an adapter that was trained on most of the prompts ({', '.join(c.refused)})"
    return "No cell has scores to choose by"


def _not_shown(c: Choice) -> str:
    """Why the baseline stays though another scores higher."""
    if not c.raced:
        return "nothing beats it beyond chance"
    if c.confirmed is None or math.isnan(c.confirmed.diff):
        return "nothing is shown to beat it"
    return f"the best of the race does not beat it beyond chance on the {count(c.confirmed.n, 'prompt')} held out"


def _among(c: Choice) -> str:
    """The cells that the pick is the best of, where the baseline is none of them."""
    if any(limited.status[c.baseline] != "met" for limited in c.limits):
        return "the cells that meet the limits"
    if c.baseline in c.unscored:
        return "the cells that could be scored, which the baseline could not"
    return "the finalists" if c.raced else "the cells that can be judged by these prompts"


def _where(c: Choice) -> str:
    if c.held_out or c.raced:
        return f" on the {count(c.n_prompts[0], 'prompt')} used for choosing"
    return f" on {count(c.n_prompts[0], 'prompt')}"


def _gain(named: Named) -> str:
    """The headline number: what the pick gains on prompts that did not pick it."""
    c = named.choice
    if c.confirmed is not None:
        if math.isnan(c.confirmed.diff):
            return ""
        few = ", too few to tell from chance" if math.isnan(c.confirmed.lo) else ""
        return f": {_points(c.confirmed)} over {named.baseline} on {count(c.confirmed.n, 'prompt')} held out{few}"
    if c.bag is not None and c.pick == c.top:
        gain = _spanned(c.bag.gain, c.bag.lo, c.bag.hi)
        return f": about {gain} over {named.baseline} on prompts that had no part in the choice"
    seen = c.picked or c.chosen
    if seen is None or math.isnan(seen.diff) or c.raced:
        return ""
    return f": {_points(seen)} over {named.baseline} on {count(seen.n, 'prompt')}, those that picked it"


def _evidence(named: Named) -> str:
    """The numbers behind the headline: what the prompts that chose say, what the others do, and what was luck."""
    c = named.choice
    seen = c.picked or c.chosen
    if c.verdict == "top" or seen is None or math.isnan(seen.diff):
        return ""
    if c.held_out:
        return _measured(named, seen)
    return _unmeasured(named, seen) if c.raced else _resampled(named, seen)


def _unmeasured(named: Named, seen: Difference) -> str:
    """After a race without prompts held out."""
    c = named.choice
    return (
        f"Highest score of {named.field}: {named.cell(c.top)}, {_points(seen)} on the {count(seen.n, 'prompt')} of the race. "
        f"{c.why_not}; what of that is luck cannot be told from prompts that decided who is left."
    )


def _measured(named: Named, seen: Difference) -> str:
    """Where prompts were held out."""
    c = named.choice
    found = c.confirmed
    if found is None or pd.isna(found.diff):
        return (
            f"No held-out prompt is scored in both; on the others, that picked it, {_points(seen)}."
        )
    p = "" if c.raced else f" ({_p(seen)})"
    if c.verdict in ("tie", "unconfirmed"):
        text = (
            f"Highest score of {named.field}: {named.cell(c.top)}, {_points(seen)} on the {count(seen.n, 'prompt')} that "
            f"picked it{p}, {_points(found)} on {found.n:,} held out"
        )
    else:
        text = f"On the {seen.n:,} others, that picked it, {_points(seen)}"
    luck = 100 * (seen.diff - found.diff)
    if luck >= 0.05:
        text += f", so {luck:.1f} of them were luck"
    else:
        text += ", so no luck shows"
    if c.verdict == "better":
        text += p
    text += "."
    if c.raced:
        return f"{text} {_by_itself(found)}"
    if c.verdict == "better" and not found.better:
        text += " On the held-out ones alone that is within chance."
    if c.verdict == "confirmed":
        text += f" There it is within chance ({_p(seen)}); on those held out, where it is the only one looked at, it is not ({p_in_words(found.p)})."
    if c.verdict == "only" and not found.better:
        text += " On those held out that is within chance."
    return text


def _by_itself(found: Difference) -> str:
    """What the held-out prompts say after a race, where nothing else counts."""
    if math.isnan(found.p):
        return "Those held out, the only ones that count after a race, are too few to tell it from chance."
    chance = "beyond" if found.better else "within"
    return f"On those held out, the only ones that count after a race, it is {chance} chance ({p_in_words(found.p)})."


def _resampled(named: Named, seen: Difference) -> str:
    """Where none were."""
    c = named.choice
    kept = c.pick == c.baseline
    picked = f"the {count(seen.n, 'prompt')} that picked it"
    text = f"On {picked}, {_points(seen)} ({_p(seen)})"
    if kept:
        best = f"Highest score of {named.field}: {named.cell(c.top)}"
        text = f"{best}, {_points(seen)} on {picked} ({_p(seen)})"
    if c.bag is None:
        return f"{text}. {c.why_not}; how much of it is luck cannot be told from so few."
    luck = ""
    if c.bag.optimism >= 0.0005:
        luck = f", so {100 * c.bag.optimism:.1f} of {signed(100 * c.bag.seen, 1)} were luck, as far as these prompts can tell"
    if c.pick == c.top:
        return f"{text}{luck}. {c.why_not}: the gain is a bootstrap's, in {c.bag.n_boot:,} resamples measured on the prompts that each left out."
    gain = _spanned(c.bag.gain, c.bag.lo, c.bag.hi)
    return f"{text}. {c.why_not}; by bootstrap, on prompts left out of the choice the highest score gains {gain}{luck}."


def _ties(named: Named) -> str:
    c = named.choice
    if not c.ties:
        return ""
    pick = "it" if c.pick == c.top else "the highest score"
    shown = "; ".join(named.cell(t) for t in c.ties[:_NAMED])
    more = len(c.ties) - _NAMED
    verb = "ties" if len(c.ties) == 1 else "tie"
    text = f"{count(len(c.ties), 'setting')} {verb} with {pick}: {shown}"
    text += f"; and {more:,} more" if more > 0 else ""
    outside = sum(t not in c.candidates for t in c.ties)
    if outside:
        verb = "was no finalist" if outside == 1 else "were no finalists"
        text += f" ({outside:,} of them {verb}, and so answered no held-out prompts)"
    if c.pick not in (c.top, c.baseline):
        text += ". The pick is faster than the highest score beyond chance"
    return f"{text}."


def _latency(named: Named) -> str:
    """What the pick, or where the baseline stays the best score, costs in time."""
    c = named.choice
    if c.pick is None:
        return ""
    if c.select["e2el_ms_p50"].isna().all():
        return "Latency was not measured: run `workbench latency RUN`."
    cell = c.pick if c.pick != c.baseline else c.top
    times = c.times.get(str(cell))
    if cell == c.baseline or times is None:
        own = c.select.set_index("cell_id")["e2el_ms_p50"].get(c.pick)
        return (
            f"The median answer of the pick takes {ms(own)} ms."
            if own is not None and pd.notna(own)
            else ""
        )
    whose = "" if cell == c.pick else " of the highest score"
    ratio, lo, hi = (times[f"e2el_ms_ratio{end}"] for end in ("", "_lo", "_hi"))
    n = count(int(times["n_timed"]), "pair")
    text = f"End-to-end latency{whose} {_change(ratio)}"
    if pd.isna(lo):
        return f"{text}, too few requests to tell that from chance (median of {n} of requests)."
    return f"{text} [{_inside(lo - 1, 0)}, {_inside(hi - 1, 0)}] (median of {n} of requests)."


def _cut_off(named: Named) -> str:
    """Whether max_tokens spoils the answers of the pick."""
    c = named.choice
    rates = c.select.set_index("cell_id")["truncated_rate"]
    rate = rates.get(c.pick) if c.pick is not None else None
    if rate is None or not rate >= _MANY_CUT:
        return ""
    whose = "the baseline's" if c.pick == c.baseline else "its"
    return f"{100 * rate:.0f} % of {whose} answers are cut off at max_tokens {number(named.rows[str(c.pick)]['max_tokens'])}."


def _limit(named: Named, limited: Limited) -> str:
    """How the cells stand to a limit."""
    c = named.choice
    told = Counter(limited.status.values())
    parts = [f"{s} by {count(told[s], 'cell')}" for s in ("met", "not met") if told[s]]
    if told["not known"]:
        most = max(limited.n[x] for x, s in limited.status.items() if s == "not known")
        of = "timed requests" if "_ms_" in limited.metric else "answered prompts"
        parts.append(
            f"not known of {count(told['not known'], 'cell')} (it takes {limited.needed:,} {of} a cell, they have up to {most:,})"
        )
    text = f"Limit {limited.text}: {', '.join(parts)}"
    if c.pick is not None:
        text += f"; the pick has {_figure(limited, c.pick)}"
    state = limited.status[c.baseline]
    if state != "met":
        said = (
            "is not known to meet it"
            if state == "not known"
            else f"has {_figure(limited, c.baseline)}"
        )
        text += f"; the baseline {said}"
    return f"{text}."


def _figure(limited: Limited, cell: str) -> str:
    value = limited.figures[cell]
    if value is None:
        return "no known figure"
    if "_ms_" in limited.metric:
        return f"{ms(value)} ms"
    return f"{value:.1f}" if limited.metric == "n_output_tokens_mean" else f"{value:.3f}"


def _left_out(named: Named) -> str:
    """Prompts and cells that do not count, by reason."""
    c = named.choice
    said = []
    for n, why in (
        (c.n_left_out, f"not every {'finalist' if c.raced else 'cell'} was asked"),
        (c.n_unscored, "could not be scored in every cell"),
        (c.n_trained, "an adapter of this run was trained on"),
    ):
        if n:
            said.append(f"{count(n, 'prompt')} that {why} {'do' if n > 1 else 'does'} not count")
    if c.n_dropped:
        was = "were" if c.n_dropped > 1 else "was"
        how = "asked fewer prompts and"
        if c.raced:
            how = "dropped by the race and"
        said.append(f"{count(c.n_dropped, 'cell')} {was} {how} {was} not considered")
    if c.unscored:
        shown = "; ".join(named.cell(cell) for cell in c.unscored[:_NAMED])
        more = len(c.unscored) - _NAMED
        shown += f"; and {more:,} more" if more > 0 else ""
        said.append(
            f"left out, since many of their answers could not be scored: {count(len(c.unscored), 'cell')} ({shown})"
        )
    if c.refused and c.verdict != "none":
        said.append(f"cells with {' or '.join(c.refused)} were not considered")
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}." if said else ""


# ------------------------------------------------------------------------------------------------- not tested


def not_tested(cells: pd.DataFrame, facts: Mapping[str, Any], *, timed: bool) -> str:
    """What the run says nothing about, in a sentence.

    Args:
        cells: The run's cells.
        facts: Its manifest.
        timed: True if requests were timed.
    """
    names = varied(cells)
    row = {str(k): v for k, v in cells.iloc[0].items()}
    fixed = [s for s in SETTINGS if s not in names]
    off = [s for s in fixed if is_off(row[s])]
    items = [f"any {listed(off, most=len(off)).replace(' and ', ' or ')}"] if off else []
    items += [f"another {s} than {number(row[s])}" for s in fixed if not is_off(row[s])]
    if "adapter" not in names:
        alone = row["adapter"]
        items.append("any adapter" if alone == BASE else f"another adapter than {alone}, or none")
    prompts = facts.get("prompt_set", {}).get("name")
    items.append(f"prompts unlike those of {prompts}" if prompts else "other prompts")
    engine = facts.get("engine", {})
    where = [str(engine[k]) for k in ("device", "kernel") if engine.get(k)]
    items.append(
        f"other hardware or kernels than {', '.join(where)}" if where else "other hardware"
    )
    if not timed:
        items.append("latency")
    return f"Not tested: {'; '.join(items)}."


# ----------------------------------------------------------------------------------------------------- amounts


def _points(found: Difference) -> str:
    return _spanned(found.diff, found.lo, found.hi)


def _spanned(value: float, lo: float, hi: float) -> str:
    """A difference of shares in points, with its interval if there is one."""
    text = f"{signed(100 * value, 1)} points"
    return text if math.isnan(lo) else f"{text} [{_inside(lo)}, {_inside(hi)}]"


def _inside(share: float, digits: int = 1) -> str:
    """A bound, in percent or points; a plus is not needed there."""
    return signed(100 * share, digits).removeprefix("+")


def _p(found: Difference) -> str:
    if math.isnan(found.p):
        return "too few to tell from chance"
    if found.n_compared < 2:
        return p_in_words(found.p)
    return f"{p_in_words(found.p)} with all {found.n_compared:,} comparisons counted"


def _change(ratio: float) -> str:
    return f"{signed(100 * (ratio - 1))} %"
