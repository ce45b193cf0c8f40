"""How many prompts or repeats settle a comparison."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import stats


def frame(*cells: list[list[float]], group: list[str] | None = None) -> pd.DataFrame:
    """One list of prompts, each a list of repeats, per cell; cells are named a, b, ..."""
    rows = [
        (name, f"p{i}", k, x, group[i] if group else None)
        for name, prompts in zip("abcdef", cells, strict=False)
        for i, xs in enumerate(prompts)
        for k, x in enumerate(xs)
    ]
    return pd.DataFrame(rows, columns=["cell_id", "prompt_id", "repeat", "score", "group"])


def coupled(rng: np.random.Generator, n: int, repeats: int) -> pd.DataFrame:
    """Two cells, 5 points apart, that mostly agree."""
    ease = rng.uniform(0.2, 0.7, (n, 1))
    luck = rng.random((n, repeats))
    other = np.where(rng.random((n, repeats)) < 0.7, luck, rng.random((n, repeats)))
    a, b = luck < ease, other < ease + rng.choice([-0.1, 0.2], (n, 1))
    return frame((a * 1.0).tolist(), (b * 1.0).tolist())


# The formula


def test_the_published_example():
    """Miller's example: omega^2 = 1/9, 3 points, 80 % power takes 969 questions; his two-sample term is ``within``."""
    assert stats.sample_size(0.03, 1 / 9) == 969
    assert stats.sample_size(-0.03, 1 / 9) == 969
    np.testing.assert_allclose(
        stats.sample_size(0.05, 0.1, 0.2 / 4 + 0.3 / 2), stats.sample_size(0.05, 0.1, 0.4, 2)
    )
    assert np.isinf(stats.sample_size([0.0], 0.1)).all()


@given(
    st.floats(0.01, 0.5),
    st.floats(0, 0.5),
    st.floats(0.01, 0.5),
    st.integers(1, 8),
    st.floats(0.7, 0.95),
)
@settings(max_examples=60, deadline=None)
def test_power_and_sample_size_are_inverse(difference, between, within, repeats, wanted):
    """With n prompts the power is reached; with two fewer, where n is not the least, it is not."""
    n = stats.sample_size(difference, between, within, repeats, power=wanted)
    assert stats.power(difference, n, between, within, repeats) >= wanted - 1e-6
    if n > 30:
        assert stats.power(difference, n - 2, between, within, repeats) < wanted
    assert stats.sample_size(difference, between, within, repeats + 1, power=wanted) <= n


