"""Deciding after a race: only held-out prompts are evidence, and what ties is sought among all cells still in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from races import FINALISTS, chances, raced_run
from test_deciding_choose import times_of

from workbench.deciding import section, words
from workbench.deciding.choose import Choice, choose
from workbench.deciding.table import table
from workbench.settling import TOO_FEW

if TYPE_CHECKING:
    from races import Raced


def means_of(*means: float) -> np.ndarray:
    """Mean scores of cells, the baseline's first."""
    return np.array(means)


def raced(
    means: np.ndarray, n: int = 60, held_out: int = 20, seed: int = 0, **options: Any
) -> Raced:
    """A race of such cells."""
    return raced_run(chances(np.random.default_rng(seed), means, n), held_out, **options)


def said(run: Any, **options: Any) -> str:
    """The text about a run."""
    return "\n".join(words.lines(choose(run, **options), run.cells, ""))


# ------------------------------------------------------------------------------------------- what is evidence


def of_equal_cells(n_studies: int, held_out: int, seed: int) -> list[Choice]:
    """Choices after races of 48 equal cells on 30 prompts."""
    found = []
    for i in range(n_studies):
        scores = chances(np.random.default_rng([seed, i]), np.full(48, 0.5), 30)
        found.append(choose(raced_run(scores, held_out, asked=21).run, rng=i))
    return found


def unbiased(found: list[Choice]) -> bool:
    """Whether the gains that were given are 0 on average, up to two standard errors."""
    gains = np.array([c.confirmed.diff if c.confirmed else 0.0 for c in found])
    return bool(abs(gains.mean()) <= 2 * gains.std(ddof=1) / np.sqrt(len(gains)))


def test_luck_of_a_race_is_no_gain():
    """Of 48 equal cells on 30 prompts the best looks many points better; the gain that is given is 0 on average."""
    found = of_equal_cells(24, held_out=9, seed=1)
    assert all(c.bag is None and c.held_out for c in found)
    assert np.mean([c.chosen.diff if c.chosen else 0.0 for c in found]) > 0.08
    assert unbiased(found)


@pytest.mark.long
@pytest.mark.parametrize("held_out", [3, 9])
def test_the_gain_is_unbiased(held_out):
    """The same in 400 studies, and the baseline is replaced in at most 5 of 100."""
    found = of_equal_cells(400, held_out, seed=2)
    assert unbiased(found)
    assert np.mean([c.pick != c.baseline for c in found]) <= 0.05


def test_few_held_out_prompts_are_used():
    """Three held-out prompts are the only evidence all the same; nothing is claimed of them."""
    found = choose(raced(means_of(0.2, 0.9, 0.9), held_out=3).run)
    assert (found.held_out, found.n_prompts[1], found.bag) == (True, 3, None)
    assert found.confirmed is not None
    assert found.confirmed.n == 3
    assert found.pick == found.baseline
    assert found.needed == TOO_FEW


def test_a_small_share_held_out_is_kept():
    """Cells that were no finalists answered nearly all prompts; that does not make the held-out ones count for nothing."""
    run = raced(np.full(12, 0.5), n=100, held_out=8).run
    asked = run.generations.groupby("cell_id")["prompt_id"].nunique()
    assert (asked == 92).sum() >= 4  # 92 % of the prompts: these cells would pass for whole
    found = choose(run)
    assert found.n_prompts == (92, 8)
    assert (found.n_left_out, len(found.candidates)) == (0, FINALISTS + 1)


def test_no_held_out_prompt_answered():
    """A race that was broken off before its end gives no figure, and says why."""
    run = raced(means_of(0.2, 0.9, 0.9)).run
    rows = run.generations[run.generations["split"].eq("select")]
    manifest = {k: v for k, v in run.manifest.items() if k != "race"}
    broken = replace(run, generations=rows, manifest=manifest)
    found = choose(broken)
    assert (found.bag, found.confirmed, found.pick) == (None, None, found.baseline)
    text = said(broken)
    assert text.startswith("Keep the baseline (temperature 0): nothing is shown to beat it.\n")
    assert (
        "No finalist of the race answered prompts held out; what of that is luck cannot be told "
        "from prompts that decided who is left." in text
    )


def test_no_p_of_the_prompts_that_raced():
    """Neither p nor interval is given of prompts that decided who is left, in text or table; held-out ones have both."""
    run = raced(means_of(0.2, 0.9, 0.3), n=120, held_out=40).run
    choice = choose(run)
    assert (choice.verdict, choice.pick) == ("confirmed", "c1")
    assert choice.chosen is not None
    assert choice.confirmed is not None
    assert np.isnan([choice.chosen.lo, choice.chosen.hi, choice.chosen.p]).all()
    assert choice.confirmed.better
    line = said(run).splitlines()[1]
    assert line.startswith("On the ")
    assert " others, that picked it, +" in line
    assert "[" not in line
    assert line.endswith(
        "On those held out, the only ones that count after a race, it is beyond chance (p < 0.001)."
    )
    shown = table(choice, run.cells)
    assert shown[["diff_lo", "diff_hi"]].isna().all(axis=None)
    assert shown.loc[shown["cell_id"].eq("c1"), "confirm_diff_lo"].notna().all()


def test_the_faster_of_two_that_are_confirmed():
    """A faster cell that ties with the best is taken if the held-out prompts show it better than the baseline, too."""
    run = raced(means_of(0.2, 0.9, 0.88), n=120, held_out=40).run
    top = choose(run).pick
    other = {"c1": "c2", "c2": "c1"}[str(top)]
    quick = replace(run, latency=times_of({"c0": 80, str(top): 100, other: 60}))
    found = choose(quick)
    assert (found.top, found.pick, found.verdict) == (top, other, "confirmed")
    assert found.confirmed is not None
    assert found.confirmed.better
    held = run.scores["prompt_id"].isin(run.generations.query("split == 'confirm'")["prompt_id"])
    wrong = run.scores["value"].mask(held & run.scores["cell_id"].eq(other), 0.0)
    assert choose(replace(quick, scores=run.scores.assign(value=wrong))).pick == top


