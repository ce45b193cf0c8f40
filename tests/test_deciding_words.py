"""The sentences of a decision: they say what was found, and no more."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_deciding_choose import run_of, times_of

from workbench.deciding import naming, words
from workbench.deciding.choose import choose
from workbench.deciding.limits import read
from workbench.deciding.table import markdown, table
from workbench.tables import SETTINGS

NOT_TESTED = "Not tested: much."


def said(run: Any, limits: Any = (), **more: Any) -> list[str]:
    """The lines about a run."""
    return words.lines(choose(run, read(limits), **more), run.cells, NOT_TESTED)


def test_held_out():
    """The headline is of the held-out prompts; what the others said, and what of it was luck, follows."""
    lines = said(run_of({"base": 10, "a": 38, "b": 12}, {"base": 10, "a": 30, "b": 12}))
    assert lines[0].startswith("Use temperature 0.5: +50.0 points [")
    assert lines[0].endswith("] over the baseline (temperature 0) on 40 prompts held out.")
    assert lines[1].startswith("On the 40 others, that picked it, +70.0 points [")
    assert lines[1].endswith(
        "], so 20.0 of them were luck (p < 0.001 with all 2 comparisons counted)."
    )
    assert lines[2:] == ["Latency was not measured: run `workbench latency RUN`.", NOT_TESTED]


def test_no_luck():
    """Where the held-out prompts say more than those that chose, no luck is claimed."""
    lines = said(run_of({"base": 10, "a": 30, "b": 12}, {"base": 10, "a": 38, "b": 12}))
    assert lines[1].endswith("], so no luck shows (p < 0.001 with all 2 comparisons counted).")


def test_within_chance_held_out():
    """A cell that is better where it was picked and not surely so held out is used, and that is said."""
    lines = said(run_of({"base": 10, "a": 38, "b": 12}, {"base": 10, "a": 11, "b": 12}))
    assert lines[0].startswith("Use temperature 0.5: +2.5 points [")
    assert lines[1].endswith(" On the held-out ones alone that is within chance.")
    assert any(line.startswith("About ") and " would settle " in line for line in lines)


def test_not_confirmed():
    """What was better only where it was picked does not replace the baseline."""
    lines = said(run_of({"base": 10, "a": 38, "b": 12}, {"base": 10, "a": 9, "b": 12}))
    assert lines[0] == (
        "Keep the baseline (temperature 0): what beat it on the prompts used for choosing did not on those held out."
    )
    assert lines[1].startswith("Highest score of 3 cells: temperature 0.5, +70.0 points [")
    assert ", -2.5 points [" in lines[1]
    assert "held out, so 72.5 of them were luck." in lines[1]


def test_confirmed():
    """A cell that only the held-out prompts show better is used, and both are said."""
    lines = said(run_of({"base": 10, "a": 12, "b": 11}, {"base": 10, "a": 38, "b": 12}))
    assert lines[0].startswith("Use temperature 0.5: +70.0 points [")
    assert lines[1].endswith(
        " There it is within chance (p = 1 with all 2 comparisons counted); on those held out, where it is the only one looked at, it is not (p < 0.001)."
    )


def test_nothing_beats_the_baseline():
    """The baseline stays, the best-looking cell is named with what chance allows, and how many prompts would settle it."""
    lines = said(run_of({"base": 10, "a": 12, "b": 11}))
    assert lines[0] == "Keep the baseline (temperature 0): nothing beats it beyond chance."
    assert lines[1].startswith("Highest score of 3 cells: temperature 0.5, +5.0 points [")
    assert (
        "No prompts were held out (`split: {confirm: 0.3}` in the study does that); by bootstrap, on prompts left out of the choice the highest score gains "
        in lines[1]
    )
    assert lines[2] == "1 setting ties with the highest score: temperature 1."
    assert lines[-2].startswith("About ")
    assert lines[-2].endswith(" more prompts would settle the 5 points seen (80 % power).")


def test_the_baseline_is_the_best():
    """If no cell scores higher, that is all there is to say."""
    assert said(run_of({"base": 30, "a": 12}))[0] == (
        "Keep the baseline (temperature 0): no other of 2 cells scores higher on 40 prompts."
    )
    assert (
        said(run_of({"base": 30}))[0] == "Keep the baseline (temperature 0): it is the only cell."
    )


def test_resampled_headline():
    """Where nothing is held out the headline is the bootstrap's, never the score that picked."""
    lines = said(run_of({"base": 10, "a": 38, "b": 12}))
    assert lines[0].startswith("Use temperature 0.5: about +")
    assert lines[0].endswith(
        "] over the baseline (temperature 0) on prompts that had no part in the choice."
    )
    assert lines[1].endswith(
        "No prompts were held out (`split: {confirm: 0.3}` in the study does that): the gain is a bootstrap's, in 2,000 resamples measured on the prompts that each left out."
    )


