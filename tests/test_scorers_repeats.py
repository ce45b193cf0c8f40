"""pass@k, all k right, and the majority's vote: the chances, who votes, and what is refused."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench import stats
from workbench.errors import ScorerError
from workbench.params import SamplingParams
from workbench.plan import Cell
from workbench.prompts import Prompt
from workbench.provenance import scorer_entry
from workbench.records import Generation, Score
from workbench.scorers import MajorityVote, PassAtK, PassHatK, base, get_scorer
from workbench.scorers.several import get_scorers
from workbench.scorers.together import Asked, Means

WARM = Cell(SamplingParams(temperature=0.8))
GREEDY = Cell(SamplingParams(temperature=0))
SEEDED = Cell(SamplingParams(temperature=0.8, seed=3))


def prompt(target: Any = 12, prompt_id: str = "p") -> Prompt:
    """A prompt with a target."""
    return Prompt(prompt_id, ({"role": "user", "content": "?"},), target)


def asked(
    *texts: str | None, target: Any = 12, cell: Cell = WARM, prompt_id: str = "p"
) -> list[Asked]:
    """Repeats of a prompt; None is one that failed."""
    rows = []
    for repeat, text in enumerate(texts):
        reason: Any = "error" if text is None else "stop"
        error = "boom" if text is None else None
        made = Generation(cell.cell_id, prompt_id, repeat, text or "", (1,), 1, reason, error=error)
        rows.append(Asked(made, prompt(target, prompt_id), cell))
    return rows


def judge(spec: Any, rows: list[Asked]) -> list[Score]:
    """The scores of a scorer that judges together."""
    scorer = get_scorer(spec)
    assert isinstance(scorer, base.TogetherScorer)
    return base.score_together(scorer, rows, Means())


def one(spec: Any, *texts: str | None, **options: Any) -> Score:
    """The score that the repeats of one prompt share."""
    rows = asked(*texts, **options)
    found = judge(spec, rows)
    answered = [s for s, a in zip(found, rows, strict=True) if a.generation.finish_reason == "stop"]
    assert all(score == answered[0] for score in answered)
    return answered[0]


def at(k: int, scorer: Any = "contains", kind: str = "pass_at_k", **options: Any) -> dict[str, Any]:
    """A spec of pass@k."""
    return {kind: {"k": k, "scorer": scorer, **options}}


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_chances_are_those_of_drawing_k_of_the_answers(right: list[bool], data: Any) -> None:
    """Both chances are the shares of all choices of k answers with one right, and with all right; and those of stats."""
    n, c = len(right), sum(right)
    k = data.draw(st.integers(1, n))
    drawn = list(combinations(right, k))
    any_of, all_of = PassAtK("contains", k=k).chance(n, c), PassHatK("contains", k=k).chance(n, c)
    assert any_of == pytest.approx(sum(map(any, drawn)) / len(drawn))
    assert all_of == pytest.approx(sum(map(all, drawn)) / len(drawn))
    assert any_of == pytest.approx(float(stats.pass_at_k(n, c, k)))
    assert all_of == pytest.approx(float(stats.pass_hat_k(n, c, k)))
    texts = ["12" if r else "no" for r in right]
    assert one(at(k), *texts).value == any_of
    assert one(at(k, kind="pass_hat_k"), *texts).value == all_of


def test_every_repeat_has_the_shared_score() -> None:
    """Cells and prompts are judged apart, each by its own repeats, in the order given."""
    rows = [*asked("12", "no", "no"), *asked("12", "12", "no", prompt_id="q")]
    other = Cell(SamplingParams(temperature=0.5))
    rows += asked("no", "no", "no", cell=other)
    mixed = rows[::2] + rows[1::2]
    found = dict(zip([a.generation.key for a in mixed], judge(at(2), mixed), strict=True))
    for (cell, name, _), score in found.items():
        expected = 0.0 if cell == other.cell_id else {"p": 2 / 3, "q": 1.0}[name]
        assert score.value == pytest.approx(expected)
    said = {score.explanation for score in found.values()}
    assert said == {f"{n} of 3 repeats are right" for n in (0, 1, 2)}


def test_fewer_than_k_answers_give_no_score() -> None:
    """Failed and unjudged answers do not count; the reason says how many there are, and why."""
    short = one(at(3), "12", "12", None, None)
    assert (short.value, short.reason) == (None, "needs 3 answers that can be judged, there are 2")
    useless = one(at(1, "numeric"), "12", "13", target="many")
    assert (
        useless.reason
        == "needs 1 answers that can be judged, there are 0 (the target is 'many', not a number)"
    )
    assert one(at(2), "12", None, "no").value == 1.0


def test_a_failed_answer_keeps_its_reason() -> None:
    """What the others share is not the score of a row without an answer."""
    failed = judge(at(1), asked("12", None))[1]
    assert (failed.value, failed.reason) == (None, "not generated: boom")


@pytest.mark.parametrize("cell", [GREEDY, SEEDED])
@pytest.mark.parametrize("kind", ["pass_at_k", "pass_hat_k"])
def test_the_one_answer_of_a_cell_without_chance_counts_as_all(cell: Cell, kind: str) -> None:
    """Greedy, or with a seed of its own: every repeat would be the same."""
    right, wrong = (one(at(5, kind=kind), text, cell=cell) for text in ("12", "13"))
    assert (right.value, right.explanation) == (1.0, "right, as is every repeat of this cell")
    assert (wrong.value, wrong.explanation) == (0.0, "wrong, as is every repeat of this cell")
    assert one(at(5, kind=kind), "12").value is None  # drawn once, by chance


def test_the_threshold_says_what_is_right() -> None:
    """A share of thirds reaches a threshold of as many thirds; half of that does not."""
    share = {"contains": {"mode": "share"}}
    texts, target = ("red white", "red", ""), ["red", "white", "blue"]
    for threshold, right in ((1 / 3, 2), (2 / 3, 1), (1.0, 0)):
        found = one(at(1, share, threshold=threshold), *texts, target=target)
        assert found.value == pytest.approx(right / 3)


@pytest.mark.parametrize(
    ("texts", "value", "answer", "said"),
    [
        (("12", "13", "12"), 1.0, "12", "12: 2 of 3 votes"),
        (("13", "13", "12"), 0.0, "13", "13: 2 of 3 votes"),
        (("$12.00", "twelve", "13"), 1.0, "$12.00", "$12.00: 2 of 3 votes"),
        (
            ("12", "13"),
            0.5,
            "12 or 13",
            "12, 13: 1 of 2 votes each; tied, so the mean of their scores",
        ),
        (("13", "14", "none"), 0.0, "13 or 14", None),
        (("none", "none", "12"), 1.0, "12", "12: 1 of 1 votes"),
        (("none", "nothing"), 0.0, None, "nothing to vote on in 2 answers"),
        ((None, "12", None), 1.0, "12", "12: 1 of 1 votes"),
    ],
)
def test_the_majority_is_judged(
    texts: tuple[str | None, ...], value: float, answer: str | None, said: str | None
) -> None:
    """The same number in other words is the same vote; ties are the mean; who gives no answer does not vote."""
    found = one({"majority_vote": {"scorer": "numeric"}}, *texts)
    assert (found.value, found.answer) == (pytest.approx(value), answer)
    assert said is None or found.explanation == said


@given(st.lists(st.sampled_from(["12", "13", "14", "-"]), min_size=1, max_size=7))
def test_a_vote_is_what_drawing_a_winner_gives_on_average(texts: list[str]) -> None:
    """The value is the share of right answers among those with the most votes, in any order of the repeats."""
    votes = {text: texts.count(text) for text in set(texts) - {"-"}}
    best = [text for text in votes if votes[text] == max(votes.values())]
    expected = best.count("12") / len(best) if best else 0.0
    spec = {"majority_vote": {"scorer": "numeric"}}
    assert one(spec, *texts).value == pytest.approx(expected)
    assert one(spec, *reversed(texts)).value == pytest.approx(expected)


def test_votes_on_labels_and_on_answers_of_your_own() -> None:
    """A choice is voted on by its label; an own scorer by the texts it gives."""
    choice = {"majority_vote": {"scorer": {"choice": {"labels": [["yes", "aye"], "no"]}}}}
    assert one(choice, "Aye!", "yes", "No.", target="yes").value == 1.0

    def own(text: str, _: Prompt) -> Score:
        return Score(float(text == "a"), answer=text or None)

    vote = MajorityVote(base.FunctionScorer("own", own))
    assert base.score_together(vote, asked("a", "b", "b"), Means())[0].value == 0.0
    assert base.score_together(vote, asked("a", "b", "a"), Means())[0].answer == "a"


def test_a_scorer_that_extracts_nothing_cannot_be_voted_on() -> None:
    """A shipped one is refused at once; one of the user's gives no score, with the reason."""
    with pytest.raises(ScorerError) as caught:
        get_scorer({"majority_vote": {"scorer": "contains"}})
    assert str(caught.value) == (
        "scorer majority_vote: scorer must be one that extracts an answer (choice, exact, numeric, regex, or one of "
        "yours), got 'contains'"
    )
    vote = MajorityVote(base.FunctionScorer("own", lambda text, _: text == "a"))
    found = base.score_together(vote, asked("a", "b"), Means())
    assert {s.reason for s in found} == {
        "scorer own does not say which answer it took, so none can be voted on"
    }