# ------------------------------------------------------------------------------------------------------- ties


def ties_of(n_studies: int, spread: float, seed: int) -> tuple[float, float]:
    """Share of studies whose best of 24 cells is pick, highest score or a tie, and that in which it was a finalist."""
    named, final = [], []
    for i in range(n_studies):
        rng = np.random.default_rng([seed, i])
        means = np.clip(rng.normal(0.5, spread, 24), 0.02, 0.98)
        found = choose(raced_run(chances(rng, means, 80), 24).run, rng=i)
        best = f"c{np.argmax(means)}"
        named.append(best in {found.pick, found.top, *found.ties})
        final.append(best in found.candidates)
    return float(np.mean(named)), float(np.mean(final))


def test_ties_are_sought_among_all_that_are_left():
    """The truly best cell is often no finalist, and is named as a tie all the same."""
    named, final = ties_of(24, 0.03, seed=1)
    assert final < 0.8
    assert named > 0.9


@pytest.mark.long
@pytest.mark.parametrize("spread", [0.03, 0.06])
def test_the_best_cell_is_named(spread):
    """In at least 95 of 100 studies, up to two standard errors."""
    named, _ = ties_of(400, spread, seed=2)
    assert named >= 0.95 - 2 * np.sqrt(0.05 * 0.95 / 400)


def test_dropped_is_not_left_over():
    """Cells that the race dropped are counted as such; cells still in it that were no finalists are ties, and told apart."""
    run, race = raced(means_of(0.5, *[0.5] * 10, *[0.02] * 4), n=140, held_out=40)
    found = choose(run)
    assert len(race.dropped) >= 3
    assert found.n_dropped == len(race.dropped)
    outside = [c for c in found.ties if c not in found.candidates]
    assert set(found.ties) <= set(race.alive)
    assert outside
    text = said(run)
    assert (
        f"({len(outside)} of them were no finalists, and so answered no held-out prompts)" in text
    )
    assert f"{len(race.dropped)} cells were dropped by the race and were not considered" in text


def test_a_search_asks_cells_different_numbers_of_prompts():
    """A cell that was asked few prompts is judged by those, among all that were asked them."""
    run = raced(means_of(0.5, 0.9, 0.9, 0.9), n=80, held_out=40).run
    note = run.manifest["race"] | {"finalists": ["c0", "c1", "c2"]}
    rows = run.generations
    few = {"p0", "p1", "p2", "p3", "p4", "p5"}
    kept = rows[rows["cell_id"].ne("c3") | rows["prompt_id"].isin(few)]
    found = choose(replace(run, generations=kept, manifest=run.manifest | {"race": note}))
    assert "c3" in {*found.ties}
    assert found.n_prompts == (40, 40)


# ----------------------------------------------------------------------------------------------- what is said


def test_only_finalists_are_compared():
    """That no other cell scores higher is said of the finalists, the only ones that could be picked."""
    run = raced(means_of(0.75, *[0.5] * 8), n=60, held_out=30).run
    choice = choose(run)
    assert (choice.verdict, len(choice.candidates)) == ("top", 6)
    first = said(run).splitlines()[0]
    assert first == (
        f"Keep the baseline (temperature 0): no other of {len(choice.candidates)} finalists scores higher on the "
        f"{choice.n_prompts[0]} prompts used for choosing."
    )


def test_all_others_lost():
    """A baseline that the race left alone is kept for that."""
    run = raced(means_of(0.95, *[0.3] * 8), n=100, held_out=30).run
    assert said(run).splitlines()[0] == (
        "Keep the baseline (temperature 0): all 8 others surely lost the race, or broke a limit."
    )


def test_within_chance():
    """A best cell that the held-out prompts do not confirm is not called beaten by nothing."""
    run = raced(np.full(6, 0.5), n=60, held_out=20, seed=3).run
    assert choose(run).verdict == "tie"
    lines = said(run).splitlines()
    assert lines[0] == (
        "Keep the baseline (temperature 0): the best of the race does not beat it beyond chance on the 20 prompts held out."
    )
    assert lines[1].startswith("Highest score of 6 finalists: temperature ")
    assert "it is within chance (p = " in lines[1]


def test_a_race_for_something_else():
    """Deciding by another scorer than the one that the race went by is said."""
    run = raced(means_of(0.2, 0.9), n=60).run
    other = replace(run, manifest=run.manifest | {"tuning": {"objective": "length, -e2el_ms_p50"}})
    assert (
        "The run was tuned for length: what it dropped may be good by numeric."
        in choose(other, objective="numeric").notes
    )
    assert choose(run).notes == ()


def test_the_section_of_a_race():
    """A report says what the decision says, by the limits that the race was asked to keep."""
    run = raced(means_of(0.2, 0.9), n=80, held_out=30).run
    asked = {"objective": "numeric", "subject_to": ["truncated_rate<=0.5"]}
    found = section(replace(run, manifest=run.manifest | {"tuning": asked}))
    assert found is not None
    assert found.title == "Use temperature 0.5"
    assert found.sentences[0].startswith("Use temperature 0.5: +")
    assert any(
        line.startswith("Limit truncated_rate <= 0.5: met by 2 cells") for line in found.sentences
    )
    assert found.columns[0] == ""
    assert [row[0] for row in found.rows] == ["pick", "baseline"]
    assert {len(row) for row in found.rows} == {len(found.columns)}
