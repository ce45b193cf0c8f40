"""Repeats of a prompt judged together: pass@k, all k right, and the majority's answer.

Each applies another scorer to every answer first. The value of a cell's repeats of a prompt is the score of each of them.
A cell that gives every repeat the same answer (greedy, or with a seed of its own) is run once; that answer counts as all.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Any, ClassVar, Final

from workbench.errors import ScorerError
from workbench.records import Score
from workbench.scorers.base import (
    FAMILIES,
    ChecksTargets,
    Family,
    family,
    get_scorer,
    is_number,
    is_whole,
    score_generation,
    unscored,
)
from workbench.scorers.together import JudgesTogether

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.prompts import Prompt
    from workbench.scorers.together import Asked, Means

EXTRACT: Final = ("choice", "exact", "numeric", "regex")
"""Scorers that ship and say which answer they took, so that it can be voted on."""
_EPS: Final = 1e-9
"""A score of thirds may miss a threshold by rounding."""


@dataclass(frozen=True)
class _Repeats(Family):
    """What the scorers of this file share."""

    needs_engine: ClassVar[bool] = False

    scorer: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        inner = get_scorer(self.scorer)
        if isinstance(inner, JudgesTogether):
            raise ScorerError(
                f"scorer {self.name}: scorer must be one that judges one answer at a time, got {inner.name!r}"
            )
        object.__setattr__(self, "scorer", inner)

    @property
    def version(self) -> str:  # type: ignore[override]
        """Its own and that of the scorer that it applies."""
        return f"1.{self.scorer.version}"

    @property
    def options(self) -> dict[str, Any]:
        """Options that differ from their default; the scorer as a study names it."""
        options = dict(self.scorer.options)
        name = self.scorer.name
        return super().options | {"scorer": {name: options} if options else name}

    def target_problem(self, prompt: Prompt) -> str | None:
        """Why the prompt's target is of no use to the scorer that it applies, or None if it can be used."""
        return (
            self.scorer.target_problem(prompt) if isinstance(self.scorer, ChecksTargets) else None
        )

    def judge_together(self, asked: Sequence[Asked], means: Means) -> list[Score]:  # noqa: ARG002 - a seam
        """Judge the repeats of each cell and prompt."""
        places: dict[tuple[str, str], list[int]] = {}
        for n, one in enumerate(asked):
            places.setdefault(one.generation.key[:2], []).append(n)
        found = [unscored("not judged")] * len(asked)
        for where in places.values():
            repeats = [asked[n] for n in where if asked[n].generation.finish_reason != "error"]
            scores = [score_generation(self.scorer, one.generation, one.prompt) for one in repeats]
            shared = self.shared(repeats, scores)
            for n in where:
                found[n] = shared
        return found

    def shared(self, repeats: Sequence[Asked], scores: Sequence[Score]) -> Score:
        """The score of all of a cell's answered repeats of a prompt, from what each one alone got."""
        raise NotImplementedError


@dataclass(frozen=True)
class _OfK(_Repeats):
    """A chance over k of the repeats."""

    k: int
    threshold: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("k", is_whole(self.k) and self.k >= 1, "a whole number at least 1")
        ok = is_number(self.threshold) and 0 < self.threshold <= 1
        self.require("threshold", ok, "a number above 0 and at most 1")

    def repeats_problem(self, repeats: int) -> str | None:
        """Why it cannot judge a study of so many repeats, or None if it can."""
        if self.k <= repeats:
            return None
        return f"k is {self.k}, and the study asks each prompt {repeats} times; k must be at most its repeats"

    def shared(self, repeats: Sequence[Asked], scores: Sequence[Score]) -> Score:
        """The chance, from the number of right answers."""
        values = [score.value for score in scores if score.value is not None]
        right = sum(value >= self.threshold - _EPS for value in values)
        n = len(values)
        if len(repeats) == n == 1 and repeats[0].cell.rows(2) == 1:
            said = f"{'right' if right else 'wrong'}, as is every repeat of this cell"
            return Score(float(right), None, said)
        if n < self.k:
            reasons = [score.reason for score in scores if score.reason]
            why = f" ({reasons[0]})" if reasons else ""
            return unscored(f"needs {self.k} answers that can be judged, there are {n}{why}")
        return Score(self.chance(n, right), None, f"{right} of {n} repeats are right")

    def chance(self, n: int, c: int) -> float:
        """The chance, where ``c`` of ``n`` answers are right."""
        raise NotImplementedError


