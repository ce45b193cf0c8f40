"""Reports claim nothing that the numbers do not say: one best cell, what was varied, luck, rows, questions asked, long names."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from tests import browser, reports
from tests.test_reporting import rows_of, text_of
from workbench import reporting as show
from workbench.deciding import decide
from workbench.engines.scripted import ScriptedClock, ScriptedEngine
from workbench.prompts import PromptSet
from workbench.reporting import limitations
from workbench.reporting.amounts import signs
from workbench.reporting.short import prose
from workbench.runs import Run

if TYPE_CHECKING:
    from pathlib import Path

LONG = "a stop text that goes on and on without a single blank ".replace(" ", "_") * 6


def right_answers(folder: Path, **changes: Any) -> Run:
    """A run in which every cell answers every prompt rightly, so that all cells tie at 100 %."""
    engine = ScriptedEngine(responses=lambda r: str(int(r.prompt_id[1:]) + 1))
    return reports.make_run(folder, engine=engine, latency=False, **changes)


def limits(run: Run) -> dict[str, str]:
    """The limits of a run by their heads."""
    return dict(limitations.listing(show.read(run)))


# ------------------------------------------------------------------------------------------------ one best


def test_equal_cells_have_one_best_everywhere(tmp_path):
    """On a tie the baseline is the best in the headline, the table, the limits and the Markdown alike."""
    run = right_answers(tmp_path, n_prompts=6)
    facts = show.read(run)
    assert facts.best == run.cell_id()
    name = facts.name(run.cell_id())
    assert facts.answer[0].startswith(f"No setting scores above the baseline: {name}, ")
    table = show.cells(facts).text
    (best,) = re.findall(r'<tr class="([^"]*best[^"]*)">', table)
    assert "baseline" in best
    assert rows_of(table)[1][0].startswith(name)
    assert facts.other != run.cell_id()


@pytest.mark.parametrize("n_prompts", [1, 5])
def test_few_prompts_say_nothing_of_luck(tmp_path, n_prompts):
    """With a handful of prompts the share of luck in the choice cannot be told, and the page says that."""
    said = limits(reports.make_run(tmp_path, n_prompts=n_prompts, latency=False))[
        "Picking the best."
    ]
    assert "luck had little part" not in said
    assert said == (
        "The best of 5 cells was picked by the score shown here. "
        f"How much of that is luck cannot be told from {n_prompts} prompt{'s' * (n_prompts > 1)}. "
        "Held-out prompts (`split: {confirm: 0.3}` in the study) would tell."
    )


def test_cells_that_tie_share_the_win(tmp_path):
    """Five cells that never differ win every resample together: each gets a fifth, none is called lucky or not."""
    run = right_answers(tmp_path, n_prompts=24)
    said = limits(run)["Picking the best."]
    assert "comes first in 20 % of the resamples" in said
    assert "luck had little part" not in said
    facts = show.read(run)
    assert limitations.resampled(facts)[1] == pytest.approx(dict.fromkeys(run.cells.cell_id, 0.2))


def test_the_share_of_wins_is_that_of_the_best_cell(tmp_path):
    """A cell far ahead comes first in nearly every resample; the shares of all cells add up to one."""
    facts = show.read(reports.make_run(tmp_path, n_prompts=40, latency=False))
    gain, wins = limitations.resampled(facts)
    assert sum(wins.values()) == pytest.approx(1)
    assert max(wins, key=lambda cell: wins[cell]) == facts.best
    assert gain >= 0


# --------------------------------------------------------------------------------------- what was varied


def test_a_setting_of_merged_cells_was_varied(tmp_path):
    """top_k 1 is greedy and ran as such: it was varied, so it is not among what nothing is known about."""
    run = reports.make_run(
        tmp_path,
        n_prompts=3,
        grid={"temperature": [0, 0.7], "top_k": [1, 50]},
        baseline=None,
        latency=False,
    )
    assert "top_k" not in limits(run)["Not varied."]
    assert "max_tokens" in limits(run)["Not varied."]


def test_common_random_numbers_lessen_luck(tmp_path):
    """The same random numbers make luck differ less between cells; they do not take it away."""
    seen = text_of(show.method(show.read(reports.make_run(tmp_path, n_prompts=2))).text)
    assert "so that luck differs less between cells" in seen
    assert "not luck's" not in seen


def test_the_front_is_described_as_it_is_computed(tmp_path):
    """A cell leaves the front if another is at least as good and as fast, and better in one of the two."""
    run = reports.make_run(tmp_path, n_prompts=4, latency={"prompts": 3, "warmup": 0, "rounds": 7})
    facts = show.read(run)
    facts.summary["on_front"] = pd.array([True] * 2 + [False] * 3, dtype="boolean")
    seen = text_of(show.cells(facts).text + show.picture(facts).text)
    assert "both better and faster" not in seen
    assert "beaten in both" not in seen
    assert seen.count("at least as good and as fast, and better in one of the two") == 3
    facts.summary["on_front"] = pd.array([False] * 4 + [True], dtype="boolean")
    alone = text_of(show.picture(facts).text)
    assert "dashed line" not in alone
    name = facts.short(facts.summary["cell_id"].iloc[-1])
    assert f"No other cell is better or faster than {name}." in alone


def test_few_or_noisy_timings_make_no_front(tmp_path):
    """Where the timing cannot tell, no cell is marked, and table and picture say why."""
    facts = show.read(reports.make_run(tmp_path, n_prompts=4))
    page = show.cells(facts).text + show.picture(facts).text
    why = "some cell has only 6 timed requests (it takes 20, of 2 prompts or more)"
    assert page.count(why) == 2
    assert '<span class="mark">front</span>' not in page
    assert "dashed line joins" not in page
    assert "alone on the machine" not in page
    many = reports.make_run(
        tmp_path / "many", n_prompts=4, latency={"prompts": 3, "warmup": 0, "rounds": 7}
    )
    many.latency["noisy"] = 1
    facts = show.read(many)
    assert "105 of 105 timed requests were noisy" in text_of(show.picture(facts).text)
    assert any("disturbed 105 of 105 timed requests" in line for line in facts.answer)


def test_prompts_are_those_that_were_scored(tmp_path):
    """Headline, legend and precision count prompts with a score where some have none."""
    rows = [
        {"id": f"p{i}", "prompt": f"{i} + 1?", **({"target": str(i + 1)} if i < 6 else {})}
        for i in range(9)
    ]
    facts = show.read(reports.make_run(tmp_path, prompts=PromptSet.from_records(rows, "some")))
    assert "6 of 9 prompts could be scored" in facts.answer[0]
    assert "of `numeric` over 6 of 9 prompts" in legend(facts)
    assert (
        "With 6 scored prompts, the interval of" in dict(limitations.listing(facts))["Precision."]
    )


def legend(facts):
    """The text under the table, code marked as in Markdown."""
    return text_of(show.cells(facts).text.replace("<code>", "`").replace("</code>", "`"))


# ---------------------------------------------------------------------------------------------------- rows


def test_failed_and_not_scorable_are_told_apart(tmp_path):
    """Answers without a target did not fail: they have no score, in the table and above it."""
    rows = [{"id": f"p{i}", "prompt": "?"} for i in range(3)]
    run = reports.make_run(tmp_path, prompts=PromptSet.from_records(rows, "bare"), latency=False)
    facts = show.read(run)
    html = show.cells(facts).text
    head, *body = rows_of(html)
    assert "failed" not in head
    assert {row[head.index("no score")] for row in body} == {"3", "6"}
    n = len(run.generations)
    said = text_of(show.answer(facts).text)
    assert f"{n} answers of {n} have no score" in said
    assert f"{n} rows of {n} failed" not in said


def test_counts_say_which_prompts_they_are_of(tmp_path):
    """With a split the title counts all answers and both parts, and the table says that it counts one of them."""
    engine = ScriptedEngine(
        responses=lambda _request: "4", fail=lambda r: "no luck" if r.prompt_id == "p1" else None
    )
    run = reports.make_run(
        tmp_path, n_prompts=20, split={"confirm": 0.4}, engine=engine, latency=False
    )
    facts = show.read(run)
    held = int(run.generations["split"].eq("confirm").sum())
    n = len(run.generations)
    assert f"{n} answers, {held} of them to held-out prompts" in text_of(show.title(facts).text)
    html = show.cells(facts).text
    assert "All but held out % and latency is of the prompts used for choosing, counts too" in (
        text_of(html)
    )
    head, *body = rows_of(html)
    rows = run.generations[run.generations["split"].eq("select")]
    broken = rows["finish_reason"].eq("error")
    assert sum(int(row[head.index("failed")]) for row in body) == broken.sum() > 0
    assert (
        f"{n} (held-out prompts included) in 5 cells"
        in dict(limitations.listing(facts))["Failed rows."]
    )


# ----------------------------------------------------------------------------------- the question as asked


def test_answers_stand_beside_the_question_that_was_asked(tmp_path):
    """Where templates word the prompts, the page shows the wording of each cell, and both where they differ."""
    run = reports.make_run(
        tmp_path,
        n_prompts=6,
        grid={"temperature": [0]},
        baseline=None,
        templates={"plain": "{{ input }}", "polite": "Please tell me: {{ input }}"},
        latency=False,
    )
    seen = text_of(show.examples(show.read(run)).text)
    assert "Please tell me: What is" in seen
    assert "asked of the baseline:What is" in seen


def test_a_cell_alone_shows_its_own_wording(tmp_path):
    """With one cell the question is the one its template made."""
    run = reports.make_run(
        tmp_path,
        n_prompts=3,
        grid={"temperature": [0]},
        baseline=None,
        templates={"polite": "Please tell me: {{ input }}"},
        latency=False,
    )
    assert "Please tell me: What is" in text_of(show.examples(show.read(run)).text)


# ---------------------------------------------------------------------------------------------- held out


def test_the_comparison_is_over_the_held_out_prompts(tmp_path):
    """The cell was picked on the other prompts, so its flipped prompts and examples are those held out, and it is said."""
    run = reports.make_run(tmp_path, n_prompts=30, split={"confirm": 0.4}, latency=False)
    facts = show.read(run)
    assert facts.comparison is not None
    assert facts.comparison.split == "confirm"
    n = run.generations.loc[run.generations["split"].eq("confirm"), "prompt_id"].nunique()
    assert f"on the {n} held-out prompts scored in both" in text_of(show.prompts(facts).text)


# -------------------------------------------------------------------------------------------- long names


def test_long_names_are_cut_in_sentences_only(tmp_path):
    """A name of 300 characters is whole in the table, cut in sentences, and cut names stay different."""
    run = reports.make_run(
        tmp_path,
        n_prompts=24,
        grid={"temperature": [0, 0.7], "stop": [[f"{LONG}{k}{LONG}"] for k in "ab"]},
        baseline=None,
        latency=False,
    )
    facts = show.read(run)
    shown = [facts.short(cell) for cell in run.cells.cell_id]
    assert max(map(len, shown)) <= 90
    assert len(set(shown)) == len(shown)
    assert LONG in text_of(show.cells(facts).text)
    sentences = show.answer(facts).text + show.limits(facts).text + show.prompts(facts).text
    assert LONG not in sentences


def test_long_names_stay_on_the_page(tmp_path):
    """On a desk and on a telephone, no text sticks out of the page."""
    html, _ = reports.rendered(
        reports.make_run(
            tmp_path,
            n_prompts=4,
            grid={"temperature": [0], "stop": [[LONG], ["b" * 300]]},
            baseline=None,
            latency=False,
        )
    )
    out = (
        "return [...document.querySelectorAll('p, li, td.name, dd, .name')].filter("
        "e => e.offsetParent && e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.slice(0, 60))"
    )
    file = tmp_path / "page.html"
    file.write_text(html.replace("<p>", f"<p>{LONG * 2} ", 1), encoding="utf-8")
    with browser.chromium(900, 900) as driver:
        browser.show(driver, file)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 900
        assert driver.execute_script(out) == []


# ------------------------------------------------------------------------------------------------ adapters


def test_adapters_are_compared_with_the_baselines(tmp_path):
    """A run with adapters says how each differs from the base model, draws it, and keeps what they are in the record."""
    engine = ScriptedEngine(
        adapters=("terse",),
        responses=lambda r: str(int(r.prompt_id[1:]) + (1 if r.adapter == "terse" else 2)),
    )
    run = reports.make_run(tmp_path, engine=engine, adapters=["base", "terse"], latency=False)
    said = show.settings(show.read(run)).text
    assert "terse against base, averaged over 5 settings, on 24 prompts: 100.0 %" in text_of(said)
    assert "Difference of every adapter from the baseline" in said
    assert f"terse: sha256 {engine.info.adapters['terse']}" in text_of(
        show.record(show.read(run)).text
    )


def test_adapters_stand_in_a_table_before_the_prose(tmp_path):
    """One row an adapter with a few words, then the picture; the paragraphs are behind a click."""
    engine = ScriptedEngine(
        adapters=("terse", "none"),
        responses=lambda r: str(int(r.prompt_id[1:]) + (1 if r.adapter == "terse" else 2)),
        clock=ScriptedClock(40.0, 20.0),
    )
    run = reports.make_run(tmp_path, engine=engine, adapters=["base", "terse", "none"])
    html = show.settings(show.read(run)).text
    before, folded = html.split('<details class="fold"><summary>Each adapter in words', 1)
    assert "terse against base, averaged" not in text_of(before)
    assert "terse against base, averaged" in text_of(folded)
    table = before[before.index("<table") : before.index("</table>")]
    rows = rows_of(table)[1:]
    assert [row[:2] for row in rows] == [["base", "0.0"], ["terse", "100.0"], ["none", "0.0"]]
    assert [row[-3][:4] for row in rows] == ["40.0"] * 3
    assert "better beyond chance" in text_of(table)
    assert "all answers are identical" in text_of(table)


# ------------------------------------------------------------------------------------------------ decision, race


def test_the_decision_is_that_of_decide(tmp_path):
    """Page and Markdown say what `workbench decide` does, with the seed of the report."""
    run = reports.make_run(tmp_path)
    said = decide(run, rng=3).text.splitlines()
    html, short = reports.rendered(run, seed=3)
    part = html[html.index('id="decision"') : html.index('id="all-cells"')]
    for line in said:
        assert signs(line).replace("`", "") in text_of(part)
    assert prose(signs(said[0])) in short.split("## Decision", 1)[1]


def test_without_two_cells_there_is_nothing_to_decide(tmp_path):
    """The section says so, and the Markdown has none."""
    run = reports.make_run(tmp_path, grid={"temperature": [0.7]}, baseline=None)
    html, short = reports.rendered(run)
    assert "There is nothing to decide: it takes two cells and their scores." in text_of(html)
    assert "## Decision" not in short


def test_cells_that_left_a_race_are_marked(tmp_path):
    """In the table, the text under it, the Markdown, and the order: below the cells that answered all."""
    run = reports.make_run(tmp_path, latency=False)
    cells = [c for c in run.cells["cell_id"] if c != run.cell_id()]
    path = run.path / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["race"] = {
        "dropped": {cells[0]: "loses"},
        "n_prompts": dict.fromkeys(run.cells["cell_id"], 24) | {cells[0]: 11},
    }
    path.write_text(json.dumps(manifest), encoding="utf-8")
    facts = show.read(Run(run.path))
    assert facts.ranked["cell_id"].iloc[-1] == cells[0]
    html = show.cells(facts).text
    assert html.count(">left after 11<") == 1
    assert "Left after: the cell left the race after so many prompts" in text_of(html)
    assert "(left after 11 prompts)" in show.markdown(facts).text
    assert "left after" not in show.cells(show.read(reports.make_run(tmp_path / "plain"))).text
