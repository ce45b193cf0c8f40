"""The report for a pull request: the answer, the top of the table, one picture, limits, how to make it again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from workbench import answers
from workbench.answers import visible
from workbench.reporting import limitations, origin
from workbench.reporting.amounts import bounds, count, ms, p_value, percent, points, signs
from workbench.reporting.top import alarms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.reporting.facts import Facts

MOST_CELLS: Final = 10
MOST_EXAMPLES: Final = 2
MOST_CHARS: Final = 300
_SPECIAL: Final = re.compile(r"[\\`*_\[\]<>|~$&]|^[#+=:-]|^\d+(?=[.)](?:\s|$))")
"""What means something anywhere in a line, or at its start."""
_LINKED: Final = re.compile(r"[@#](?=\w)|(?<=\w):(?=//)|(?<=www)\.|(?<=\w)@", re.IGNORECASE)
"""What a code host turns into a mention, an issue or a link by itself."""


class Markdown:
    """A text that a notebook shows as Markdown.

    Attributes:
        text: The Markdown.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"<Markdown, {len(self.text):,} characters>"

    def _repr_markdown_(self) -> str:
        return self.text


def plain(text: str) -> str:
    r"""A text as Markdown that shows it on one line and does nothing else: no markup, no link, no mention.

    >>> plain("<b> *T=0*")
    '\\<b\\> \\*T=0\\*'
    """
    line = " ".join(visible(text).split())
    escaped = _SPECIAL.sub(_escaped, line)
    return _LINKED.sub(lambda m: f"{m.group()}\u2060", escaped)


def _escaped(found: re.Match[str]) -> str:
    text = found.group()
    return f"{text}\\" if text.isdigit() else f"\\{text}"


def prose(text: str) -> str:
    """Like `plain`, but what stands between backticks stays code."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return plain(text)
    code = [f"`{p}`" if p else "\\`\\`" for p in pieces]
    return "".join(code[i] if i % 2 else _spaced(p) for i, p in enumerate(pieces))


def _spaced(text: str) -> str:
    """`plain`, with the spaces at its ends."""
    if not text.strip():
        return " " if text else ""
    before = " " if text[:1].isspace() else ""
    after = " " if text[-1:].isspace() else ""
    return f"{before}{plain(text)}{after}"


def markdown(facts: Facts, picture: str | None = None) -> Markdown:
    """The report in short.

    Args:
        facts: The run, read.
        picture: File name of the picture, beside the text; None for none.
    """
    m = facts.manifest
    first, *rest = facts.answer
    engine = m["engine"]
    what = ", ".join(
        str(v)
        for v in (engine["model"], engine["quantization"], engine["kernel"], engine["device"])
    )
    prompts = f"{m['prompt_set']['name']} ({count(int(m['prompt_set']['n_prompts']), 'prompt')})"
    parts = [
        f"# {plain(m['study']['name'])}",
        f"**{prose(first)}**",
        *(f"> {prose(text)}" for text in alarms(facts)),
        "\n".join(f"- {prose(line)}" for line in rest),
        f"Model: {plain(what)}. Prompts: {plain(prompts)}. Run {plain(m['run_id'])}.",
        _decision(facts),
        _table(facts),
        f"![{_drawn(facts)}]({picture})" if picture and facts.scored else None,
        _examples(facts),
        "## Limits\n\n" + "\n".join(f"- **{h}** {prose(t)}" for h, t in limitations.listing(facts)),
        "## Make it again\n\n" + _block(origin.from_nothing(facts)),
        f"Study sha256 {m['study']['sha256'][:16]}, prompts {m['prompt_set']['sha256'][:16]}. Everything else: `report.html` of the run.",
    ]
    return Markdown("\n\n".join(p for p in parts if p) + "\n")


def _drawn(facts: Facts) -> str:
    return "Quality against latency" if facts.timed else "Quality"


def _decision(facts: Facts) -> str | None:
    """Which cell to use, in a paragraph."""
    if facts.decision is None:
        return None
    return "## Decision\n\n" + " ".join(prose(signs(text)) for text in facts.decision.sentences)


def _table(facts: Facts) -> str:
    """The best cells and the baseline."""
    rows = facts.ranked.head(MOST_CELLS)
    if facts.baseline not in set(rows["cell_id"]):
        own = facts.ranked[facts.ranked["cell_id"].eq(facts.baseline)]
        rows = pd.concat([rows, own])
    lines = [
        "| cell | quality % | against baseline | p | median ms | tokens |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [_row(facts, row) for row in rows.to_dict("records")]
    rest = len(facts.summary) - len(rows)
    more = f"\n\n{count(rest, 'more cell')} in the report." if rest > 0 else ""
    return "\n".join(lines) + more


def _row(facts: Facts, row: Mapping[Any, Any]) -> str:
    is_base = row["cell_id"] == facts.baseline
    name = plain(facts.short(row["cell_id"]))
    quality = f"{percent(row['quality'])} [{bounds(row['quality_lo'], row['quality_hi'])}]"
    diff = (
        f"{points(row['diff_vs_baseline'])} [{bounds(row['diff_lo'], row['diff_hi'], signed=True)}]"
    )
    values = [
        f"**{name}** (baseline)" if is_base else name + _left(facts, row["cell_id"]),
        quality.replace(" []", ""),
        "" if is_base else diff.replace(" []", ""),
        "" if is_base else plain(p_value(row["p_adjusted"])),
        ms(row["e2el_ms_p50"]),
        f"{row['n_output_tokens_mean']:.1f}" if pd.notna(row["n_output_tokens_mean"]) else "",
    ]
    return f"| {' | '.join(values)} |"


def _left(facts: Facts, cell: str) -> str:
    """The mark of a cell that left a race."""
    return f" (left after {count(facts.left[cell], 'prompt')})" if cell in facts.left else ""


def _examples(facts: Facts) -> str | None:
    """The largest changes in both directions."""
    found = facts.comparison
    if found is None or not found.better + found.worse:
        return None
    rows = found.changes
    ordered = rows.sort_values("diff", key=lambda diff: -diff.abs(), kind="stable")
    ends = [ordered[ordered["change"].eq(k)].head(MOST_EXAMPLES) for k in ("better", "worse")]
    shown = answers.text(pd.concat(ends), labels=found.labels, clip=MOST_CHARS)
    return f"<details><summary>Answers that changed</summary>\n\n{shown}\n</details>"


def _block(text: str) -> str:
    return f"```sh\n{text}\n```"