@family
@dataclass(frozen=True)
class PassAtK(_OfK):
    """The chance that at least one of k repeats is right, estimated from all repeats (pass@k).

    Of n answers c are right: 1 - C(n-c, k) / C(n, k), unbiased (Chen et al. 2021, equation 1). It belongs to the
    repeats together, so each of them has it as its score. Fewer than k answers that can be judged give no score.

    Attributes:
        scorer: The scorer that says whether an answer is right, as a study names one.
        k: How many answers one would draw; at most the study's repeats.
        threshold: An answer is right from this score on, above 0 and at most 1.
    """

    name: ClassVar[str] = "pass_at_k"

    def chance(self, n: int, c: int) -> float:
        """The chance, where ``c`` of ``n`` answers are right.

        >>> round(PassAtK("contains", k=5).chance(10, 3), 3)
        0.917
        """
        return 1 - comb(n - c, self.k) / comb(n, self.k)


@family
@dataclass(frozen=True)
class PassHatK(_OfK):
    """The chance that all of k repeats are right, estimated from all repeats (pass^k).

    Of n answers c are right: C(c, k) / C(n, k), unbiased. As `pass_at_k` otherwise.

    Attributes:
        scorer: The scorer that says whether an answer is right, as a study names one.
        k: How many answers must all be right; at most the study's repeats.
        threshold: An answer is right from this score on, above 0 and at most 1.
    """

    name: ClassVar[str] = "pass_hat_k"

    def chance(self, n: int, c: int) -> float:
        """The chance, where ``c`` of ``n`` answers are right.

        >>> round(PassHatK("contains", k=5).chance(10, 5), 3)
        0.004
        """
        return comb(c, self.k) / comb(n, self.k)


@family
@dataclass(frozen=True)
class MajorityVote(_Repeats):
    """The score of the answer that most repeats agree on (self-consistency, Wang et al. 2022).

    Answers are one where the scorer would take the one for the other's target: "$18.00" and "18" for `numeric`. If
    several have the most votes, the score is the mean of theirs: what drawing one of them gives on average. Repeats without an
    answer to extract do not vote; if none has one, the score is 0, as for any missing answer.

    Attributes:
        scorer: The scorer that extracts the answer and judges it: choice, exact, numeric, regex, or one of yours that gives
            ``Score.answer``; as a study names one.
    """

    name: ClassVar[str] = "majority_vote"

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.scorer.name
        if name in FAMILIES and name not in EXTRACT:
            allowed = f"one that extracts an answer ({', '.join(EXTRACT)}, or one of yours)"
            raise ScorerError(f"scorer {self.name}: scorer must be {allowed}, got {name!r}")

    def shared(self, repeats: Sequence[Asked], scores: Sequence[Score]) -> Score:
        """The score of the majority's answer."""
        judged = [(one, s) for one, s in zip(repeats, scores, strict=True) if s.value is not None]
        if not judged:
            return unscored(next((s.reason for s in scores if s.reason), "no repeat was answered"))
        if any(s.value and s.answer is None for _, s in judged):
            return unscored(
                f"scorer {self.scorer.name} does not say which answer it took, so none can be voted on"
            )
        voting = [(one, s) for one, s in judged if s.answer is not None]
        if not voting:
            return Score(0.0, None, f"nothing to vote on in {len(judged)} answers")
        camps = self._camps([str(s.answer) for _, s in voting], voting[0][0])
        votes = Counter(camps)
        most = max(votes.values())
        leading = [camp for camp, n in votes.items() if n == most]
        means = [
            _mean([s.value for (_, s), c in zip(voting, camps, strict=True) if c == camp])
            for camp in leading
        ]
        each = " each; tied, so the mean of their scores" if len(leading) > 1 else ""
        said = f"{', '.join(leading)}: {most} of {len(voting)} votes{each}"
        return Score(_mean(means), " or ".join(leading), said)

    def _camps(self, answers: Sequence[str], example: Asked) -> list[str]:
        """For each answer the first one that is the same."""
        first: dict[str, str] = {}
        for answer in answers:
            if answer not in first:
                known = dict.fromkeys(first.values())
                first[answer] = next((k for k in known if self._same(answer, k, example)), answer)
        return [first[answer] for answer in answers]

    def _same(self, answer: str, other: str, example: Asked) -> bool:
        """Whether the scorer takes an answer for another; scorers of yours are not asked, texts must be equal there."""
        if self.scorer.name not in EXTRACT:
            return False
        generation = dataclasses.replace(example.generation, text=answer)
        prompt = dataclasses.replace(example.prompt, target=other)
        return score_generation(self.scorer, generation, prompt).value == 1


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known)