def test_nothing_to_vote_on_says_why() -> None:
    """Without a usable target nothing is judged; the reason is the scorer's own."""
    found = one({"majority_vote": {"scorer": "numeric"}}, "12", target="many")
    assert found.reason == "the target is 'many', not a number"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (at(0), "scorer pass_at_k: k must be a whole number at least 1, got 0"),
        (at(True), "scorer pass_at_k: k must be a whole number at least 1, got True"),  # type: ignore[arg-type]
        (
            at(2, threshold=0),
            "scorer pass_at_k: threshold must be a number above 0 and at most 1, got 0",
        ),
        ({"pass_hat_k": {"k": 2}}, "scorer pass_hat_k: needs the option scorer"),
        (at(2, "contians"), "unknown scorer 'contians', did you mean 'contains'?"),
        (
            at(2, {"majority_vote": {"scorer": "numeric"}}),
            "scorer pass_at_k: scorer must be one that judges one answer at a time, got 'majority_vote'",
        ),
    ],
)
def test_bad_options_are_refused(spec: Any, said: str) -> None:
    """Each with what is allowed."""
    with pytest.raises(ScorerError) as caught:
        get_scorer(spec)
    assert str(caught.value) == said


def test_k_above_the_repeats_is_refused() -> None:
    """Both numbers are named; as many repeats as k are enough, and so is not knowing."""
    specs = [at(4), {"majority_vote": {"scorer": "numeric"}}]
    assert [s.name for s in get_scorers(specs, repeats=4)] == ["pass_at_k", "majority_vote"]
    assert len(get_scorers(specs)) == 2
    with pytest.raises(ScorerError) as caught:
        get_scorers(specs, repeats=3)
    assert str(caught.value) == (
        "scorer pass_at_k: k is 4, and the study asks each prompt 3 times; k must be at most its repeats"
    )