def test_latency():
    """The change of the end-to-end time comes with its interval, or says that it is too few to tell."""
    run = run_of({"base": 10, "a": 38, "b": 12}, latency=times_of({"base": 100, "a": 80, "b": 100}))
    line = next(x for x in said(run) if "latency" in x)
    assert line.startswith("End-to-end latency -20 % [-2")
    assert line.endswith("] (median of 30 pairs of requests).")
    few = run_of(
        {"base": 10, "a": 38, "b": 12}, latency=times_of({"base": 100, "a": 80, "b": 100}, n=10)
    )
    assert next(x for x in said(few) if "latency" in x).endswith(
        ", too few requests to tell that from chance (median of 10 pairs of requests)."
    )


def test_limits():
    """How the cells stand to a limit is said, and what pick and baseline have."""
    run = run_of(
        {"base": 30, "a": 20, "b": 10}, latency=times_of({"base": 200, "a": 90.4, "b": 90})
    )
    lines = said(run, ["e2el_ms_p50<=100", "e2el_ms_p90<=100"])
    assert (
        lines[0]
        == "No cell is known to meet e2el_ms_p50 <= 100 and e2el_ms_p90 <= 100: there is nothing to recommend."
    )
    assert lines[1].startswith(
        "Limit e2el_ms_p50 <= 100: met by 2 cells, not met by 1 cell; the baseline has "
    )
    assert lines[2] == (
        "Limit e2el_ms_p90 <= 100: not known of 3 cells (it takes 64 timed requests a cell, they have up to 30); "
        "the baseline is not known to meet it."
    )
    one = said(run, ["e2el_ms_p50<=100"])
    assert one[0].startswith(
        "Use temperature 0.5: the highest score of the cells that meet the limits: about -"
    )


def test_unfinished():
    """Prompts and cells that do not count are counted."""
    scores = {c: {f"p{i}": [i % 2] for i in range(40 + (c == "base"))} for c in ("base", "a")}
    scores["dropped"] = {"p0": [1]}
    from pairedruns import paired_run

    assert (
        "1 prompt that not every cell was asked does not count; 1 cell was asked fewer prompts and was not considered."
        in said(paired_run(scores))
    )


def test_many_ties():
    """Three ties are named, the others counted."""
    line = said(run_of({"base": 2, "a": 30} | {f"c{i}": 29 for i in range(5)}))[2]
    assert (
        line == "5 settings tie with it: temperature 1; temperature 1.5; temperature 2; and 2 more."
    )


def test_cut_off():
    """That many answers of the pick are cut off is said."""
    run = run_of({"base": 10, "a": 38})
    run.generations.loc[run.generations["cell_id"].eq("a"), "finish_reason"] = "length"
    assert "100 % of its answers are cut off at max_tokens 48." in said(run)


# ----------------------------------------------------------------------------------------------------- settings


def cells(**columns: list[Any]) -> pd.DataFrame:
    """A cells table."""
    n = len(next(iter(columns.values())))
    none: dict[str, Any] = {name: [np.nan] * n for name in SETTINGS} | {"temperature": [0.6] * n}
    about = {
        "cell_id": [f"c{i}" for i in range(n)],
        "adapter": ["base"] * n,
        "max_tokens": [64] * n,
    }
    return pd.DataFrame(none | about | {"stop": [None] * n, "template": [None] * n} | columns)


