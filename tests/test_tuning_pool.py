"""The pool of a search: who leads, who is dropped, and what a cell is worth."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.sequential import PairedTest
from workbench.tuning.pool import Pool, shrunk

if TYPE_CHECKING:
    from numpy.typing import NDArray

N = 60
NAMES = [f"p{i}" for i in range(N)]


def pool(alpha: float | None = 0.05, clusters: list[str] | None = None) -> Pool:
    """A pool on 60 prompts whose baseline has joined."""
    return Pool(NAMES, clusters or NAMES, "base", alpha)


def test_against_the_baseline_alone_it_is_the_paired_test() -> None:
    """With one other cell, whoever of the two leads by the prompts before, the evidence is that of a bet on it."""
    rng = np.random.default_rng(0)
    base, cell = (rng.random(N) < 0.9).astype(float), (rng.random(N) < 0.3).astype(float)
    made = pool()
    made.add("cell")
    made.update({"base": base.tolist(), "cell": cell.tolist()})
    test = PairedTest()
    lead = np.concatenate([[0.0], np.cumsum(base - cell)[:-1]]) >= 0
    assert lead.all()
    test.update(base - cell)
    evidence = {s.cell: s.evidence for s in made.standing()}
    assert evidence["cell"] == pytest.approx(float(test.evidence))
    assert list(made.dropped) == ["cell"]
    assert made.dropped["cell"].why.startswith("loses to base: -")


def scores(seed: int) -> NDArray[np.float64]:
    """Five cells on all prompts, the third the best."""
    rng = np.random.default_rng(seed)
    shares = np.array([0.4, 0.5, 0.9, 0.3, 0.6])
    return (rng.random((5, N)) < shares[:, None]).astype(float)


@given(st.integers(0, 50))
def test_joining_late_changes_nothing(seed: int) -> None:
    """A cell that answers the old prompts later is tested as if it had been there, as far as others had answered them."""
    x = scores(seed)
    together, late = pool(), pool()
    for made in (together, late):
        made.add("a")
    together.add("late")
    together.update({"base": x[0].tolist(), "a": x[1].tolist(), "late": x[2].tolist()})
    late.update({"base": x[0].tolist(), "a": x[1].tolist()})
    late.add("late")
    late.update({"late": x[2].tolist()})
    assert not late.dropped.keys() - {"a", "late"}
    found = [next(s for s in p.standing() if s.cell == "late") for p in (together, late)]
    if "a" in late.alive:
        assert found[0].evidence == pytest.approx(found[1].evidence)
    else:  # who has left leads no more
        assert found[1].evidence == pytest.approx(float(alone(x[0] - x[2])))


def alone(ahead: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evidence against a cell whose one opponent is the baseline; where the cell leads itself there is no bet."""
    before = np.concatenate([[0.0], np.cumsum(ahead)[:-1]])
    squares = np.concatenate([[0.0], np.cumsum(ahead**2)[:-1]])
    bets = np.where(before >= 0, np.clip(before / (squares + 1), 0, 0.9) * ahead, 0.0)
    return np.exp(np.maximum(np.cumsum(np.log1p(bets)).max(), 0.0))


def test_the_next_prompt_does_not_choose_the_opponent() -> None:
    """The opponent on a prompt leads by the prompts before it, though others that answered it may be better on it."""
    x = scores(1)
    first = pool()
    for name, row in zip(["base", "a", "b"], x[:3, :20], strict=True):
        if name != "base":
            first.add(name)
        first.update({name: row.tolist()})
    first.add("new")
    first.update({"new": [0.0] * 20})
    wealth = [0.0]
    for i in range(20):
        leader = x[int(np.argmax(x[:3, :i].sum(1)))]
        past = leader[:i].sum()  # scores are 0 or 1, so it is the sum of squares too
        wealth.append(wealth[-1] + np.log1p(min(past / (past + 1), 0.9) * leader[i]))
    evidence = next(s.evidence for s in first.standing() if s.cell == "new")
    assert evidence == pytest.approx(np.exp(max(wealth)))


