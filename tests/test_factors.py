"""Settings and levels: what a table of cells varies, and what greedy cells stand for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from fakeruns import make_run

from workbench.errors import WorkbenchError
from workbench.factors import as_level, cross, design, level_text


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


def test_greedy_stands_only_for_what_was_run():
    """Two pairs of top_k and top_p were sampled: greedy stands for these two, not for the two that nobody ran."""
    rows = [{"temperature": 0}]
    rows += [
        {"temperature": t, "top_k": k, "top_p": p}
        for t in (0.5, 1.0)
        for k, p in ((20, 0.8), (50, 0.95))
    ]
    about = design(cells_of(*rows))
    pairs = about.table[["top_p", "top_k"]].drop_duplicates()
    assert {tuple(pair) for pair in pairs.to_numpy()} == {(0, 0), (1, 1)}
    assert (about.table["cell_id"] == "c0").sum() == 2


def test_greedy_stands_for_what_cells_like_it_ran():
    """With a penalty only top_k 50 was sampled, so the greedy cell with a penalty stands for no other top_k."""
    about = design(
        cells_of(
            {"temperature": 0, "repetition_penalty": None},
            {"temperature": 0, "repetition_penalty": 1.1},
            {"temperature": 0, "repetition_penalty": 1.3},
            {"temperature": 0.7, "top_k": 5},
            {"temperature": 0.7, "top_k": 50},
            {"temperature": 0.7, "top_k": 50, "repetition_penalty": 1.1},
        )
    )
    stands = {
        cell: {about.levels["top_k"][code] for code in part["top_k"]}
        for cell, part in about.table.groupby("cell_id")
        if cell in {"c0", "c1", "c2"}
    }
    # no sampled cell has the penalty of the third, so it stands for all that were sampled
    assert stands == {"c0": {5.0, 50.0}, "c1": {50.0}, "c2": {5.0, 50.0}}


def test_greedy_is_left_out_where_it_says_nothing():
    """For top_k without temperature the sampled cells remain, and temperature 0 is no level any more."""
    rows = [{"temperature": t, "top_k": k} for t in (0.5, 1.0) for k in (5, 50)]
    about = design(cells_of({"temperature": 0}, *rows))
    assert about.moot(("top_k",)) == ("top_k",)
    assert about.moot(("temperature", "top_k")) == about.moot(("repetition_penalty",)) == ()
    acting = about.acting(("top_k",))
    assert acting.levels["temperature"] == (0.5, 1.0)
    assert set(acting.table["cell_id"]) == {"c1", "c2", "c3", "c4"}
    assert found(acting, temperature=0.5, top_k=5) == {"c1"}
    assert about.acting(("temperature",)) is about
    with pytest.raises(
        WorkbenchError, match=r"^at temperature 0 \(greedy\), top_k changes nothing$"
    ):
        about.only({"temperature": 0}).acting(("top_k",))


def test_groups_are_crossed_with_the_rest():
    """Each row says which cell ran a level, and in which company; cells that are not asked for are left out."""
    rows = [{"temperature": t, "top_k": k} for t in (0.3, 0.7) for k in (5, 50)]
    crossing = cross(design(cells_of(*rows)), ["top_k"], ["c3", "c0", "c1"])
    assert crossing.codes["top_k"].tolist() == [0, 1]
    seen = set(zip(crossing.cell, crossing.group, crossing.rest, strict=True))
    assert seen == {(1, 0, 0), (2, 1, 0), (0, 1, 1)}
