"""What groups have in common: averages compare like with like, whatever is missing, and no more is left out than must be."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.effects.blocks import averages, in_common
from workbench.effects.values import CellValues
from workbench.factors import Crossing, cross, design

NAMES = ("temperature", "top_k", "repetition_penalty")


def crossed(rows, by) -> Crossing:
    """Cells c0, c1, ... with these values of `NAMES`."""
    table = pd.DataFrame(rows, columns=list(NAMES))
    table["cell_id"], table["adapter"] = [f"c{i}" for i in range(len(table))], "base"
    return cross(design(table), by, list(table["cell_id"]))


def values_of(x) -> CellValues:
    """Made-up values, one column per prompt."""
    x = np.asarray(x, float)
    nothing = np.full(len(x), np.nan)
    cells = [f"c{i}" for i in range(len(x))]
    return CellValues(
        cells, nothing, nothing, nothing, x, None, np.empty((0, len(x))), x.shape[1], x.shape[1]
    )


@st.composite
def grids(draw):
    """Some combinations of three settings, and which of their prompts have a value."""
    levels = [(0.3, 0.7, 1.0), (5.0, 50.0), (None, 1.1)]
    every = [(a, b, c) for a in levels[0] for b in levels[1] for c in levels[2]]
    rows = draw(st.lists(st.sampled_from(every), min_size=2, max_size=12, unique=True))
    n = draw(st.integers(1, 4))
    shape = st.lists(st.booleans(), min_size=n, max_size=n)
    known = draw(st.lists(shape, min_size=len(rows), max_size=len(rows)))
    return rows, np.array(known)


@given(grids(), st.sampled_from(NAMES), st.booleans())
@settings(max_examples=120, deadline=None)
def test_groups_are_averaged_over_the_same_blocks(grid, by, every):
    """Only known values count; when balanced, every group shown has exactly the same prompts of the same company."""
    rows, known = grid
    crossing = crossed(rows, [by])
    blocks = in_common(crossing, known, every=every)
    assert not (blocks.mask & ~known[crossing.cell]).any()
    seen = [
        {
            (crossing.rest[row], prompt)
            for row in np.flatnonzero(crossing.group == group)
            for prompt in np.flatnonzero(blocks.mask[row])
        }
        for group in range(len(crossing.codes))
    ]
    assert [bool(s) for s in seen] == blocks.kept.tolist()
    has = [known[crossing.cell[crossing.group == g]].any() for g in range(len(seen))]
    assert (blocks.left_out == (np.array(has) & ~blocks.kept)).all()
    if blocks.balanced:
        shown = [s for s in seen if s]
        assert all(s == shown[0] for s in shown)
        assert len({rest for rest, _ in shown[0]}) == blocks.n_used <= blocks.n_others
    if every:
        assert not blocks.left_out.any()
        if not blocks.balanced:
            assert (blocks.mask == known[crossing.cell]).all()
    elif not blocks.balanced:
        assert not blocks.kept.any()


@given(grids(), st.sampled_from(NAMES))
@settings(max_examples=60, deadline=None)
def test_what_all_groups_share_is_used(grid, by):
    """If all groups share something, no group is left out unless the rest then shares more than twice as much."""
    rows, known = grid
    crossing = crossed(rows, [by])
    blocks = in_common(crossing, known)
    every = in_common(crossing, known, every=True)
    shared = {
        (rest, prompt)
        for rest in range(crossing.rest.max() + 1)
        for prompt in range(known.shape[1])
        if all(
            any(
                known[cell, prompt]
                for cell in crossing.cell[(crossing.group == g) & (crossing.rest == rest)]
            )
            for g in np.flatnonzero(every.kept)
        )
    }
    if shared and every.kept.any():
        used = blocks.mask.sum() / blocks.kept.sum()
        assert blocks.kept.any()
        assert blocks.left_out.any() <= (used > 2 * len(shared))
        if not blocks.left_out.any():
            assert used == len(shared)


def test_a_level_beside_the_grid_is_left_out():
    """Three levels of which the third was run in one of four combinations: with it, a quarter could be compared."""
    rows = [(t, k, r) for t in (0.3, 0.7) for k in (5, 50) for r in (None, 1.1)]
    blocks = in_common(crossed([*rows, (1.0, 5, None)], ["temperature"]), np.ones((9, 4), bool))
    assert blocks.kept.tolist() == [True, True, False]
    assert blocks.left_out.tolist() == [False, False, True]
    assert (blocks.n_used, blocks.n_others) == (4, 4)


def test_half_in_common_is_enough():
    """With two of four combinations the third level stays, and all are averaged over these two."""
    rows = [(t, k, r) for t in (0.3, 0.7) for k in (5, 50) for r in (None, 1.1)]
    crossing = crossed([*rows, (1.0, 5, None), (1.0, 50, None)], ["temperature"])
    blocks = in_common(crossing, np.ones((10, 4), bool))
    assert blocks.kept.all()
    assert (blocks.n_used, blocks.n_others) == (2, 4)


def test_prompts_that_fail_at_one_level_are_left_out_at_all():
    """Ten prompts, two lost at one level of one combination: eight count there, ten in the other combination."""
    crossing = crossed([(t, k, None) for t in (0.3, 0.7) for k in (5, 50)], ["temperature"])
    known = np.ones((4, 10), bool)
    known[2, [0, 7]] = False
    blocks = in_common(crossing, known)
    assert (blocks.n_fewest, blocks.n_most) == (8, 10)
    counts = {
        (g, r): blocks.mask[(crossing.group == g) & (crossing.rest == r)].sum()
        for g in range(2)
        for r in range(2)
    }
    assert counts == {(0, 0): 8, (1, 0): 8, (0, 1): 10, (1, 1): 10}


def test_squares_that_share_less_than_half_keep_their_own():
    """One of four squares has two of ten prompts: nothing is thrown away for it, and the squares are not balanced."""
    crossing = crossed(
        [(t, k, None) for t in (0.3, 0.7) for k in (5, 50)], ["temperature", "top_k"]
    )
    known = np.ones((4, 10), bool)
    known[1, 2:] = False
    blocks = in_common(crossing, known, every=True)
    assert not blocks.balanced
    assert sorted(blocks.mask.sum(1)) == [2, 10, 10, 10]
    known[1, 2:6] = True
    assert in_common(crossing, known, every=True).mask.sum() == 4 * 6


def test_averages_are_over_blocks():
    """By hand: two levels in two combinations, one prompt lost; each answer that counts, counts once."""
    crossing = crossed([(t, k, None) for t in (0.3, 0.7) for k in (5, 50)], ["temperature"])
    x = [[0.1, 0.2], [0.3, 0.4], [0.5, np.nan], [0.7, 0.9]]
    values = values_of(x)
    means = averages(values, crossing, in_common(crossing, values.known))
    np.testing.assert_allclose(means.point, [(0.1 + 0.3 + 0.4) / 3, (0.5 + 0.7 + 0.9) / 3])
    assert means.cells.tolist() == [[True, True, False, False], [False, False, True, True]]
    assert means.draws.shape == (0, 2)


def test_cells_of_one_combination_share_its_weight():
    """Two cells that differ in nothing the table shows (a seed, say) count as one between them."""
    rows = [(0.3, 5, None), (0.3, 5, None), (0.3, 50, None), (0.7, 5, None), (0.7, 50, None)]
    crossing = crossed(rows, ["temperature"])
    values = values_of([[0.2], [0.4], [0.9], [0.5], [0.7]])
    means = averages(values, crossing, in_common(crossing, values.known))
    np.testing.assert_allclose(means.point, [(0.3 + 0.9) / 2, 0.6])