@pytest.mark.parametrize(
    ("columns", "first", "second"),
    [
        (
            {"temperature": [0, 0.7], "top_k": [np.nan, 20]},
            "temperature 0",
            "temperature 0.7, top_k 20",
        ),
        ({"top_p": [np.nan, 0.9]}, "no top_p", "top_p 0.9"),
        ({"adapter": ["base", "terse"]}, "no adapter", "adapter terse"),
        ({"stop": [None, ["\n", "Q:"]]}, "no stop", "stop '\\n', 'Q:'"),
        ({"template": ["plain", "steps"]}, "template plain", "template steps"),
        ({"max_tokens": [64, 128]}, "max_tokens 64", "max_tokens 128"),
        (
            {"top_k": [10, 50], "name": ["narrow", "top_k 50"]},
            "narrow (top_k 10)",
            "top_k 50",
        ),
        ({"temperature": [0.6]}, "temperature 0.6", "temperature 0.6"),
    ],
)
def test_settings(columns, first, second):
    """A cell is told by what varies; in a greedy one what does nothing is not named."""
    made = cells(**columns)
    rows = list(naming.rows_of(made).values())
    names = naming.varied(made)
    assert naming.settings(rows[0], names) == first
    assert naming.settings(rows[-1], names) == second


def test_the_cards_defaults():
    """A baseline with the card's settings is called by that name; one with an adapter or another setting is not."""
    made = cells(adapter=["base", "terse", "base"], top_k=[np.nan, np.nan, 50])
    assert [naming.is_card_default(r) for r in naming.rows_of(made).values()] == [
        True,
        False,
        False,
    ]


def test_not_tested():
    """Settings that never varied, adapters, prompts and hardware are named, each once."""
    facts = {"prompt_set": {"name": "sums"}, "engine": {"device": "cpu", "kernel": "fp32"}}
    made = cells(temperature=[0, 0.7], top_k=[10, 10])
    assert words.not_tested(made, facts, timed=False) == (
        "Not tested: any top_p, min_p, repetition_penalty, frequency_penalty or presence_penalty; another top_k than 10; "
        "another max_tokens than 64; any adapter; prompts unlike those of sums; other hardware or kernels than cpu, fp32; latency."
    )
    alone = cells(temperature=[0, 0.7], adapter=["terse", "terse"])
    assert (
        "another adapter than terse, or none; other prompts; other hardware."
        in words.not_tested(alone, {}, timed=True)
    )


# -------------------------------------------------------------------------------------------------------- table


def test_table():
    """Pick, baseline and ties with both sides of the split; Markdown leaves out what is empty."""
    run = run_of({"base": 5, "a": 30, "b": 29, "c": 4}, {"base": 5, "a": 28, "b": 30, "c": 4})
    choice = choose(run)
    found = table(choice, run.cells)
    assert list(found["role"]) == ["pick", "baseline", "tie"]
    assert list(found["cell_id"]) == ["a", "base", "b"]
    assert list(found["quality"]) == pytest.approx([30 / 40, 5 / 40, 29 / 40])
    assert list(found["confirm_quality"]) == pytest.approx([28 / 40, 5 / 40, 30 / 40])
    text = markdown(found, choice)
    assert text.splitlines()[0] == (
        "|  | settings | quality on the prompts that chose, % | against the baseline | quality held out, % | "
        "against the baseline, held out | tokens | cut off % |"
    )
    assert "| pick | temperature 0.5 | 75.0 (" in text
    kept = run_of({"base": 10, "a": 12, "b": 0})
    assert list(table(choose(kept), kept.cells)["role"]) == ["pick, baseline", "highest score"]


def test_long_table():
    """Ten rows are shown, the others counted; a limit has its column."""
    run = run_of({"base": 2, "a": 30} | {f"c{i}": 29 for i in range(12)})
    choice = choose(run, read("truncated_rate<=0"))
    text = markdown(table(choice, run.cells), choice)
    assert len(text.split("\n\n")[0].splitlines()) == 12
    assert text.endswith("\n\nAnd 4 more ties, in `decision.json`.")
    assert text.splitlines()[0].endswith("| truncated_rate <= 0 |")
    assert text.splitlines()[2].endswith("| met |")
