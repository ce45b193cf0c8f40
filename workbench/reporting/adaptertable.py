"""Every adapter against the one of the baseline: a table, the picture, and the whole in words behind a click."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from workbench import comparing, plots
from workbench.answers import escape
from workbench.comparing import adapterwords
from workbench.comparing.adaptertables import ALL
from workbench.errors import WorkbenchError
from workbench.reporting import pictures
from workbench.reporting.amounts import bounds, minus, ms, number, p_value, percent, points, signs
from workbench.reporting.page import Html, drawn, fold, join, paragraphs, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.comparing import AdapterComparison
    from workbench.reporting.facts import Facts

_TIMES = {"ttft_ms": "first token ms", "tpot_ms": "per token ms"}


def adapters(facts: Facts) -> Html | None:
    """Every adapter against the one of the baseline; None if there is one only."""
    names = facts.run.cells.set_index("cell_id")["adapter"]
    if names.nunique() < 2:
        return None
    try:
        found = comparing.by_adapter(facts.run, str(names[facts.baseline]), rng=facts.seed)
    except WorkbenchError as error:
        return paragraphs([f"Adapters are not compared: {error}."])
    first, *rest = signs(found.text).splitlines()
    if not len(found.table):
        return paragraphs([first, *rest])
    alt = "Difference of every adapter from the baseline's, with intervals."
    return join(
        paragraphs([first]),
        _table(found),
        drawn(lambda: pictures.picture(plots.forest, found), alt),
        fold("Each adapter in words", paragraphs(line for line in rest if line)),
    )


def _table(found: AdapterComparison) -> Html:
    """The headline of each adapter; its change of time under the time."""
    rows = found.headline[found.headline["set"].eq(ALL)].to_dict("records")
    whole = found.latency[found.latency["cell_id"].isna()]
    times = {row["adapter"]: row for row in whole.to_dict("records") if row["n_timed"]}
    interval = f"{100 * found.level:g} % interval"
    head = [("adapter", ""), ("quality %", "n"), ("points", "n"), (interval, "n wide")]
    head += [("p", "n"), ("tokens", "n")]
    head += [(title, "n") for title in _TIMES.values() if times]
    head.append(("finding", ""))
    body = [("", _row(found, row, times)) for row in rows]
    if rows:
        body.insert(0, ("baseline", _baseline(found, rows[0], times)))
    caption = "Averaged over the settings that both ran, on the same prompts; shaded: the baseline"
    return table(head, body, caption)


def _row(
    found: AdapterComparison, row: Mapping[Any, Any], times: Mapping[str, Mapping[Any, Any]]
) -> list[str]:
    name = str(row["adapter"])
    values = [f'<span class="name">{escape(name)}</span>', percent(row["quality"])]
    values += [points(row["diff"]), bounds(row["diff_lo"], row["diff_hi"], signed=True)]
    values += [p_value(row["p_adjusted"]), number(row["tokens"])]
    mine = times.get(name, {})
    for column in _TIMES if times else ():
        ratio = mine.get(f"{column}_ratio", np.nan)
        change = "" if np.isnan(ratio) else minus(f"{100 * (ratio - 1):+.0f} %")
        under = f"<br><small>{change}</small>" if change else ""
        values.append(f"{ms(mine.get(column, np.nan))}{under}")
    return [*values, escape(adapterwords.brief(found, name))]


def _baseline(
    found: AdapterComparison, row: Mapping[Any, Any], times: Mapping[str, Mapping[Any, Any]]
) -> list[str]:
    """The baseline's numbers beside the first adapter."""
    values = [f'<span class="name">{escape(found.baseline)}</span>']
    values += [percent(row["baseline_quality"]), "", "", "", number(row["baseline_tokens"])]
    mine = times.get(str(row["adapter"]), {})
    values += [ms(mine.get(f"baseline_{column}", np.nan)) for column in _TIMES if times]
    return [*values, ""]
