"""Looking through a run without widgets: cells, prompts, pages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairedruns import paired_run, timed

from workbench.comparing.pairs import CHANGES
from workbench.exploring.browse import ALL, ORDERS, PAGE, SORTS, Browser, Query

N = 45
SCORES = {
    "a": {f"p{i}": [int(i % 3 == 0)] for i in range(N)},
    "b": {f"p{i}": [int(i % 2 == 0), int(i % 5 == 0)] for i in range(N)},
    "c": {f"p{i}": [None if i == 7 else 1] for i in range(N)},
}
TEXTS = {("b", f"p{i}", 0): f"Answer {i}: {'x' * i}" for i in range(N)} | {
    ("c", "p3", 0): "A <b>Needle</b> (n.b. [0-9]+)"
}
GROUPS = {f"p{i}": f"g{i % 4}" for i in range(0, N, 2)}


@pytest.fixture(scope="module")
def browser() -> Browser:
    """A run of three cells, timed in two."""
    latency = timed({c: {(f"p{p}", r): 50 + p for p in range(8) for r in range(3)} for c in "ab"})
    run = paired_run(
        SCORES,
        texts=TEXTS,
        groups=GROUPS,
        splits={f"p{i}": "confirm" for i in range(30, N)},
        latency=latency,
    )
    return Browser(run)


# Cells


def test_the_overview_is_the_summary(browser):
    """One row per cell with quality, difference and latency, for each baseline and split; made once."""
    table = browser.overview("a")
    assert table["label"].tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(table["quality"], [15 / 45, (23 + 9) / 90, 1])
    assert table["e2el_ms_p50"].notna().tolist() == [True, True, False]
    assert browser.overview("a") is table
    assert browser.overview("b")["diff_vs_baseline"].iloc[0] == pytest.approx(15 / 45 - 32 / 90)
    assert browser.overview("a", "confirm")["n_prompts"].tolist() == [15] * 3


def test_cells_are_listed_by_setting_and_sorted(browser):
    """Settings narrow the list; every way of sorting puts what is missing last."""
    table = browser.overview("a")
    assert browser.varied() == {"temperature": [0.0, 0.5, 1.0]}
    assert browser.listed(table, {"temperature": 0.5})["cell_id"].tolist() == ["b"]
    assert browser.listed(table, {"top_k": None})["cell_id"].tolist() == ["c", "b", "a"]
    assert browser.listed(table, {"top_k": 5}).empty
    assert browser.listed(table, {}, "latency")["cell_id"].tolist() == ["a", "b", "c"]
    for sort in SORTS:
        assert set(browser.listed(table, {}, sort)["cell_id"]) == set("abc")


def test_the_first_cell_is_the_best_other_than_the_baseline(browser):
    """There is always something to begin with."""
    assert browser.first("a") == "c"
    assert browser.first("c") == "b"
    assert Browser(paired_run({"a": {"p0": [1]}})).first("a") == "a"


def test_settings_that_are_off_come_first():
    """A setting that some cells have not is varied, and off is one of its values."""
    run = paired_run({"a": {"p0": [1]}, "b": {"p0": [1]}, "c": {"p0": [1]}})
    run.cells["top_k"] = [50, np.nan, 10]
    assert Browser(run).varied()["top_k"] == [None, 10, 50]


# Prompts


QUERIES = st.builds(
    Query,
    cell=st.sampled_from("abc"),
    baseline=st.sampled_from("abc"),
    split=st.sampled_from([None, "select", "confirm"]),
    repeat=st.sampled_from([None, 0, 1]),
    change=st.sampled_from([ALL, *CHANGES]),
    search=st.sampled_from(["", "needle", "p3", "QUESTION P1", "[0-9]", "nan", "zzz", "g2", " "]),
    group=st.sampled_from([None, "g0", "g3", "none such"]),
    order=st.sampled_from(ORDERS),
)


@settings(max_examples=40, deadline=None)
@given(query=QUERIES)
def test_a_query_keeps_what_it_asks_for(browser, query):
    """Rows are those of the table that pass each condition, counts add up, and the pages together are all rows."""
    everything = browser.all_rows(query)
    wanted = query.search.strip().lower()

    def passes(row: dict) -> bool:
        texts = [
            row[c] for c in ("prompt_id", "question", "target", "baseline_text", "text", "group")
        ]
        said = any(wanted in t.lower() for t in texts if isinstance(t, str))
        return said and query.group in (None, row["group"])

    expected = [r["prompt_id"] for r in everything.to_dict("records") if passes(r)]
    rows, counts = browser.rows(query), browser.counts(query)
    assert counts[ALL] == len(expected) == sum(counts[k] for k in CHANGES)
    assert len(rows) == counts[query.change]
    if query.change == ALL:
        assert sorted(rows["prompt_id"]) == sorted(expected)
    else:
        assert set(rows["change"]) <= {query.change}
    _, shown, n_pages = browser.page(query)
    assert n_pages == max(1, -(-len(rows) // PAGE))
    assert shown.page == 0


def test_orders(browser):
    """Rows come by prompt set, by size of the change, or by length of the answer."""
    query = Query("b", "a")
    assert browser.rows(query)["prompt_id"].tolist() == [f"p{i}" for i in range(N)]
    sizes = browser.rows(Query("b", "a", order="largest change"))["diff"].abs()
    assert sizes.is_monotonic_decreasing
    lengths = browser.rows(Query("b", "a", order="longest answer"))["text"].str.len()
    assert lengths.is_monotonic_decreasing
    assert browser.rows(Query("c", "a", order="largest change"))["diff"].isna().iloc[-1]


def test_pages(browser):
    """A page shows its rows and no others; a page that is not there becomes the nearest one."""
    for page, first, n in ((0, "p0", 20), (2, "p40", 5), (9, "p40", 5), (-3, "p0", 20)):
        text, query, n_pages = browser.page(Query("b", "a", page=page))
        assert text.count('class="wb-id"') == n
        assert f">{first}<" in text
        assert (query.page, n_pages) == (min(max(page, 0), 2), 3)


def test_a_cell_beside_itself_is_shown_alone(browser):
    """The baseline's own answers come without a second column and without a comparison."""
    text, _, _ = browser.page(Query("a", "a"))
    assert text.count('<th scope="col">') == 2
    assert browser.comparison(Query("a", "a")) is None


def test_comparisons_are_kept(browser):
    """The same two cells are compared once, and reading their answers needs no other table."""
    fresh = Browser(browser.run)
    found = fresh.comparison(Query("b", "a", "select", search="x", page=1))
    assert found is not None
    assert found is fresh.comparison(Query("b", "a", "select"))
    assert fresh.all_rows(Query("b", "a", "select")) is found.changes


def test_only_so_much_is_kept():
    """Going through many cells does not keep all their tables."""
    names = [f"c{i}" for i in range(40)]
    fresh = Browser(paired_run({name: {"p0": [1]} for name in names}))
    for name in names:
        fresh.all_rows(Query(name, "c0"))
    assert len(fresh._pairs) <= 16