def test_targets_are_those_of_the_scorer_within() -> None:
    """What it cannot use is told before a run, in its words."""
    for spec in (at(2, "numeric"), {"majority_vote": {"scorer": "numeric"}}):
        problem = get_scorer(spec).target_problem  # type: ignore[attr-defined]
        assert problem(prompt("many")) == "the target is 'many', not a number"
        assert problem(prompt(None)) == "the prompt has no target"
        assert problem(prompt()) is None
    length = PassAtK({"length": {"max": 5}}, k=1)
    assert length.target_problem(prompt(None)) is None
    own = PassAtK(base.FunctionScorer("own", lambda *_: 1), k=1)
    assert own.target_problem(prompt(None)) is None


def test_the_version_is_that_of_both() -> None:
    """Another scorer within, another version of it, other options of it: each is another judge."""
    plain = scorer_entry(get_scorer(at(2, "numeric")))
    strict = scorer_entry(get_scorer(at(2, {"numeric": {"pick": "first"}})))
    assert plain["options"] == {"k": 2, "scorer": "numeric"}
    assert strict["options"] == {"k": 2, "scorer": {"numeric": {"pick": "first"}}}
    versions = {plain["version"], strict["version"]}
    for number in ("1", "2"):
        own = base.FunctionScorer("own", lambda *_: 1, version=number)
        versions.add(scorer_entry(PassAtK(own, k=2))["version"])
    assert len(versions) == 4
    assert get_scorer(at(2, "numeric")).version == f"1.{get_scorer('numeric').version}"


def test_a_file_beside_the_study_is_found(tmp_path: Any) -> None:
    """The scorer within may be FILE.py:FUNCTION, looked up where the study is."""
    (tmp_path / "own.py").write_text("def polite(text, prompt):\n    return 'please' in text\n")
    scorer = get_scorer(at(1, "own.py:polite"), tmp_path)
    assert isinstance(scorer, PassAtK)
    assert scorer.scorer.name == "polite"
    assert base.score_together(scorer, asked("please", "no"), Means())[0].value == 0.5
