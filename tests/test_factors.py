"""Settings and levels: what a table of cells varies, what greedy cells stand for, and averages over the rest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fakeruns import make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.factors import as_level, average, design, level_text

NAMES = ("temperature", "top_k", "repetition_penalty")


def cells_of(*rows: dict) -> pd.DataFrame:
    """A table of cells c0, c1, ..."""
    return pd.DataFrame(
        [{"cell_id": f"c{i}", "adapter": "base", **row} for i, row in enumerate(rows)]
    )


def found(about, **where) -> set[str]:
    """The cells that ran a combination."""
    return set(about.only(where).table["cell_id"])


def test_levels_are_in_order():
    """Numbers ascend, "off" stands where its neutral value would, the base adapter comes first."""
    rows = [
        {
            "temperature": 1.0,
            "top_k": None,
            "top_p": None,
            "repetition_penalty": 1.2,
            "adapter": "sums",
        },
        {
            "temperature": 0.3,
            "top_k": 50,
            "top_p": 0.9,
            "repetition_penalty": None,
            "adapter": "base",
        },
        {
            "temperature": 0.7,
            "top_k": 5,
            "top_p": 0.5,
            "repetition_penalty": 0.9,
            "adapter": "base",
        },
    ]
    about = design(cells_of(*rows))
    assert about.levels["temperature"] == (0.3, 0.7, 1.0)
    assert about.levels["top_k"] == (5.0, 50.0, None)
    assert about.levels["top_p"] == (0.5, 0.9, None)
    assert about.levels["repetition_penalty"] == (0.9, None, 1.2)
    assert about.levels["adapter"] == ("base", "sums")


def test_only_what_varies_varies():
    """A setting with one value in all cells is no factor."""
    about = design(cells_of({"temperature": 0.3, "top_k": 5}, {"temperature": 0.7, "top_k": 5}))
    assert about.varied == ("temperature",)


def test_a_greedy_cell_stands_for_every_top_k():
    """At temperature 0 a missing top_k is any top_k; elsewhere it is off."""
    about = design(
        cells_of(
            {"temperature": 0, "top_k": None},
            {"temperature": 0.7, "top_k": 5},
            {"temperature": 0.7, "top_k": 50},
        )
    )
    assert about.levels["top_k"] == (5.0, 50.0)
    assert about.shared == ("top_k",)
    assert found(about, temperature=0, top_k=5) == found(about, temperature=0, top_k=50) == {"c0"}
    off = design(cells_of({"temperature": 0.3, "top_k": None}, {"temperature": 0.3, "top_k": 5}))
    assert off.levels["top_k"] == (5.0, None)
    assert off.shared == ()


def test_merged_cells_keep_their_levels():
    """A level that only merged cells show (top_k 1 is greedy at any temperature) is there if the plan tells of them."""
    run = make_run({"temperature": [0, 0.7], "top_k": [1, 50]}, 2, 1)
    assert design(run.cells).levels["top_k"] == (50.0,)
    about = design(run.cells, run.plan.collapsed)
    assert about.levels["top_k"] == (1.0, 50.0)
    greedy = run.cells.loc[run.cells["temperature"] == 0, "cell_id"].item()
    assert found(about, temperature=0.7, top_k=1) == {greedy}
    assert len(about.table) == 4


@pytest.mark.parametrize(
    ("setting", "value", "level"),
    [
        ("top_p", 1.0, None),
        ("top_p", 1.4, None),
        ("repetition_penalty", 1, None),
        ("frequency_penalty", 0, None),
        ("frequency_penalty", 1, 1.0),
        ("min_p", 0.0, None),
        ("top_k", np.nan, None),
        ("top_k", 50, 50.0),
        ("temperature", 0, 0.0),
        ("adapter", "sums", "sums"),
        ("template", None, None),
        ("stop", ["a", "b"], '["a", "b"]'),
        ("stop", None, None),
    ],
)
def test_neutral_values_are_off(setting, value, level):
    """What does nothing is one level, however it is written."""
    assert as_level(setting, value) == level


def test_levels_have_names_for_people():
    """Short names where asked for, "off" and "none" for what is missing."""
    assert level_text("temperature", 0.0) == "0 (greedy)"
    assert level_text("temperature", 0.30000000000000004) == "0.3"
    assert level_text("repetition_penalty", 1.1, name=True) == "rep = 1.1"
    assert level_text("top_k", None, name=True) == "k off"
    assert level_text("template", None) == "none"
    assert level_text("adapter", "sums", name=True) == "sums"


def test_unknown_settings_and_values_are_refused():
    """The message says what there is."""
    about = design(cells_of({"temperature": 0.3, "top_k": 5}, {"temperature": 0.7, "top_k": None}))
    for call, message in (
        (
            lambda: about.code("temprature", 1),
            "unknown setting 'temprature', did you mean 'temperature'?",
        ),
        (lambda: about.code("temperature", 1), "no cell with temperature = 1; it has 0.3, 0.7"),
        (
            lambda: about.only({"temperature": 0.3, "top_k": None}),
            "no cell with temperature = 0.3 and top_k = off",
        ),
    ):
        with pytest.raises(WorkbenchError) as caught:
            call()
        assert str(caught.value) == message


def test_cells_of_one_combination_share_its_weight():
    """Two cells that differ in nothing the table shows (a seed, say) count as one between them."""
    rows = [{"temperature": 0.3, "top_k": k} for k in (5, 5, 50)]
    rows += [{"temperature": 0.7, "top_k": k} for k in (5, 50)]
    cells = [f"c{i}" for i in range(5)]
    groups = average(design(cells_of(*rows)), ["temperature"], cells, np.ones(5, bool))
    np.testing.assert_allclose(groups.weights, [[0.25, 0.25, 0.5, 0, 0], [0, 0, 0, 0.5, 0.5]])


@st.composite
def grids(draw):
    """Some combinations of three settings, in any order, and which of the cells have a value."""
    levels = [(0.3, 0.7, 1.0), (5.0, 50.0), (None, 1.1)]
    every = [(a, b, c) for a in levels[0] for b in levels[1] for c in levels[2]]
    rows = draw(st.lists(st.sampled_from(every), min_size=2, max_size=12, unique=True))
    known = draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    return rows, np.array(known)


@given(grids(), st.sampled_from(NAMES), st.booleans())
@settings(max_examples=80, deadline=None)
def test_averages_weigh_only_known_cells(grid, by, strict):
    """Weights are in known cells of the level, sum to 1 or are all 0, and compare like with like when balanced."""
    rows, known = grid
    about = design(cells_of(*(dict(zip(NAMES, row, strict=True)) for row in rows)))
    cells = [f"c{i}" for i in range(len(rows))]
    groups = average(about, [by], cells, known, strict=strict)
    assert not groups.weights[:, ~known].any()
    sums = groups.weights.sum(1)
    assert np.all(np.isclose(sums, 1) | (sums == 0))
    others = [name for name in NAMES if name != by]
    seen = []
    for code, weights in zip(groups.codes[by], groups.weights, strict=True):
        used = [dict(zip(NAMES, rows[i], strict=True)) for i in np.flatnonzero(weights)]
        assert {row[by] for row in used} <= {about.levels[by][code]}
        seen.append({tuple(row[name] for name in others) for row in used})
    if groups.balanced:
        company = [s for s in seen if s]
        assert all(s == company[0] for s in company)
        assert len(company[0]) == groups.n_used > 0
    elif strict:
        assert not groups.weights.any()
