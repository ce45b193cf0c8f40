"""A decision in plain sentences that claim no more than the numbers do."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from workbench.params import CARD_DEFAULTS
from workbench.plan import number
from workbench.records import BASE
from workbench.reporting.amounts import count, listed, ms
from workbench.tables import SETTINGS
from workbench.words import p_in_words, signed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from workbench.deciding.choose import Choice, Difference
    from workbench.deciding.limits import Limited

    Row = Mapping[str, Any]

_MANY_CUT: Final = 0.1
"""Share of cut-off answers from which it is said."""
_NAMED: Final = 3
"""Most ties that are named in the text; the table has them all."""


# ---------------------------------------------------------------------------------------------------- settings


def rows_of(cells: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The rows of the cells table by cell id."""
    rows = ({str(k): v for k, v in row.items()} for row in cells.to_dict("records"))
    return {str(row["cell_id"]): row for row in rows}


def varied(cells: pd.DataFrame) -> list[str]:
    """Settings, and adapter and template, that are not the same in all cells."""
    names = [*SETTINGS, "stop", "template", "adapter"]
    return [n for n in names if n in cells and len(set(map(_level, cells[n]))) > 1]


def _level(value: object) -> str:
    return "" if _off(value) else str(value)


def _off(value: object) -> bool:
    """True for a setting that is not set."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def settings(row: Row, names: Sequence[str]) -> str:
    """The settings of a cell in a sentence: those named (temperature if none is), after the name that the study gives it.

    >>> settings({"temperature": 0.3, "top_k": 20, "adapter": "terse"}, ["temperature", "top_k", "adapter"])
    'temperature 0.3, top_k 20, adapter terse'
    """
    parts = []
    greedy = row["temperature"] == 0
    for name in names or ["temperature"]:
        value = row[name]
        if name == "adapter":
            parts.append("no adapter" if value == BASE else f"adapter {value}")
        elif greedy and name in ("top_p", "top_k", "min_p"):
            continue
        elif _off(value):
            parts.append(f"no {name}")
        elif name == "stop":
            parts.append(f"stop {', '.join(map(repr, value))}")
        else:
            parts.append(f"{name} {number(value) if not isinstance(value, str) else value}")
    text = ", ".join(parts)
    own = row.get("name")
    return f"{own} ({text})" if isinstance(own, str) and own not in text else text


def is_card_default(row: Row) -> bool:
    """True if a cell has the model card's settings (but for max_tokens, which every study sets) and no adapter."""
    off = [s for s in SETTINGS if s not in CARD_DEFAULTS]
    return (
        row["temperature"] == CARD_DEFAULTS["temperature"]
        and all(_off(row[s]) for s in off)
        and row["adapter"] == BASE
    )


# ------------------------------------------------------------------------------------------------------- lines


class Named:
    """A choice with the words for its cells."""

    def __init__(self, choice: Choice, cells: pd.DataFrame) -> None:
        self.choice = choice
        self.rows = rows_of(cells)
        self.varied = varied(cells)
        self.n_cells = len(cells)

    def cell(self, cell: str | None) -> str:
        """A cell by its settings."""
        return settings(self.rows[str(cell)], self.varied)

    @property
    def baseline(self) -> str:
        """The baseline, short."""
        row = self.rows[self.choice.baseline]
        if is_card_default(row):
            return "the card's defaults"
        return f"the baseline ({settings(row, self.varied)})"


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
    out += [_cut_off(named), choice.needed or "", _left_out(choice), not_tested]
    return [line for line in out if line]


def _headline(named: Named) -> str:
    c = named.choice
    if c.verdict == "none":
        bounds = " and ".join(limited.text for limited in c.limits)
        return f"No cell is known to meet {bounds}: there is nothing to recommend."
    if c.verdict == "top":
        only = named.n_cells == 1
        why = (
            "it is the only cell"
            if only
            else f"no other of {named.n_cells} cells scores higher{_where(c)}"
        )
        return f"Keep {named.baseline}: {why}."
    if c.verdict == "tie":
        return f"Keep {named.baseline}: nothing beats it beyond chance."
    if c.verdict == "unconfirmed":
        return f"Keep {named.baseline}: what beat it on the prompts used for choosing did not on those held out."
    pick = f"Use {named.cell(c.pick)}"
    if c.verdict == "only":
        return f"{pick}: the highest score of the cells that meet the limits{_gain(named)}."
    return f"{pick}{_gain(named)}."