def test_power_without_difference_is_the_risk():
    """No difference: found in 5 % of studies; no variance: always found."""
    assert stats.power(0.0, 100, 0.2) == pytest.approx(0.05)
    assert stats.power([0.1], 100, 0.0).tolist() == [1.0]
    assert stats.power(0.0, 100, 0.0) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.sample_size(0.1, -1), "between and within must be at least 0"),
        (lambda: stats.power(0.1, 9, 0.1, -1), "between and within must be at least 0"),
        (lambda: stats.sample_size(0.1, 1, 1, 0), "repeats must be at least 1"),
        (
            lambda: stats.sample_size(0.1, 1, power=80),
            "power must be greater than 0 and less than 1, got 80",
        ),
        (
            lambda: stats.power(0.1, 9, 1, level=95),
            "level must be greater than 0 and less than 1, got 95",
        ),
        (
            lambda: stats.needed(frame([[1]], [[0]]), "b", "a", worth=0),
            "worth must be greater than 0, got 0",
        ),
        (
            lambda: stats.needed(frame([[1]], [[0]]), "b", "a", comparisons=0),
            "comparisons must be at least 1, got 0",
        ),
        (
            lambda: stats.needed(frame([[1]], [[0]]), "b", "a", power=1),
            "power must be greater than 0 and less than 1, got 1",
        ),
        (lambda: stats.needed(frame([[1]], [[0]]), "a", "a"), "cell 'a' is the baseline itself"),
        (lambda: stats.needed(frame([[1]]), "b", "a"), "cell 'b' is not in the frame"),
        (lambda: stats.needed(frame([[1]]), "a", "b"), "baseline 'b' is not one of the 1 cells"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    """Each wrong argument gives one exact message."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        call()
    assert str(caught.value) == message


# The two variances


def test_variances_are_those_of_the_analysis_of_variance():
    """Equal repeats: within is the mean square in prompts, between the rest, as the textbook has it."""
    d = np.random.default_rng(0).normal(0, 0.1, (25, 1)) + np.random.default_rng(1).normal(
        0, 0.1, (25, 4)
    )
    found = stats.paired_variance(frame(np.full((25, 4), 0.5).tolist(), (0.5 + d).tolist()), "a")
    row = found.iloc[1]
    inside = d.var(1, ddof=1).mean()
    assert row["within"] == pytest.approx(inside)
    assert row["variance"] == pytest.approx(d.mean(1).var(ddof=1))
    assert row["between"] == pytest.approx(d.mean(1).var(ddof=1) - inside / 4)
    assert row[["n_prompts", "n_clusters", "repeats"]].tolist() == [25, 25, 4]
    assert found.loc[0, ["variance", "between", "within"]].isna().all()


def test_variances_are_unbiased_with_unequal_repeats():
    """Prompts of two to five repeats: on average the true 0.01 between and 0.02 within, up to three standard errors."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(200):
        d = [
            (0.5 + g + rng.normal(0, 0.02**0.5 / 3, 2 + i % 4)).tolist()
            for i, g in enumerate(rng.normal(0, 0.1 / 3, 40))
        ]
        out = stats.paired_variance(frame([[0.5] * len(x) for x in d], d), "a")
        found.append(out.loc[1, ["between", "within"]].tolist())
    mean, se = np.mean(found, 0), np.std(found, 0) / np.sqrt(200)
    assert (np.abs(mean - np.array([0.01, 0.02]) / 9) < 3 * se).all()


def test_a_greedy_cell_is_compared_with_every_repeat():
    """One answer against three: the difference is that of the means, the variance within that of the three."""
    many = [[1.0, 0, 1], [0, 0, 1], [1, 1, 1]] * 10
    out = stats.paired_variance(frame([[1.0]] * 30, many), "a").iloc[1]
    assert out["diff"] == pytest.approx(np.mean(many) - 1)
    assert out["within"] == pytest.approx(np.var(many, axis=1, ddof=1).mean())
    turned = stats.paired_variance(frame(many, [[1.0]] * 30), "a").iloc[1]
    np.testing.assert_allclose(
        turned[["within", "between"]].astype(float), out[["within", "between"]].astype(float)
    )


def test_one_repeat_leaves_the_parts_unknown_and_failed_repeats_are_left_out():
    """Single answers: the whole variance, not its parts; a missing repeat is matched with none."""
    single = stats.paired_variance(frame([[1], [0]] * 15, [[0], [1]] * 15), "a").iloc[1]
    assert single["variance"] > 0
    assert single[["between", "within"]].isna().all()
    nan = float("nan")
    some = frame([[1, 0, 1]] * 12, [[nan, 1, 1]] * 12)
    out = stats.paired_variance(some, "a").iloc[1]
    assert out["diff"] == pytest.approx(0.5)
    assert out["repeats"] == 2
    lone = stats.paired_variance(frame([[1, 0]] * 12, [[1, nan]] * 12).drop(columns="repeat"), "a")
    assert lone.loc[1, "diff"] == pytest.approx(0.5)


def test_apart_repeats_are_one_pair_when_each_cell_has_one():
    """Repeat 0 of one cell and repeat 1 of the other, the rest failed: compared as one pair."""
    nan = float("nan")
    out = stats.paired_variance(frame([[1, nan]] * 12, [[nan, 0]] * 12), "a").iloc[1]
    assert out["diff"] == -1
    assert out["repeats"] == 1


def test_groups_raise_the_variance():
    """Prompts that go together, in groups of five, count as the test counts them: about five times the variance."""
    rng = np.random.default_rng(2)
    d = np.repeat(rng.choice([-0.2, 0.3], 40), 5)
    cells = [[0.5]] * 200, [[0.5 + x] for x in d]
    alone = stats.paired_variance(frame(*cells), "a").loc[1, "variance"]
    groups = [f"g{i // 5}" for i in range(200)]
    grouped = stats.paired_variance(frame(*cells, group=groups), "a").loc[1]
    assert grouped["n_clusters"] == 40
    assert grouped["variance"] / alone == pytest.approx(5, rel=0.05)


# In words


def test_the_sentence_for_prompts_and_repeats():
    """Where noise within prompts rules, repeats are offered; where it does not, they cannot help; by the numbers given."""
    noisy = stats.Needed("b", "a", 0.031, 100, 2.0, 0.001, 0.3, 0.8, stats.Way(0.05, 238, 9), None)
    assert noisy.text == (
        "To settle a difference of 5 points (80 % power) about 240 prompts more would do at 2 repeats, "
        "or 9 repeats of the same 100 prompts."
    )
    steady = stats.Needed(
        "b",
        "a",
        0.031,
        100,
        2.0,
        0.2,
        0.1,
        0.8,
        stats.Way(0.05, 238, None),
        stats.Way(0.031, 1201, None),
    )
    assert steady.text == (
        "To settle a difference of 5 points (80 % power) about 240 prompts more would do at 2 repeats; "
        "more repeats alone cannot. If the true difference is the 3.1 points seen, about 1,300 prompts "
        "more would do at 2 repeats; more repeats alone cannot."
    )
    nan = float("nan")
    once = stats.Needed("b", "a", 0.01, 40, 1.0, nan, nan, 0.9, stats.Way(0.01, 1, None), None)
    assert once.text == (
        "To settle a difference of 1 point (90 % power) about 1 prompt more would do at 1 repeat; "
        "what more repeats would do cannot be told from one."
    )
    enough = stats.Needed(
        "b", "a", 0.2, 300, 1.5, 0.1, 0.1, 0.8, stats.Way(0.05, 0, 3), stats.Way(0.2, 0, 2)
    )
    assert enough.text == (
        "300 prompts at 1.5 repeats are enough for a difference of 5 points (80 % power). "
        "They are enough for the 20 points seen, too."
    )


def test_nothing_can_be_said_from_one_prompt():
    """One prompt, or none, scored in both: no numbers, and the sentence says so."""
    one = stats.needed(frame([[1.0]], [[0.0]]), "b", "a")
    assert one.least is one.seen is None
    assert (
        one.text == "How many prompts would settle it cannot be said from 1 prompt scored in both."
    )
    nan = float("nan")
    none = stats.needed(frame([[1.0], [nan]], [[nan], [1.0]]), "b", "a")
    assert (
        none.text
        == "How many prompts would settle it cannot be said from 0 prompts scored in both."
    )


def test_cells_that_answer_alike_still_need_prompts():
    """No difference seen on 30 prompts is no proof: prompts are still asked for, and no sentence on a difference of 0."""
    x = [[1.0, 1.0], [0.0, 0.0]] * 15
    found = stats.needed(frame(x, x), "b", "a")
    assert found.diff == 0
    assert found.seen is None
    assert found.least.prompts_more > 50
    assert "points seen" not in found.text


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_more_is_asked_for_smaller_differences_and_more_comparisons(seed, repeats):
    """Needs grow as the difference shrinks, the power rises and comparisons are added; repeats exceed those there."""
    rows = coupled(np.random.default_rng(seed), 40, repeats)
    plain, small, strong, many = (
        stats.needed(rows, "b", "a", **options).least
        for options in ({}, {"worth": 0.03}, {"power": 0.9}, {"comparisons": 47})
    )
    assert plain.prompts_more <= min(w.prompts_more for w in (small, strong, many))
    assert small.prompts_more > plain.prompts_more or small.prompts_more == 0
    for way in (plain, small, strong, many):
        assert way.repeats is None or way.repeats > repeats
