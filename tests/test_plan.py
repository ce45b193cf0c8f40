"""From cells to rows: collapse, labels, seeds, splits, order, resume, cost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import grids, params

from workbench.params import SEED_MAX, SamplingParams
from workbench.plan import Cell, collapse, duration, request_seed, split_of
from workbench.prompts import Prompt, PromptSet
from workbench.study import Study, entries

SET = PromptSet.from_records([{"id": f"q{i}", "prompt": f"{i}?"} for i in range(4)])


def _plan(**values):
    return Study(**{"prompts": SET, "seed": 7} | values).plan()


def test_describe_says_it_all():
    """A dry run shows cells, baseline, rows, what was merged into what, and the cost."""
    plan = _plan(
        name="dry",
        adapters=["base", {"terse": "org/terse"}],
        grid={"temperature": [0, 0.7], "top_k": [10, 50]},
        fixed={"max_tokens": 48},
        repeats=3,
    )
    ids = [cell.cell_id for cell in plan.cells]
    assert plan.describe(tokens_per_s=100).splitlines() == [
        "study dry: model demo, adapters base, terse",
        "4 prompts from inline (4 to select, 0 to confirm)",
        "6 cells, 3 repeats: 56 rows, 40 saved (same answer as another row)",
        f"  {ids[0]}  greedy [baseline] (once: every repeat is the same)",
        f"  {ids[1]}  T=0.7 k=10",
        f"  {ids[2]}  T=0.7 k=50",
        f"  {ids[3]}  greedy terse (once: every repeat is the same)",
        f"  {ids[4]}  T=0.7 k=10 terse",
        f"  {ids[5]}  T=0.7 k=50 terse",
        "2 cells merged into an equal one:",
        "  greedy k=50  ->  greedy",
        "  greedy k=50 terse  ->  greedy terse",
        "at most 2,688 tokens to generate: 27 s at 100 tokens/s",
    ]
    assert plan.estimate() == "at most 2,688 tokens to generate"


def test_cell_ids_are_lasting():
    """A cell's id is a hash of what it does; these values are in users' run directories."""
    assert Cell(SamplingParams(temperature=0)).cell_id == "6784b8f929"
    assert Cell(SamplingParams(temperature=0, top_k=9)).cell_id == "6784b8f929"
    assert Cell(SamplingParams(temperature=0), adapter="terse").cell_id == "3aedf63816"
    assert request_seed(7, "q1", 0) == 5716284790
    assert split_of(Prompt("q1", ()), 0.3) == "select"


@settings(max_examples=60)
@given(grids(), st.integers(1, 3))
def test_collapse_loses_nothing(grid, repeats):
    """Every written cell runs as exactly one cell, which does the same; labels and ids are unique."""
    plan = _plan(grid=grid, repeats=repeats)
    written = [SamplingParams.from_dict(entry) for _, entry in entries(grid)]
    assert len(plan.cells) + len(plan.collapsed) == len(written)
    assert {c.params for c in plan.cells} == {p.canonical() for p in written}
    assert len({c.cell_id for c in plan.cells}) == len(plan.cells)
    assert len({c.label for c in plan.cells}) == len(plan.cells)
    for dropped, kept in plan.collapsed:
        assert dropped.params.canonical() == kept.params
        assert kept in plan.cells
    assert plan.n_rows + plan.saved_rows == len(SET) * len(written) * repeats


@settings(max_examples=60)
@given(st.lists(params(), min_size=1, max_size=6))
def test_labels_are_unique(written):
    """Two cells that differ have different labels, whatever they differ in."""
    cells, _ = collapse(Cell(p) for p in written)
    assert len({c.label for c in cells}) == len(cells)


@settings(max_examples=40)
@given(grids(), st.integers(1, 3), st.integers(0, SEED_MAX))
def test_rows_are_a_bijection_with_common_seeds(grid, repeats, seed):
    """Each key occurs once, equals request(key), and all that draw for (prompt, repeat) draw with one seed."""
    plan = _plan(grid=grid, repeats=repeats, seed=seed, adapters=["base", "org/a"])
    made = list(plan)
    keys = [request.key for request in made]
    assert keys == list(plan.keys())
    assert len(set(keys)) == len(keys) == len(plan) == plan.n_rows
    assert made[-1] == plan.request(*keys[-1])
    for request in made:
        common = request_seed(seed, request.prompt_id, request.repeat)
        assert request.params.seed == (None if request.params.greedy else common)
        assert 1 <= common <= SEED_MAX


@settings(max_examples=30)
@given(st.data())
def test_resume_runs_what_is_missing(data):
    """Skipping any done rows leaves exactly the others, in the same order."""
    plan = _plan(grid={"temperature": [0, 0.5, 1]}, repeats=2)
    keys = list(plan.keys())
    done = set(data.draw(st.lists(st.sampled_from(keys))))
    assert [r.key for r in plan.requests(skip=done)] == [k for k in keys if k not in done]
    assert [r.key for r in plan.requests(skip=list(done))] == [k for k in keys if k not in done]


def test_rows_of_a_prompt_are_together():
    """Rows come prompt by prompt and, inside, adapter by adapter, so a prompt is read once for each."""
    plan = _plan(grid={"temperature": [0.5, 1]}, repeats=2, adapters=["base", "org/a"])
    order = [(r.prompt_id, r.adapter) for r in plan]
    blocks = [pair for n, pair in enumerate(order) if n == 0 or order[n - 1] != pair]
    assert len(blocks) == len(set(blocks)) == 4 * 2


def test_repeats_differ_and_cells_agree():
    """Repeats draw with different seeds, the same repeat of all cells and adapters with one."""
    plan = _plan(grid={"temperature": [0.5, 1]}, repeats=3, adapters=["base", "org/a"])
    seeds = {}
    for r in plan:
        seeds.setdefault((r.prompt_id, r.repeat), set()).add(r.params.seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len(set.union(*seeds.values())) == len(seeds) == 4 * 3


def test_a_seed_of_the_study_is_used_as_it_is():
    """A cell with its own seed draws with it, and once: its repeats would be identical."""
    plan = _plan(grid={"seed": [3, 4]}, repeats=2)
    assert [(r.repeat, r.params.seed) for r in plan][:2] == [(0, 3), (0, 4)]
    assert (plan.n_rows, plan.saved_rows) == (8, 8)


def test_request_of_no_row():
    """A key that the plan does not have is refused by name."""
    plan = _plan(grid={"temperature": [0]}, repeats=2)
    cell = plan.cells[0].cell_id
    for key in (("x", "q0", 0), (cell, "zz", 0), (cell, "q0", 1), (cell, "q0", -1)):
        with pytest.raises(KeyError) as caught:
            plan.request(*key)
        assert caught.value.args == (f"no row (cell {key[0]}, prompt {key[1]!r}, repeat {key[2]})",)


@settings(max_examples=60)
@given(st.text(min_size=1), st.text(min_size=1), st.floats(0, 0.99), st.floats(0, 0.99))
def test_split_is_stable_monotone_and_keeps_groups(a, group, low, high):
    """A prompt confirmed at a small share is confirmed at a larger one; a group has one side."""
    low, high = sorted((low, high))
    one, other = Prompt(a, (), group=group), Prompt(a + "x", (), group=group)
    assert split_of(one, high) == split_of(other, high)
    assert split_of(one, 0) == "select"
    if split_of(Prompt(a, ()), low) == "confirm":
        assert split_of(Prompt(a, ()), high) == "confirm"


def test_split_share_is_about_right():
    """Of 4000 prompts 30 % are held out, within five standard deviations (odds below 1e-6)."""
    n = sum(split_of(Prompt(f"p{i}", ()), 0.3) == "confirm" for i in range(4000))
    assert abs(n - 1200) < 5 * (4000 * 0.3 * 0.7) ** 0.5


def test_content_hash_sees_rows():
    """The hash changes with prompts, settings and seed, and not with the order of the prompt file."""
    plan = _plan(grid={"temperature": [0, 1]})
    study = plan.study
    turned = PromptSet("x", tuple(reversed(SET.prompts)))
    assert study.plan(turned).content_hash == plan.content_hash
    others = [
        study.plan(SET.subset(2, seed=0)),
        study.replace(seed=8).plan(),
        study.replace(grid={"temperature": [0, 0.9]}).plan(),
    ]
    assert len({plan.content_hash, *(p.content_hash for p in others)}) == 4


def test_a_million_rows_are_counted_not_held():
    """A plan of a million rows knows its length at once and makes only the requests that are missing."""
    many = PromptSet.from_records([{"id": str(i), "prompt": "x"} for i in range(20_000)])
    plan = Study(prompts=many, grid={"temperature": [k / 50 for k in range(1, 51)]}).plan()
    assert len(plan) == 1_000_000
    first = next(iter(plan.requests()))
    assert first.key == next(plan.keys())

    class AllButLast(set):
        """As a full set of done keys would answer, without the memory."""

        def __contains__(self, key):
            return key[1] != "19999"

    assert sum(1 for _ in plan.requests(skip=AllButLast())) == 50


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1.0 min"), (5400, "1.5 h"), (172_800, "2.0 days")],
)
def test_duration(seconds, text):
    """Lengths of time are given in the unit people would use."""
    assert duration(seconds) == text