def _where(c: Choice) -> str:
    if c.held_out:
        return f" on the {count(c.n_prompts[0], 'prompt')} used for choosing"
    return f" on {count(c.n_prompts[0], 'prompt')}"


def _gain(named: Named) -> str:
    """The headline number: what the pick gains on prompts that did not pick it."""
    c = named.choice
    if c.confirmed is not None:
        return f": {_points(c.confirmed)} over {named.baseline} on {count(c.confirmed.n, 'prompt')} held out"
    if c.bag is not None and c.pick == c.top:
        gain = _spanned(c.bag.gain, c.bag.lo, c.bag.hi)
        return f": about {gain} over {named.baseline} on prompts that had no part in the choice"
    seen = c.picked or c.chosen
    if seen is None:
        return ""
    return f": {_points(seen)} over {named.baseline} on {count(seen.n, 'prompt')}, those that picked it"


def _evidence(named: Named) -> str:
    """The numbers behind the headline: what the prompts that chose say, what the others do, and what was luck."""
    c = named.choice
    if c.chosen is None or c.verdict == "top":
        return ""
    seen = c.picked or c.chosen
    if c.held_out:
        return _measured(named, seen)
    return _resampled(named, seen)


def _measured(named: Named, seen: Difference) -> str:
    """Where prompts were held out."""
    c = named.choice
    found = c.confirmed
    if found is None or pd.isna(found.diff):
        return (
            f"No held-out prompt is scored in both; on the others, that picked it, {_points(seen)}."
        )
    if c.verdict in ("tie", "unconfirmed"):
        text = (
            f"Highest score of {named.n_cells} cells: {named.cell(c.top)}, {_points(seen)} on the {count(seen.n, 'prompt')} that "
            f"picked it ({_p(seen)}), {_points(found)} on {found.n:,} held out"
        )
    else:
        text = f"On the {seen.n:,} others, that picked it, {_points(seen)}"
    luck = 100 * (seen.diff - found.diff)
    if luck >= 0.05:
        text += f", so {luck:.1f} of them were luck"
    else:
        text += ", so no luck shows"
    if c.verdict == "better":
        text += f" ({_p(seen)})"
    text += "."
    if c.verdict == "better" and not found.better:
        text += " On the held-out ones alone that is within chance."
    if c.verdict == "confirmed":
        text += f" There it is within chance ({_p(seen)}); on those held out, where it is the only one looked at, it is not ({p_in_words(found.p)})."
    if c.verdict == "only" and not found.better:
        text += " On those held out that is within chance."
    return text


def _resampled(named: Named, seen: Difference) -> str:
    """Where none were."""
    c = named.choice
    kept = c.pick == c.baseline
    picked = f"the {count(seen.n, 'prompt')} that picked it"
    text = f"On {picked}, {_points(seen)} ({_p(seen)})"
    if kept:
        best = f"Highest score of {named.n_cells} cells: {named.cell(c.top)}"
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
    return f"{100 * rate:.0f} % of {whose} answers are cut off at max_tokens {named.rows[str(c.pick)]['max_tokens']}."


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


def _left_out(c: Choice) -> str:
    said = []
    if c.n_left_out:
        do = "do" if c.n_left_out > 1 else "does"
        said.append(f"{count(c.n_left_out, 'prompt')} that not every cell was asked {do} not count")
    if c.n_dropped:
        was = "were" if c.n_dropped > 1 else "was"
        said.append(
            f"{count(c.n_dropped, 'cell')} {was} asked fewer prompts and {was} not considered"
        )
    return f"{'; '.join(said)}." if said else ""


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
    off = [s for s in fixed if _off(row[s])]
    items = [f"any {listed(off, most=len(off)).replace(' and ', ' or ')}"] if off else []
    items += [f"another {s} than {number(row[s])}" for s in fixed if not _off(row[s])]
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