def test_groups_are_one_observation() -> None:
    """Prompts of a group are summed and divided by the largest group, so copies prove no more than one."""
    pairs = [f"g{i // 2}" for i in range(N)]
    whole, single = pool(clusters=pairs), Pool(NAMES[::2], NAMES[::2], "base")
    for made, n in ((whole, 2), (single, 1)):
        made.add("cell")
        made.update({"base": [1.0] * (N // 2 * n), "cell": [0.0] * (N // 2 * n)})
    found = [next(s.evidence for s in p.standing() if s.cell == "cell") for p in (whole, single)]
    assert found[0] == pytest.approx(found[1])


def test_the_baseline_and_equal_cells_stay() -> None:
    """A baseline that loses is kept, and is known to lose; a cell that scores the same is never dropped."""
    made = pool()
    made.add("better")
    made.add("same")
    right, wrong = [1.0] * N, [0.0] * N
    made.update({"base": wrong, "better": right, "same": right})
    assert made.alive == ("base", "better", "same")
    assert made.lost("base")
    assert not made.lost("same")
    assert made.leader() in ("better", "same")


def test_without_alpha_nobody_is_dropped() -> None:
    """As with several objectives, where less quality may be worth it."""
    made = pool(alpha=None)
    made.add("bad")
    assert made.update({"base": [1.0] * N, "bad": [0.0] * N}) == ()
    assert not made.lost("bad")


def test_a_limit_drops_too() -> None:
    """With its reason; the baseline cannot be dropped, nor a cell twice."""
    made = pool()
    made.add("slow")
    made.update({"base": [1.0] * 10, "slow": [1.0] * 10})
    assert made.drop("slow", "too slow").why == "too slow"
    assert made.alive == ("base",)
    for cell in ("slow", "base"):
        with pytest.raises(ValueError, match=f"^'{cell}' cannot be dropped$"):
            made.drop(cell, "again")


def test_missing_scores_are_no_bets() -> None:
    """A cell never scored has no worth and comes last; one scored on some prompts is judged on those."""
    made = pool()
    for name in ("never", "some"):
        made.add(name)
    made.update(
        {"base": [0.0] * 20, "never": [float("nan")] * 20, "some": [1.0, float("nan")] * 10}
    )
    assert set(made.worth()) == {"base", "some"}
    assert [s.cell for s in made.standing()] == ["some", "base", "never"]


def test_wrong_scores_are_refused() -> None:
    """Out of range, or more than prompts left."""
    made = pool()
    for values in ([1.5], [0.0] * (N + 1)):
        with pytest.raises(ValueError, match=r"^cell base: scores must be 0\.\.1, one for each"):
            made.update({"base": values})


def test_a_pool_reads_back() -> None:
    """What is kept is all that is known."""
    made = pool()
    for i, row in enumerate(scores(3)):
        if i:
            made.add(f"c{i}")
        made.update({"base" if not i else f"c{i}": row[: 20 + 10 * i].tolist()})
    again = Pool.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again.to_dict() == made.to_dict()
    assert again.standing() == made.standing()
    assert again.dropped == made.dropped


def test_few_prompts_prove_little() -> None:
    """Of two cells with the same mean the one with more prompts is drawn less; order among equals in size stays."""
    many, few, low = shrunk([0.3, 0.3, 0.0], [0.2] * 3, [100, 10, 100])
    assert 0.0 < low < few < many < 0.3


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.integers(1, 50))
def test_worth_stays_between_mean_and_middle(means: list[float], n: int) -> None:
    """Drawn towards the mean of all, never past it; so equal sizes keep the order."""
    found = shrunk(means, [0.25] * len(means), [n] * len(means))
    middle = float(np.mean(means))
    for x, y in zip(means, found, strict=True):
        assert min(x, middle) - 1e-9 <= y <= max(x, middle) + 1e-9
    assert np.all(np.diff(found[np.argsort(means)]) >= -1e-12)
