"""How the numbers of a report were made, in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.answers import escape
from workbench.latency import OTHERS_SHARE, STALLED_SHARE, reproducibility
from workbench.reporting.amounts import count, listed, share
from workbench.reporting.page import Html, bullets, fold, join
from workbench.words import P90_MIN

if TYPE_CHECKING:
    from workbench.reporting.facts import Facts

DEFINITIONS = {
    "ttft_ms": "Time to the first token: from sending the request until the first token id is on the host, sampling included.",
    "tpot_ms": "Time per output token after the first: (e2el_ms - ttft_ms) / (n - 1) for n tokens; none for one token.",
    "e2el_ms": "End-to-end latency: from sending the request until the last token id is on the host.",
    "itl_ms": "Each gap between two tokens; n - 1 values a request, kept in the record.",
}


def method(facts: Facts) -> Html:
    """What was done, step by step."""
    items = [
        ("Prompts.", _prompts(facts)),
        ("Random numbers.", _seeds()),
        ("Scores.", _scores(facts)),
        ("Quality and intervals.", _intervals(facts)),
        ("Comparisons.", _comparisons(facts)),
        ("Held-out prompts.", _split(facts)),
        ("Latency.", _latency(facts)),
        ("Same tokens again.", _replays(facts)),
    ]
    return join(bullets([(head, text) for head, text in items if text]), _definitions(facts))


def _prompts(facts: Facts) -> str:
    n = int(facts.manifest["prompt_set"]["n_prompts"])
    groups = facts.run.generations["group"].dropna().nunique()
    text = f"{count(n, 'prompt')}, the same for every cell"
    if facts.repeats > 1:
        text += f", each answered {facts.repeats} times (once in a cell that always says the same)"
    if groups:
        text += (
            f". Related prompts form {count(groups, 'group')}; a group counts as one observation"
        )
    saved = int(facts.manifest.get("saved_rows") or 0)
    if saved:
        text += f". {saved:,} answers that could only repeat another were not generated again"
    return f"{text}."


def _seeds() -> str:
    return (
        "The seed of an answer depends on the study's seed, the prompt and the repeat, and on nothing else: every cell and adapter "
        "draws with the same random numbers, so that luck differs less between cells. Each token's noise is a "
        "function of seed, position and token, whatever else is decoded at the same time."
    )


def _scores(facts: Facts) -> str:
    scorers = facts.manifest["scorers"]
    if not scorers:
        return "None: the study names no scorer."
    first, *more = scorers
    text = f"Quality is the score of `{first['name']}` (version {first['version']}{_options(first)}), 0 to 1 for each answer"
    if more:
        text += f"; also recorded: {listed([s['name'] for s in more])}"
    return f"{text}. An answer that failed or could not be judged has no score: it is left out and counted, never taken as wrong."


def _options(scorer: dict[str, Any]) -> str:
    return "".join(f", {name} {value}" for name, value in scorer["options"].items())


def _intervals(facts: Facts) -> str:
    if not facts.scored:
        return ""
    return (
        "The quality of a cell is the mean over prompts of the mean over repeats. Intervals are 95 % and take the prompt (or group) "
        "as the unit, so repeats do not make them narrower than they are; a few invented prompts at both ends of the scale keep "
        "small samples honest. Where each prompt has one right-or-wrong answer, it is Wilson's interval."
    )


def _comparisons(facts: Facts) -> str:
    if not facts.scored or len(facts.summary) < 2:
        return ""
    return (
        "Each cell is compared with the baseline prompt by prompt. p comes from flipping the signs of whole prompts (McNemar's exact "
        "test where answers are right or wrong and drawn once), and is raised by Holm's rule for having asked "
        f"{len(facts.summary) - 1} questions. The interval of a difference is for that comparison alone."
    )


def _split(facts: Facts) -> str:
    if facts.confirm is None:
        return ""
    n = facts.run.generations.drop_duplicates("prompt_id")["split"].value_counts()
    return (
        f"The table and the choice of the best cell use {n.get('select', 0):,} prompts; {n.get('confirm', 0):,} were held out by a hash "
        "of their name, and only they tell the true quality of the cell that was chosen."
    )


def _latency(facts: Facts) -> str:
    if not facts.timed:
        return ""
    calls = facts.manifest.get("latency", [])
    timed = facts.measured_all
    size = f"{timed['prompt_id'].nunique():,} prompts, {count(timed['round'].nunique(), 'round')}, {len(timed):,} requests"
    where = f" on {calls[0].get('device')}, kernel {calls[0].get('kernel')}" if calls else ""
    return (
        f"After the quality run, requests of it were sent again one at a time{where}: same seeds, no part of a prompt computed before, "
        f"the next one sent when the last was answered ({size}; warm-up left out). Cells took turns in random order, so that a change "
        "of the machine falls on all alike. A request is flagged as noisy if tasks waited for a CPU during "
        f"{share(STALLED_SHARE)} of it and other processes used {share(OTHERS_SHARE)} of the CPU time. A prompt's turn in which any cell was disturbed is "
        "left out for all cells, unless less than half would be left. "
        f"A 90th percentile is given from {P90_MIN} requests a cell."
    )


def _replays(facts: Facts) -> str:
    grade = reproducibility(facts.measured_all["tokens_match"]) if facts.timed else None
    if grade is None or grade.share is None:
        return ""
    return f"Of the timed answers, compared with those of the quality run: {grade}."


def _definitions(facts: Facts) -> Html | None:
    if not facts.timed:
        return None
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in DEFINITIONS.items())
    return fold("What the latency names mean", Html(f"<dl>{rows}</dl>"))
